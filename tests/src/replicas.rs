//! The operator's replicas: their pods, which of them leads, and their processes on this machine.

use std::fs;

use anyhow::{Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use crate::cluster::Cluster;
use crate::install::Installation;

const LEASE: &str = "operator.keda.sh";

/// The pods of an installation that are not on their way out.
///
/// # Errors
/// When the API server does not answer.
pub async fn pods(cluster: &Cluster, installation: &Installation) -> Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(cluster.client(), installation.namespace());
    let own = ListParams::default().labels(&format!("app={}", installation.name()));
    let mut pods = api.list(&own).await?.items;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(pods)
}

/// Whether a pod is ready.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    conditions
        .unwrap_or_default()
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The pod that holds the lease.
///
/// # Errors
/// When nobody holds it, or the API server does not answer.
pub async fn leader(cluster: &Cluster, installation: &Installation) -> Result<String> {
    let api: Api<Lease> = Api::namespaced(cluster.client(), installation.namespace());
    let holder = api
        .get(LEASE)
        .await?
        .spec
        .and_then(|spec| spec.holder_identity)
        .unwrap_or_default();
    let pod = holder.split('_').next().unwrap_or_default().to_owned();
    ensure!(!pod.is_empty(), "nobody holds the lease");
    Ok(pod)
}

/// The process of an operator's pod.
///
/// # Errors
/// When none is found, or this machine's processes cannot be listed.
pub fn process(pod: &str) -> Result<u32> {
    let wanted = format!("POD_NAME={pod}");
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(pid) = name.and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let is_operator = fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == "dormouse");
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        if is_operator && variables.any(|variable| variable == wanted.as_bytes()) {
            return Ok(pid);
        }
    }
    bail!("no process of pod {pod} was found")
}

/// SIGKILL, as a crash or the kernel's memory killer would: nothing is said goodbye to.
///
/// # Errors
/// When there is no such process, or it cannot be killed.
pub async fn kill(pod: &str) -> Result<()> {
    let pid = process(pod)?.to_string();
    let status = tokio::process::Command::new("kill")
        .args(["-9", &pid])
        .status()
        .await?;
    ensure!(status.success(), "kill -9 {pid} failed");
    Ok(())
}
