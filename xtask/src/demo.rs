//! `cargo xtask demo`: sets everything up and runs the demo on the cluster.

use anyhow::Result;

use crate::build::{self, Tests};
use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::process::{LONG, run};
use crate::test::Stand;
use crate::workspace::{PROFILE, Workspace};

/// Runs the demo to its end.
pub(crate) fn demo(workspace: &Workspace, cache: &Cache, cluster: &Cluster) -> Result<()> {
    let stand = Stand::prepare(workspace, cache, cluster, false)?;
    let built = build::build(workspace, PROFILE, Tests::None)?;
    stand.start(workspace, cache, &built)?;
    let mut demo = cluster.inside(built.program("demo")?);
    demo.envs(stand.environment(workspace)?);
    run(&mut demo, LONG)
}
