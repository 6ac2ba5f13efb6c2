//! What an operator's people see: metrics as KEDA's, why each object does what it does, a status that stays the truth, and a
//! log that a failure does not fill.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use dormouse_tests::exposition::{Family, parse};
use dormouse_tests::scaled::SOON;
use dormouse_tests::stage::{all, podless, scaled_object};
use dormouse_tests::upstream::Answer;
use dormouse_tests::{Scaled, Stage, Upstream, logs, until};
use futures::FutureExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

const CANARY: &str = "canary-4c1d-debug-page";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_can_be_seen_through() -> Result<()> {
    let stage = Stage::set("seeing").await?;
    all([
        ("metrics".to_owned(), metrics_come_and_go(&stage).boxed_local()),
        (
            "debug page".to_owned(),
            the_debug_page_says_why(&stage).boxed_local(),
        ),
        (
            "status".to_owned(),
            a_status_changed_by_others_is_put_right(&stage).boxed_local(),
        ),
        (
            "log".to_owned(),
            a_lasting_failure_is_told_once(&stage).boxed_local(),
        ),
    ])
    .await
}

fn object(name: &str, upstream: &Upstream, trigger: Option<&str>) -> Value {
    let mut spec = json!({
        "scaleTargetRef": {"name": name}, "pollingInterval": 1, "cooldownPeriod": 1, "maxReplicaCount": 2,
        "triggers": [{
            "type": "metrics-api",
            "metadata": {"url": upstream.url("/depth"), "valueLocation": "value", "targetValue": "5"},
        }],
    });
    if let Some(trigger) = trigger {
        spec["triggers"][0]["name"] = json!(trigger);
    }
    scaled_object(name, spec)
}

async fn families(stage: &Stage) -> Result<BTreeMap<String, Family>> {
    parse(&stage.metrics_page().await?).map_err(|fault| anyhow!("the metrics page is not in order: {fault}"))
}

/// The `scaler` labels of the series of one object in a family.
fn scalers(families: &BTreeMap<String, Family>, family: &str, namespace: &str, object: &str) -> Vec<String> {
    let samples = families
        .get(family)
        .map(|family| family.samples.as_slice())
        .unwrap_or_default();
    let of_object = samples.iter().filter(|sample| {
        let is = |label: &str, value: &str| sample.labels.get(label).is_some_and(|found| found == value);
        is("namespace", namespace)
            && ["scaledObject", "scaled_resource", "resource"]
                .iter()
                .any(|label| is(label, object))
    });
    of_object
        .map(|sample| sample.labels.get("scaler").cloned().unwrap_or_default())
        .collect()
}

/// The page is in order; series carry a trigger's present name, and go with the object.
async fn metrics_come_and_go(stage: &Stage) -> Result<()> {
    let upstream = Upstream::start(Answer::value(7.0)).await?;
    let namespace = stage.namespace.name();
    let scaled = Scaled::watch(stage, "seen");
    stage.apply(podless("seen", 0)).await?;
    stage.apply(object("seen", &upstream, Some("first"))).await?;
    scaled.is_ready().await?;
    scaled.has(1, SOON).await?;
    let page = families(stage).await?;
    for family in [
        "keda_build_info",
        "keda_internal_scale_loop_latency_seconds",
        "keda_resource_registered_total",
        "keda_scaled_object_errors_total",
        "keda_scaled_object_paused",
        "keda_scaler_active",
        "keda_scaler_detail_errors_total",
        "keda_scaler_http_request_duration_seconds",
        "keda_scaler_http_requests_total",
        "keda_scaler_metrics_latency_seconds",
        "keda_scaler_metrics_value",
        "keda_trigger_registered_total",
        "dormouse_source_reads_total",
        "dormouse_source_read_duration_seconds",
        "dormouse_decision_duration_seconds",
        "dormouse_tick_lateness_seconds",
        "dormouse_queue_depth",
        "dormouse_kubernetes_calls_total",
        "dormouse_kubernetes_requests_total",
    ] {
        ensure!(page.contains_key(family), "{family} is not on the page");
    }
    let of_seen = |page: &BTreeMap<String, Family>, family: &str| scalers(page, family, namespace, "seen");
    ensure!(
        of_seen(&page, "keda_scaler_active") == ["first"],
        "{:?}",
        of_seen(&page, "keda_scaler_active")
    );
    let value = page["keda_scaler_metrics_value"]
        .samples
        .iter()
        .find(|sample| sample.labels["namespace"] == namespace && sample.labels["scaledObject"] == "seen");
    ensure!(value.is_some_and(|sample| sample.value == 7.0), "{value:?}");
    let patches = page["dormouse_kubernetes_requests_total"]
        .samples
        .iter()
        .find(|sample| {
            sample.labels["verb"] == "patch"
                && sample.labels["resource"] == "deployments"
                && sample.labels["subresource"] == "scale"
                && sample.labels["code"] == "200"
        });
    ensure!(
        patches.is_some_and(|sample| sample.value >= 1.0),
        "no patch of a scale is counted"
    );

    stage.apply(object("seen", &upstream, Some("second"))).await?;
    until("the series have the new name alone", SOON, async || {
        let found = of_seen(&families(stage).await?, "keda_scaler_active");
        ensure!(found == ["second"], "{found:?}");
        Ok(())
    })
    .await?;
    stage.unscale("seen").await?;
    until("no series is left of the object", SOON, async || {
        let page = families(stage).await?;
        let left: Vec<&String> = page
            .keys()
            .filter(|family| !of_seen(&page, family).is_empty())
            .collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await
}

async fn debug_page(stage: &Stage, query: &str) -> Result<Value> {
    let (installation, operator) = (&stage.installation, stage.installation.namespace());
    let selector = format!("app={}", installation.name());
    let pods = ["get", "pods", "--namespace", operator, "--selector", &selector];
    let names = stage
        .cluster
        .kubectl(&[&pods[..], &["--output=jsonpath={.items[*].metadata.name}"]].concat())
        .await?;
    for pod in names.split_whitespace() {
        let path = format!("/api/v1/namespaces/{operator}/pods/{pod}:8081/proxy/debug/objects?{query}");
        let page: Value = serde_json::from_str(&stage.cluster.kubectl(&["get", "--raw", &path]).await?)?;
        if page["leader"] == true {
            return Ok(page);
        }
    }
    Err(anyhow!("none of {names:?} leads"))
}

/// Readings, failures, the decision and its reason, the pause; pages that follow each other; and no secret.
async fn the_debug_page_says_why(stage: &Stage) -> Result<()> {
    let upstream = Upstream::start(Answer::value(7.0)).await?;
    let broken = Upstream::start(Answer::status(500, "")).await?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"key": CANARY},
    });
    let authentication = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": "key"},
        "spec": {"secretTargetRef": [{"parameter": "apiKey", "name": "key", "key": "key"}]},
    });
    stage.apply(secret).await?;
    stage.apply(authentication).await?;
    for (name, source) in [
        ("why-awake", &upstream),
        ("why-broken", &broken),
        ("why-paused", &upstream),
    ] {
        stage.apply(podless(name, 0)).await?;
        let mut object = object(name, source, None);
        object["spec"]["triggers"][0]["metadata"]["authMode"] = json!("apiKey");
        object["spec"]["triggers"][0]["authenticationRef"] = json!({"name": "key"});
        if name == "why-paused" {
            object["metadata"]["annotations"] = json!({"autoscaling.keda.sh/paused-replicas": "1"});
        }
        stage.apply(object).await?;
    }
    let here = format!("namespace={}", stage.namespace.name());
    let one = async |name: &str| -> Result<Value> {
        let page = debug_page(stage, &format!("{here}&name={name}")).await?;
        page["items"]
            .get(0)
            .cloned()
            .with_context(|| format!("{name} is not shown"))
    };
    until("each object is shown as it is", SOON, async || {
        let awake = one("why-awake").await?;
        let trigger = &awake["triggers"][0];
        ensure!(
            awake["running"] == true
                && awake["replicas"].as_u64() >= Some(1)
                && awake["decision"]["activity"] == "active"
                && trigger["value"] == 7.0
                && trigger["active"] == true
                && trigger["ageSeconds"].as_f64().is_some_and(|age| age < 5.0)
                && awake["nextTickInSeconds"]
                    .as_f64()
                    .is_some_and(|next| next <= 1.0)
                && awake["lastActive"].is_string()
                && awake["pause"]["kind"] == "none",
            "{awake}"
        );
        let broken = one("why-broken").await?;
        let trigger = &broken["triggers"][0];
        ensure!(
            trigger["failures"].as_u64() >= Some(2)
                && trigger["failure"]["message"]
                    .as_str()
                    .is_some_and(|text| text.contains("500"))
                && broken["decision"]["reason"].is_string()
                && broken["ready"][1] == "TriggerError",
            "{broken}"
        );
        let paused = one("why-paused").await?;
        ensure!(
            paused["running"] == false && paused["pause"] == json!({"kind": "full", "replicas": 1}),
            "{paused}"
        );
        Ok(())
    })
    .await?;
    let whole = debug_page(stage, &here).await?;
    ensure!(
        !whole.to_string().contains(CANARY),
        "a secret is on the debug page"
    );
    let first = debug_page(stage, &format!("{here}&limit=1")).await?;
    let next = first["continue"]
        .as_str()
        .context("there is more than one object")?;
    let second = debug_page(stage, &format!("{here}&limit=1&continue={next}")).await?;
    ensure!(
        second["items"].as_array().map(Vec::len) == Some(1) && second["items"][0] != first["items"][0],
        "{second}"
    );
    Ok(())
}

/// Cleared or edited by somebody, a status is written again, and by no more writes than that takes.
async fn a_status_changed_by_others_is_put_right(stage: &Stage) -> Result<()> {
    let upstream = Upstream::start(Answer::value(0.0)).await?;
    let scaled = Scaled::watch(stage, "edited");
    stage.apply(podless("edited", 0)).await?;
    let mut object = object("edited", &upstream, None);
    // No tick comes by in this test that would write anything anyway.
    object["spec"]["pollingInterval"] = json!(300);
    stage.apply(object).await?;
    scaled.is_ready().await?;
    scaled.condition_is("Active", "False", "ScalerNotActive").await?;
    let before = scaled.status();
    let params = PatchParams::default();
    let clear = Patch::Merge(json!({"status": null}));
    stage
        .scaled_objects()
        .patch_status("edited", &params, &clear)
        .await?;
    let restored = |status: &Value| {
        status["conditions"] == before["conditions"]
            && status["externalMetricNames"] == before["externalMetricNames"]
    };
    scaled.status_is("all that was cleared", SOON, restored).await?;
    // The second time in a row it may take the ten seconds that two writers are kept apart.
    let edit = Patch::Merge(json!({"status": {"hpaName": "somebody-elses"}}));
    stage
        .scaled_objects()
        .patch_status("edited", &params, &edit)
        .await?;
    // This test's own watch may not have shown the edit yet.
    until("the edit is seen", SOON, async || {
        let edited = scaled
            .statuses()
            .iter()
            .any(|change| change.value["hpaName"] == "somebody-elses");
        ensure!(edited, "not yet");
        Ok(())
    })
    .await?;
    let own = before["hpaName"].clone();
    scaled
        .status_is(
            "its own HPA's name again",
            Duration::from_secs(20),
            move |status| status["hpaName"] == own,
        )
        .await?;
    let writes = scaled.statuses().len();
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(scaled.statuses().len() == writes, "it is written again and again");
    Ok(())
}

/// A source that fails for a while makes a line when it begins, not one per read.
async fn a_lasting_failure_is_told_once(stage: &Stage) -> Result<()> {
    let upstream = Upstream::start(Answer::status(503, "")).await?;
    let scaled = Scaled::watch(stage, "noisy");
    stage.apply(podless("noisy", 0)).await?;
    stage.apply(object("noisy", &upstream, None)).await?;
    scaled.condition_is("Ready", "False", "TriggerError").await?;
    until("it has failed ten times", Duration::from_secs(30), async || {
        ensure!(upstream.seen().len() >= 10, "{} reads", upstream.seen().len());
        Ok(())
    })
    .await?;
    let key = format!("{}/noisy", stage.namespace.name());
    let log = logs::of_operator(&stage.cluster, &stage.installation).await?;
    let loud: Vec<&str> = log
        .lines()
        .filter(|line| line.contains(&key) && (line.contains(" WARN ") || line.contains(" ERROR ")))
        .collect();
    ensure!(loud.len() == 1, "{} lines: {loud:#?}", loud.len());
    Ok(())
}
