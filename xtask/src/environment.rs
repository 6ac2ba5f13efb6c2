//! What programs inside the cluster's network are told by environment variables.

use std::env;
use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::cluster::Cluster;
use crate::setup::Parts;
use crate::workspace::Workspace;

/// The variables of tests, the demo and the shell, with kubectl and helm in front of the PATH.
pub(crate) fn of_cluster(
    workspace: &Workspace,
    cluster: &Cluster,
    parts: &Parts,
) -> Result<Vec<(String, OsString)>> {
    let tools = parts.kubectl.parent().map(Path::to_owned);
    let inherited = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(tools.into_iter().chain(env::split_paths(&inherited)));
    let layout = cluster.layout();
    Ok(vec![
        (
            "PATH".into(),
            path.context("the path of the cached kubectl holds a colon")?,
        ),
        ("KUBECONFIG".into(), layout.admin().into()),
        ("DORMOUSE_KUBECTL".into(), parts.kubectl.clone().into()),
        ("DORMOUSE_HELM".into(), parts.helm.clone().into()),
        (
            "DORMOUSE_CHART".into(),
            workspace.path("deploy/helm/dormouse").into(),
        ),
        ("DORMOUSE_REPO".into(), workspace.root().into()),
        ("DORMOUSE_CLUSTER_STATE".into(), layout.state().into()),
        (
            "DORMOUSE_CONTROL_PLANE".into(),
            parts.control_plane.clone().into(),
        ),
    ])
}
