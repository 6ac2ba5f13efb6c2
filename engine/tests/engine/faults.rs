//! What hangs, blocks or panics harms nobody else.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dormouse_core::{Fallback, FallbackBehavior};
use dormouse_engine::{MetricError, ObjectKey};
use tokio::time::{Instant, sleep};

use crate::bench::{Bench, Source, key, spec};

fn named(name: &str, triggers: &[&str], interval: u64) -> dormouse_engine::ObjectSpec {
    let mut named = spec(triggers, interval, 0);
    named.key = ObjectKey::new("shop", name);
    named.uid = name.to_owned();
    named
}

#[tokio::test(start_paused = true)]
async fn a_hanging_trigger_delays_no_other_trigger_of_its_object() {
    let bench = Bench::new(&[("a", Source::Hangs), ("b", Source::Says(0.0))]);
    bench.world.replicas.store(3, Ordering::SeqCst);
    bench.apply(spec(&["a", "b"], 1, 0)).await;
    sleep(Duration::from_millis(10_500)).await;
    assert_eq!(bench.scripts["b"].reads(), 11, "at each of its ticks");
    assert!(bench.scripts["a"].reads() <= 4, "one read at a time");
    assert!(*bench.world.latest.lock().unwrap() <= Duration::from_millis(2));
    assert_eq!(
        bench.world.changes(),
        [],
        "and what hangs is missing, which lowers nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn a_reading_is_served_the_moment_it_comes() {
    let bench = Bench::new(&[("a", Source::Hangs), ("b", Source::Says(0.0))]);
    bench.apply(spec(&["a", "b"], 30, 0)).await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(bench.metric("s1-b").await, Ok(0.0));
    // Nor does a target that does not answer keep it back.
    let bench = Bench::new(&[("a", Source::SaysAfter(4.0, Duration::from_millis(500)))]);
    bench.world.hangs.store(true, Ordering::SeqCst);
    bench.apply(spec(&["a"], 30, 0)).await;
    sleep(Duration::from_millis(501)).await;
    assert_eq!(bench.metric("s0-a").await, Ok(4.0));
}

#[tokio::test(start_paused = true)]
async fn a_reading_that_comes_after_its_tick_still_wakes_and_still_lets_rest() {
    // Slower than the interval, though within its deadline.
    let bench = Bench::new(&[
        ("a", Source::SaysAfter(7.0, Duration::from_millis(2500))),
        ("b", Source::Says(0.0)),
    ]);
    bench.apply(spec(&["a", "b"], 1, 5)).await;
    sleep(Duration::from_millis(2600)).await;
    assert_eq!(
        bench.world.changes(),
        [(2.5, 1)],
        "when the answer came, not at a tick"
    );
    sleep(Duration::from_secs(20)).await;
    assert_eq!(
        bench.world.changes(),
        [(2.5, 1)],
        "it stays active from answer to answer"
    );
    bench.scripts["a"].set(Source::SaysAfter(0.0, Duration::from_millis(2500)));
    sleep(Duration::from_secs(15)).await;
    assert_eq!(bench.world.changes().last().map(|change| change.1), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_holds_goes_on_while_the_next_read_hangs_too() {
    let bench = Bench::new(&[("a", Source::Hangs)]);
    bench.world.replicas.store(2, Ordering::SeqCst);
    let mut falling = spec(&["a"], 1, 0);
    falling.policy.fallback = Some(Fallback {
        failure_threshold: 1,
        replicas: 4,
        behavior: FallbackBehavior::Static,
    });
    bench.apply(falling).await;
    sleep(Duration::from_secs(9)).await;
    bench.world.ticks.lock().unwrap().clear();
    sleep(Duration::from_secs(10)).await;
    let ticks = bench.world.ticks.lock().unwrap().clone();
    assert!(
        ticks.len() >= 10 && ticks.iter().all(|tick| tick == "held-by-autoscaler"),
        "{ticks:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn two_hundred_healthy_objects_beside_one_that_hangs_and_one_that_panics() {
    let bench = Bench::new(&[
        ("hangs", Source::Hangs),
        ("panics", Source::Panics),
        ("fine", Source::Says(0.0)),
    ]);
    bench.apply(named("hangs", &["hangs"], 5)).await;
    bench.apply(named("panics", &["panics"], 5)).await;
    for index in 0..200 {
        bench.apply(named(&format!("fine-{index}"), &["fine"], 5)).await;
    }
    sleep(Duration::from_millis(60_500)).await;
    assert_eq!(bench.scripts["fine"].reads(), 200 * 13);
    assert!(*bench.world.latest.lock().unwrap() <= Duration::from_millis(100));
    for (object, said) in [("hangs", "no answer within 3 s"), ("panics", "the scaler failed")] {
        let key = ObjectKey::new("shop", object);
        let metric = format!("s0-{object}");
        let told = bench.engine.external_metric(&key, &metric, false).await;
        let Err(MetricError::Failing { failure, .. }) = told else {
            panic!("{object}: {told:?}")
        };
        assert!(failure.message.contains(said), "{failure}");
        assert!(
            failure
                .message
                .contains(&format!("metric {metric} of the scripted trigger")),
            "{failure}"
        );
    }
}

/// Real time and real threads: code that holds on to a thread cannot be cancelled. It may cost one thread, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scaler_that_blocks_its_thread_costs_one_thread() {
    let bench = Bench::new(&[("blocks", Source::Blocks(5_500)), ("fine", Source::Says(0.0))]);
    bench.apply(named("blocks", &["blocks"], 1)).await;
    for index in 0..200 {
        bench.apply(named(&format!("fine-{index}"), &["fine"], 1)).await;
    }
    let started = Instant::now();
    sleep(Duration::from_secs(5)).await;
    assert!(
        started.elapsed() < Duration::from_secs(6),
        "the test itself was held up"
    );
    assert_eq!(
        bench.scripts["blocks"].reads(),
        1,
        "no second read before the first has let go"
    );
    let reads = bench.scripts["fine"].reads();
    assert!(reads >= 200 * 5, "{reads}");
    assert!(matches!(
        bench.engine.external_metric(&ObjectKey::new("shop", "blocks"), "s0-blocks", false).await,
        Err(MetricError::Failing { failure, .. }) if failure.category == "timeout"
    ));
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_panics_is_quarantined_and_tried_again_ever_later() {
    let bench = Bench::new(&[("a", Source::Says(0.0))]);
    *bench.world.cursed.lock().unwrap() = Some("orders".to_owned());
    bench.apply(spec(&["a"], 5, 0)).await;
    bench.apply(named("fine", &["a"], 5)).await;
    sleep(Duration::from_secs(1_001)).await;
    let quarantines = bench.world.quarantines.lock().unwrap().clone();
    let expected: Vec<_> = [
        (0.0, 10),
        (10.0, 20),
        (30.0, 40),
        (70.0, 80),
        (150.0, 160),
        (310.0, 300),
        (610.0, 300),
        (910.0, 300),
    ]
    .iter()
    .map(|&(at, rest): &(f64, u64)| ("orders".to_owned(), at, rest))
    .collect();
    assert_eq!(quarantines.len(), expected.len(), "{quarantines:?}");
    for ((name, at, rest), (_, expected_at, expected_rest)) in quarantines.iter().zip(&expected) {
        assert_eq!((name.as_str(), *rest), ("orders", *expected_rest));
        assert!((at - expected_at).abs() < 0.1, "{quarantines:?}");
    }
    assert_eq!(
        bench.world.ticks.lock().unwrap().len(),
        201,
        "the other one ticked all the time"
    );
    // A change begins anew, at once.
    *bench.world.cursed.lock().unwrap() = None;
    let mut changed = spec(&["a"], 5, 0);
    changed.generation = 2;
    bench.apply(changed).await;
    sleep(Duration::from_secs(1)).await;
    assert!(!bench.engine.records(&key()).is_empty());
    assert_eq!(bench.world.quarantines.lock().unwrap().len(), expected.len());
}

#[tokio::test(start_paused = true)]
async fn values_of_every_kind_are_served_or_refused_and_never_lower_by_accident() {
    let beyond = 9_223_372_036_854_775_808.0;
    for (said, served) in [
        (f64::NAN, None),
        (f64::INFINITY, None),
        (f64::NEG_INFINITY, None),
        (-5.0, Some("0")),
        (-0.0, Some("0")),
        (1e-300, Some("0")),
        (2.5, Some("2500m")),
        (beyond, Some("9223372036854775807m")),
        (1e300, Some("9223372036854775807m")),
    ] {
        let bench = Bench::new(&[("a", Source::Says(said))]);
        bench.world.replicas.store(4, Ordering::SeqCst);
        bench.apply(spec(&["a"], 5, 0)).await;
        sleep(Duration::from_secs(12)).await;
        let told = bench.metric("s0-a").await.ok();
        let told = told.map(|value| dormouse_core::Quantity::from_f64_milli(value).to_string());
        assert_eq!(told.as_deref(), served, "{said}");
        let lowered = !bench.world.changes().is_empty();
        assert_eq!(
            lowered,
            said.is_finite() && said <= 0.0,
            "{said}: {:?}",
            bench.world.changes()
        );
    }
}
