//! The metrics server: what `kubectl top` and the HPA's resource metrics are answered by.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cluster::Cluster;
use crate::manifest;
use crate::wait::until;

/// Its image may not have been started yet on this node, and it answers only after its first look at the kubelet.
const DEADLINE: Duration = Duration::from_secs(90);

/// Makes sure that the cluster has a metrics server that knows this node. It stays: other tests may use it too.
///
/// # Errors
/// When it is not applied or does not answer in time.
pub async fn ensure(cluster: &Cluster) -> Result<()> {
    let file = cluster.repository().join("tests/cluster/metrics-server.yaml");
    let yaml = tokio::fs::read_to_string(&file)
        .await
        .with_context(|| format!("unable to read {}", file.display()))?;
    manifest::apply(cluster, "kube-system", &yaml).await?;
    until("the metrics server measures the node", DEADLINE, async || {
        cluster
            .kubectl(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes/node0"])
            .await
    })
    .await
    .map(drop)
}
