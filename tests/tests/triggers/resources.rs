//! `cpu` and `memory`: the HPA measures the pods itself, with a real metrics server.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::stage::{podless, workload};
use dormouse_tests::upstream::Answer;
use dormouse_tests::{Scaled, Stage, Upstream, logs, metrics_server};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::Api;
use serde_json::{Value, json};

const LATEST: Duration = Duration::from_secs(60);
/// The metrics server looks every 10 s, needs two looks, and the HPA has to look after it.
const MEASURED: Duration = Duration::from_secs(120);

/// A cpu or memory trigger.
fn measured(resource: &str, metric_type: &str, metadata: Value) -> Value {
    json!({"type": resource, "metricType": metric_type, "metadata": metadata})
}

fn spec(target: &str, min: u32, triggers: &[Value]) -> Value {
    json!({
        "scaleTargetRef": {"name": target}, "pollingInterval": 1, "cooldownPeriod": 2,
        "minReplicaCount": min, "maxReplicaCount": 3, "triggers": triggers,
    })
}

/// A Deployment whose container runs with `arguments` and asks for little.
fn asking(mut deployment: Value, arguments: &[&str]) -> Value {
    let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
    container["args"] = json!(arguments);
    container["resources"] = json!({
        "requests": {"cpu": "10m", "memory": "8Mi"}, "limits": {"cpu": "40m", "memory": "64Mi"},
    });
    deployment
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_use_much_become_more() -> Result<()> {
    let stage = Stage::set("resources").await?;
    metrics_server::ensure(&stage.cluster).await?;
    let (cpu, memory, mixed) = tokio::join!(busy(&stage), full(&stage), beside_another_trigger(&stage));
    cpu.and(memory).and(mixed)?;
    logs::assert_nothing_denied(&stage.cluster, &stage.installation).await
}

async fn busy(stage: &Stage) -> Result<()> {
    let scaled = Scaled::watch(stage, "busy");
    stage
        .apply(asking(workload("Deployment", "busy", 1), &["burn", "3600"]))
        .await?;
    let trigger = measured("cpu", "Utilization", json!({"value": "50"}));
    stage.scale("busy", spec("busy", 1, &[trigger])).await?;
    scaled.is_ready().await?;
    let status = scaled
        .status_is("Active and its metric named", LATEST, |status| {
            status["resourceMetricNames"] == json!(["cpu"])
        })
        .await?;
    ensure!(
        status["externalMetricNames"].as_array().is_none_or(Vec::is_empty),
        "an external metric is named: {status}"
    );
    scaled.condition_is("Active", "True", "ScalerActive").await?;
    let metrics = hpa_metrics(stage, "busy").await?;
    let wanted = json!([{
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
    }]);
    ensure!(metrics == wanted, "the HPA has {metrics}");
    scaled.has(3, MEASURED).await?;
    ensure!(
        scaled.counts().iter().all(|count| *count > 0),
        "it slept: {:?}",
        scaled.counts()
    );
    // Burning until the namespace is gone would slow down all that follows.
    stage.unscale("busy").await?;
    stage.apply(asking(workload("Deployment", "busy", 0), &[])).await
}

async fn full(stage: &Stage) -> Result<()> {
    let scaled = Scaled::watch(stage, "full");
    stage
        .apply(asking(workload("Deployment", "full", 1), &["hold", "16"]))
        .await?;
    let metadata = json!({"value": "4Mi", "containerName": "app"});
    let trigger = measured("memory", "AverageValue", metadata);
    stage.scale("full", spec("full", 1, &[trigger])).await?;
    scaled.is_ready().await?;
    let metrics = hpa_metrics(stage, "full").await?;
    let wanted = json!([{
        "type": "ContainerResource",
        "containerResource": {
            "container": "app", "name": "memory", "target": {"type": "AverageValue", "averageValue": "4Mi"},
        },
    }]);
    ensure!(metrics == wanted, "the HPA has {metrics}");
    scaled.has(3, MEASURED).await
}

/// Whether it sleeps is for the trigger that is read to say.
async fn beside_another_trigger(stage: &Stage) -> Result<()> {
    let upstream = Upstream::start(Answer::value(0.0)).await?;
    let scaled = Scaled::watch(stage, "mixed");
    stage.apply(asking(podless("mixed", 1), &[])).await?;
    let read = json!({"type": "metrics-api", "metadata": {
        "url": upstream.url("/"), "valueLocation": "value", "targetValue": "2",
    }});
    let cpu = measured("cpu", "AverageValue", json!({"value": "0.5"}));
    stage.scale("mixed", spec("mixed", 0, &[cpu, read])).await?;
    scaled.has(0, LATEST).await?;
    let metrics = hpa_metrics(stage, "mixed").await?;
    let types: Vec<_> = metrics
        .as_array()
        .into_iter()
        .flatten()
        .map(|metric| &metric["type"])
        .collect();
    ensure!(types == ["External", "Resource"], "the HPA has {metrics}");
    ensure!(
        metrics[0]["external"]["metric"]["name"] == "s1-metric-api-value",
        "the HPA has {metrics}"
    );
    ensure!(
        metrics[1]["resource"]["target"]["averageValue"] == "500m",
        "the HPA has {metrics}"
    );
    upstream.answer(Answer::value(5.0));
    scaled.has(3, LATEST).await?;
    upstream.answer(Answer::value(0.0));
    scaled.has(0, LATEST).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_measured_is_refused() -> Result<()> {
    let stage = Stage::set("unmeasurable").await?;
    let name = "worker";
    let scaled = Scaled::watch(&stage, name);
    stage.apply(podless(name, 1)).await?;
    let cpu = measured("cpu", "Utilization", json!({"value": "50"}));
    for (min, triggers, sentence) in [
        (
            0,
            vec![cpu.clone()],
            "scaledobject has only cpu/memory triggers AND minReplica is 0 (scale to zero doesn't work in this case)",
        ),
        (
            1,
            vec![measured("cpu", "Value", json!({"value": "50"}))],
            "unknown metric type: Value, allowed values are 'Utilization' or 'AverageValue'",
        ),
        (
            1,
            vec![measured("memory", "AverageValue", json!({"value": "much"}))],
            "error parsing memory metadata: parameter \"value\" is \"much\"",
        ),
        (
            1,
            vec![cpu.clone()],
            "the scaledobject has a cpu trigger but the container app doesn't have the cpu request defined",
        ),
    ] {
        stage.scale(name, spec(name, min, &triggers)).await?;
        scaled.is_refused(sentence).await?;
    }
    let mut with_fallback = spec(name, 1, std::slice::from_ref(&cpu));
    with_fallback["fallback"] = json!({"failureThreshold": 1, "replicas": 1});
    stage.scale(name, with_fallback).await?;
    scaled
        .is_refused("at least one trigger (that is not cpu or memory) has to have the `AverageValue` type")
        .await?;
    ensure!(scaled.counts() == [1], "replicas moved: {:?}", scaled.counts());

    // A default of the namespace is as good as a request.
    stage
        .apply(json!({
            "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "defaults"},
            "spec": {"limits": [{"type": "Container", "defaultRequest": {"cpu": "10m"}}]},
        }))
        .await?;
    stage.scale(name, spec(name, 1, &[cpu])).await?;
    scaled.is_ready().await
}

/// The metrics of a ScaledObject's HPA.
async fn hpa_metrics(stage: &Stage, scaled_object: &str) -> Result<Value> {
    let api: Api<HorizontalPodAutoscaler> = stage.namespace.api();
    let hpa = api
        .get(&format!("keda-hpa-{scaled_object}"))
        .await
        .with_context(|| format!("reading the HPA of {scaled_object}"))?;
    let metrics = hpa.spec.and_then(|spec| spec.metrics).unwrap_or_default();
    serde_json::to_value(metrics).context("encoding metrics")
}
