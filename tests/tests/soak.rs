//! The long ones: what must hold for as long as somebody cares to watch. `cargo xtask soak --for 10m --seed 7` watches for
//! ten minutes; without being told, each takes one.

#[path = "soak/day.rs"]
mod day;
#[path = "soak/driver.rs"]
mod driver;
#[path = "soak/leaders.rs"]
mod leaders;
#[path = "soak/rotation.rs"]
mod rotation;
#[path = "soak/world.rs"]
mod world;

use std::time::Duration;

use anyhow::{Context as _, Result};
use dormouse_tests::stage::all;
use dormouse_tests::{Installation, Stage};
use futures::future::FutureExt as _;
use tokio::sync::Mutex;

/// Each needs the operator for itself.
static ALONE: Mutex<()> = Mutex::const_new(());

/// How long to watch.
fn watched() -> Result<Duration> {
    let seconds = match std::env::var("DORMOUSE_SOAK_SECONDS") {
        Ok(text) => text.parse().context("DORMOUSE_SOAK_SECONDS is no number")?,
        Err(_) => 60,
    };
    Ok(Duration::from_secs(seconds))
}

/// The seed of an ordinary test run: one that once found something. What decides over a change must not be drawn anew for
/// each run; to look for more is what `cargo xtask soak` is for, which draws.
const SEED: u64 = 163_591;

/// What the random faults follow from.
fn seed() -> Result<u64> {
    match std::env::var("DORMOUSE_SOAK_SEED") {
        Ok(text) => text.parse().context("DORMOUSE_SOAK_SEED is no number"),
        Err(_) => Ok(SEED),
    }
}

/// Two operators whose certificate lives for a minute, and a namespace.
async fn stage(subject: &str) -> Result<Stage> {
    let short = "extraArgs.keda.cert-validity=60s";
    Stage::with(Installation::standard().replicas(2).set(short), subject).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_rotate_and_every_source_of_a_namespace_fails() -> Result<()> {
    let _alone = ALONE.lock().await;
    let stage = stage("rotation").await?;
    rotation::begin_with_a_short_one(&stage).await?;
    let failing = Stage::beside(&stage.cluster, stage.installation.clone(), "failing").await?;
    all([
        (
            "rotation".to_owned(),
            rotation::no_read_fails(&stage, watched()?).boxed_local(),
        ),
        (
            "failing".to_owned(),
            rotation::nothing_grows(&failing, watched()?).boxed_local(),
        ),
    ])
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_killed_every_twenty_seconds() -> Result<()> {
    let _alone = ALONE.lock().await;
    let stage = stage("leaders").await?;
    leaders::are_killed(&stage, watched()?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_of_random_faults() -> Result<()> {
    let _alone = ALONE.lock().await;
    let stage = stage("day").await?;
    day::passes(&stage, watched()?, seed()?).await
}
