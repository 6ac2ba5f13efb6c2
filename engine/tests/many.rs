//! What ten thousand objects cost, in a process of their own: memory per object, and processor time per tick.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    reason = "all of it is test code, and the bench has more than is used here"
)]

#[path = "engine/bench.rs"]
mod bench;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bench::{Bench, Port, Source, World, asking, spec};
use dormouse_engine::{ObjectKey, Ports};
use tokio::time::sleep;

const OBJECTS: usize = 10_000;

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = pages.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Processor time of this process so far.
fn busy() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |field: usize| -> u64 { fields[field].parse().unwrap() };
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_objects_stay_small() {
    let bench = Bench::new(&[("a", Source::Says(0.0))]);
    bench.world.forgetful.store(true, Ordering::SeqCst);
    let before = resident();
    for index in 0..OBJECTS {
        // Every second one shares its question with a hundred others.
        let name = format!("a-name-of-usual-length-{index}");
        let mut object = if index % 2 == 0 {
            asking(&name, "a", &format!("question {}", index / 200), 0.0, 30)
        } else {
            spec(&["a"], 30, 0)
        };
        object.key = ObjectKey::new("a-namespace-of-usual-length", name.as_str());
        object.policy.cooldown_period = Duration::ZERO;
        let world = Arc::new(World {
            forgetful: AtomicBool::new(true),
            ..World::default()
        });
        *world.started.lock().unwrap() = Some(tokio::time::Instant::now());
        let ports = Ports {
            target: Arc::new(Port(world.clone())),
            autoscaler: Arc::new(Port(world)),
        };
        bench.engine.apply(object, ports).await.unwrap();
        // Their ticks are spread over the interval, as in life.
        sleep(Duration::from_millis(3)).await;
    }
    sleep(Duration::from_secs(61)).await;
    let quiet = (resident() - before) / OBJECTS;
    let began = busy();
    sleep(Duration::from_secs(150)).await;
    let per_tick = (busy() - began) / u32::try_from(OBJECTS * 5).unwrap();
    // Each minute up and down again: after sixteen of them every ring of decisions is full.
    for _ in 0..17 {
        bench.scripts["a"].set(Source::Says(7.0));
        sleep(Duration::from_secs(30)).await;
        bench.scripts["a"].set(Source::Says(0.0));
        sleep(Duration::from_secs(30)).await;
    }
    let full = (resident() - before) / OBJECTS;
    let told = format!(
        "bytes per object: quiet {quiet}, all decisions kept {full}; processor time per tick {per_tick:?}"
    );
    assert!(quiet <= 8 << 10 && full <= 24 << 10, "{told}");
    assert!(per_tick <= Duration::from_millis(1), "{told}");
    eprintln!("{told}");
}
