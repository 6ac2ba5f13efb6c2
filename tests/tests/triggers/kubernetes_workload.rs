//! `kubernetes-workload`: a workload that follows the pods of another one.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::stage::{gated, podless, workload};
use dormouse_tests::{Scaled, Stage, logs};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

const LATEST: Duration = Duration::from_secs(60);

fn spec(target: &str, metadata: Value) -> Value {
    json!({
        "scaleTargetRef": {"name": target}, "pollingInterval": 1, "cooldownPeriod": 2, "maxReplicaCount": 5,
        "triggers": [{"type": "kubernetes-workload", "metadata": metadata}],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_follows_the_pods_of_another() -> Result<()> {
    let stage = Stage::set("workload").await?;
    let (pods, nodes) = tokio::join!(follows_pods(&stage), follows_nodes(&stage));
    pods.and(nodes)?;
    logs::assert_nothing_denied(&stage.cluster, &stage.installation).await
}

/// Pods that wait for a node count, those that have ended do not.
async fn follows_pods(stage: &Stage) -> Result<()> {
    let scaled = Scaled::watch(stage, "follower");
    stage.apply(podless("follower", 0)).await?;
    let metadata = json!({"podSelector": "app in (leader, extra)", "value": "2", "activationValue": "1"});
    stage.scale("follower", spec("follower", metadata)).await?;
    scaled.is_ready().await?;
    stage.apply(single("extra")).await?;
    stage.apply(gated("Deployment", "leader", 4)).await?;
    scaled.has(3, LATEST).await?;
    let metric = format!("s0-workload-{}", stage.namespace.name());
    let value = stage.metric_value("follower", &metric).await?;
    ensure!(value == "5", "the HPA is told {value}");

    let api: Api<Pod> = stage.namespace.api();
    let ended = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    api.patch_status("extra", &PatchParams::default(), &ended)
        .await
        .context("ending a pod")?;
    scaled.has(2, LATEST).await?;
    stage.apply(gated("Deployment", "leader", 1)).await?;
    // One pod is not above the activation value.
    scaled.has(0, LATEST).await
}

/// Two pods on the only node, beside one that has no node yet.
async fn follows_nodes(stage: &Stage) -> Result<()> {
    let scaled = Scaled::watch(stage, "agents");
    stage.apply(podless("agents", 0)).await?;
    stage.apply(workload("Deployment", "work", 2)).await?;
    stage.apply(gated("Deployment", "waits", 1)).await?;
    let metadata = json!({"podSelector": "app in (work, waits)", "value": "0.5", "groupByNode": "true"});
    stage.scale("agents", spec("agents", metadata)).await?;
    scaled.has(2, LATEST).await?;
    let metric = format!("s0-workload-{}", stage.namespace.name());
    let value = stage.metric_value("agents", &metric).await?;
    ensure!(value == "1", "the HPA is told {value}");
    stage.apply(workload("Deployment", "work", 0)).await?;
    scaled.has(0, LATEST).await
}

/// A pod of its own that is never given to a node.
fn single(name: &str) -> Value {
    let mut pod = gated("Deployment", name, 1)["spec"]["template"].clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!(name);
    pod
}
