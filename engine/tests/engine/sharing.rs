//! One read for objects that ask the same question.

use std::collections::BTreeSet;
use std::time::Duration;

use dormouse_engine::{MetricError, ObjectKey};
use tokio::time::sleep;

use crate::bench::{Bench, Source, asking};

async fn value(bench: &Bench, object: &str) -> Result<f64, MetricError> {
    let key = ObjectKey::new("shop", object);
    let served = bench.engine.external_metric(&key, "s0-a", false).await;
    served.map(|served| served.value)
}

#[tokio::test(start_paused = true)]
async fn a_hundred_objects_with_one_question_make_one_read_per_interval() {
    let bench = Bench::new(&[("a", Source::SaysAfter(0.0, Duration::from_millis(40)))]);
    for index in 0..100 {
        bench.apply(asking(&format!("o{index}"), "a", "q", 0.0, 30)).await;
        // They do not come at once: each one's first tick is its own, and asks unless an answer is at hand.
        sleep(Duration::from_millis(290)).await;
    }
    let first = bench.scripts["a"].reads();
    assert!((90..=101).contains(&first), "{first}");
    sleep(Duration::from_secs(300)).await;
    let reads = bench.scripts["a"].reads() - first;
    assert!((10..=11).contains(&reads), "{reads} reads in ten intervals");
    assert!(*bench.world.latest.lock().unwrap() <= Duration::from_millis(2));
    let ticks = bench.world.ticks.lock().unwrap().len();
    assert!(ticks >= 1_100, "{ticks}: each object decides on its own");
}

#[tokio::test(start_paused = true)]
async fn what_joins_ticks_at_once_and_never_waits_longer_than_its_interval() {
    let bench = Bench::new(&[("a", Source::Says(0.0))]);
    bench.apply(asking("first", "a", "q", 0.0, 30)).await;
    sleep(Duration::from_secs(12)).await;
    bench.apply(asking("second", "a", "q", 0.0, 30)).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.scripts["a"].reads(), 2, "the first tick waits for nobody");
    sleep(Duration::from_secs(18)).await;
    assert_eq!(bench.scripts["a"].reads(), 3, "at 30 s both tick");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.scripts["a"].reads(), 5);
    // The first asker leaves; the phase stays with those that keep it.
    bench.engine.remove(&ObjectKey::new("shop", "first")).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.scripts["a"].reads(), 7, "one per interval still");
}

#[tokio::test(start_paused = true)]
async fn an_object_alone_counts_from_its_own_start() {
    let bench = Bench::new(&[("a", Source::Says(0.0))]);
    bench.apply(asking("first", "a", "q", 0.0, 30)).await;
    sleep(Duration::from_secs(12)).await;
    bench.engine.remove(&ObjectKey::new("shop", "first")).await;
    bench.apply(asking("second", "a", "q", 0.0, 30)).await;
    sleep(Duration::from_secs(29)).await;
    assert_eq!(bench.scripts["a"].reads(), 2);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.scripts["a"].reads(), 3, "30 s after its own first tick");
}

#[tokio::test(start_paused = true)]
async fn each_object_has_its_own_threshold_for_the_value_that_all_share() {
    let bench = Bench::new(&[("a", Source::SaysAfter(5.0, Duration::from_millis(10)))]);
    bench.apply(asking("low", "a", "q", 0.0, 30)).await;
    bench.apply(asking("high", "a", "q", 5.0, 30)).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.scripts["a"].reads(), 1);
    assert_eq!(
        (value(&bench, "low").await, value(&bench, "high").await),
        (Ok(5.0), Ok(5.0))
    );
    let active = |object: &str| {
        let records = bench.engine.records(&ObjectKey::new("shop", object));
        records.last().unwrap().decision.active_metrics.len()
    };
    assert_eq!((active("low"), active("high")), (1, 0), "strictly above");
}

#[tokio::test(start_paused = true)]
async fn other_credentials_are_another_question() {
    let bench = Bench::new(&[("a", Source::SaysAfter(1.0, Duration::from_millis(10)))]);
    for (object, question) in [("one", "server and key 1"), ("two", "server and key 2")] {
        bench.apply(asking(object, "a", question, 0.0, 30)).await;
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.scripts["a"].reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_shared_and_counts_once_for_each_object() {
    let bench = Bench::new(&[("a", Source::Fails)]);
    let names: Vec<String> = (0..20).map(|index| format!("o{index}")).collect();
    for name in &names {
        bench.apply(asking(name, "a", "q", 0.0, 10)).await;
    }
    sleep(Duration::from_secs(21)).await;
    assert_eq!(bench.scripts["a"].reads(), 3);
    let failures: BTreeSet<u32> = names
        .iter()
        .map(|name| {
            let records = bench.engine.records(&ObjectKey::new("shop", name.as_str()));
            records.last().unwrap().readings.iter().next().unwrap().failures
        })
        .collect();
    assert_eq!(failures, BTreeSet::from([3]));
}

#[tokio::test(start_paused = true)]
async fn the_read_goes_on_for_the_others_when_its_asker_is_removed() {
    let bench = Bench::new(&[("a", Source::SaysAfter(3.0, Duration::from_secs(2)))]);
    bench.apply(asking("first", "a", "q", 0.0, 30)).await;
    sleep(Duration::from_secs(1)).await;
    bench.apply(asking("second", "a", "q", 0.0, 30)).await;
    bench.engine.remove(&ObjectKey::new("shop", "first")).await;
    assert_eq!(value(&bench, "second").await, Ok(3.0));
    assert_eq!(bench.scripts["a"].reads(), 1);
}
