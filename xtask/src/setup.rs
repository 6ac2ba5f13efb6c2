//! What has to be on the machine before a cluster or a test can run, and how it gets there.

pub(crate) mod debian;
pub(crate) mod go;
pub(crate) mod images;
pub(crate) mod python;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::cache::Cache;
use crate::progress::step;
use crate::workspace::Workspace;

/// Everything the cluster is made of, ready to be started.
pub(crate) struct Parts {
    /// etcd (under its command's name, `server`) and the Kubernetes programs.
    pub(crate) control_plane: PathBuf,
    pub(crate) kubectl: PathBuf,
    pub(crate) helm: PathBuf,
    /// Image archives with their names.
    pub(crate) images: Vec<(String, PathBuf)>,
}

/// Whether this process may make network namespaces, mounts and cgroups.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Builds or finds the cluster's parts.
pub(crate) fn cluster_parts(workspace: &Workspace, cache: &Cache) -> Result<Parts> {
    if !is_root() {
        bail!("the test cluster needs root (network namespace, mounts, cgroups); this is an ordinary user");
    }
    debian::ensure(debian::CLUSTER)?;
    let control_plane = go::control_plane(workspace, cache)?;
    let tools = python::kubectl_and_helm(workspace, cache)?;
    let pause = images::pause(workspace, cache)?;
    let coredns = images::coredns(workspace, cache)?;
    let metrics_server = images::metrics_server(workspace, cache)?;
    Ok(Parts {
        control_plane,
        kubectl: tools.join("kubectl"),
        helm: tools.join("helm"),
        images: vec![
            (images::PAUSE.to_owned(), pause.join("image.tar")),
            (images::COREDNS.to_owned(), coredns.join("image.tar")),
            (
                images::METRICS_SERVER.to_owned(),
                metrics_server.join("image.tar"),
            ),
        ],
    })
}

/// Builds or finds the environment that holds the SQS server of the tests; answers the path of `moto_server`.
pub(crate) fn moto(workspace: &Workspace, cache: &Cache) -> Result<PathBuf> {
    python::moto(workspace, cache)
}

/// Builds or finds the conformance test of HTTP/2 servers; answers the path of `h2spec`.
pub(crate) fn h2spec(workspace: &Workspace, cache: &Cache) -> Result<PathBuf> {
    go::h2spec(workspace, cache)
}

/// A step that is only announced when it has something to do.
fn built(
    cache: &Cache,
    kind: &str,
    digest: &str,
    what: &str,
    build: impl FnOnce(&std::path::Path) -> Result<()>,
) -> Result<PathBuf> {
    cache.entry(kind, digest, |dir| step(what, || build(dir)))
}
