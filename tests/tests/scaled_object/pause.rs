//! The annotations that stop scaling, wholly or in one direction, and the one that forces it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::scaled::SOON;
use dormouse_tests::{Stage, until};
use serde_json::{Value, json};

use crate::play::{COOLDOWN, HPA_ACTS, Play};

const PAUSED: &str = "autoscaling.keda.sh/paused";
const PAUSED_REPLICAS: &str = "autoscaling.keda.sh/paused-replicas";
const SCALE_IN: &str = "autoscaling.keda.sh/paused-scale-in";
const SCALE_OUT: &str = "autoscaling.keda.sh/paused-scale-out";
const FORCE: &str = "autoscaling.keda.sh/force-activation";
/// Several ticks, the cooldown, and a sync of the HPA controller.
const WHILE: Duration = Duration::from_secs(8);

/// No HPA, no read, no change of replicas; all of it again afterwards.
pub(crate) async fn paused_freezes_and_reads_nothing(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "frozen", 0, 2).await?;
    play.begin(|_| {}).await?;
    play.scaled.has(2, HPA_ACTS).await?;
    stage.annotate("frozen", json!({PAUSED: ""})).await?;
    let message = play
        .scaled
        .condition_is("Paused", "True", "ScaledObjectPaused")
        .await?;
    ensure!(message == "ScaledObject is paused", "{message}");
    let paused = |status: &Value| {
        dormouse_tests::scaled::condition(status, "Ready")
            .is_some_and(|ready| ready["message"] == "ScaledObject is paused")
    };
    play.scaled
        .status_is("Ready says that it is paused", SOON, paused)
        .await?;
    no_hpa(&play).await?;
    play.asks_for(4);
    let reads = play.upstream.seen().len();
    tokio::time::sleep(WHILE).await;
    ensure!(
        play.upstream.seen().len() == reads,
        "{} reads while paused",
        play.upstream.seen().len() - reads
    );
    ensure!(play.scaled.counts() == [0, 1, 2], "{:?}", play.scaled.counts());
    let listed = stage
        .namespace
        .kubectl(&["get", "so", "frozen", "--no-headers"])
        .await?;
    let columns: Vec<&str> = listed.split_whitespace().collect();
    ensure!(
        columns[4..8] == ["True", "True", "False", "True"],
        "READY ACTIVE FALLBACK PAUSED are {columns:?}"
    );

    stage.annotate("frozen", json!({PAUSED: null})).await?;
    let message = play
        .scaled
        .condition_is("Paused", "False", "ScaledObjectUnpaused")
        .await?;
    ensure!(
        message == "pause annotation removed for ScaledObject",
        "{message}"
    );
    play.scaled.has(4, HPA_ACTS).await?;
    for (reason, note) in [
        ("ScaledObjectPaused", "ScaledObject is paused"),
        ("KEDAScalersStopped", "Stopped scalers watch"),
        (
            "ScaledObjectUnpaused",
            "pause annotation removed for ScaledObject",
        ),
    ] {
        play.scaled.event(reason, note, 1).await?;
    }
    Ok(())
}

/// The count is set whatever minimum and maximum say, and wins over `paused: "false"`.
pub(crate) async fn paused_replicas_hold_whatever_the_bounds(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "held", 0, 2).await?;
    play.begin(|_| {}).await?;
    play.scaled.has(2, HPA_ACTS).await?;
    stage
        .annotate("held", json!({PAUSED: "false", PAUSED_REPLICAS: "7"}))
        .await?;
    play.scaled.has(7, SOON).await?;
    play.scaled
        .condition_is("Paused", "True", "ScaledObjectPaused")
        .await?;
    play.scaled
        .status_is("pausedReplicaCount 7", SOON, |status| {
            status["pausedReplicaCount"] == 7
        })
        .await?;
    no_hpa(&play).await?;
    stage.annotate("held", json!({PAUSED_REPLICAS: "0"})).await?;
    play.scaled.has(0, SOON).await?;
    tokio::time::sleep(WHILE).await;
    ensure!(
        play.scaled.counts() == [0, 1, 2, 7, 0],
        "{:?}",
        play.scaled.counts()
    );
    stage
        .annotate("held", json!({PAUSED: null, PAUSED_REPLICAS: null}))
        .await?;
    play.scaled
        .condition_is("Paused", "False", "ScaledObjectUnpaused")
        .await?;
    play.scaled
        .status_is("no pausedReplicaCount", SOON, |status| {
            status.get("pausedReplicaCount").is_none()
        })
        .await?;
    play.scaled.has(2, HPA_ACTS).await?;
    play.scaled.event("ScaledObjectPaused", "", 1).await
}

/// Nothing goes down, by the operator or by the HPA; up it goes.
pub(crate) async fn scale_in_alone(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "no-in", 0, 2).await?;
    play.begin(|_| {}).await?;
    play.scaled.has(2, HPA_ACTS).await?;
    stage.annotate("no-in", json!({SCALE_IN: "true"})).await?;
    play.scaled
        .condition_is("Paused", "True", "ScaledObjectPaused")
        .await?;
    hpa_policy(&play, "scaleDown", "Disabled").await?;
    play.asks_for(0);
    play.scaled
        .condition_is("Active", "False", "ScalerNotActive")
        .await?;
    // The HPA controller waits 10 s before it scales down.
    tokio::time::sleep(WHILE + Duration::from_secs(10)).await;
    ensure!(play.scaled.counts() == [0, 1, 2], "{:?}", play.scaled.counts());
    play.asks_for(4);
    play.scaled.has(4, HPA_ACTS).await?;
    stage.annotate("no-in", json!({SCALE_IN: null})).await?;
    play.scaled
        .condition_is("Paused", "False", "ScaledObjectUnpaused")
        .await?;
    play.asks_for(0);
    play.scaled.has(0, HPA_ACTS).await
}

/// Nothing goes up: not from zero, and not by the HPA.
pub(crate) async fn scale_out_alone(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "no-out", 0, 0).await?;
    stage.apply(play.object(|_| {})).await?;
    stage.annotate("no-out", json!({SCALE_OUT: "true"})).await?;
    play.scaled
        .condition_is("Paused", "True", "ScaledObjectPaused")
        .await?;
    hpa_policy(&play, "scaleUp", "Disabled").await?;
    play.asks_for(3);
    play.scaled.condition_is("Active", "True", "ScalerActive").await?;
    tokio::time::sleep(WHILE).await;
    ensure!(play.scaled.counts() == [0], "{:?}", play.scaled.counts());
    stage.annotate("no-out", json!({SCALE_OUT: "false"})).await?;
    play.scaled
        .condition_is("Paused", "False", "ScaledObjectUnpaused")
        .await?;
    play.scaled.has(3, HPA_ACTS).await
}

/// It wakes the target without any trigger, and lets it go with the cooldown.
pub(crate) async fn forced_activation(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "forced", 0, 0).await?;
    play.begin(|_| {}).await?;
    stage.annotate("forced", json!({FORCE: "true"})).await?;
    play.scaled.has(1, SOON).await?;
    let message = play.scaled.condition_is("Active", "True", "ScalerActive").await?;
    ensure!(
        message == "Scaling is performed because activation is being forced by annotation",
        "{message}"
    );
    let note = "Scaled apps/v1.Deployment";
    play.scaled.event("KEDAScaleTargetActivated", note, 1).await?;
    play.scaled
        .event(
            "KEDAScaleTargetActivated",
            "from 0 to 1, caused by forced activation annotation",
            1,
        )
        .await?;
    tokio::time::sleep(COOLDOWN + Duration::from_secs(3)).await;
    ensure!(play.scaled.counts() == [0, 1], "{:?}", play.scaled.counts());
    stage.annotate("forced", json!({FORCE: null})).await?;
    play.scaled.has(0, SOON).await
}

async fn no_hpa(play: &Play<'_>) -> Result<()> {
    until("the HPA is gone", SOON, async || {
        ensure!(play.hpa().await?.is_none(), "it is there");
        Ok(())
    })
    .await
}

async fn hpa_policy(play: &Play<'_>, direction: &str, wanted: &str) -> Result<()> {
    until(&format!("the HPA's {direction} is {wanted}"), SOON, async || {
        let hpa = serde_json::to_value(play.hpa().await?.context("there is no HPA")?)?;
        let policy = &hpa["spec"]["behavior"][direction]["selectPolicy"];
        ensure!(policy == wanted, "it is {policy}");
        Ok(())
    })
    .await
}
