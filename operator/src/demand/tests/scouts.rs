//! Which pods are told of ahead, and for how long they are followed.

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::demand::RouteKey;
use dormouse_wire::demand::from_operator::Message;
use dormouse_wire::demand::{FromOperator, PodProbe};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::advance;
use tonic::Status;

use super::fixture::{Pods, selection, web};
use crate::demand::probes::PodBooth;
use crate::demand::scouts::{AFTER, LINGER, LONGEST, Scouts};

struct Stage {
    pods: Arc<Pods>,
    booth: PodBooth,
    outbox: mpsc::Sender<Result<FromOperator, Status>>,
    said: mpsc::Receiver<Result<FromOperator, Status>>,
    scouts: Scouts,
}

impl Stage {
    fn new() -> Self {
        let pods = Arc::new(Pods::default());
        let selector = Arc::new(|route: &RouteKey| Some(selection(route)));
        let (outbox, said) = mpsc::channel(16);
        Self {
            booth: PodBooth::new(pods.clone(), selector),
            pods,
            outbox,
            said,
            scouts: Scouts::default(),
        }
    }

    /// Requests wait at these routes, and some time passes.
    async fn waiting(&mut self, routes: &[RouteKey], then: Duration) {
        self.scouts.waiting(routes.iter(), &self.booth, &self.outbox);
        pass(then).await;
    }

    fn follows(&self) -> usize {
        Arc::strong_count(&self.pods.followed) - 1
    }

    async fn set(&self, pod: Value) {
        self.pods.set(pod);
        pass(Duration::ZERO).await;
    }

    fn told(&mut self) -> Option<PodProbe> {
        let message = self.said.try_recv().ok()?.unwrap().message;
        let Some(Message::ProbeSpecs(mut specs)) = message else {
            panic!("{message:?}")
        };
        assert_eq!(specs.pods.len(), 1);
        specs.pods.pop()
    }
}

/// Lets time pass, and those who wait for it do what they do then.
async fn pass(time: Duration) {
    tokio::task::yield_now().await;
    advance(time).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

fn pod(name: &str, address: Option<&str>, ready: bool) -> Value {
    let status = if ready { "True" } else { "False" };
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid of {name}")},
        "spec": {"containers": [{"name": "app", "readinessProbe": {"tcpSocket": {"port": 8080}}}]},
        "status": {"podIP": address, "conditions": [{"type": "Ready", "status": status}]},
    })
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_told_of_once_it_has_an_address_and_again_when_something_changed() {
    let mut stage = Stage::new();
    stage.waiting(&[web()], AFTER).await;
    stage.set(pod("web-1", None, false)).await;
    assert_eq!(stage.told(), None, "it has no address");
    stage.set(pod("web-1", Some("10.0.0.7"), false)).await;
    let told = stage.told().unwrap();
    assert_eq!(
        (told.pod.unwrap().name, told.addresses, told.service),
        ("web-1".to_owned(), vec!["10.0.0.7".to_owned()], "web".to_owned())
    );
    stage.set(pod("web-1", Some("10.0.0.7"), false)).await;
    assert_eq!(stage.told(), None, "nothing new");
    stage.set(pod("web-1", Some("10.0.0.8"), false)).await;
    assert_eq!(stage.told().unwrap().addresses, ["10.0.0.8"]);
    stage.set(pod("web-1", Some("10.0.0.8"), true)).await;
    assert!(stage.told().unwrap().ready);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_told_of_is_taken_back_when_it_is_over() {
    let mut stage = Stage::new();
    stage.waiting(&[web()], AFTER).await;
    let over = |name: &str| {
        let mut pod = pod(name, Some("10.0.0.7"), false);
        pod["metadata"]["deletionTimestamp"] = json!("2026-11-21T00:00:00Z");
        pod
    };
    stage.set(over("old")).await;
    assert_eq!(stage.told(), None, "nobody was told that it began");
    stage.set(pod("web-1", Some("10.0.0.7"), false)).await;
    assert!(stage.told().unwrap().readiness.is_some());
    stage.set(over("web-1")).await;
    let told = stage.told().unwrap();
    assert_eq!(
        (told.pod.unwrap().name, told.addresses, &*told.service),
        ("web-1".to_owned(), vec![], "")
    );
    stage.set(over("web-1")).await;
    assert_eq!(stage.told(), None, "once");
}

#[tokio::test(start_paused = true)]
async fn who_asks_is_known_to_have_been_told_once_however_many_routes_lead_there() {
    let mut stage = Stage::new();
    let other = RouteKey::new("shop", "other");
    stage.waiting(&[web(), other], AFTER).await;
    stage.set(pod("web-1", Some("10.0.0.7"), false)).await;
    let told = stage.told().unwrap().pod.unwrap();
    assert!(stage.scouts.has_told(&told));
    assert!(!stage.scouts.has_told(&told), "who asks again has forgotten");

    stage.set(pod("web-2", Some("10.0.0.8"), false)).await;
    let mut probes: Vec<_> = std::iter::from_fn(|| stage.told()).collect();
    let told = probes.pop().unwrap().pod.unwrap();
    pass(Duration::from_secs(11)).await;
    assert!(!stage.scouts.has_told(&told), "that was long ago");
}

#[tokio::test(start_paused = true)]
async fn pods_are_followed_while_somebody_waits_and_a_little_longer() {
    let mut stage = Stage::new();
    stage.waiting(&[web()], AFTER / 2).await;
    assert_eq!(stage.follows(), 1);
    stage.waiting(&[], Duration::ZERO).await;
    assert_eq!(stage.follows(), 0, "it was over before anything was asked");

    stage.waiting(&[web()], 2 * AFTER).await;
    stage.waiting(&[], LINGER / 2).await;
    stage.scouts.rest();
    assert_eq!(stage.follows(), 1, "it may wait again in a moment");
    pass(LINGER).await;
    stage.scouts.rest();
    pass(Duration::ZERO).await;
    assert_eq!(stage.follows(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_waits_in_vain_takes_no_place_for_ever() {
    let mut stage = Stage::new();
    stage.waiting(&[web()], LONGEST).await;
    for _ in 0..2 {
        stage.waiting(&[web()], Duration::ZERO).await;
        assert_eq!(stage.follows(), 0);
    }
    stage.waiting(&[], LINGER).await;
    stage.scouts.rest();
    stage.waiting(&[web()], Duration::ZERO).await;
    assert_eq!(stage.follows(), 1, "it had ceased to wait");
}
