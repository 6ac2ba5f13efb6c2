//! What is set for the whole process, seen from both ends of a request.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is test code"
)]

mod common;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::raw::{Raw, get};
use common::{Rig, app, settings, until};
use dormouse_core::routes::settings::{Timeout, Timeouts};
use dormouse_proxy::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What the application hears of a request that says that it comes from elsewhere.
async fn heard(change: impl FnOnce(&mut Config)) -> String {
    let app = app::mirror().await;
    let rig = Rig::with(change);
    rig.routes([settings("web")]);
    rig.ready("web", &[app.address]);
    let mut client = Raw::connect(rig.address()).await;
    client
        .send("GET / HTTP/1.1\r\nHost: web\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\n\r\n")
        .await;
    client.answer().await.text()
}

#[tokio::test]
async fn only_proxies_that_are_trusted_say_where_a_request_came_from() {
    let theirs = "x-forwarded-for: 9.9.9.9, 127.0.0.1\nx-forwarded-proto: https\nx-forwarded-host: web\n";
    let ours = "x-forwarded-for: 127.0.0.1\nx-forwarded-host: web\nx-forwarded-proto: http\n";
    let of = |networks: &'static [&str]| {
        move |config: &mut Config| {
            config.trusted_proxies = Some(networks.iter().map(|network| network.parse().unwrap()).collect());
        }
    };
    let sorted = |lines: &str| {
        let mut lines: Vec<String> = lines
            .lines()
            .filter(|line| line.starts_with("x-forwarded"))
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&heard(|_| {}).await), sorted(theirs), "by default all are");
    assert_eq!(sorted(&heard(of(&["127.0.0.0/8"])).await), sorted(theirs));
    assert_eq!(sorted(&heard(of(&["10.0.0.0/8", "::1/128"])).await), sorted(ours));
    assert_eq!(sorted(&heard(of(&[])).await), sorted(ours));
}

#[tokio::test]
async fn the_times_of_a_route_go_before_those_of_the_process() {
    let hangs = app::serve(|_| std::future::pending()).await;
    let slow = app::serve(|_| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        app::text("ok")
    })
    .await;
    type Change = fn(&mut Timeouts, Timeout);
    let kinds: [Change; 2] = [
        |timeouts, own| timeouts.request = own,
        |timeouts, own| timeouts.response_header = own,
    ];
    for (kind, change) in kinds.into_iter().enumerate() {
        for (own, app, status) in [
            (Timeout::After(Duration::from_millis(100)), hangs.address, 504),
            (Timeout::None, slow.address, 200),
        ] {
            // What the route says nothing of would end the second and not the first.
            let rig = Rig::with(|config| {
                let short = Some(Duration::from_millis(100)).filter(|_| own == Timeout::None);
                (config.timeouts.request, config.timeouts.response_header) = match kind {
                    0 => (short, None),
                    _ => (None, short),
                };
            });
            let mut route = settings("web");
            change(&mut route.timeouts, own);
            rig.routes([route]);
            rig.ready("web", &[app]);
            assert_eq!(get(rig.address(), "/").await.status, status, "{kind} {own:?}");
        }
    }
}

#[tokio::test]
async fn what_fails_after_a_cold_start_says_so_too() {
    let app = common::raw::Recorder::start(b"220 smtp.example ESMTP\r\n").await;
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.asleep("web");
    let mut client = Raw::connect(rig.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    rig.until_load("web", 1, 0).await;
    rig.ready("web", &[app.address]);
    let answer = client.answer().await;
    let said = answer.header("x-keda-http-cold-start");
    assert_eq!((answer.status, said.as_deref()), (502, Some("true")));
    let answer = get(rig.address(), "/").await;
    let said = answer.header("x-keda-http-cold-start");
    assert_eq!((answer.status, said.as_deref()), (502, Some("false")));
}

#[tokio::test]
async fn a_cold_start_is_only_told_of_where_that_is_wanted() {
    for wanted in [true, false] {
        let app = app::ok().await;
        let rig = Rig::with(|config| config.cold_start_header = wanted);
        rig.routes([settings("web")]);
        rig.ready("web", &[app.address]);
        let answer = get(rig.address(), "/").await;
        let said = answer.header("x-keda-http-cold-start");
        assert_eq!(said.as_deref(), wanted.then_some("false"));
    }
}

#[tokio::test]
async fn idle_connections_to_a_pod_that_leaves_are_closed() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let open = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&open);
    let _serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let open = Arc::clone(&counter);
            open.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut seen = [0; 1024];
                while let Ok(1..) = stream.read(&mut seen).await {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                    stream.write_all(answer).await.unwrap();
                }
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    let staying = app::ok().await;
    let rig = Rig::serving(address);
    assert_eq!(get(rig.address(), "/").await.status, 200);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(open.load(Ordering::SeqCst), 1, "it is kept");
    rig.endpoints("web", &[(address, "st"), (staying.address, "rs")]);
    until("it is closed", || open.load(Ordering::SeqCst) == 0).await;
}
