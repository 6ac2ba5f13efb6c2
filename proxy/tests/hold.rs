//! Requests that wait for an endpoint.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is test code"
)]

mod common;
#[path = "hold/endpoints.rs"]
mod endpoints;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::raw::{Raw, get};
use common::{Rig, app, by_traffic_port, key, pod, settings, target, until};
use dormouse_core::endpoints::{Conditions, Endpoint, EndpointSet};
use dormouse_core::routes::settings::{
    ConfigMapBody, Overflow, ResponseBody, ResponseMode, StaticResponse, StaticRoute, Timeout,
};
use dormouse_core::routes::{HostPattern, PathPrefix, Rule};
use dormouse_proxy::{Held, HoldOutcome, NoWake, Protocol};
use tokio::task::JoinSet;

const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

fn asleep() -> Rig {
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.asleep("web");
    rig
}

fn page(text: &str) -> StaticResponse {
    StaticResponse {
        status: 503,
        body: ResponseBody::Text(text.into()),
        headers: vec![
            ("content-type".into(), "text/html".into()),
            ("refresh".into(), "5".into()),
        ],
    }
}

#[tokio::test]
async fn a_request_waits_until_there_is_an_endpoint() {
    let app = app::ok().await;
    let rig = asleep();
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    rig.until_load("web", 1, 0).await;
    assert!(client.is_silent(Duration::from_millis(100)).await);
    rig.ready("web", &[app.address]);
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, answer.header("x-keda-http-cold-start").as_deref()),
        (200, Some("true"))
    );
    rig.until_load("web", 0, 0).await;
    assert_eq!(rig.load("web").2, 1, "it is one request, whatever happened to it");
}

#[tokio::test]
async fn nothing_said_about_endpoints_is_not_none() {
    let app = app::ok().await;
    let rig = Rig::new();
    rig.routes([settings("web")]);
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    rig.until_load("web", 1, 0).await;
    rig.ready("web", &[app.address]);
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn a_first_request_that_waits_is_an_edge() {
    let rig = asleep();
    let demand = rig.proxy.demand();
    let edge = |long: u64| tokio::time::timeout(Duration::from_millis(long), demand.edge());
    assert!(edge(50).await.is_err());
    let mut first = Raw::connect(rig.address()).await;
    first.send(GET).await;
    assert!(edge(20_000).await.is_ok());
    let mut second = Raw::connect(rig.address()).await;
    second.send(GET).await;
    rig.until_load("web", 2, 0).await;
    assert!(edge(50).await.is_err(), "the second is none");
}

#[tokio::test]
async fn a_burst_is_answered_whole_and_never_more_than_the_pace_at_first() {
    let (began, mut at_once) = tokio::sync::watch::channel(0_usize);
    let (go, may_go) = tokio::sync::watch::channel(false);
    let app = app::serve(move |_| {
        began.send_modify(|count| *count += 1);
        let mut may_go = may_go.clone();
        async move {
            may_go.wait_for(|go| *go).await.unwrap();
            app::text("ok")
        }
    })
    .await;
    let rig = asleep();
    let mut clients = JoinSet::new();
    for _ in 0..200 {
        let address = rig.address();
        clients.spawn(async move { get(address, "/").await.status });
    }
    rig.until_load("web", 200, 0).await;
    rig.ready("web", &[app.address]);
    at_once.wait_for(|count| *count == 10).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        *at_once.borrow(),
        10,
        "the route's target until the pod has answered"
    );
    go.send(true).unwrap();
    while let Some(status) = clients.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    rig.until_load("web", 0, 0).await;
}

#[tokio::test]
async fn answers_that_take_long_keep_nobody_waiting() {
    let (_go, may_go) = tokio::sync::watch::channel(false);
    let app = app::serve(move |request: http::Request<hyper::body::Incoming>| {
        let mut may_go = may_go.clone();
        async move {
            if request.uri().path() == "/long" {
                may_go.wait_for(|go| *go).await.ok();
            }
            app::text("ok")
        }
    })
    .await;
    let rig = Rig::new();
    let mut route = settings("web");
    route.scaling.concurrency = std::num::NonZeroU32::new(1);
    rig.routes([route]);
    rig.asleep("web");
    let mut first = Raw::connect(rig.address()).await;
    first.send(GET).await;
    rig.until_load("web", 1, 0).await;
    let mut long = Vec::new();
    for _ in 0..5 {
        let mut client = Raw::connect(rig.address()).await;
        client.send("GET /long HTTP/1.1\r\nHost: web\r\n\r\n").await;
        long.push(client);
    }
    rig.until_load("web", 6, 0).await;
    rig.ready("web", &[app.address]);
    assert_eq!(first.answer().await.status, 200);
    rig.until_load("web", 0, 5).await;
    assert_eq!(get(rig.address(), "/").await.status, 200);
}

#[tokio::test]
async fn beyond_the_bound_of_a_route_there_is_503_and_when_to_come_back() {
    let rig = Rig::new();
    let mut route = settings("web");
    route.cold_start.max_pending = Some(2);
    rig.routes([route, settings("other")]);
    rig.asleep("web");
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = Raw::connect(rig.address()).await;
        client.send(GET).await;
        held.push(client);
    }
    rig.until_load("web", 2, 0).await;
    let answer = get(rig.address(), "/").await;
    assert_eq!(
        (answer.status, answer.header("retry-after").as_deref()),
        (503, Some("1"))
    );
    assert_eq!(rig.load("web"), (2, 0, 3));
    // One that leaves makes room.
    held.pop();
    rig.until_load("web", 1, 0).await;
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    rig.until_load("web", 2, 0).await;
}

#[tokio::test]
async fn there_is_a_bound_for_all_routes() {
    let rig = Rig::with(|config| config.bounds.pending = 1);
    rig.routes([settings("web"), settings("other")]);
    let mut client = Raw::connect(rig.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: other\r\n\r\n").await;
    rig.until_load("other", 1, 0).await;
    assert_eq!(get(rig.address(), "/").await.status, 503);
    assert_eq!(rig.load("web").0, 0);
}

#[tokio::test]
async fn a_placeholder_is_given_at_once_and_counts_for_a_while() {
    let app = app::ok().await;
    let rig = Rig::new();
    let mut route = settings("web");
    route.cold_start.placeholder = Some(Box::new(page("starting")));
    rig.routes([route]);
    rig.asleep("web");
    let answer = get(rig.address(), "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "starting"));
    assert_eq!(answer.header("refresh").as_deref(), Some("5"));
    assert_eq!(answer.header("content-type").as_deref(), Some("text/html"));
    assert_eq!(answer.header("x-keda-http-cold-start"), None);
    assert_eq!(rig.load("web"), (1, 0, 1), "its client will come back");
    rig.proxy.demand().edge().await;
    rig.ready("web", &[app.address]);
    assert_eq!(get(rig.address(), "/").await.text(), "ok");
}

#[tokio::test]
async fn a_placeholder_for_what_overflows() {
    let rig = Rig::new();
    let mut route = settings("web");
    route.cold_start.placeholder = Some(Box::new(page("full")));
    route.cold_start.max_pending = Some(1);
    route.cold_start.overflow = Overflow::Placeholder;
    rig.routes([route]);
    rig.asleep("web");
    let mut held = Raw::connect(rig.address()).await;
    held.send(GET).await;
    rig.until_load("web", 1, 0).await;
    assert_eq!(get(rig.address(), "/").await.text(), "full");
    assert!(held.is_silent(Duration::from_millis(50)).await);
}

#[tokio::test]
async fn who_waited_in_vain_gets_504_or_the_fallback() {
    let sorry = app::serve(|_| async { app::text("sorry") }).await;
    let rig = Rig::new();
    let mut route = settings("web");
    route.timeouts.readiness = Timeout::After(Duration::from_millis(100));
    rig.routes([route.clone()]);
    rig.asleep("web");
    assert_eq!(get(rig.address(), "/").await.status, 504);
    route.cold_start.fallback = Some(target("sorry"));
    rig.routes([route]);
    assert_eq!(
        get(rig.address(), "/").await.status,
        504,
        "the fallback sleeps too"
    );
    rig.ready("sorry", &[sorry.address]);
    let answer = get(rig.address(), "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "sorry"));
    assert_eq!(answer.header("x-keda-http-cold-start"), None);
    assert_eq!(rig.load("web"), (0, 0, 3));
}

#[tokio::test]
async fn nobody_waits_longer_than_the_longest_hold() {
    let rig = Rig::with(|config| config.timeouts.max_hold = Duration::from_millis(100));
    let mut route = settings("web");
    route.timeouts.readiness = Timeout::None;
    rig.routes([route]);
    rig.asleep("web");
    assert_eq!(get(rig.address(), "/").await.status, 504);
}

#[tokio::test]
async fn the_time_of_a_request_covers_its_wait() {
    let rig = Rig::with(|config| config.timeouts.request = Some(Duration::from_millis(100)));
    rig.routes([settings("web")]);
    rig.asleep("web");
    assert_eq!(get(rig.address(), "/").await.status, 504);
}

#[tokio::test]
async fn a_route_that_goes_lets_go() {
    let rig = asleep();
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    rig.until_load("web", 1, 0).await;
    rig.routes([settings("web")]);
    assert!(
        client.is_silent(Duration::from_millis(50)).await,
        "an unchanged route changes nothing"
    );
    rig.routes([]);
    assert_eq!(client.answer().await.status, 503);
}

#[tokio::test]
async fn a_route_that_comes_back_still_has_what_is_under_way() {
    let (app, go) = app::patient("late").await;
    let rig = Rig::serving(app.address);
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    rig.until_load("web", 0, 1).await;
    rig.routes([]);
    rig.routes([settings("web")]);
    rig.ready("web", &[app.address]);
    assert_eq!(rig.load("web"), (0, 1, 1));
    go.send_replace(true);
    assert_eq!(client.answer().await.text(), "late");
    rig.until_load("web", 0, 0).await;
    client.send(GET).await;
    assert_eq!(client.answer().await.text(), "late", "and its gate is open");
}

#[tokio::test]
async fn a_route_that_changes_its_target_takes_its_waiters_along() {
    let app = app::ok().await;
    let rig = asleep();
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    rig.until_load("web", 1, 0).await;
    rig.ready("new", &[app.address]);
    let mut route = settings("web");
    route.target = target("new");
    rig.routes([route]);
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn the_new_target_of_a_route_is_probed_and_spoken_to_as_it_wants() {
    let app = app::serve_h2c(|_| async { app::text("ok") }).await;
    let rig = asleep();
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    rig.until_load("web", 1, 0).await;
    rig.endpoints_of("new", &[(app.address, "")], Protocol::H2c);
    rig.proxy.set_probe(&pod(app.address), Some(by_traffic_port()));
    let mut route = settings("web");
    route.target = target("new");
    rig.routes([route]);
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn a_client_that_left_counts_no_longer() {
    let whole = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello";
    let cases = [
        ("a GET", GET),
        ("a short body, whole", whole),
        (
            "a short body, half",
            "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhe",
        ),
        (
            "chunked, whole",
            "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        ),
        (
            "chunked, half",
            "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nh",
        ),
        (
            "Expect",
            "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        ),
        (
            "pipelined",
            "GET / HTTP/1.1\r\nHost: web\r\n\r\nGET / HTTP/1.1\r\nHost: web\r\n\r\n",
        ),
    ];
    for (what, bytes) in cases {
        for reset in [false, true] {
            let rig = asleep();
            let mut client = Raw::connect(rig.address()).await;
            client.send(bytes).await;
            rig.until_load("web", 1, 0).await;
            // A little later, so that the FIN comes by itself.
            tokio::time::sleep(Duration::from_millis(20)).await;
            if reset {
                socket2::SockRef::from(&client.stream)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
            }
            drop(client);
            until(&format!("{what}, reset: {reset}"), || rig.load("web").0 == 0).await;
        }
    }
}

#[tokio::test]
async fn a_body_waits_with_its_request() {
    let app = app::echo().await;
    let rig = asleep();
    let mut client = Raw::connect(rig.address()).await;
    client
        .send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 10\r\n\r\nhello")
        .await;
    rig.until_load("web", 1, 0).await;
    rig.ready("web", &[app.address]);
    assert_eq!(client.answer_head().await.unwrap().status, 200);
    client.send("world").await;
    let mut body = [0; 10];
    client.read_exactly(&mut body).await;
    assert_eq!(&body, b"helloworld");
}

#[tokio::test]
async fn static_routes_answer_and_count_nothing() {
    let app = app::ok().await;
    let rig = Rig::new();
    let to = |path: &str, mode, body| StaticRoute {
        rules: vec![Rule::new(
            vec![HostPattern::Any],
            vec![PathPrefix::new(path)],
            vec![],
        )],
        response: StaticResponse {
            status: 200,
            body,
            headers: Vec::new(),
        },
        mode,
    };
    let mut route = settings("web");
    route.static_routes = vec![
        to(
            "/health",
            ResponseMode::WhenUnavailable,
            ResponseBody::Text("asleep".into()),
        ),
        to(
            "/robots.txt",
            ResponseMode::Always,
            ResponseBody::Text("none".into()),
        ),
        to(
            "/page",
            ResponseMode::Always,
            ResponseBody::ConfigMap(ConfigMapBody {
                name: "pages".into(),
                key: Some("a.html".into()),
            }),
        ),
        to(
            "/",
            ResponseMode::WhenUnavailable,
            ResponseBody::ConfigMap(ConfigMapBody {
                name: "pages".into(),
                key: None,
            }),
        ),
    ];
    rig.routes([route]);
    rig.asleep("web");
    let answer = |path| get(rig.address(), path);
    assert_eq!(answer("/health/x").await.text(), "asleep");
    assert_eq!(answer("/robots.txt").await.text(), "none");
    assert_eq!(answer("/page").await.status, 500, "there is no such ConfigMap");
    let values = BTreeMap::from([
        ("a.html".to_owned(), Bytes::from_static(b"<p>")),
        ("index.html".to_owned(), Bytes::from_static(b"<i>")),
    ]);
    rig.proxy.set_page("shop", "pages", Some(values));
    assert_eq!(
        answer("/page").await.header("content-type").as_deref(),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(answer("/").await.text(), "<i>");
    let absent = answer("/absent.css").await;
    assert_eq!((absent.status, absent.text().as_str()), (200, ""));
    rig.ready("web", &[app.address]);
    assert_eq!(answer("/health").await.text(), "ok");
    assert_eq!(answer("/robots.txt").await.text(), "none");
    assert_eq!(rig.load("web"), (0, 0, 0));
}

#[tokio::test]
async fn a_504_says_what_keeps_the_application_from_starting() {
    let rig = Rig::new();
    let mut route = settings("web");
    route.timeouts.readiness = Timeout::After(Duration::from_millis(50));
    rig.routes([route]);
    rig.asleep("web");
    let says = async || get(rig.address(), "/").await.text();
    assert_eq!(says().await, "the application did not start within 50ms\n");
    let obstacle = |what| {
        rig.proxy
            .set_obstacle(&key("web"), what, Duration::from_millis(300))
    };
    obstacle(Some("its image cannot be pulled"));
    let expected = "the application did not start within 50ms: its image cannot be pulled\n";
    assert_eq!(says().await, expected);
    obstacle(None);
    assert!(!says().await.contains("image"));
    obstacle(Some("its image cannot be pulled"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(
        !says().await.contains("image"),
        "what nobody says again is forgotten"
    );
}

#[tokio::test]
async fn requests_that_wake_nothing_go_on_where_it_is_awake_and_count_nowhere() {
    let app = app::ok().await;
    let rig = Rig::with(|config| {
        let agents = vec!["kube-probe/".to_owned(), "Checker".to_owned()];
        config.no_wake = NoWake::new(agents, vec![PathPrefix::new("/healthz")]);
    });
    let mut route = settings("web");
    route.cold_start.placeholder = Some(Box::new(page("starting")));
    rig.routes([route]);
    rig.asleep("web");
    let ask = async |path: &str, agent: &str| {
        let mut client = Raw::connect(rig.address()).await;
        client
            .send(format!(
                "GET {path} HTTP/1.1\r\nHost: web\r\nUser-Agent: {agent}\r\n\r\n"
            ))
            .await;
        let answer = client.answer().await;
        (
            answer.status,
            answer.text(),
            answer.header("retry-after").is_some(),
        )
    };
    for (path, agent) in [
        ("/", "kube-probe/1.36"),
        ("/", "checker"),
        ("/healthz", "curl"),
        ("/healthz/live", ""),
    ] {
        let (status, text, retry) = ask(path, agent).await;
        assert_eq!((status, retry), (503, true), "{path} {agent}: {text}");
        assert!(text.contains("does not wake it"), "{text}");
    }
    assert_eq!(rig.load("web"), (0, 0, 0));
    rig.ready("web", &[app.address]);
    assert_eq!(ask("/healthz", "").await.1, "ok");
    assert_eq!(rig.load("web"), (0, 0, 0));
    rig.asleep("web");
    assert_eq!(ask("/healthzz", "a kube-probe/").await.1, "starting");
    assert_eq!(rig.load("web").2, 1, "what only looks like one counts");
}

#[tokio::test]
async fn an_idle_connection_beyond_the_bound_is_not_kept() {
    let app = app::ok().await;
    let rig = Rig::with(|config| {
        config.threads = std::num::NonZeroUsize::MIN;
        config.bounds.idle_per_endpoint = 0;
    });
    rig.routes([settings("web")]);
    rig.ready("web", &[app.address]);
    for _ in 0..3 {
        assert_eq!(get(rig.address(), "/").await.status, 200);
    }
    assert_eq!(app.connections(), 3);
}
