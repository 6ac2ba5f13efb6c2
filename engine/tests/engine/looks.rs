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
    let before = world.looks.load(Ordering::SeqCst);
    sleep(Duration::from_secs(60)).await;
    let per_second = (world.looks.load(Ordering::SeqCst) - before) / 60;
    assert!(
        (90..=150).contains(&per_second),
        "{per_second} looks per second at {CROWD} ticks"
    );
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
        let changes: Vec<u32> = bench.world.changes().iter().map(|(_, to)| *to).collect();
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
}

#[tokio::test(start_paused = true)]
async fn in_a_crowd_what_somebody_set_to_zero_is_woken_within_half_a_minute() {
    let (bench, _crowd) = crowded(Source::Says(1.0)).await;
    bench.world.replicas.store(3, Ordering::SeqCst);
    bench.apply(spec(&["a"], 1, 300)).await;
    sleep(Duration::from_millis(4500)).await;
    set_by_hand(&bench.world, 0);
    sleep(Duration::from_secs(31)).await;
    let changes: Vec<u32> = bench.world.changes().iter().map(|(_, to)| *to).collect();
    assert_eq!(changes, [1]);
}
