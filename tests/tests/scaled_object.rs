//! The life of a ScaledObject on the real cluster: what it makes, what it says, what it does to its target, and what is
//! left when it goes.

#[path = "scaled_object/bounds.rs"]
mod bounds;
#[path = "scaled_object/fallback.rs"]
mod fallback;
#[path = "scaled_object/full.rs"]
mod full;
#[path = "scaled_object/hpa.rs"]
mod hpa;
#[path = "scaled_object/pause.rs"]
mod pause;
#[path = "scaled_object/play.rs"]
mod play;
#[path = "scaled_object/steady.rs"]
mod steady;
#[path = "scaled_object/targets.rs"]
mod targets;

use anyhow::Result;
use dormouse_tests::Stage;
use dormouse_tests::stage::all;

/// Runs cases at the same time, each by its own name in one namespace.
macro_rules! cases {
    ($stage:expr, [$($module:ident :: $case:ident),* $(,)?]) => {
        all([$((stringify!($case).to_owned(), futures::future::FutureExt::boxed_local($module::$case(&$stage)))),*]).await
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_with_everything_looks_as_kedas_does() -> Result<()> {
    let stage = Stage::set("full").await?;
    full::looks_as_kedas_do(&stage).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_and_cooldowns() -> Result<()> {
    let stage = Stage::set("bounds").await?;
    cases!(
        stage,
        [
            bounds::idle_is_below_the_minimum,
            bounds::idle_zero_with_a_minimum,
            bounds::idle_zero_beside_an_explicit_minimum_of_zero,
            bounds::below_the_minimum_without_idle,
            bounds::never_above_the_maximum,
            bounds::the_activation_value_itself_wakes_nobody,
            bounds::the_first_cooldown_counts_from_creation,
            bounds::the_first_cooldown_ends_with_the_first_activity,
        ]
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fallback_stands_in_for_a_source_that_fails() -> Result<()> {
    let stage = Stage::set("fallback").await?;
    cases!(
        stage,
        [
            fallback::static_replicas,
            fallback::current_replicas,
            fallback::current_replicas_if_higher,
            fallback::current_replicas_if_lower,
            fallback::zero_replicas,
            fallback::of_a_value_target,
            fallback::of_a_value_target_without_ready_pods,
        ]
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn annotations_pause_and_force() -> Result<()> {
    let stage = Stage::set("pause").await?;
    cases!(
        stage,
        [
            pause::paused_freezes_and_reads_nothing,
            pause::paused_replicas_hold_whatever_the_bounds,
            pause::scale_in_alone,
            pause::scale_out_alone,
            pause::forced_activation,
        ]
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_hpa_is_kept_as_it_must_be() -> Result<()> {
    let stage = Stage::set("hpa").await?;
    cases!(
        stage,
        [
            hpa::deleted_or_edited_by_hand,
            hpa::renamed,
            hpa::labels_and_behavior,
            hpa::taken_over_when_asked_to,
            hpa::one_that_does_not_count_is_left_alone,
        ]
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_target_with_a_scale_and_its_end() -> Result<()> {
    let stage = Stage::set("targets").await?;
    cases!(
        stage,
        [
            targets::a_stateful_set,
            targets::a_custom_resource,
            targets::one_that_goes_and_comes_back,
            targets::replicas_are_given_back_at_the_end,
            targets::replicas_stay_at_the_end_unless_asked_for,
        ]
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_or_read_without_need() -> Result<()> {
    let stage = Stage::set("steady").await?;
    cases!(stage, [steady::no_write_without_news, steady::reads_per_interval])
}
