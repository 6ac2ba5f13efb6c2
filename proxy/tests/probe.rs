//! Our own probes: an endpoint gets requests before its slice calls it ready.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is test code"
)]

mod common;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::raw::{Raw, get};
use common::{Rig, app, by_traffic_port, pod, settings};
use dormouse_proxy::{Check, HttpCheck, Probe, ProbeSpec, Scheme};
use http::{HeaderName, HeaderValue, Request, StatusCode};
use hyper::body::Incoming;

const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

/// A pod whose slice does not call it ready, and a request that waits for it.
async fn waiting(address: SocketAddr, spec: Option<ProbeSpec>) -> (Rig, Raw) {
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.endpoints("web", &[(address, "")]);
    rig.proxy.set_probe(&pod(address), spec);
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    // It may be answered within a moment: whether it waits is not asked.
    common::until("the request has come", || rig.load("web").2 == 1).await;
    (rig, client)
}

fn http(port: u16, path: &'static str) -> Probe {
    let headers = vec![(
        HeaderName::from_static("x-probe"),
        HeaderValue::from_static("yes"),
    )];
    let path = http::uri::PathAndQuery::from_static(path);
    Probe {
        check: Check::Http(HttpCheck {
            port,
            scheme: Scheme::Http,
            path,
            headers,
        }),
        delay: Duration::ZERO,
        timeout: Duration::from_secs(1),
    }
}

fn ready_by(readiness: Probe) -> Option<ProbeSpec> {
    Some(ProbeSpec {
        readiness: Some(readiness),
        ..by_traffic_port()
    })
}

#[tokio::test]
async fn without_a_spec_the_slice_decides() {
    let app = app::ok().await;
    let (rig, mut client) = waiting(app.address, None).await;
    assert!(client.is_silent(Duration::from_millis(200)).await);
    assert_eq!(app.connections(), 0);
    rig.proxy.set_probe(&pod(app.address), Some(by_traffic_port()));
    assert_eq!(
        client.answer().await.status,
        200,
        "from the moment that it is known"
    );
}

#[tokio::test]
async fn the_pods_are_known_whose_specs_are_wanted() {
    let address = app::free_address();
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.endpoints("web", &[(address, "")]);
    let demand = rig.proxy.demand();
    assert!(demand.pods_wanted().is_empty(), "nobody waits for it");
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    demand.more_pods_wanted().await;
    assert!(demand.pods_wanted().contains(&pod(address)));
    let other = app::free_address();
    rig.endpoints("web", &[(address, "rs"), (other, "")]);
    demand.more_pods_wanted().await;
    common::until("the other is wanted", || {
        demand.pods_wanted().into_iter().eq([pod(other)])
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_listens_late_is_found_at_once() {
    let address = app::free_address();
    let (_rig, mut client) = waiting(address, Some(by_traffic_port())).await;
    assert!(client.is_silent(Duration::from_millis(300)).await);
    let app = app::serve_at(Some(address), |_| async { app::text("ok") }).await;
    let listening = Instant::now();
    assert_eq!(client.answer().await.status, 200);
    // 5 ms between tries; the rest is for a busy machine.
    assert!(
        listening.elapsed() < Duration::from_millis(500),
        "{:?}",
        listening.elapsed()
    );
    drop(app);
}

#[tokio::test]
async fn an_http_probe_has_to_pass() {
    let (ready, seen) = (
        Arc::new(AtomicUsize::new(503)),
        Arc::new(Mutex::new(String::new())),
    );
    let app = {
        let (ready, seen) = (Arc::clone(&ready), Arc::clone(&seen));
        app::serve(move |request: Request<Incoming>| {
            let mut response = app::text("ok");
            if request.uri().path() == "/healthz" {
                let status = ready.load(Ordering::Relaxed) as u16;
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                *seen.lock().unwrap() = format!("{} {:?}", request.uri(), request.headers());
            }
            async { response }
        })
        .await
    };
    let (_rig, mut client) =
        waiting(app.address, ready_by(http(app.address.port(), "/healthz?full=1"))).await;
    assert!(client.is_silent(Duration::from_millis(200)).await);
    let probe = seen.lock().unwrap().clone();
    assert!(
        probe.starts_with("/healthz?full=1 ") && probe.contains("\"x-probe\": \"yes\""),
        "{probe}"
    );
    assert!(
        probe.contains(&format!("\"host\": \"{}\"", app.address)),
        "{probe}"
    );
    ready.store(302, Ordering::Relaxed);
    assert_eq!(
        client.answer().await.status,
        200,
        "a redirect is an answer, and is not followed"
    );
}

#[tokio::test]
async fn a_startup_probe_comes_first() {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let app = {
        let asked = Arc::clone(&asked);
        app::serve(move |request: Request<Incoming>| {
            asked.lock().unwrap().push(request.uri().path().to_owned());
            async { app::text("ok") }
        })
        .await
    };
    let port = app.address.port();
    let spec = ProbeSpec {
        startup: Some(http(port, "/started")),
        readiness: Some(http(port, "/ready")),
        ..by_traffic_port()
    };
    let (_rig, mut client) = waiting(app.address, Some(spec)).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(*asked.lock().unwrap(), ["/started", "/ready", "/"]);
}

#[tokio::test]
async fn an_initial_delay_is_waited_out() {
    let app = app::ok().await;
    let began = Instant::now();
    let delayed = Probe {
        delay: Duration::from_millis(400),
        ..http(app.address.port(), "/")
    };
    let (_rig, mut client) = waiting(app.address, ready_by(delayed)).await;
    assert_eq!(client.answer().await.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(400));
}

#[tokio::test]
async fn a_probe_of_another_port_is_not_enough() {
    let (management, address) = (app::ok().await, app::free_address());
    let (_rig, mut client) = waiting(address, ready_by(http(management.address.port(), "/"))).await;
    assert!(client.is_silent(Duration::from_millis(200)).await);
    assert!(management.connections() > 0);
    let app = app::serve_at(Some(address), |_| async { app::text("ok") }).await;
    assert_eq!(client.answer().await.status, 200);
    drop(app);
}

#[tokio::test]
async fn nobody_is_probed_while_nobody_waits() {
    let app = app::ok().await;
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.endpoints("web", &[(app.address, "")]);
    rig.proxy
        .set_probe(&pod(app.address), ready_by(http(app.address.port(), "/")));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(app.connections(), 0);
    // Nor once the one that waited has left.
    let gone = app::free_address();
    rig.endpoints("web", &[(gone, "")]);
    rig.proxy.set_probe(&pod(gone), Some(by_traffic_port()));
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    rig.until_load("web", 1, 0).await;
    drop(client);
    rig.until_load("web", 0, 0).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let late = app::serve_at(Some(gone), |_| async { app::text("ok") }).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(late.connections(), 0);
    assert_eq!(
        get(rig.address(), "/").await.status,
        200,
        "who comes then sets the probe to work again"
    );
}

#[tokio::test]
async fn many_requests_are_one_prober() {
    let probes = Arc::new(AtomicUsize::new(0));
    let app = {
        let probes = Arc::clone(&probes);
        app::serve(move |request: Request<Incoming>| {
            let mut response = app::text("ok");
            if request.uri().path() == "/healthz" && probes.fetch_add(1, Ordering::Relaxed) < 20 {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            async { response }
        })
        .await
    };
    let began = Instant::now();
    let (rig, mut client) = waiting(app.address, ready_by(http(app.address.port(), "/healthz"))).await;
    let mut others = Vec::new();
    for _ in 0..50 {
        let mut other = Raw::connect(rig.address()).await;
        other.send(GET).await;
        others.push(other);
    }
    assert_eq!(client.answer().await.status, 200);
    for other in &mut others {
        assert_eq!(other.answer().await.status, 200);
    }
    assert!(
        began.elapsed() >= Duration::from_millis(200),
        "21 probes by one prober take 20 pauses"
    );
    assert_eq!(probes.load(Ordering::Relaxed), 21);
}

#[tokio::test]
async fn a_pod_that_was_ready_and_is_not_any_more_is_proved_anew() {
    let app = app::ok().await;
    let (rig, mut client) = waiting(app.address, Some(by_traffic_port())).await;
    assert_eq!(client.answer().await.status, 200);
    rig.ready("web", &[app.address]);
    // The slice takes it back, and the operator has no spec for us: what we once found counts no longer.
    rig.proxy.set_probe(&pod(app.address), None);
    rig.endpoints("web", &[(app.address, "")]);
    client.send(GET).await;
    rig.until_load("web", 1, 0).await;
    assert!(client.is_silent(Duration::from_millis(100)).await);
}

#[tokio::test]
async fn a_container_that_starts_anew_has_to_pass_its_probe_although_it_was_ready() {
    let address = app::free_address();
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.ready("web", &[address]);
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    // Called ready, it refused: a connection to its traffic port is all that is asked of it until its slice knows.
    rig.until_load("web", 1, 0).await;
    let probe = ready_by(http(address.port(), "/healthz"));
    rig.proxy.set_probe(&pod(address), probe);
    rig.endpoints("web", &[(address, "")]);
    let healthy = Arc::new(AtomicBool::new(false));
    let health = Arc::clone(&healthy);
    let _app = app::serve_at(Some(address), move |request: Request<Incoming>| {
        let mut response = app::text("ok");
        if request.uri().path() == "/healthz" && !health.load(Ordering::Relaxed) {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        async { response }
    })
    .await;
    assert!(client.is_silent(Duration::from_millis(200)).await);
    healthy.store(true, Ordering::Relaxed);
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn a_terminating_pod_is_not_probed() {
    let app = app::ok().await;
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.endpoints("web", &[(app.address, "t")]);
    rig.proxy.set_probe(&pod(app.address), Some(by_traffic_port()));
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    rig.until_load("web", 1, 0).await;
    assert!(client.is_silent(Duration::from_millis(100)).await);
    assert_eq!(app.connections(), 0);
}

/// Whoever may write slices may write any address into them, under the name of a pod of his own.
#[tokio::test]
async fn an_address_that_the_pod_does_not_own_is_not_probed() {
    let app = app::ok().await;
    let elsewhere = ProbeSpec {
        addresses: vec!["10.0.0.1".parse().unwrap()],
        ..ProbeSpec::default()
    };
    let (rig, mut client) = waiting(app.address, Some(elsewhere)).await;
    assert!(client.is_silent(Duration::from_millis(100)).await);
    rig.proxy.set_probe(&pod(app.address), Some(ProbeSpec::default()));
    assert!(client.is_silent(Duration::from_millis(100)).await);
    assert_eq!(app.connections(), 0);
    rig.proxy.set_probe(&pod(app.address), Some(by_traffic_port()));
    assert_eq!(client.answer().await.status, 200);
}
