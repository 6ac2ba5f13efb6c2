//! HTTP demand: it wakes at once, sizes the wake, and nothing sleeps that is not known to be quiet.

#![allow(
    clippy::unwrap_used,
    reason = "all of it is test code, which clippy sees in test functions only"
)]

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dormouse_core::Pause;
use dormouse_core::demand::{DemandReport, PodStage, RateWindow, RouteDemand, RouteKey};
use dormouse_engine::demand::busy;
use dormouse_engine::{DemandHub, Interceptors, MetricError, ObjectSpec};
use dormouse_scalers::{Hold, OwnAddresses, RateScaling, ReadError, RouteScaling};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::bench::{self, Bench, Source, spec};

/// What interceptors answer when they are asked to hold.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Idle,
    Busy,
    Hangs,
}

/// Interceptors that answer as they are told, and note what became of each hold.
struct Fleet {
    answer: Mutex<Answer>,
    holds: Arc<Mutex<Vec<&'static str>>>,
    /// Whose target changes while the next hold is taken.
    meddle_with: Mutex<Option<Arc<bench::World>>>,
}

struct Held(Option<Arc<Mutex<Vec<&'static str>>>>);

impl Hold for Held {
    fn slept(mut self: Box<Self>) {
        if let Some(holds) = self.0.take() {
            holds.lock().unwrap().push("slept");
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(holds) = self.0.take() {
            holds.lock().unwrap().push("called off");
        }
    }
}

impl Interceptors for Fleet {
    fn hold<'a>(
        &'a self,
        route: &'a RouteKey,
        _reporters: Vec<Arc<str>>,
    ) -> BoxFuture<'a, Result<Box<dyn Hold>, ReadError>> {
        let held = Held(Some(self.holds.clone()));
        async move {
            if let Some(world) = self.meddle_with.lock().unwrap().take() {
                world.version.fetch_add(1, Ordering::SeqCst);
            }
            let answer = *self.answer.lock().unwrap();
            match answer {
                Answer::Idle => Ok(Box::new(held) as Box<dyn Hold>),
                Answer::Busy => Err(busy(route, 1)),
                Answer::Hangs => std::future::pending().await,
            }
        }
        .boxed()
    }
}

/// An engine, one route `shop/web` with a concurrency target of 10, and interceptors of which a test speaks.
struct World {
    bench: Bench,
    hub: DemandHub,
    fleet: Arc<Fleet>,
    sequence: Mutex<BTreeMap<&'static str, u64>>,
}

fn web() -> RouteKey {
    RouteKey::new("shop", "web")
}

const CONCURRENCY: RouteScaling = RouteScaling {
    concurrency: Some(10),
    rate: None,
};

impl World {
    fn new(sources: &[(&str, Source)], pods: &[&str]) -> Self {
        let fleet = Arc::new(Fleet {
            answer: Mutex::new(Answer::Idle),
            holds: Arc::default(),
            meddle_with: Mutex::default(),
        });
        let hub = DemandHub::new(OwnAddresses::new("scaler", "keda", Vec::new()), fleet.clone());
        assert!(hub.set_route(web(), CONCURRENCY));
        let world = Self {
            bench: Bench::with_demand(sources, Some(hub.clone())),
            hub,
            fleet,
            sequence: Mutex::default(),
        };
        world.list(pods);
        world
    }

    fn list(&self, pods: &[&str]) {
        self.list_at(pods, PodStage::Staying);
    }

    fn list_at(&self, pods: &[&str], stage: PodStage) {
        let pods = pods.iter().map(|pod| (Arc::from(*pod), stage));
        self.hub.listed(pods.collect());
    }

    fn report(&self, pod: &'static str, pending: u32, in_flight: u32) {
        self.send(pod, Some((pending, in_flight)));
    }

    fn goodbye(&self, pod: &'static str) {
        self.send(pod, None);
    }

    fn send(&self, pod: &'static str, demand: Option<(u32, u32)>) {
        let mut sequences = self.sequence.lock().unwrap();
        let sequence = sequences.entry(pod).or_insert(0);
        *sequence += 1;
        let routes = demand.map(|(pending, in_flight)| {
            let demand = RouteDemand {
                pending,
                in_flight,
                started: 0,
            };
            (web(), demand)
        });
        self.hub.apply(DemandReport {
            reporter: pod.into(),
            session: 1,
            sequence: *sequence,
            routes: routes.into_iter().collect(),
            goodbye: demand.is_none(),
        });
    }

    /// Has a pod say every second that all is as it last said.
    fn keep_beating(&self, pod: &'static str) -> AbortOnDropHandle<()> {
        let (hub, sequence) = (self.hub.clone(), self.sequence.lock().unwrap()[pod]);
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                sleep(Duration::from_secs(1)).await;
                hub.heartbeat(pod, 1, sequence);
            }
        }))
    }

    fn scaled_by_somebody_else(&self, to: u32) {
        self.bench.world.replicas.store(to, Ordering::SeqCst);
        self.bench.world.version.fetch_add(1, Ordering::SeqCst);
    }

    fn changes(&self) -> Vec<(f64, u32)> {
        let rounded = |(at, to): (f64, u32)| ((at * 10.0).round() / 10.0, to);
        self.bench.world.changes().into_iter().map(rounded).collect()
    }

    fn holds(&self) -> Vec<&'static str> {
        self.fleet.holds.lock().unwrap().clone()
    }
}

/// An object whose first trigger is the route; scripted ones follow.
fn pushed(others: &[&str], interval: u64, cooldown: u64) -> ObjectSpec {
    let mut all = vec!["route"];
    all.extend(others);
    let mut spec = spec(&all, interval, cooldown);
    spec.triggers[0].params.trigger_type = "external-push".to_owned();
    spec.triggers[0].params.metadata = [("scalerAddress", "scaler.keda:9090"), ("interceptorRoute", "web")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    spec
}

const A_MOMENT: Duration = Duration::from_millis(1);

async fn seconds(count: u64) {
    sleep(Duration::from_secs(count)).await;
}

#[tokio::test(start_paused = true)]
async fn the_edge_wakes_at_once_to_what_is_held() {
    let world = World::new(&[], &["a", "b"]);
    world.bench.apply(pushed(&[], 30, 300)).await;
    world.report("a", 0, 0);
    world.report("b", 0, 0);
    seconds(7).await;
    assert_eq!(world.changes(), []);
    world.report("a", 37, 0);
    sleep(A_MOMENT).await;
    assert_eq!(world.changes(), [(7.0, 4)], "37 held, 10 for each replica");
    let wakes = world.bench.world.wakes.lock().unwrap().clone();
    assert!(matches!(wakes[..], [after] if after < 0.001), "{wakes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wake_that_was_put_off_tells_how_long_the_demand_had_been_there() {
    let world = World::new(&[], &["a"]);
    world.report("a", 3, 0);
    seconds(2).await;
    world.bench.apply(pushed(&[], 30, 300)).await;
    sleep(A_MOMENT).await;
    let wakes = world.bench.world.wakes.lock().unwrap().clone();
    assert!(
        matches!(wakes[..], [after] if (2.0..2.01).contains(&after)),
        "{wakes:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn until_an_endpoint_answers_it_is_raised_and_never_lowered() {
    let world = World::new(&[], &["a"]);
    world.bench.apply(pushed(&[], 30, 300)).await;
    world.report("a", 1, 0);
    sleep(A_MOMENT).await;
    for (pending, in_flight) in [(37, 0), (12, 0), (20, 0), (500, 0), (400, 100), (1, 0), (2000, 3)] {
        seconds(1).await;
        world.report("a", pending, in_flight);
    }
    sleep(A_MOMENT).await;
    assert_eq!(
        world.changes(),
        [(0.0, 1), (1.0, 4), (4.0, 10)],
        "10 is the maximum"
    );
}

/// An HPA that read the replicas before the wake would set its own number over it, whatever its other metrics say.
#[tokio::test(start_paused = true)]
async fn no_autoscaler_has_a_say_while_it_is_found_out_what_a_wake_needs() {
    let world = World::new(&[("other", Source::Says(0.0))], &["a"]);
    world.bench.apply(pushed(&["other"], 5, 300)).await;
    let served = async || {
        let concurrency = world.bench.metric("s0-http_web_concurrency").await;
        let other = world.bench.metric("s1-other").await;
        (concurrency.ok(), other.ok())
    };
    world.scaled_by_somebody_else(0);
    world.report("a", 0, 0);
    seconds(7).await;
    let rounds = [
        (37, 0, 250, None),
        (60, 0, 250, None),
        (60, 0, 100, Some(60.0)),
        (90, 0, 10, None),
        // One serves them by now.
        (88, 2, 10, Some(90.0)),
    ];
    for (pending, in_flight, later, expected) in rounds {
        world.report("a", pending, in_flight);
        sleep(Duration::from_millis(later)).await;
        let other = expected.and(Some(0.0));
        assert_eq!(
            served().await,
            (expected, other),
            "{pending} wait, {later} ms later"
        );
    }
    assert_eq!(world.changes().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_wake_does_not_wait_for_a_source_or_a_target_that_hangs() {
    let world = World::new(&[("slow", Source::Hangs)], &["a"]);
    world.bench.apply(pushed(&["slow"], 30, 300)).await;
    world.report("a", 0, 0);
    seconds(31).await;
    // The target was seen by the tick under way, and the next call about it sticks.
    world.report("a", 5, 0);
    sleep(A_MOMENT).await;
    assert_eq!(world.changes(), [(31.0, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_wake_that_fails_is_tried_again_soon() {
    let world = World::new(&[], &["a"]);
    world.bench.apply(pushed(&[], 300, 300)).await;
    world.report("a", 0, 0);
    seconds(5).await;
    // The target is not what was seen for a while, and cannot be read.
    world.scaled_by_somebody_else(1);
    world.bench.world.unreachable.store(true, Ordering::SeqCst);
    world.report("a", 5, 0);
    let _beats = world.keep_beating("a");
    seconds(20).await;
    assert_eq!(world.changes(), []);
    world.scaled_by_somebody_else(0);
    world.bench.world.unreachable.store(false, Ordering::SeqCst);
    seconds(1).await;
    assert_eq!(world.changes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_somebody_else_put_to_sleep_wakes_for_the_first_request() {
    let world = World::new(&[], &["a"]);
    world.bench.world.replicas.store(1, Ordering::SeqCst);
    world.report("a", 0, 1);
    world.bench.apply(pushed(&[], 300, 3000)).await;
    seconds(1).await;
    world.report("a", 0, 0);
    seconds(19).await;
    world.scaled_by_somebody_else(0);
    world.report("a", 1, 0);
    sleep(A_MOMENT).await;
    assert_eq!(world.changes(), [(20.0, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_somebody_else_puts_to_sleep_under_waiting_requests_wakes_soon() {
    let world = World::new(&[], &["a"]);
    world.bench.world.replicas.store(1, Ordering::SeqCst);
    world.bench.apply(pushed(&[], 300, 3000)).await;
    world.report("a", 1, 0);
    let beats = world.keep_beating("a");
    sleep(Duration::from_millis(5500)).await;
    world.scaled_by_somebody_else(0);
    seconds(1).await;
    assert_eq!(world.changes(), [(6.0, 1)]);
    drop(beats);
    world.report("a", 0, 0);
    let _beats = world.keep_beating("a");
    seconds(2).await;
    let looks = world.bench.world.looks.load(Ordering::SeqCst);
    seconds(60).await;
    assert_eq!(
        world.bench.world.looks.load(Ordering::SeqCst),
        looks,
        "nobody waits any more"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_held_before_the_loop_began_wakes_before_its_first_tick() {
    let world = World::new(&[], &["a"]);
    world.report("a", 25, 0);
    let mut taken_over = pushed(&[], 30, 300);
    taken_over.resumed = true;
    world.bench.apply(taken_over).await;
    sleep(A_MOMENT).await;
    assert_eq!(world.changes(), [(0.0, 3)]);
}

#[tokio::test(start_paused = true)]
async fn it_never_goes_past_a_pause_of_scaling_out() {
    let world = World::new(&[], &["a"]);
    let mut paused = pushed(&[], 30, 300);
    paused.policy.pause = Pause::Directions {
        scale_in: false,
        scale_out: true,
    };
    world.bench.apply(paused).await;
    world.report("a", 25, 0);
    seconds(120).await;
    assert_eq!(world.changes(), []);
}

#[tokio::test(start_paused = true)]
async fn unknown_demand_lowers_nothing_and_is_no_metric_until_the_pod_is_gone() {
    let world = World::new(&[], &["a", "b"]);
    world.bench.world.replicas.store(2, Ordering::SeqCst);
    world.bench.apply(pushed(&[], 5, 0)).await;
    world.report("a", 0, 0);
    let _beats = world.keep_beating("a");
    seconds(60).await;
    assert_eq!(world.changes(), [], "b has never reported");
    world.report("b", 0, 3);
    seconds(1).await;
    assert_eq!(world.bench.metric("s0-http_web_concurrency").await, Ok(3.0));
    seconds(60).await;
    assert_eq!(world.changes(), [], "b is silent");
    let silent = world.bench.metric("s0-http_web_concurrency").await;
    assert!(matches!(silent, Err(MetricError::Failing { .. })), "{silent:?}");
    world.list(&["a"]);
    assert_eq!(world.bench.metric("s0-http_web_concurrency").await, Ok(0.0));
    seconds(6).await;
    assert_eq!(world.bench.world.replicas.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_interceptor_does_not_keep_another_from_waking() {
    let world = World::new(&[], &["a", "b"]);
    world.bench.apply(pushed(&[], 30, 300)).await;
    world.report("a", 0, 0);
    seconds(10).await;
    world.report("b", 11, 0);
    sleep(A_MOMENT).await;
    assert_eq!(world.changes(), [(10.0, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_counts_nothing_and_the_target_rests_after_its_cooldown() {
    let world = World::new(&[], &["a"]);
    world.bench.apply(pushed(&[], 5, 18)).await;
    world.report("a", 3, 0);
    seconds(2).await;
    world.report("a", 0, 1);
    seconds(2).await;
    world.list_at(&["a"], PodStage::Leaving);
    world.goodbye("a");
    seconds(40).await;
    // The last request was heard of at 4 s, which still counts at the tick at 5 s: 23 s is over at the tick at 25 s.
    assert_eq!(world.changes(), [(0.0, 1), (25.0, 0)]);
    assert_eq!(world.holds(), ["slept"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_put_to_sleep_that_an_interceptor_has_under_way() {
    let world = World::new(&[], &["a"]);
    world.bench.world.replicas.store(2, Ordering::SeqCst);
    *world.fleet.answer.lock().unwrap() = Answer::Busy;
    world.report("a", 0, 0);
    let _beats = world.keep_beating("a");
    world.bench.apply(pushed(&[], 10, 0)).await;
    seconds(15).await;
    assert_eq!(world.changes(), []);
    assert_eq!(
        *world.bench.world.ticks.lock().unwrap(),
        ["held-by-autoscaler"; 2]
    );
    assert_eq!(world.holds(), ["called off"; 2]);
    *world.fleet.answer.lock().unwrap() = Answer::Hangs;
    seconds(9).await;
    assert_eq!(world.holds(), ["called off"; 2], "5 s have not passed");
    seconds(2).await;
    assert_eq!(world.holds(), ["called off"; 3]);
    assert_eq!(world.bench.world.ticks.lock().unwrap()[2..], ["reading-missing"]);
    *world.fleet.answer.lock().unwrap() = Answer::Idle;
    seconds(10).await;
    assert_eq!(world.changes(), [(30.0, 0)]);
    assert_eq!(world.holds()[3..], ["slept"]);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_changes_under_the_hold_is_held_and_looked_at_again() {
    let world = World::new(&[], &["a"]);
    world.bench.world.replicas.store(2, Ordering::SeqCst);
    world.report("a", 0, 0);
    let _beats = world.keep_beating("a");
    *world.fleet.meddle_with.lock().unwrap() = Some(world.bench.world.clone());
    world.bench.apply(pushed(&[], 30, 0)).await;
    seconds(1).await;
    assert_eq!(world.holds(), ["called off", "slept"]);
    assert_eq!(world.changes(), [(0.0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_sleep_that_may_have_come_about_is_told_as_one() {
    let world = World::new(&[], &["a"]);
    world.bench.world.replicas.store(2, Ordering::SeqCst);
    world.bench.world.unanswered.store(true, Ordering::SeqCst);
    world.report("a", 0, 0);
    let _beats = world.keep_beating("a");
    world.bench.apply(pushed(&[], 30, 0)).await;
    seconds(1).await;
    assert_eq!(world.changes(), [(0.0, 0)]);
    assert_eq!(world.holds(), ["slept"]);
}

#[tokio::test(start_paused = true)]
async fn the_autoscaler_is_served_the_newest_value_of_each_metric() {
    let world = World::new(&[], &["a"]);
    let window = RateWindow::new(Duration::from_secs(60), Duration::from_secs(1));
    let both = RouteScaling {
        rate: Some(RateScaling { target: 50, window }),
        ..CONCURRENCY
    };
    assert!(world.hub.set_route(web(), both));
    let applied = world
        .bench
        .engine
        .apply(pushed(&[], 30, 300), world.bench.ports());
    assert_eq!(
        applied.await.unwrap().metric_names,
        ["s0-http_web_concurrency", "s0-http_web_rate"]
    );
    world.report("a", 0, 0);
    for held in [1, 17, 3] {
        sleep(Duration::from_millis(100)).await;
        world.report("a", 0, held);
        assert_eq!(
            world.bench.metric("s0-http_web_concurrency").await,
            Ok(f64::from(held))
        );
        assert_eq!(world.bench.metric("s0-http_web_rate").await, Ok(f64::from(held)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_that_asks_for_something_else_is_connected_anew() {
    let world = World::new(&[], &["a"]);
    let apply = || {
        world
            .bench
            .engine
            .apply(pushed(&[], 30, 300), world.bench.ports())
    };
    assert_eq!(apply().await.unwrap().built, ["external-push"]);
    assert!(!world.hub.set_route(web(), CONCURRENCY), "nothing new");
    assert_eq!(apply().await.unwrap().built, Vec::<String>::new());
    let other = RouteScaling {
        concurrency: Some(2),
        ..CONCURRENCY
    };
    assert!(world.hub.set_route(web(), other));
    assert_eq!(apply().await.unwrap().built, ["external-push"]);
    world.report("a", 5, 0);
    sleep(A_MOMENT).await;
    assert_eq!(world.changes(), [(0.0, 3)]);
    assert!(world.hub.remove_route(&web()));
    assert!(apply().await.is_err(), "and what ran goes on");
}
