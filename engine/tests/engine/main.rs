//! The engine on paused time, with scripted triggers and a target in memory.

mod bench;
mod demand;
mod faults;
mod looks;
mod sharing;
mod view;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bench::{Bench, Source, key, spec};
use dormouse_core::{Fallback, FallbackBehavior};
use dormouse_engine::{ApplyError, MetricError, ObjectKey};
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};

#[tokio::test(start_paused = true)]
async fn wakes_at_the_tick_after_the_first_message_and_rests_at_the_first_tick_after_the_cooldown() {
    let bench = Bench::new(&[("a", Source::Says(0.0))]);
    bench.apply(spec(&["a"], 10, 25)).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.world.changes(), []);
    bench.scripts["a"].set(Source::Says(3.0));
    sleep(Duration::from_secs(16)).await;
    assert_eq!(bench.world.changes(), [(10.0, 1)]);
    // Active at the ticks at 10 and 20 s, silent from 30 s on: 20 + 25 = 45 s is over at the tick at 50 s.
    bench.scripts["a"].set(Source::Says(0.0));
    sleep(Duration::from_secs(28)).await;
    assert_eq!(bench.world.changes(), [(10.0, 1)], "the cooldown runs");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.world.changes(), [(10.0, 1), (50.0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_does_not_delay_the_wake_that_a_quick_one_asks_for() {
    for slow in [Source::Hangs, Source::SaysAfter(0.0, Duration::from_millis(2900))] {
        let bench = Bench::new(&[("a", slow), ("b", Source::Says(1.0))]);
        bench.apply(spec(&["a", "b"], 30, 60)).await;
        sleep(Duration::from_millis(100)).await;
        assert_eq!(bench.world.changes().len(), 1, "{slow:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_failing_and_panicking_sources_never_lower_anything() {
    for bad in [Source::Hangs, Source::Fails, Source::Panics, Source::SaysNaN] {
        let bench = Bench::new(&[("a", Source::Says(0.0)), ("b", bad)]);
        bench.world.replicas.store(4, Ordering::SeqCst);
        bench.apply(spec(&["a", "b"], 5, 0)).await;
        sleep(Duration::from_secs(120)).await;
        assert_eq!(bench.world.changes(), [], "{bad:?}");
        assert!(
            bench
                .world
                .ticks
                .lock()
                .unwrap()
                .iter()
                .all(|note| note == "reading-missing"),
            "{bad:?}"
        );
        assert_eq!(
            bench.metric("s0-a").await,
            Ok(0.0),
            "the healthy one is served: {bad:?}"
        );
        assert!(
            matches!(bench.metric("s1-b").await, Err(MetricError::Failing { .. })),
            "{bad:?}"
        );
        bench.scripts["b"].set(Source::Says(0.0));
        sleep(Duration::from_secs(11)).await;
        assert_eq!(
            bench.world.replicas.load(Ordering::SeqCst),
            0,
            "rests once all is known: {bad:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_cannot_be_read_is_left_alone_and_metrics_are_served_all_the_same() {
    let bench = Bench::new(&[("a", Source::Says(7.0))]);
    bench.world.unreachable.store(true, Ordering::SeqCst);
    bench.apply(spec(&["a"], 5, 0)).await;
    sleep(Duration::from_secs(12)).await;
    assert_eq!(bench.world.changes(), []);
    assert_eq!(bench.metric("s0-a").await, Ok(7.0));
    assert_eq!(*bench.world.ticks.lock().unwrap(), ["target-unknown"; 3]);
}

#[tokio::test(start_paused = true)]
async fn sources_are_read_once_per_interval_asleep_and_every_15_s_awake() {
    let bench = Bench::new(&[("a", Source::Says(0.0))]);
    bench.apply(spec(&["a"], 30, 0)).await;
    sleep(Duration::from_secs(299)).await;
    assert_eq!(bench.scripts["a"].reads(), 10, "asleep");

    let bench = Bench::new(&[("a", Source::Says(9.0))]);
    bench.apply(spec(&["a"], 30, 0)).await;
    sleep(Duration::from_secs(299)).await;
    assert_eq!(bench.scripts["a"].reads(), 20, "awake");

    let bench = Bench::new(&[("a", Source::Says(9.0))]);
    let mut cached = spec(&["a"], 30, 0);
    cached.triggers[0].use_cached_metrics = true;
    bench.apply(cached).await;
    sleep(Duration::from_secs(299)).await;
    assert_eq!(bench.scripts["a"].reads(), 10, "awake, with useCachedMetrics");
}

#[tokio::test(start_paused = true)]
async fn readings_in_between_decide_nothing() {
    let bench = Bench::new(&[("a", Source::Says(9.0))]);
    bench.apply(spec(&["a"], 75, 0)).await;
    sleep(Duration::from_secs(1)).await;
    bench.scripts["a"].set(Source::Says(0.0));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.metric("s0-a").await, Ok(0.0), "the HPA sees it");
    assert_eq!(
        bench.world.changes(),
        [(0.0, 1)],
        "but nobody falls asleep before the tick"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_an_error_and_never_a_number() {
    let bench = Bench::new(&[("a", Source::Says(9.0))]);
    bench.apply(spec(&["a"], 5, 0)).await;
    sleep(Duration::from_secs(1)).await;
    // From the tick at 5 s on, asking for the target takes its whole deadline of 10 s, and holds up the loop.
    bench.world.hangs.store(true, Ordering::SeqCst);
    sleep(Duration::from_millis(12_900)).await;
    assert_eq!(
        bench.metric("s0-a").await,
        Ok(9.0),
        "5 s of cadence, 3 s of deadline, 1 s"
    );
    sleep(Duration::from_millis(200)).await;
    assert!(matches!(
        bench.metric("s0-a").await,
        Err(MetricError::TooOld { .. })
    ));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.metric("s0-a").await, Ok(9.0), "read again at 15 s");
}

#[tokio::test(start_paused = true)]
async fn a_first_reading_is_waited_for_a_little() {
    let bench = Bench::new(&[("a", Source::SaysAfter(4.0, Duration::from_millis(500)))]);
    bench.apply(spec(&["a"], 30, 0)).await;
    assert_eq!(bench.metric("s0-a").await, Ok(4.0));
    let bench = Bench::new(&[("a", Source::Hangs)]);
    bench.apply(spec(&["a"], 30, 0)).await;
    let asked = Instant::now();
    assert!(matches!(bench.metric("s0-a").await, Err(MetricError::NotYet(_))));
    assert_eq!(asked.elapsed(), Duration::from_secs(2));
    assert!(matches!(
        bench.metric("s9-x").await,
        Err(MetricError::UnknownMetric(_))
    ));
    assert!(matches!(
        bench
            .engine
            .external_metric(&ObjectKey::new("shop", "nope"), "s0-a", false)
            .await,
        Err(MetricError::UnknownObject(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_without_the_lease_and_a_takeover_does_not_cut_a_cooldown_short() {
    let bench = Bench::new(&[("a", Source::Says(0.0))]);
    bench.lease.0.send_replace(false);
    bench.world.replicas.store(3, Ordering::SeqCst);
    let mut known = spec(&["a"], 5, 60);
    known.was_active = true;
    known.resumed = true;
    known.last_active = Some(Timestamp::from_second(5).unwrap());
    bench.apply(known.clone()).await;
    sleep(Duration::from_secs(100)).await;
    assert_eq!(
        (bench.world.changes(), bench.scripts["a"].reads()),
        (vec![], 0),
        "a follower only waits"
    );

    bench.lease.0.send_replace(true);
    bench.apply(known.clone()).await;
    sleep(Duration::from_secs(55)).await;
    assert_eq!(
        bench.world.changes(),
        [],
        "the cooldown counts from the take-over"
    );
    sleep(Duration::from_secs(15)).await;
    assert_eq!(bench.world.changes().last().map(|change| change.1), Some(0));

    bench.scripts["a"].set(Source::Says(5.0));
    bench.lease.0.send_replace(false);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(
        bench.world.replicas.load(Ordering::SeqCst),
        0,
        "the lease is gone, and with it the right to wake"
    );
}

#[tokio::test(start_paused = true)]
async fn the_hpa_is_answered_while_the_first_tick_after_a_takeover_waits_its_turn() {
    let bench = Bench::new(&[("a", Source::Says(4.0))]);
    bench.lease.0.send_replace(false);
    let mut known = spec(&["a"], 30, 300);
    known.resumed = true;
    bench.apply(known.clone()).await;
    assert_eq!(
        bench
            .engine
            .external_metric(&key(), "s0-a", true)
            .await
            .map(|served| served.value),
        Ok(4.0)
    );
    sleep(Duration::from_secs(60)).await;
    bench.scripts["a"].set(Source::Says(6.0));
    bench.lease.0.send_replace(true);
    assert_eq!(
        bench.metric("s0-a").await,
        Ok(6.0),
        "neither the old reading nor an error"
    );
    sleep(Duration::from_secs(60)).await;
    bench.scripts["a"].set(Source::Says(7.0));
    bench.apply(known).await;
    assert_eq!(
        bench.metric("s0-a").await,
        Ok(7.0),
        "nor once its loop has begun and waits for its first tick"
    );
}

#[tokio::test(start_paused = true)]
async fn first_ticks_after_a_start_are_spread_and_awake_objects_go_first() {
    let mut firsts = Vec::new();
    for (uid, was_active) in [("u1", true), ("u2", true), ("u3", false), ("u4", false)] {
        let bench = Bench::new(&[("a", Source::Says(0.0))]);
        let mut resumed = spec(&["a"], 30, 300);
        (resumed.uid, resumed.was_active, resumed.resumed) = (uid.into(), was_active, true);
        bench.apply(resumed).await;
        let started = Instant::now();
        while bench.scripts["a"].reads() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        firsts.push(started.elapsed());
    }
    let half = Duration::from_millis(2502);
    assert!(firsts[..2].iter().all(|first| *first <= half), "{firsts:?}");
    assert!(
        firsts[2..]
            .iter()
            .all(|first| *first + Duration::from_millis(2) >= half),
        "{firsts:?}"
    );
    assert!(
        firsts.iter().all(|first| *first <= Duration::from_millis(5002)),
        "{firsts:?}"
    );
    assert_ne!(firsts[0], firsts[1]);
}

#[tokio::test(start_paused = true)]
async fn a_full_pause_removes_the_autoscaler_and_holds_the_replicas_whatever_the_bounds() {
    let bench = Bench::new(&[("a", Source::Says(9.0))]);
    bench.apply(spec(&["a"], 5, 0)).await;
    sleep(Duration::from_secs(1)).await;
    bench
        .engine
        .pause(&key(), Some(12), &bench.ports())
        .await
        .unwrap();
    assert_eq!(bench.world.removed.load(Ordering::SeqCst), 1);
    assert_eq!(bench.world.replicas.load(Ordering::SeqCst), 12);
    let reads = bench.scripts["a"].reads();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.scripts["a"].reads(), reads, "nothing is read while paused");
    bench.apply(spec(&["a"], 5, 0)).await;
    sleep(Duration::from_secs(1)).await;
    assert!(bench.scripts["a"].reads() > reads, "read at once after the pause");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_for_a_paused_object_by_whoever_leads_and_again_after_the_pause() {
    let bench = Bench::new(&[("a", Source::Says(9.0))]);
    bench.lease.0.send_replace(false);
    bench.apply(spec(&["a"], 5, 0)).await;
    bench.engine.pause(&key(), None, &bench.ports()).await.unwrap();
    let ask = async |read_through| bench.engine.external_metric(&key(), "s0-a", read_through).await;
    assert!(matches!(ask(true).await, Err(MetricError::NotYet(_))));
    bench.lease.0.send_replace(true);
    bench.engine.pause(&key(), None, &bench.ports()).await.unwrap();
    assert!(matches!(ask(false).await, Err(MetricError::NotYet(_))));
    assert_eq!(bench.scripts["a"].reads(), 0);
    bench.apply(spec(&["a"], 5, 0)).await;
    assert_eq!(ask(false).await.map(|served| served.value), Ok(9.0));
}

#[tokio::test(start_paused = true)]
async fn applying_the_same_again_changes_nothing_and_a_mistake_stops_nothing() {
    let bench = Bench::new(&[("a", Source::Says(0.0))]);
    bench.apply(spec(&["a"], 10, 0)).await;
    sleep(Duration::from_secs(4)).await;
    for _ in 0..3 {
        bench.apply(spec(&["a"], 10, 0)).await;
    }
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.scripts["a"].reads(), 1, "the loop was not restarted");
    let wrong = bench
        .engine
        .apply(spec(&["nope"], 10, 0), bench.ports())
        .await
        .unwrap_err();
    assert!(matches!(wrong, ApplyError::Trigger { index: 0, .. }), "{wrong}");
    let twice = bench.engine.apply(spec(&["a", "a"], 10, 0), bench.ports()).await;
    assert!(twice.is_ok(), "the index tells them apart");
    sleep(Duration::from_secs(30)).await;
    assert!(bench.scripts["a"].reads() > 2);
}

#[tokio::test(start_paused = true)]
async fn fallback_serves_its_value_only_above_the_threshold() {
    let bench = Bench::new(&[("a", Source::Fails)]);
    let mut falling = spec(&["a"], 5, 0);
    falling.policy.fallback = Some(Fallback {
        failure_threshold: 2,
        replicas: 6,
        behavior: FallbackBehavior::Static,
    });
    bench.apply(falling).await;
    sleep(Duration::from_secs(6)).await;
    assert!(
        matches!(bench.metric("s0-a").await, Err(MetricError::Failing { .. })),
        "two failures"
    );
    assert_eq!(bench.world.changes(), []);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(
        bench.metric("s0-a").await,
        Ok(30.0),
        "three: 6 replicas x target 5"
    );
    assert_eq!(bench.world.changes(), [(10.0, 1)], "and the target wakes");
    bench.scripts["a"].set(Source::Says(2.0));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.metric("s0-a").await, Ok(2.0));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_someone_else_changed_meanwhile_is_looked_at_again() {
    let bench = Bench::new(&[("a", Source::SaysAfter(1.0, Duration::from_secs(2)))]);
    bench.apply(spec(&["a"], 30, 60)).await;
    sleep(Duration::from_secs(1)).await;
    // Seen at 0 at the start of the tick; then a person scales it to 5, while the trigger still thinks.
    bench.world.replicas.store(5, Ordering::SeqCst);
    bench.world.version.fetch_add(1, Ordering::SeqCst);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(
        bench.world.changes(),
        [],
        "an activation to 1 would have taken 4 replicas away"
    );
    assert_eq!(*bench.world.ticks.lock().unwrap(), ["held-by-autoscaler"]);
}

#[tokio::test(start_paused = true)]
async fn an_earlier_terms_memory_does_not_cut_a_cooldown_short() {
    let bench = Bench::new(&[("a", Source::Says(1.0))]);
    bench.apply(spec(&["a"], 5, 60)).await;
    sleep(Duration::from_secs(1)).await;
    bench.engine.stop(&key()).await;
    bench.lease.0.send_replace(false);
    sleep(Duration::from_secs(600)).await;
    bench.scripts["a"].set(Source::Says(0.0));
    bench.lease.0.send_replace(true);
    let mut known = spec(&["a"], 5, 60);
    (known.resumed, known.was_active) = (true, true);
    bench.apply(known).await;
    sleep(Duration::from_secs(55)).await;
    assert_eq!(
        bench.world.changes(),
        [(0.0, 1)],
        "the status said Active at the take-over"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_active_while_the_target_could_not_be_read_delays_its_rest() {
    let bench = Bench::new(&[("a", Source::Says(1.0))]);
    bench.apply(spec(&["a"], 5, 20)).await;
    sleep(Duration::from_secs(2)).await;
    bench.world.unreachable.store(true, Ordering::SeqCst);
    // Active at the ticks up to 60 s.
    sleep(Duration::from_secs(60)).await;
    bench.world.unreachable.store(false, Ordering::SeqCst);
    bench.scripts["a"].set(Source::Says(0.0));
    sleep(Duration::from_secs(20)).await;
    assert_eq!(bench.world.changes(), [(0.0, 1)], "the cooldown was cut short");
    sleep(Duration::from_secs(4)).await;
    assert_eq!(bench.world.changes(), [(0.0, 1), (85.0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_on_the_current_replicas_uses_those_of_now() {
    let bench = Bench::new(&[("a", Source::Fails)]);
    bench.world.replicas.store(2, Ordering::SeqCst);
    let mut falling = spec(&["a"], 300, 60);
    falling.policy.fallback = Some(Fallback {
        failure_threshold: 0,
        replicas: 1,
        behavior: FallbackBehavior::CurrentReplicasIfHigher,
    });
    bench.apply(falling).await;
    sleep(Duration::from_secs(20)).await;
    bench.world.replicas.store(8, Ordering::SeqCst);
    assert_eq!(bench.metric("s0-a").await, Ok(40.0), "8 replicas x target 5");
    bench.world.unreachable.store(true, Ordering::SeqCst);
    assert!(
        matches!(bench.metric("s0-a").await, Err(MetricError::Failing { .. })),
        "and no guess"
    );
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_must_reads_once_for_all_who_ask() {
    let bench = Bench::new(&[("a", Source::SaysAfter(4.0, Duration::from_millis(100)))]);
    bench.lease.0.send_replace(false);
    bench.apply(spec(&["a"], 30, 0)).await;
    let asked = (0..50).map(|_| {
        let engine = bench.engine.clone();
        tokio::spawn(async move {
            engine
                .external_metric(&key(), "S0-A", true)
                .await
                .map(|served| served.value)
        })
    });
    for answer in futures::future::join_all(asked).await {
        assert_eq!(answer.unwrap(), Ok(4.0));
    }
    assert_eq!(bench.scripts["a"].reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn hanging_objects_delay_no_other() {
    let bench = Bench::new(&[("a", Source::Hangs), ("b", Source::Says(1.0))]);
    for index in 0..200 {
        let mut hanging = spec(&["a"], 1, 0);
        hanging.key = ObjectKey::new("shop", format!("hanging-{index}"));
        bench.apply(hanging).await;
    }
    bench.apply(spec(&["b"], 30, 0)).await;
    let woken = timeout(Duration::from_millis(100), async {
        while bench.world.changes().is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
    });
    woken.await.expect("woken beside 200 sources that hang");
}

#[tokio::test(start_paused = true)]
async fn a_removed_object_is_gone() {
    let bench = Bench::new(&[("a", Source::Says(0.0))]);
    bench.apply(spec(&["a"], 5, 0)).await;
    sleep(Duration::from_secs(1)).await;
    assert!(bench.engine.remove(&key()).await);
    let reads = bench.scripts["a"].reads();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.scripts["a"].reads(), reads);
    assert!(matches!(
        bench.metric("s0-a").await,
        Err(MetricError::UnknownObject(_))
    ));
}
