//! How often targets are looked at, and that an old look never does harm.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dormouse_engine::ObjectKey;
use tokio::time::sleep;

use crate::bench::{Bench, Source, World, spec};

/// So many objects ticking each second that no tick of theirs finds a look that may still be made.
const CROWD: usize = 1000;

/// A bench whose triggers are `crowd` and `a`, and the world of the crowd's targets, asleep.
async fn crowded(a: Source) -> (Bench, Arc<World>) {
    let bench = Bench::new(&[("crowd", Source::Says(0.0)), ("a", a)]);
    let world = World::begin();
    world.forgetful.store(true, Ordering::SeqCst);
    for number in 0..CROWD {
        let mut one = spec(&["crowd"], 1, 300);
        one.key = ObjectKey::new("shop", format!("crowd-{number}"));
        one.uid = format!("uid-{number}");
        bench.apply_in(&world, one).await;
    }
    (bench, world)
}

/// The replicas that were set, one after the other.
fn set_to(world: &World) -> Vec<u32> {
    world.changes().into_iter().map(|(_, to)| to).collect()
}

/// Somebody sets the target's replicas by hand.
fn set_by_hand(world: &World, replicas: u32) {
    world.replicas.store(replicas, Ordering::SeqCst);
    world.version.fetch_add(1, Ordering::SeqCst);
}

#[tokio::test(start_paused = true)]
async fn few_objects_look_on_every_tick() {
    let bench = Bench::new(&[("a", Source::Says(0.0))]);
    bench.apply(spec(&["a"], 5, 300)).await;
    sleep(Duration::from_secs(61)).await;
    assert_eq!(bench.world.looks.load(Ordering::SeqCst), 13);
}

#[tokio::test(start_paused = true)]
async fn many_objects_look_as_often_as_the_api_server_can_bear() {
    let (_bench, world) = crowded(Source::Says(0.0)).await;
    sleep(Duration::from_secs(40)).await;
    let looks = || world.looks.load(Ordering::SeqCst);
    // Whatever held them all up ends for all at once.
    world.unreachable.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(60)).await;
    world.unreachable.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(2)).await;
    let mut per_second = Vec::new();
    for _ in 0..120 {
        let before = looks();
        sleep(Duration::from_secs(1)).await;
        per_second.push(looks() - before);
    }
    let most = per_second.iter().max();
    assert!(most <= Some(&200), "looks per second: {per_second:?}");
    let mean = per_second.iter().sum::<usize>() / per_second.len();
    assert!((90..=150).contains(&mean), "{mean} looks per second");
}

#[tokio::test(start_paused = true)]
async fn at_keda_s_default_interval_each_tick_looks_in_any_crowd() {
    let (bench, _crowd) = crowded(Source::Says(0.0)).await;
    bench.apply(spec(&["a"], 30, 300)).await;
    sleep(Duration::from_secs(301)).await;
    assert_eq!(bench.world.looks.load(Ordering::SeqCst), 11);
}

#[tokio::test(start_paused = true)]
async fn in_a_crowd_a_target_that_is_gone_is_not_taken_for_one_that_was_seen() {
    let (bench, _crowd) = crowded(Source::Says(1.0)).await;
    bench.apply(spec(&["a"], 1, 300)).await;
    sleep(Duration::from_millis(4500)).await;
    bench.world.gone.store(true, Ordering::SeqCst);
    let unknown = || {
        let ticks = bench.world.ticks.lock().unwrap();
        ticks.iter().filter(|note| *note == "target-unknown").count()
    };
    let mut counts = Vec::new();
    for _ in 0..60 {
        sleep(Duration::from_secs(1)).await;
        counts.push(unknown());
    }
    // From the first look that finds it gone, every tick does.
    let known = counts.iter().filter(|count| **count == 0).count();
    assert!(known <= 30, "{counts:?}");
    let expected: Vec<usize> = (1..=counts.len() - known).collect();
    assert_eq!(counts[known..], expected);
}

#[tokio::test(start_paused = true)]
async fn in_a_crowd_a_sleeper_wakes_on_an_old_look_unless_its_target_changed() {
    for changed in [false, true] {
        let (bench, _crowd) = crowded(Source::Says(0.0)).await;
        bench.apply(spec(&["a"], 1, 300)).await;
        sleep(Duration::from_millis(4500)).await;
        let looks = bench.world.looks.load(Ordering::SeqCst);
        if changed {
            set_by_hand(&bench.world, 5);
        }
        bench.scripts["a"].set(Source::Says(1.0));
        sleep(Duration::from_secs(1)).await;
        let changes = set_to(&bench.world);
        let looked = bench.world.looks.load(Ordering::SeqCst) - looks;
        let expected: (&[u32], usize) = if changed { (&[], 1) } else { (&[1], 0) };
        assert_eq!((changes.as_slice(), looked), expected, "changed: {changed}");
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_crowd_nothing_rests_on_an_old_look() {
    let (bench, _crowd) = crowded(Source::Says(1.0)).await;
    bench.world.replicas.store(3, Ordering::SeqCst);
    bench.apply(spec(&["a"], 1, 10)).await;
    sleep(Duration::from_millis(4500)).await;
    bench.scripts["a"].set(Source::Says(0.0));
    sleep(Duration::from_secs(2)).await;
    set_by_hand(&bench.world, 0);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(bench.world.changes(), [], "it rests already");
    assert_eq!(
        bench.world.refused.load(Ordering::SeqCst),
        0,
        "it was not looked at"
    );
}

#[tokio::test(start_paused = true)]
async fn in_a_crowd_what_somebody_set_to_zero_is_woken_within_half_a_minute() {
    let (bench, _crowd) = crowded(Source::Says(1.0)).await;
    bench.world.replicas.store(3, Ordering::SeqCst);
    bench.apply(spec(&["a"], 1, 300)).await;
    sleep(Duration::from_millis(4500)).await;
    set_by_hand(&bench.world, 0);
    sleep(Duration::from_secs(31)).await;
    assert_eq!(set_to(&bench.world), [1]);
}
