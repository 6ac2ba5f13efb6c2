//! HTTP/2, gRPC, upgrades, `Expect`, and sending a request again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is test code"
)]

#[path = "protocols/again.rs"]
mod again;
mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::app::{self, Body, text};
use common::raw::{Raw, Recorder, get};
use common::{Rig, settings};
use dormouse_core::routes::settings::Timeout;
use dormouse_proxy::Protocol;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Sender = SendRequest<Body>;

async fn h2(address: SocketAddr) -> Sender {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

fn request(method: Method, path: &str, body: &'static str) -> Request<Body> {
    let uri = format!("http://shop.example{path}");
    Request::builder()
        .method(method)
        .uri(uri)
        .body(app::full(body))
        .unwrap()
}

async fn read(response: Response<Incoming>) -> (StatusCode, HeaderMap, String, HeaderMap) {
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    (
        head.status,
        head.headers,
        String::from_utf8(body.to_bytes().to_vec()).unwrap(),
        trailers,
    )
}

#[tokio::test]
async fn http2_by_prior_knowledge_is_passed_on_as_http1() {
    let app = app::mirror().await;
    let rig = Rig::serving(app.address);
    let mut sender = h2(rig.address()).await;
    let (status, headers, text, _) = read(
        sender
            .send_request(request(Method::POST, "/a?b", "hello"))
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(
        (status, headers["x-keda-http-cold-start"].as_bytes()),
        (StatusCode::OK, &b"false"[..])
    );
    assert!(text.starts_with("POST /a?b HTTP/1.1\n"), "{text}");
    assert!(
        text.contains("host: shop.example\n") && text.ends_with("\nhello"),
        "{text}"
    );
    // Many at once on one connection.
    let all = (0..100).map(|number| sender.send_request(request(Method::GET, &format!("/{number}"), "")));
    for (number, answer) in futures::future::join_all(all).await.into_iter().enumerate() {
        assert!(
            read(answer.unwrap())
                .await
                .2
                .starts_with(&format!("GET /{number} "))
        );
    }
    rig.until_load("web", 0, 0).await;
}

#[tokio::test]
async fn cookies_that_come_in_pieces_go_on_in_one_line() {
    let app = app::mirror().await;
    let rig = Rig::serving(app.address);
    let mut sender = h2(rig.address()).await;
    let mut request = request(Method::GET, "/", "");
    for piece in ["session=abc", "theme=dark", "last"] {
        request
            .headers_mut()
            .append("cookie", HeaderValue::from_static(piece));
    }
    let (_, _, text, _) = read(sender.send_request(request).await.unwrap()).await;
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("cookie")).collect();
    assert_eq!(lines, ["cookie: session=abc; theme=dark; last"]);
}

#[tokio::test]
async fn http2_goes_on_as_http2_where_the_port_says_so() {
    let app = app::serve_h2c(|request: Request<Incoming>| async move {
        let line = format!(
            "{} {} {:?} {:?}",
            request.method(),
            request.uri(),
            request.version(),
            request.headers().get("te")
        );
        let body = request.into_body().collect().await.unwrap().to_bytes();
        text(format!("{line} {}", String::from_utf8_lossy(&body)))
    })
    .await;
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.endpoints_of("web", &[(app.address, "rs")], Protocol::H2c);
    let mut sender = h2(rig.address()).await;
    let mut with_te = request(Method::POST, "/a?b", "hello");
    with_te
        .headers_mut()
        .insert("te", HeaderValue::from_static("trailers"));
    let answer = read(sender.send_request(with_te).await.unwrap()).await;
    assert_eq!(
        answer.2,
        "POST http://shop.example/a?b HTTP/2.0 Some(\"trailers\") hello"
    );
    let all = (0..50).map(|_| sender.send_request(request(Method::GET, "/", "")));
    for answer in futures::future::join_all(all).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    assert!(
        app.connections() <= 2,
        "one for each data thread: {}",
        app.connections()
    );
    // A client of HTTP/1.1 gets there too.
    assert!(
        get(rig.address(), "/")
            .await
            .text()
            .starts_with("GET http://web/ HTTP/2.0")
    );
}

#[tokio::test]
async fn more_requests_than_one_connection_carries_go_on_another() {
    // More than an endpoint allows on one connection: hyper's 200.
    const REQUESTS: usize = 250;
    let (began, mut at_once) = tokio::sync::watch::channel(0);
    let app = app::serve_h2c(move |_| {
        began.send_modify(|count| *count += 1);
        std::future::pending()
    })
    .await;
    let rig = Rig::with(|config| config.threads = std::num::NonZeroUsize::MIN);
    rig.routes([settings("web")]);
    rig.endpoints_of("web", &[(app.address, "rs")], Protocol::H2c);
    let mut clients = [h2(rig.address()).await, h2(rig.address()).await];
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..REQUESTS {
        asking.spawn(clients[number % 2].send_request(request(Method::GET, "/", "")));
    }
    let all = at_once.wait_for(|count| *count == REQUESTS);
    assert!(tokio::time::timeout(common::PATIENCE, all).await.is_ok());
    assert!((2..=3).contains(&app.connections()), "{}", app.connections());
}

#[tokio::test]
async fn grpc_has_its_trailers_and_our_failures_as_status() {
    let app = app::serve_h2c(|request: Request<Incoming>| async move {
        // One message for each that comes, while they come.
        let status = HeaderMap::from_iter([(
            HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        )]);
        let frames = futures::stream::unfold(
            (Some(request.into_body()), Some(status)),
            |(body, status)| async move {
                let mut body = body?;
                match body.frame().await {
                    Some(Ok(frame)) => Some((Ok(frame), (Some(body), status))),
                    _ => Some((Ok(Frame::trailers(status?)), (None, None))),
                }
            },
        );
        let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
        response
            .headers_mut()
            .insert("content-type", HeaderValue::from_static("application/grpc"));
        response
    })
    .await;
    let rig = Rig::new();
    let mut route = settings("web");
    route.timeouts.readiness = Timeout::After(Duration::from_millis(100));
    route.cold_start.max_pending = Some(1);
    rig.routes([route]);
    // Also where the Service does not say what its port speaks.
    rig.endpoints_of("web", &[(app.address, "rs")], Protocol::Http1);
    let call = || {
        let mut call = request(Method::POST, "/shop.Cart/Add", "message");
        call.headers_mut()
            .insert("content-type", HeaderValue::from_static("application/grpc"));
        call
    };
    let mut sender = h2(rig.address()).await;
    let (_, _, message, trailers) = read(sender.send_request(call()).await.unwrap()).await;
    assert_eq!(
        (message.as_str(), trailers["grpc-status"].as_bytes()),
        ("message", &b"0"[..])
    );
    rig.asleep("web");
    let both = futures::future::join(sender.clone().send_request(call()), sender.send_request(call())).await;
    let mut statuses = Vec::new();
    for answer in [both.0, both.1] {
        let (status, headers, _, _) = read(answer.unwrap()).await;
        assert_eq!(
            (status, headers["content-type"].as_bytes()),
            (StatusCode::OK, &b"application/grpc"[..])
        );
        statuses.push(headers["grpc-status"].to_str().unwrap().to_owned());
    }
    statuses.sort();
    assert_eq!(
        statuses,
        ["14", "4"],
        "one waits in vain, the other finds no room"
    );
    rig.proxy.set_routes(Vec::new(), Default::default());
    let (_, headers, _, _) = read(sender.send_request(call()).await.unwrap()).await;
    assert_eq!(headers["grpc-status"], "12");
}

#[tokio::test]
async fn an_http2_stream_that_is_reset_counts_no_longer() {
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.asleep("web");
    let mut sender = h2(rig.address()).await;
    let held = tokio::spawn(sender.send_request(request(Method::GET, "/", "")));
    rig.until_load("web", 1, 0).await;
    held.abort();
    rig.until_load("web", 0, 0).await;
}

/// Says 101 to everything, then repeats what comes in capitals.
async fn shouting() -> app::App {
    app::serve(|mut request: Request<Incoming>| async move {
        let Some(protocol) = request.headers().get("upgrade").cloned() else {
            return text("plain");
        };
        tokio::spawn(async move {
            let mut stream = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                stream
                    .write_all(&buffer[..count].to_ascii_uppercase())
                    .await
                    .unwrap();
            }
        });
        let mut response = text("");
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response
            .headers_mut()
            .insert("connection", HeaderValue::from_static("upgrade"));
        response.headers_mut().insert("upgrade", protocol);
        response
    })
    .await
}

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways() {
    let app = shouting().await;
    let rig = Rig::serving(app.address);
    let mut client = Raw::connect(rig.address()).await;
    client.send(UPGRADE).await;
    let answer = client.answer_head().await.unwrap();
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("upgrade").as_deref(), Some("websocket"));
    assert_eq!(answer.header("connection").as_deref(), Some("upgrade"));
    for word in ["hello", "again"] {
        client.send(word).await;
        let mut back = [0; 5];
        client.read_exactly(&mut back).await;
        assert_eq!(back, word.to_ascii_uppercase().as_bytes());
        assert_eq!(rig.load("web"), (0, 1, 1), "in flight for as long as it lasts");
    }
    drop(client);
    rig.until_load("web", 0, 0).await;
}

#[tokio::test]
async fn any_protocol_may_follow_an_upgrade_and_outlasts_the_time_of_its_request() {
    let app = shouting().await;
    let rig = Rig::with(|config| config.timeouts.request = Some(Duration::from_millis(200)));
    rig.routes([settings("web")]);
    rig.ready("web", &[app.address]);
    let mut client = Raw::connect(rig.address()).await;
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo/2\r\n\r\n")
        .await;
    let answer = client.answer_head().await.unwrap();
    let protocol = answer.header("upgrade");
    assert_eq!((answer.status, protocol.as_deref()), (101, Some("foo/2")));
    for word in ["hello", "later"] {
        client.send(word).await;
        let mut back = [0; 5];
        client.read_exactly(&mut back).await;
        assert_eq!(back, word.to_ascii_uppercase().as_bytes());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // Nothing of it says to the other side that it is to end.
    let began = Instant::now();
    assert_eq!(rig.proxy.drain(Duration::from_millis(500)).await.cut, 0);
    assert!(
        began.elapsed() >= Duration::from_millis(200),
        "it may go on for a while"
    );
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn an_upgrade_waits_for_an_endpoint_and_takes_early_bytes_along() {
    let app = shouting().await;
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.asleep("web");
    let mut client = Raw::connect(rig.address()).await;
    client.send(format!("{UPGRADE}early")).await;
    rig.until_load("web", 1, 0).await;
    rig.ready("web", &[app.address]);
    assert_eq!(client.answer_head().await.unwrap().status, 101);
    let mut back = [0; 5];
    client.read_exactly(&mut back).await;
    assert_eq!(&back, b"EARLY");
}

#[tokio::test]
async fn an_upgrade_that_is_refused_ends_the_connection() {
    let app = app::ok().await;
    let rig = Rig::serving(app.address);
    let mut client = Raw::connect(rig.address()).await;
    // What follows is for another protocol, whatever it looks like.
    client
        .send(format!("{UPGRADE}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"))
        .await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, answer.header("connection").as_deref()),
        (200, Some("close"))
    );
    assert!(client.is_closed().await);
    assert_eq!(rig.load("web").2, 1);
}

#[tokio::test]
async fn the_way_to_http2_by_upgrade_is_closed() {
    let app = app::mirror().await;
    let rig = Rig::serving(app.address);
    let mut client = Raw::connect(rig.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n").await;
    let seen = client.answer().await.text().to_lowercase();
    assert!(
        !seen.contains("upgrade") && !seen.contains("http2-settings") && !seen.contains("connection"),
        "{seen}"
    );
}

#[tokio::test]
async fn a_body_is_asked_for_when_the_endpoint_asks() {
    let app = app::mirror().await;
    let rig = Rig::serving(app.address);
    let mut client = Raw::connect(rig.address()).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(client.answer_head().await.unwrap().status, 100);
    client.send("hello").await;
    assert!(client.answer().await.text().ends_with("\nhello"));
}

#[tokio::test]
async fn a_body_that_the_endpoint_reads_after_its_answer_began_still_goes_there() {
    let app = app::echo().await;
    let rig = Rig::serving(app.address);
    let mut client = Raw::connect(rig.address()).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(client.answer_head().await.unwrap().status, 200);
    client.send("hello").await;
    let mut body = [0; 5];
    client.read_exactly(&mut body).await;
    assert_eq!(&body, b"hello");
}

#[tokio::test]
async fn the_body_of_any_method_goes_on() {
    let app = app::mirror().await;
    let rig = Rig::serving(app.address);
    for method in ["GET", "DELETE", "OPTIONS", "PATCH", "PROPFIND"] {
        for framing in [
            "Content-Length: 5\r\n\r\nhello",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ] {
            let mut client = Raw::connect(rig.address()).await;
            client
                .send(format!("{method} / HTTP/1.1\r\nHost: a\r\n{framing}"))
                .await;
            let seen = client.answer().await.text();
            assert!(seen.ends_with("\nhello"), "{method} {framing}: {seen}");
        }
    }
}

#[tokio::test]
async fn a_body_is_asked_for_after_a_second_if_the_endpoint_says_nothing() {
    let quiet = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rig = Rig::serving(quiet.local_addr().unwrap());
    let mut client = Raw::connect(rig.address()).await;
    let began = Instant::now();
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(client.answer_head().await.unwrap().status, 100);
    assert!(
        began.elapsed() >= Duration::from_millis(900),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_body_that_the_endpoint_does_not_want_is_not_asked_for() {
    let refusing = Recorder::start(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n").await;
    let rig = Rig::serving(refusing.address);
    let mut client = Raw::connect(rig.address()).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.status, 417);
    assert!(
        client.is_closed().await,
        "nobody knows whether the body still comes"
    );
    rig.until_load("web", 0, 0).await;
}

#[tokio::test]
async fn an_answer_instead_of_100_arrives_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rig = Rig::serving(listener.local_addr().unwrap());
    let (heard, may_go_on) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        assert!(stream.read(&mut buffer).await.unwrap() > 0);
        stream
            .write_all(b"HTTP/1.1 413 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntoo\r\n")
            .await
            .unwrap();
        may_go_on.await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(b"5\r\n long\r\n0\r\n\r\n").await.unwrap();
        let _ = stream.read(&mut buffer).await;
    });
    let mut client = Raw::connect(rig.address()).await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let mut answer = client.answer_head().await.unwrap();
    assert_eq!(answer.status, 413);
    heard.send(()).unwrap();
    answer.body = client.rest(common::PATIENCE).await;
    assert_eq!(answer.text(), "3\r\ntoo\r\n5\r\n long\r\n0\r\n\r\n");
    rig.until_load("web", 0, 0).await;
}

#[tokio::test]
async fn the_version_of_the_answer_is_ours() {
    let old =
        Recorder::start(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=5\r\nX-A: 1\r\n\r\nok")
            .await;
    let rig = Rig::serving(old.address);
    let answer = get(rig.address(), "/").await;
    assert!(answer.head.starts_with("HTTP/1.1 200"), "{}", answer.head);
    assert_eq!(
        (answer.header("keep-alive"), answer.header("x-a").as_deref()),
        (None, Some("1"))
    );
    let mut sender = h2(rig.address()).await;
    let answer = sender.send_request(request(Method::GET, "/", "")).await.unwrap();
    assert_eq!(
        (answer.version(), answer.headers().get("connection")),
        (Version::HTTP_2, None)
    );
}

#[tokio::test]
async fn a_large_body_goes_through_http2() {
    let app = app::echo().await;
    let rig = Rig::serving(app.address);
    let mut sender = h2(rig.address()).await;
    let large = Bytes::from(vec![b'x'; 4 * 1024 * 1024]);
    let body = Full::new(large.clone()).map_err(|never| match never {}).boxed();
    let request = Request::post("http://a/").body(body).unwrap();
    let answer = sender
        .send_request(request)
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes();
    assert_eq!(answer.len(), large.len());
}
