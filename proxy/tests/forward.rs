//! Requests on their way to an endpoint that is there, and answers on their way back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is test code"
)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::app::{self, text};
use common::raw::{Raw, get};
use common::{Rig, settings};
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};

#[tokio::test]
async fn a_request_goes_to_the_endpoint_and_the_answer_back() {
    let app = app::mirror().await;
    let rig = Rig::serving(app.address);
    let mut client = Raw::connect(rig.address()).await;
    let port = client.stream.local_addr().unwrap().ip();
    client
        .send("POST /a%20b/../c?d=%2e HTTP/1.1\r\nHost: Shop.example:81\r\nContent-Length: 5\r\nX-Two: 1\r\nX-Two: 2\r\nConnection: x-mine\r\nX-Mine: secret\r\n\r\nhello")
        .await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 200);
    let expected = format!(
        "POST /a%20b/../c?d=%2e HTTP/1.1\nhost: Shop.example:81\ncontent-length: 5\nx-two: 1\nx-two: 2\nx-forwarded-for: {port}\nx-forwarded-host: Shop.example:81\nx-forwarded-proto: http\n\nhello"
    );
    assert_eq!(answer.text(), expected);
    assert_eq!(answer.header("x-keda-http-cold-start").as_deref(), Some("false"));
    rig.until_load("web", 0, 0).await;
    assert_eq!(rig.load("web").2, 1);
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let app = app::ok().await;
    let rig = Rig::serving(app.address);
    let mut client = Raw::connect(rig.address()).await;
    for _ in 0..20 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "ok");
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let app = app::mirror().await;
    let rig = Rig::serving(app.address);
    let mut client = Raw::connect(rig.address()).await;
    let requests: String = (0..10)
        .map(|number| format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    client.send(requests).await;
    for number in 0..10 {
        assert!(
            client
                .answer()
                .await
                .text()
                .starts_with(&format!("GET /{number} "))
        );
    }
}

#[tokio::test]
async fn without_a_route_there_is_404() {
    let rig = Rig::new();
    assert_eq!(get(rig.address(), "/").await.status, 404);
    rig.routes([settings("other")]);
    assert_eq!(get(rig.address(), "/").await.status, 404);
    assert_eq!(rig.load("other"), (0, 0, 0));
}

#[tokio::test]
async fn a_missing_service_is_500() {
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.proxy
        .set_endpoints(&common::target("web"), None, dormouse_proxy::Protocol::Http1);
    assert_eq!(get(rig.address(), "/").await.status, 500);
}

#[tokio::test]
async fn bodies_are_streamed_both_ways_at_once() {
    let app = app::echo().await;
    let rig = Rig::serving(app.address);
    let mut client = Raw::connect(rig.address()).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    client.send("3\r\none\r\n").await;
    assert_eq!(client.answer_head().await.unwrap().status, 200);
    for word in ["one", "two", "six"] {
        if word != "one" {
            client.send(format!("3\r\n{word}\r\n")).await;
        }
        // The piece comes back while the request goes on.
        let mut piece = vec![0; 8];
        tokio::time::timeout(common::PATIENCE, client.read_exactly(&mut piece))
            .await
            .unwrap();
        assert_eq!(piece, format!("3\r\n{word}\r\n").into_bytes());
        rig.until_load("web", 0, 1).await;
    }
    client.send("0\r\n\r\n").await;
    rig.until_load("web", 0, 0).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_endpoint() {
    let (sent, mut produced) = tokio::sync::watch::channel(0_usize);
    let app = app::serve(move |_| {
        let sent = sent.clone();
        async move {
            let pieces = futures::stream::unfold((), move |()| {
                sent.send_modify(|count| *count += 64 * 1024);
                async { Some((Ok(Frame::data(Bytes::from(vec![b'x'; 64 * 1024]))), ())) }
            });
            Response::new(BodyExt::boxed(StreamBody::new(pieces.take(4096))))
        }
    })
    .await;
    let rig = Rig::serving(app.address);
    let mut client = Raw::connect(rig.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer_head().await.unwrap().status, 200);
    // Socket buffers fill, then nothing more is produced.
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = *produced.borrow_and_update();
        if now == before {
            break;
        }
        before = now;
    }
    assert!(
        before < 64 * 1024 * 1024,
        "{before} bytes were taken from the endpoint for a client that reads nothing"
    );
    let rest = client.rest(Duration::from_secs(5)).await;
    assert!(
        rest.len() >= 4096 * 64 * 1024,
        "the rest comes once the client reads: {}",
        rest.len()
    );
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let app = app::serve(|_| async {
        let mut response = text("");
        response
            .headers_mut()
            .insert("content-length", HeaderValue::from_static("1234"));
        response
    })
    .await;
    let rig = Rig::serving(app.address);
    let mut client = Raw::connect(rig.address()).await;
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.try_answer_to("HEAD").await.unwrap();
        assert_eq!(answer.header("content-length").as_deref(), Some("1234"));
        assert_eq!(answer.header("transfer-encoding"), None);
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_usable() {
    let app = app::serve(|request: Request<Incoming>| async move {
        let mut response = text("");
        let status = request.uri().path().trim_start_matches('/').parse().unwrap();
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    })
    .await;
    let rig = Rig::serving(app.address);
    let mut client = Raw::connect(rig.address()).await;
    for status in [204, 304, 200, 503, 204] {
        client
            .send(format!("GET /{status} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        assert_eq!(client.answer().await.status, status);
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let app = app::serve(|request: Request<Incoming>| async move {
        let trailers = request
            .into_body()
            .collect()
            .await
            .unwrap()
            .trailers()
            .cloned()
            .unwrap_or_default();
        let seen = trailers
            .get("x-sum")
            .cloned()
            .unwrap_or(HeaderValue::from_static("none"));
        let back = HeaderMap::from_iter([(http::HeaderName::from_static("x-seen"), seen)]);
        let frames = [
            Ok(Frame::data(Bytes::from_static(b"body"))),
            Ok(Frame::trailers(back)),
        ];
        let mut response = Response::new(BodyExt::boxed(StreamBody::new(futures::stream::iter(frames))));
        response
            .headers_mut()
            .insert("trailer", HeaderValue::from_static("x-seen"));
        response
    })
    .await;
    let rig = Rig::serving(app.address);
    let mut client = Raw::connect(rig.address()).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 42\r\n\r\n")
        .await;
    let answer = client.answer().await;
    assert_eq!(answer.text(), "body");
    assert_eq!(answer.header("x-seen").as_deref(), Some("42"));
}

#[tokio::test]
async fn an_http_1_0_client_gets_its_answer_and_the_end() {
    let app = app::ok().await;
    let rig = Rig::serving(app.address);
    let mut client = Raw::connect(rig.address()).await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "ok");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn an_http_1_0_request_without_a_host_gets_one() {
    let app = app::mirror().await;
    let rig = Rig::serving(app.address);
    let seen = async |request: &str| {
        let mut client = Raw::connect(rig.address()).await;
        client.send(request).await;
        client.answer().await.text()
    };
    let given = seen("GET / HTTP/1.0\r\n\r\n").await;
    assert!(given.contains("\nhost: web.shop\n"), "{given}");
    assert!(
        !given.contains("x-forwarded-host"),
        "the client named none: {given}"
    );
    let own = seen("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert!(own.contains("\nhost: a\n"), "{own}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off() {
    let app = common::raw::Recorder::start(
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nhalf",
    )
    .await;
    let rig = Rig::with(|config| config.timeouts.request = Some(Duration::from_millis(500)));
    rig.routes([settings("web")]);
    rig.ready("web", &[app.address]);
    let mut client = Raw::connect(rig.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.answer_head().await.unwrap();
    assert_eq!(answer.header("content-length").as_deref(), Some("10"));
    // The endpoint says no more: the time of the request ends it.
    assert_eq!(client.rest(common::PATIENCE).await, b"half");
    rig.until_load("web", 0, 0).await;
}

/// Neither while the application thinks, nor between two events of an answer that never ends.
#[tokio::test]
async fn a_client_that_left_is_noticed_although_nothing_is_written() {
    let events = || {
        let first = futures::stream::once(async { Ok(Frame::data(Bytes::from_static(b"data: 1\n\n"))) });
        BodyExt::boxed(StreamBody::new(first.chain(futures::stream::pending())))
    };
    for (what, reset) in [
        ("thinks", false),
        ("thinks", true),
        ("event", false),
        ("event", true),
    ] {
        let app = app::serve(move |_| async move {
            if what == "thinks" {
                std::future::pending::<()>().await;
            }
            Response::new(events())
        })
        .await;
        let rig = Rig::serving(app.address);
        let mut client = Raw::connect(rig.address()).await;
        client.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        if what == "event" {
            assert_eq!(client.answer_head().await.unwrap().status, 200);
            // Unread bytes would make a reset of the end.
            client.read_exactly(&mut [0; b"9\r\ndata: 1\n\n\r\n".len()]).await;
        }
        rig.until_load("web", 0, 1).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        if reset {
            let socket = socket2::SockRef::from(&client.stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(client);
        rig.until_load("web", 0, 0).await;
    }
}

/// Who says all and goes has said it.
#[tokio::test]
async fn a_request_whose_client_went_behind_it_gets_to_the_endpoint_whole() {
    let (whole, mut arrived) = tokio::sync::mpsc::channel(1);
    let app = app::serve(move |request| {
        let whole = whole.clone();
        async move {
            // Slower than the client's end comes.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let body = request
                .into_body()
                .collect()
                .await
                .map(|body| body.to_bytes().len());
            whole.send(body.ok()).await.unwrap();
            text("ok")
        }
    })
    .await;
    let rig = Rig::serving(app.address);
    let mut client = Raw::connect(rig.address()).await;
    let length = 300_000;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {length}\r\n\r\n"
        ))
        .await;
    client.send(vec![b'x'; length]).await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream)
        .await
        .unwrap();
    assert_eq!(arrived.recv().await, Some(Some(length)));
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_in_time_is_504() {
    let app = app::serve(|_| async { std::future::pending().await }).await;
    let rig = Rig::with(|config| config.timeouts.response_header = Some(Duration::from_millis(200)));
    rig.routes([settings("web")]);
    rig.ready("web", &[app.address]);
    let answer = get(rig.address(), "/").await;
    assert_eq!((answer.status, rig.load("web").1), (504, 0));
}

#[tokio::test]
async fn an_endpoint_that_speaks_no_http_is_502() {
    let app = common::raw::Recorder::start(b"220 smtp.example ESMTP\r\n").await;
    let rig = Rig::serving(app.address);
    assert_eq!(get(rig.address(), "/").await.status, 502);
}

#[tokio::test]
async fn requests_are_spread_over_endpoints() {
    let apps = [app::ok().await, app::ok().await, app::ok().await];
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.ready("web", &apps.iter().map(|app| app.address).collect::<Vec<_>>());
    for _ in 0..60 {
        assert_eq!(get(rig.address(), "/").await.status, 200);
    }
    assert!(apps.iter().all(|app| app.connections() > 0));
}

#[tokio::test]
async fn of_two_endpoints_the_one_with_less_in_flight_gets_what_comes() {
    let (slow, quick) = (app::serve(|_| std::future::pending()).await, app::ok().await);
    let rig = Rig::serving(slow.address);
    let mut hanging = Vec::new();
    for _ in 0..3 {
        let mut client = Raw::connect(rig.address()).await;
        client.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        hanging.push(client);
    }
    rig.until_load("web", 0, 3).await;
    rig.ready("web", &[slow.address, quick.address]);
    for _ in 0..30 {
        assert_eq!(get(rig.address(), "/").await.status, 200);
    }
}
