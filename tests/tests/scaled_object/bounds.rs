//! Idle, minimum, maximum, and when a target may rest.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::Stage;
use dormouse_tests::scaled::SOON;
use serde_json::json;

use crate::play::{COOLDOWN, HPA_ACTS, Play};

/// A tick, the write, and the test's own eyes on a busy machine.
const LATE: Duration = Duration::from_secs(4);

/// With idle 1 and a minimum of 2: 1 at rest, 2 at once when there is work, more by the HPA, 1 again.
pub(crate) async fn idle_is_below_the_minimum(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "idle-one", 3, 0).await?;
    play.begin(|spec| {
        spec["idleReplicaCount"] = json!(1);
        spec["minReplicaCount"] = json!(2);
    })
    .await?;
    play.scaled.has(1, SOON).await?;
    let hpa = play
        .hpa()
        .await?
        .and_then(|hpa| hpa.spec)
        .context("there is no HPA")?;
    ensure!(
        hpa.min_replicas == Some(2),
        "idle must not reach the HPA: {:?}",
        hpa.min_replicas
    );
    let asked = Instant::now();
    play.asks_for(3);
    let woke = play.scaled.turned(asked, LATE, |count| count > 1).await?;
    ensure!(woke.value == 2, "from idle it went to {}", woke.value);
    play.scaled
        .event(
            "KEDAScaleTargetActivated",
            "from 1 to 2, triggered by s0-metric-api-value",
            1,
        )
        .await?;
    play.scaled.has(3, HPA_ACTS).await?;
    play.asks_for(0);
    play.scaled.has(1, HPA_ACTS).await?;
    let to_idle = play.stage.events("idle-one").await?;
    let last = to_idle
        .iter()
        .rfind(|event| event.reason == "KEDAScaleTargetDeactivated");
    ensure!(
        last.is_some_and(|event| event.note.ends_with(" to 1")),
        "{to_idle:#?}"
    );
    ensure!(
        play.scaled.counts().iter().all(|count| (1..=4).contains(count)),
        "{:?}",
        play.scaled.counts()
    );
    Ok(())
}

/// With idle 0 and a minimum of 2 there is never 1.
pub(crate) async fn idle_zero_with_a_minimum(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "idle-zero", 2, 0).await?;
    play.begin(|spec| {
        spec["idleReplicaCount"] = json!(0);
        spec["minReplicaCount"] = json!(2);
    })
    .await?;
    play.scaled.has(0, SOON).await?;
    play.asks_for(1);
    play.scaled.has(2, LATE).await?;
    play.asks_for(0);
    play.scaled.has(0, HPA_ACTS).await?;
    ensure!(play.scaled.counts() == [2, 0, 2, 0], "{:?}", play.scaled.counts());
    Ok(())
}

/// Said in full, idle 0 beside minimum 0 is accepted, and is the same as neither.
pub(crate) async fn idle_zero_beside_an_explicit_minimum_of_zero(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "idle-and-min", 1, 0).await?;
    play.begin(|spec| {
        spec["idleReplicaCount"] = json!(0);
        spec["minReplicaCount"] = json!(0);
    })
    .await?;
    play.scaled.has(0, SOON).await?;
    play.asks_for(1);
    play.scaled.has(1, LATE).await
}

/// Without idle, a target below its minimum is lifted to it though nobody asks, without cooldown and without an Event.
pub(crate) async fn below_the_minimum_without_idle(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "below-min", 0, 0).await?;
    play.begin(|spec| {
        spec["minReplicaCount"] = json!(2);
        spec["cooldownPeriod"] = json!(300);
    })
    .await?;
    play.scaled.has(2, SOON).await?;
    play.scaled
        .condition_is("Active", "False", "ScalerNotActive")
        .await?;
    ensure!(play.scaled.counts() == [0, 2], "{:?}", play.scaled.counts());
    let told = stage
        .count_events("below-min", "KEDAScaleTargetActivated", "")
        .await?;
    ensure!(told == 0, "{told} Events about an activation that was none");
    Ok(())
}

/// However much is asked for.
pub(crate) async fn never_above_the_maximum(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "max", 0, 1000).await?;
    play.begin(|_| {}).await?;
    play.scaled.has(4, HPA_ACTS).await?;
    ensure!(
        play.scaled.counts() == [0, 1, 4],
        "0 -> 1 is the operator's, the rest the HPA's: {:?}",
        play.scaled.counts()
    );
    Ok(())
}

/// Active is strictly above.
pub(crate) async fn the_activation_value_itself_wakes_nobody(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "activation", 0, 2).await?;
    play.begin(|spec| spec["triggers"][0]["metadata"]["activationTargetValue"] = json!("10"))
        .await?;
    play.scaled
        .condition_is("Active", "False", "ScalerNotActive")
        .await?;
    let reads = play.upstream.seen().len();
    dormouse_tests::until("three more reads", SOON, async || {
        ensure!(
            play.upstream.seen().len() >= reads + 3,
            "{}",
            play.upstream.seen().len()
        );
        Ok(())
    })
    .await?;
    ensure!(play.scaled.counts() == [0], "{:?}", play.scaled.counts());
    play.asks_for(3);
    play.scaled.condition_is("Active", "True", "ScalerActive").await?;
    play.scaled.has(3, HPA_ACTS).await
}

/// A target that never had work rests `initialCooldownPeriod` after the object's creation.
pub(crate) async fn the_first_cooldown_counts_from_creation(stage: &Stage) -> Result<()> {
    let initial = Duration::from_secs(8);
    let play = Play::prepare(stage, "initial", 3, 0).await?;
    let created = Instant::now();
    play.begin(|spec| {
        spec["initialCooldownPeriod"] = json!(initial.as_secs());
        spec["cooldownPeriod"] = json!(300);
    })
    .await?;
    play.scaled
        .condition_is("Active", "False", "ScalerCooldown")
        .await?;
    let rested = play
        .scaled
        .turned(created, initial + LATE, |count| count == 0)
        .await?
        .at
        - created;
    // creationTimestamp has whole seconds, so up to one is missing from the test's view.
    ensure!(
        rested + Duration::from_secs(1) >= initial,
        "it rested {rested:?} after its creation"
    );
    play.scaled
        .condition_is("Active", "False", "ScalerNotActive")
        .await
        .map(drop)
}

/// Once there was work, only `cooldownPeriod` counts.
pub(crate) async fn the_first_cooldown_ends_with_the_first_activity(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "initial-over", 0, 1).await?;
    play.begin(|spec| spec["initialCooldownPeriod"] = json!(300))
        .await?;
    play.scaled.has(1, LATE + SOON).await?;
    let ended = Instant::now();
    play.asks_for(0);
    let rested = play
        .scaled
        .turned(ended, COOLDOWN + LATE, |count| count == 0)
        .await?
        .at
        - ended;
    // The last active tick was up to one interval before the work ended.
    ensure!(
        rested + Duration::from_secs(1) >= COOLDOWN,
        "it rested {rested:?} after its work"
    );
    Ok(())
}
