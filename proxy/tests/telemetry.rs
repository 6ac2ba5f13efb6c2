//! What is counted and written down of requests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is test code"
)]

mod common;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::raw::{Raw, get};
use common::{PATIENCE, Rig, app, key, settings, target, until};
use dormouse_core::routes::settings::Timeout;
use dormouse_proxy::{AccessLog, HoldEnd, RequestTrace, TraceSink};

const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

/// Method, code and count of each series of a route.
fn requests(rig: &Rig, route: Option<&str>) -> Vec<(&'static str, String, u64)> {
    let stats = rig.proxy.stats();
    let of_route = stats
        .requests
        .iter()
        .filter(|requests| requests.route == route.map(key));
    let mut seen: Vec<_> = of_route
        .map(|requests| {
            (
                requests.method,
                requests.status.to_string(),
                requests.took.count(),
            )
        })
        .collect();
    seen.sort();
    seen
}

fn held(rig: &Rig, end: HoldEnd) -> (u64, Duration) {
    let stats = rig.proxy.stats();
    let holds = stats.holds.iter().filter(|holds| holds.end == end);
    holds.fold((0, Duration::ZERO), |(count, sum), holds| {
        (count + holds.took.count(), sum + holds.took.sum())
    })
}

#[tokio::test]
async fn requests_are_counted_by_method_and_code_when_they_are_done() {
    let app = app::ok().await;
    let rig = Rig::serving(app.address);
    for _ in 0..3 {
        assert_eq!(get(rig.address(), "/").await.status, 200);
    }
    let mut client = Raw::connect(rig.address()).await;
    client
        .send("BREW / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n")
        .await;
    client.answer().await;
    let expected = [("GET", "200".to_owned(), 3), ("_OTHER", "200".to_owned(), 1)];
    until("all are counted", || requests(&rig, Some("web")) == expected).await;
    assert_eq!(requests(&rig, Some("web")), expected, "to look changes nothing");
    rig.routes([]);
    assert_eq!(get(rig.address(), "/").await.status, 404);
    until("it belongs to no route", || {
        requests(&rig, None) == [("GET", "404".to_owned(), 1)]
    })
    .await;
    assert_eq!(requests(&rig, Some("web")), [], "gone with the route");
}

#[tokio::test]
async fn a_client_that_leaves_is_499_and_not_a_failure_of_the_application() {
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.asleep("web");
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    rig.until_load("web", 1, 0).await;
    drop(client);
    until("it is counted", || {
        requests(&rig, Some("web")) == [("GET", "499".to_owned(), 1)]
    })
    .await;
    assert_eq!(held(&rig, HoldEnd::Left).0, 1);
}

#[tokio::test]
async fn a_grpc_call_that_fails_is_counted_by_what_it_stands_for() {
    let rig = Rig::new();
    let mut route = settings("web");
    route.timeouts.readiness = Timeout::After(Duration::from_millis(50));
    rig.routes([route]);
    rig.asleep("web");
    let mut client = Raw::connect(rig.address()).await;
    client
        .send("POST / HTTP/1.1\r\nHost: web\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n")
        .await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, answer.header("grpc-status").as_deref()),
        (200, Some("4"))
    );
    until("it is counted", || {
        requests(&rig, Some("web")) == [("POST", "504".to_owned(), 1)]
    })
    .await;
    let (count, sum) = held(&rig, HoldEnd::Timeout);
    assert!(count == 1 && sum >= Duration::from_millis(45), "{count} {sum:?}");
}

#[tokio::test]
async fn a_cold_start_shows_how_long_it_held_and_how_soon_the_first_byte_came() {
    let app = app::serve(|_| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        app::text("ok")
    })
    .await;
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.asleep("web");
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    rig.until_load("web", 1, 0).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    rig.ready("web", &[app.address]);
    assert_eq!(client.answer().await.status, 200);
    let (count, sum) = held(&rig, HoldEnd::Endpoint);
    assert!(count == 1 && sum >= Duration::from_millis(100), "{count} {sum:?}");
    client.send(GET).await;
    assert_eq!(client.answer().await.status, 200);
    let stats = rig.proxy.stats();
    let [first] = stats.first_bytes.as_slice() else {
        panic!("{:?}", stats.first_bytes)
    };
    assert_eq!(first.took.count(), 1, "the second answer is not the first");
    let range = Duration::from_millis(50)..sum + PATIENCE;
    assert!(range.contains(&first.took.sum()), "{:?}", first.took.sum());
    assert_eq!(held(&rig, HoldEnd::Endpoint).0, 1, "a warm request is not held");
}

#[tokio::test]
async fn what_a_fallback_serves_is_no_load_of_the_route() {
    let (sorry, go) = app::patient("sorry").await;
    let rig = Rig::new();
    let mut route = settings("web");
    route.timeouts.readiness = Timeout::After(Duration::from_millis(50));
    route.cold_start.fallback = Some(target("sorry"));
    rig.routes([route]);
    rig.asleep("web");
    rig.ready("sorry", &[sorry.address]);
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    rig.until_load("web", 1, 0).await;
    until("the fallback has it", || sorry.connections() == 1).await;
    rig.until_load("web", 0, 0).await;
    let found = rig.proxy.hold(&key("web"), Duration::ZERO).unwrap();
    assert_eq!(found.in_flight, 0, "it keeps no pod from going to sleep");
    go.send(true).unwrap();
    assert_eq!(client.answer().await.text(), "sorry");
    rig.until_load("web", 0, 0).await;
    assert_eq!((rig.load("web").2, held(&rig, HoldEnd::Fallback).0), (1, 1));
}

#[tokio::test]
async fn a_fallback_that_takes_no_connection_leaves_the_request_waiting_and_counted() {
    let app = app::ok().await;
    let rig = Rig::new();
    let mut route = settings("web");
    route.timeouts.readiness = Timeout::After(Duration::from_millis(50));
    route.cold_start.fallback = Some(target("sorry"));
    rig.routes([route]);
    rig.asleep("web");
    rig.ready("sorry", &[app::free_address()]);
    assert_eq!(get(rig.address(), "/").await.status, 502);
    rig.until_load("web", 0, 0).await;
    rig.ready("web", &[app.address]);
    assert_eq!(get(rig.address(), "/").await.status, 200);
    rig.until_load("web", 0, 0).await;
}

/// A log that can be read.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Paper {
    async fn lines(&self, count: usize) -> Vec<serde_json::Value> {
        let read = || self.0.lock().unwrap().clone();
        until(&format!("{count} lines"), || {
            read().iter().filter(|byte| **byte == b'\n').count() >= count
        })
        .await;
        let text = String::from_utf8(read()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

#[tokio::test]
async fn the_access_log_has_a_line_for_each_request_and_no_query() {
    let app = app::ok().await;
    let paper = Paper::default();
    let rig = Rig::with(|config| config.access_log = Some(AccessLog::to(paper.clone()).unwrap()));
    rig.routes([settings("web")]);
    rig.ready("web", &[app.address]);
    let mut client = Raw::connect(rig.address()).await;
    client
        .send(
            "GET /a?token=secret HTTP/1.1\r\nHost: web\r\nUser-Agent: tester\r\n\
             traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
        )
        .await;
    assert_eq!(client.answer().await.status, 200);
    let lines = paper.lines(1).await;
    let line = &lines[0];
    for (name, value) in [
        ("method", "GET".into()),
        ("host", "web".into()),
        ("path", "/a".into()),
        ("protocol", "HTTP/1.1".into()),
        ("status", 200.into()),
        ("bytes", 2.into()),
        ("held", 0.0.into()),
        ("route", "shop/web".into()),
        ("endpoint", app.address.to_string().into()),
        ("failure", serde_json::Value::Null),
        ("user_agent", "tester".into()),
        ("trace", "0af7651916cd43dd8448eb211c80319c".into()),
    ] {
        assert_eq!(line[name], value, "{name} in {line}");
    }
    assert!(!line.to_string().contains("secret"));
    rig.routes([]);
    client.send(GET).await;
    client.answer().await;
    let line = &paper.lines(2).await[1];
    assert_eq!(
        (&line["status"], &line["route"]),
        (&404.into(), &serde_json::Value::Null)
    );
    assert!(line["failure"].as_str().unwrap().contains("no route"), "{line}");
}

/// A rig whose traces can be read.
fn traced() -> (Rig, Arc<Mutex<Vec<RequestTrace>>>) {
    let traces: Arc<Mutex<Vec<RequestTrace>>> = Arc::default();
    let told = Arc::clone(&traces);
    let rig = Rig::with(|config| {
        config.traces = Some(TraceSink::new(move |trace| told.lock().unwrap().push(trace)));
    });
    rig.routes([settings("web")]);
    (rig, traces)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_trace_goes_on_at_the_endpoint_with_the_hold_as_a_span() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let app = app::mirror().await;
    let (rig, traces) = traced();
    rig.asleep("web");
    let mut client = Raw::connect(rig.address()).await;
    client
        .send(format!(
            "GET /a?token=secret HTTP/1.1\r\nHost: web\r\ntraceparent: 00-{TRACE}-b7ad6b7169203331-01\r\ntracestate: a=b\r\n\r\n"
        ))
        .await;
    rig.until_load("web", 1, 0).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    rig.ready("web", &[app.address]);
    let answer = client.answer().await;
    until("it is told", || traces.lock().unwrap().len() == 1).await;
    let trace = traces.lock().unwrap()[0].clone();
    assert_eq!(
        (hex(&trace.trace_id), trace.parent.map(|id| hex(&id)).as_deref()),
        (TRACE.to_owned(), Some("b7ad6b7169203331"))
    );
    let upstream = trace.upstream.unwrap();
    let expected = format!("traceparent: 00-{TRACE}-{}-01\n", hex(&upstream.span));
    assert!(answer.text().contains(&expected), "{}", answer.text());
    assert!(answer.text().contains("tracestate: a=b\n"), "{}", answer.text());
    assert_eq!((upstream.endpoint, upstream.attempts), (app.address, 1));
    let [hold] = trace.holds.as_slice() else {
        panic!("{:?}", trace.holds)
    };
    let long = hold.time.ended.duration_since(hold.time.began).unwrap();
    assert!(long >= Duration::from_millis(50), "{long:?}");
    assert!(trace.time.began <= hold.time.began && hold.time.ended <= upstream.time.ended);
    assert_eq!(
        (trace.path.as_str(), trace.status, trace.route),
        ("/a", 200, Some(key("web")))
    );
}

#[tokio::test]
async fn who_begins_no_trace_gets_one_and_who_wants_none_gets_none() {
    let app = app::mirror().await;
    let (rig, traces) = traced();
    rig.ready("web", &[app.address]);
    for bad in ["", "traceparent: 00-xyz-1-01\r\n"] {
        let mut client = Raw::connect(rig.address()).await;
        client
            .send(format!("GET / HTTP/1.1\r\nHost: web\r\n{bad}\r\n"))
            .await;
        client.answer().await;
    }
    until("both are told", || traces.lock().unwrap().len() == 2).await;
    {
        let traces = traces.lock().unwrap();
        assert!(
            traces
                .iter()
                .all(|trace| trace.parent.is_none() && trace.holds.is_empty())
        );
        assert_ne!(traces[0].trace_id, traces[1].trace_id);
    }
    let unsampled = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let mut client = Raw::connect(rig.address()).await;
    client
        .send(format!("GET / HTTP/1.1\r\nHost: web\r\n{unsampled}\r\n\r\n"))
        .await;
    assert!(
        client.answer().await.text().contains(unsampled),
        "passed on as it came"
    );
    drop(client);
    rig.until_load("web", 0, 0).await;
    assert_eq!(traces.lock().unwrap().len(), 2);
}
