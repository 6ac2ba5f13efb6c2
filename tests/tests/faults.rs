//! Faults on the real cluster, each of which has been an outage for somebody: what is seen from outside while they last,
//! and after.

#[path = "faults/cut_off.rs"]
mod cut_off;
#[path = "faults/misbehaving.rs"]
mod misbehaving;
#[path = "faults/throttled.rs"]
mod throttled;
#[path = "faults/throttled_queues.rs"]
mod throttled_queues;

use anyhow::Result;
use dormouse_tests::stage::all;
use dormouse_tests::{Installation, Stage};
use futures::future::FutureExt as _;
use tokio::sync::Mutex;

/// A fault of the whole installation must not be taken for one of another test.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Two operators, and a namespace.
async fn stage(subject: &str) -> Result<Stage> {
    Stage::with(Installation::standard().replicas(2), subject).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_that_misbehave_harm_nobody_else() -> Result<()> {
    let _alone = ALONE.lock().await;
    let stage = stage("misbehaving").await?;
    all([
        (
            "beside 200".to_owned(),
            misbehaving::beside_two_hundred(&stage).boxed_local(),
        ),
        (
            "throttled".to_owned(),
            throttled::per_account(&stage).boxed_local(),
        ),
        (
            "throttled queues".to_owned(),
            throttled_queues::harm_no_other_account(&stage).boxed_local(),
        ),
    ])
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_is_cut_off_for_a_minute() -> Result<()> {
    let _alone = ALONE.lock().await;
    let stage = stage("cut-off").await?;
    cut_off::and_all_go_on(&stage).await
}
