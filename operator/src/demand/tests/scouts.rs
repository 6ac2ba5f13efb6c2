//! Which pods are told of ahead, and for how long they are followed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dormouse_core::demand::RouteKey;
use dormouse_wire::demand::from_operator::Message;
use dormouse_wire::demand::{FromOperator, PodProbe};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::advance;
use tonic::Status;

use super::fixture::{Pods, selection, web};
use crate::demand::ahead::AGAIN;
use crate::demand::probes::{PodBooth, Selection};
use crate::demand::scouts::{AFTER, LINGER, LONGEST, Scouts};

struct Stage {
    pods: Arc<Pods>,
    /// What the Service of every route is called that has one.
    service: Arc<Mutex<Option<&'static str>>>,
    booth: PodBooth,
    outbox: mpsc::Sender<Result<FromOperator, Status>>,
    said: mpsc::Receiver<Result<FromOperator, Status>>,
    scouts: Scouts,
}

impl Stage {
    fn new() -> Self {
        let pods = Arc::new(Pods::default());
        let service = Arc::new(Mutex::new(Some("web")));
        let named = Arc::clone(&service);
        let selector = Arc::new(move |route: &RouteKey| {
            let service = named.lock().unwrap().map(str::to_owned)?;
            Some(Selection {
                service,
                ..selection(route)
            })
        });
        let (outbox, said) = mpsc::channel(16);
        Self {
            booth: PodBooth::new(pods.clone(), selector),
            service,
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
    let since = Timestamp::now().to_string();
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid of {name}")},
        "spec": {"containers": [{"name": "app", "readinessProbe": {"tcpSocket": {"port": 8080}}}]},
        "status": {"podIP": address, "conditions": [{"type": "Ready", "status": status, "lastTransitionTime": since}]},
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

/// Of a pod that was told of, after this has happened.
fn taken_back(stage: &mut Stage, what: &str) {
    let told = stage.told().unwrap_or_else(|| panic!("{what}: nothing was said"));
    assert_eq!(
        (told.pod.unwrap().name, told.addresses, &*told.service),
        ("web-1".to_owned(), vec![], ""),
        "{what}"
    );
    assert_eq!(stage.told(), None, "{what}: once");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_of_no_use_any_more_is_taken_back() {
    let starting = || pod("web-1", Some("10.0.0.7"), false);
    let ready = || pod("web-1", Some("10.0.0.7"), true);
    let mut ending = starting();
    ending["metadata"]["deletionTimestamp"] = json!("2026-11-21T00:00:00Z");
    let mut failed = starting();
    failed["status"]["phase"] = json!("Failed");
    for (what, first, then) in [
        ("deleted", starting(), ending),
        ("failed", starting(), failed),
        ("gone", starting(), Value::Null),
        ("not ready any more", ready(), starting()),
    ] {
        let mut stage = Stage::new();
        stage.waiting(&[web()], AFTER).await;
        if !then.is_null() && what != "not ready any more" {
            stage.set(then.clone()).await;
            assert_eq!(stage.told(), None, "{what}: nobody was told that it began");
        }
        stage.set(first).await;
        assert!(!stage.told().unwrap().addresses.is_empty(), "{what}");
        if then.is_null() {
            stage.pods.delete("web-1");
            pass(Duration::ZERO).await;
        } else {
            stage.set(then).await;
        }
        taken_back(&mut stage, what);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_taken_back_when_its_service_is_another_or_gone() {
    for service in [Some("green"), None] {
        let mut stage = Stage::new();
        stage.waiting(&[web()], AFTER).await;
        stage.set(pod("web-1", Some("10.0.0.7"), false)).await;
        assert_eq!(stage.told().unwrap().service, "web");
        *stage.service.lock().unwrap() = service;
        stage.waiting(&[web()], Duration::ZERO).await;
        taken_back(&mut stage, "by whoever still waits");
        stage.set(pod("web-1", Some("10.0.0.7"), true)).await;
        assert_eq!(stage.told(), None, "it is not that Service's");
        // With the next report.
        stage.scouts.rest();
        stage.waiting(&[web()], AFTER).await;
        let told = std::iter::from_fn(|| stage.told()).last();
        assert_eq!(told.map(|told| told.service).as_deref(), service);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_the_same_name_takes_the_place_of_the_one_before() {
    let mut stage = Stage::new();
    stage.waiting(&[web()], AFTER).await;
    stage.set(pod("web-1", Some("10.0.0.7"), false)).await;
    assert!(stage.told().is_some());
    let mut next = pod("web-1", Some("10.0.0.8"), false);
    next["metadata"]["uid"] = json!("another");
    stage.set(next).await;
    let mut told: Vec<_> = std::iter::from_fn(|| stage.told())
        .map(|told| (told.pod.unwrap().uid, told.addresses.concat()))
        .collect();
    told.sort();
    let of = |uid: &str, address: &str| (uid.to_owned(), address.to_owned());
    assert_eq!(told, [of("another", "10.0.0.8"), of("uid of web-1", "")]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_been_ready_for_long_is_no_news_but_is_not_taken_back_for_it() {
    let mut stage = Stage::new();
    stage.waiting(&[web()], AFTER).await;
    let since = |seconds: i64, name: &str| {
        let mut pod = pod(name, Some("10.0.0.7"), true);
        let since = Timestamp::now() - SignedDuration::from_secs(seconds);
        pod["status"]["conditions"][0]["lastTransitionTime"] = json!(since.to_string());
        pod
    };
    stage.set(since(100, "old")).await;
    assert_eq!(stage.told(), None);
    stage.set(since(1, "web-1")).await;
    assert!(stage.told().unwrap().ready);
    stage.set(since(100, "web-1")).await;
    assert_eq!(stage.told(), None);
}

#[tokio::test(start_paused = true)]
async fn what_was_said_is_said_again_while_somebody_waits() {
    let mut stage = Stage::new();
    stage.waiting(&[web()], AFTER).await;
    stage.set(pod("web-1", Some("10.0.0.7"), false)).await;
    assert!(stage.told().is_some());
    stage.waiting(&[web()], AGAIN).await;
    assert_eq!(stage.told(), None);
    stage.scouts.rest();
    assert_eq!(stage.told().unwrap().addresses, ["10.0.0.7"]);
    stage.waiting(&[], AGAIN).await;
    stage.scouts.rest();
    assert_eq!(stage.told(), None, "nobody waits any more");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_said_is_said_later_and_leaves_room_for_holds() {
    let mut stage = Stage::new();
    stage.waiting(&[web()], AFTER).await;
    for number in 0..10 {
        stage
            .pods
            .set(pod(&format!("web-{number}"), Some("10.0.0.7"), false));
    }
    pass(Duration::ZERO).await;
    assert_eq!(stage.outbox.capacity(), 8, "half of it");
    while stage.told().is_some() {}
    stage.waiting(&[web()], Duration::ZERO).await;
    let rest = std::iter::from_fn(|| stage.told()).count();
    assert_eq!(rest, 2);

    // What could not be taken back is not said to be there meanwhile.
    for _ in 0..8 {
        let filler = FromOperator { message: None };
        stage.outbox.try_send(Ok(filler)).unwrap();
    }
    stage.pods.delete("web-1");
    pass(Duration::ZERO).await;
    stage.set(pod("web-1", Some("10.0.0.9"), false)).await;
    while let Ok(filler) = stage.said.try_recv() {
        assert_eq!(filler.unwrap().message, None);
    }
    stage.scouts.rest();
    taken_back(&mut stage, "with the next occasion");
}

#[tokio::test(start_paused = true)]
async fn who_asks_is_known_to_have_been_told_once_however_many_routes_lead_there() {
    let mut stage = Stage::new();
    let other = RouteKey::new("shop", "other");
    stage.waiting(&[web(), other], AFTER).await;
    stage.set(pod("web-1", Some("10.0.0.7"), false)).await;
    let told = stage.told().unwrap().pod.unwrap();
    assert!(stage.scouts.has_told(&told));
    pass(AGAIN).await;
    stage.scouts.rest();
    assert!(
        !stage.scouts.has_told(&told),
        "who asks again has forgotten, though it was said again"
    );

    stage.set(pod("web-2", Some("10.0.0.8"), false)).await;
    let told = std::iter::from_fn(|| stage.told()).last().unwrap().pod.unwrap();
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
