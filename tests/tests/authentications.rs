//! Authentications on the real cluster: whence their parameters come, who is told of them, and what happens when they
//! change or go.

#[path = "authentications/life.rs"]
mod life;
#[path = "authentications/parameters.rs"]
mod parameters;

use anyhow::Result;
use dormouse_tests::stage::all;
use dormouse_tests::{Stage, logs};

/// Runs cases at the same time, each by its own name in one namespace.
macro_rules! cases {
    ($stage:expr, [$($module:ident :: $case:ident),* $(,)?]) => {
        all([$((stringify!($case).to_owned(), futures::future::FutureExt::boxed_local($module::$case(&$stage)))),*]).await
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_come_from_where_they_should() -> Result<()> {
    let stage = Stage::set("auth-params").await?;
    cases!(
        stage,
        [
            parameters::from_a_secret_and_a_config_map,
            parameters::from_the_environment,
            parameters::from_a_cluster_wide_one,
            parameters::keys_of_a_queue_from_the_environment,
        ]
    )?;
    logs::assert_no_canary(
        &stage.cluster,
        &stage.installation,
        stage.namespace.name(),
        &parameters::CANARIES,
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_know_their_users_and_changes_take_effect() -> Result<()> {
    let stage = Stage::set("auth-life").await?;
    cases!(
        stage,
        [
            life::finalizer_users_and_events,
            life::of_a_cluster_wide_one,
            life::a_changed_authentication_takes_effect,
            life::a_changed_secret_takes_effect_once_the_old_one_is_refused,
        ]
    )?;
    logs::assert_no_canary(
        &stage.cluster,
        &stage.installation,
        stage.namespace.name(),
        &life::CANARIES,
    )
    .await
}
