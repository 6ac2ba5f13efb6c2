//! What is assumed of a source that cannot be read.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::scaled::{SOON, condition};
use dormouse_tests::stage::{gated, workload};
use dormouse_tests::{Scaled, Stage, until};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::play::{HPA_ACTS, METRIC, Play};

/// Failures in a row that are still only failures.
const THRESHOLD: usize = 2;
/// Long enough that the flip is seen before the next read.
const INTERVAL: u32 = 3;
const BEFORE: i64 = 2;

pub(crate) async fn static_replicas(stage: &Stage) -> Result<()> {
    holds(stage, "static", json!({"replicas": 4}), "20", 4).await
}

pub(crate) async fn current_replicas(stage: &Stage) -> Result<()> {
    holds(
        stage,
        "current",
        json!({"replicas": 4, "behavior": "currentReplicas"}),
        "10",
        BEFORE,
    )
    .await
}

pub(crate) async fn current_replicas_if_higher(stage: &Stage) -> Result<()> {
    holds(
        stage,
        "higher",
        json!({"replicas": 1, "behavior": "currentReplicasIfHigher"}),
        "10",
        BEFORE,
    )
    .await
}

pub(crate) async fn current_replicas_if_lower(stage: &Stage) -> Result<()> {
    holds(
        stage,
        "lower",
        json!({"replicas": 1, "behavior": "currentReplicasIfLower"}),
        "5",
        1,
    )
    .await
}

/// Two replicas at work, then failures: `replicas` of them once there are more than the threshold, and back.
async fn holds(stage: &Stage, name: &str, fallback: Value, served: &str, replicas: i64) -> Result<()> {
    stage.apply(gated("Deployment", name, 0)).await?;
    let play = Play::on(stage, Scaled::watch(stage, name), 2).await?;
    begin(&play, fallback, None).await?;
    play.scaled.has(BEFORE, HPA_ACTS).await?;

    let good = play.upstream.seen().len();
    play.fails();
    let failing = play
        .scaled
        .status_is("the first failure", SOON, |status| {
            health(status) == (Some(1), Some("Failing"))
        })
        .await?;
    ensure!(
        is(&failing, "Fallback", "False"),
        "one failure is not more than {THRESHOLD}: {failing:#}"
    );
    ensure!(
        stage.metric(name, METRIC).await.is_err(),
        "below the threshold the HPA is told of the failure"
    );
    fallback_holds(&play).await?;
    let failed = play.upstream.seen().len() - good;
    ensure!(
        failed == THRESHOLD + 1,
        "the fallback began after {failed} failures; it begins with more than {THRESHOLD}"
    );
    let now = play.scaled.status();
    for (condition, holds) in [("Ready", "True"), ("Active", "True")] {
        ensure!(is(&now, condition, holds), "{condition} is not {holds}: {now:#}");
    }
    ensure!(
        now["triggersActivity"][METRIC]["isActive"] == true,
        "a fallback counts as activity: {now:#}"
    );
    let value = stage.metric_value(name, METRIC).await?;
    ensure!(value == served, "the fallback serves {value}");
    play.scaled.has(replicas, HPA_ACTS).await?;

    play.asks_for(3);
    play.scaled
        .status_is("Happy again", SOON, |status| {
            health(status) == (Some(0), Some("Happy"))
        })
        .await?;
    play.scaled
        .condition_is("Fallback", "False", "NoFallbackFound")
        .await?;
    play.scaled
        .event(
            "ScaledObjectFallbackDeactivated",
            "ScaledObject fallback is no longer active",
            1,
        )
        .await?;
    play.scaled
        .event(
            "ScaledObjectFallbackActivated",
            "ScaledObject fallback is active",
            1,
        )
        .await?;
    play.scaled.has(3, HPA_ACTS).await
}

/// A fallback of 0 lets the target sleep: once it holds, and after the cooldown.
pub(crate) async fn zero_replicas(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "zero", 0, 2).await?;
    begin(&play, json!({"replicas": 0}), None).await?;
    play.scaled.has(BEFORE, HPA_ACTS).await?;
    let good = play.upstream.seen().len();
    play.fails();
    play.scaled.has(0, SOON).await?;
    let failed = play.upstream.seen().len() - good;
    ensure!(failed > THRESHOLD, "it slept after {failed} failures");
    play.scaled
        .condition_is("Fallback", "True", "FallbackExists")
        .await?;
    ensure!(
        play.scaled.counts().ends_with(&[BEFORE, 0]),
        "{:?}",
        play.scaled.counts()
    );
    play.asks_for(1);
    play.scaled.has(1, SOON).await
}

/// For a `Value` target the HPA multiplies by the ready pods, so the fallback divides by them.
pub(crate) async fn of_a_value_target(stage: &Stage) -> Result<()> {
    let name = "value";
    stage.apply(workload("Deployment", name, 2)).await?;
    let play = Play::on(stage, Scaled::watch(stage, name), 1).await?;
    begin(&play, json!({"replicas": 4}), Some("Value")).await?;
    let pods: Api<Pod> = stage.namespace.api();
    let ready = async |wanted: usize| {
        until(&format!("{wanted} ready pods"), HPA_ACTS, async || {
            let all = pods.list(&ListParams::default().labels("app=value")).await?;
            let ready = all.items.iter().filter(|pod| is_ready(pod)).count();
            ensure!(
                ready == wanted && all.items.len() == wanted,
                "{ready} of {}",
                all.items.len()
            );
            Ok(())
        })
        .await
    };
    ready(2).await?;
    play.fails();
    fallback_holds(&play).await?;
    // 5 per replica, 4 replicas, 2 pods; and once there are 4 pods, the HPA finds that it has what it wants.
    play.scaled.has(4, HPA_ACTS).await?;
    ready(4).await?;
    until("the fallback serves 4 x 5 / 4", SOON, async || {
        let value = stage.metric_value(name, METRIC).await?;
        ensure!(value == "5", "it serves {value}");
        Ok(())
    })
    .await?;
    ensure!(play.scaled.counts() == [2, 4], "{:?}", play.scaled.counts());
    Ok(())
}

/// Without a ready pod there is nothing to divide by, which is an error and no number.
pub(crate) async fn of_a_value_target_without_ready_pods(stage: &Stage) -> Result<()> {
    let name = "value-none";
    stage.apply(gated("Deployment", name, 2)).await?;
    let play = Play::on(stage, Scaled::watch(stage, name), 1).await?;
    begin(&play, json!({"replicas": 4}), Some("Value")).await?;
    play.fails();
    fallback_holds(&play).await?;
    let told = stage
        .metric(name, METRIC)
        .await
        .err()
        .context("a number came out of a division by nothing")?;
    ensure!(
        told.contains("error performing fallback"),
        "the HPA is told {told:?}"
    );
    ensure!(play.scaled.counts() == [2], "{:?}", play.scaled.counts());
    Ok(())
}

async fn begin(play: &Play<'_>, mut fallback: Value, metric_type: Option<&str>) -> Result<()> {
    fallback["failureThreshold"] = json!(THRESHOLD);
    play.begin(|spec| {
        spec["pollingInterval"] = json!(INTERVAL);
        spec["fallback"] = fallback;
        if let Some(metric_type) = metric_type {
            spec["triggers"][0]["metricType"] = json!(metric_type);
        }
    })
    .await?;
    play.scaled
        .status_is("Happy", SOON, |status| health(status) == (Some(0), Some("Happy")))
        .await
        .map(drop)
}

async fn fallback_holds(play: &Play<'_>) -> Result<()> {
    let within = Duration::from_secs(u64::from(INTERVAL) * (THRESHOLD as u64 + 2)) + SOON;
    let message = play
        .scaled
        .condition_within("Fallback", "True", "FallbackExists", within)
        .await?;
    ensure!(
        message == "At least one trigger is falling back on this scaled object",
        "{message}"
    );
    Ok(())
}

fn health(status: &Value) -> (Option<i64>, Option<&str>) {
    let health = &status["health"][METRIC];
    (health["numberOfFailures"].as_i64(), health["status"].as_str())
}

fn is(status: &Value, type_: &str, wanted: &str) -> bool {
    condition(status, type_).is_some_and(|condition| condition["status"] == wanted)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
