//! The images of this workspace's programs: built, cached by content, and loaded into the node.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::build::Built;
use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::progress::{say, step};
use crate::setup::images::{archive, recipe, reference};
use crate::workspace::Workspace;

/// The programs that run in pods, each as `localhost/<program>:dev`.
const PROGRAMS: &[&str] = &["dormouse", "http-clients", "http-echo", "sqs-worker"];

/// Makes the images of what was built, and loads those that the node does not have yet.
pub(crate) fn load(workspace: &Workspace, cache: &Cache, cluster: &Cluster, built: &Built) -> Result<()> {
    for name in PROGRAMS {
        let (digest, archive) = image(workspace, cache, name, built.program(name)?)?;
        let record = cluster.layout().file(&format!("run/image-{name}"));
        if fs::read_to_string(&record).is_ok_and(|loaded| loaded == digest) {
            say(format_args!("    {} is in the node already", reference(name)));
            continue;
        }
        step(&format!("loading {}", reference(name)), || cluster.load(&archive))?;
        fs::write(&record, digest).context("unable to record a loaded image")?;
    }
    Ok(())
}

fn image(workspace: &Workspace, cache: &Cache, name: &str, program: &Path) -> Result<(String, PathBuf)> {
    let mut digest = recipe(workspace)?;
    digest.file(program)?;
    let digest = digest.finish();
    let entry = cache.entry(&format!("image-{name}"), &digest, |dir| {
        step(&format!("building {}", reference(name)), || {
            archive(workspace, program, name, &dir.join("image.tar"))
        })
    })?;
    Ok((digest, entry.join("image.tar")))
}
