//! Deadlines of clients' connections, and the end of the proxy.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is test code"
)]

mod common;

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::raw::{Raw, get};
use common::{Rig, app, frames, settings};
use dormouse_proxy::Drained;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const HTTP2_GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "web"),
    (":path", "/"),
];
const SHORT: Duration = Duration::from_millis(300);

/// How long the proxy keeps a connection on which the client said this and nothing more.
async fn kept(rig: &Rig, said: &str, answers: usize) -> Duration {
    let mut client = Raw::connect(rig.address()).await;
    client.send(said).await;
    for _ in 0..answers {
        assert_eq!(client.answer().await.status, 200);
    }
    let began = Instant::now();
    assert!(client.is_closed().await);
    began.elapsed()
}

#[tokio::test]
async fn a_client_that_says_nothing_is_let_go() {
    let app = app::ok().await;
    for (what, said, answers) in [
        ("nothing", "", 0),
        ("half a head", "GET / HTTP/1.1\r\nHo", 0),
        ("no second request", GET, 1),
    ] {
        let rig = Rig::with(|config| {
            let long = Duration::from_secs(600);
            config.timeouts.first_byte = if what == "nothing" { SHORT } else { long };
            config.timeouts.header = if what == "half a head" { SHORT } else { long };
            config.timeouts.keep_alive = if what == "no second request" { SHORT } else { long };
        });
        rig.routes([settings("web")]);
        rig.ready("web", &[app.address]);
        let kept = kept(&rig, said, answers).await;
        assert!(
            kept >= SHORT - Duration::from_millis(50) && kept < SHORT * 10,
            "{what}: {kept:?}"
        );
    }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_not_waited_for() {
    let rig = Rig::with(|config| config.timeouts.header = SHORT);
    let mut client = Raw::connect(rig.address()).await;
    let began = Instant::now();
    let dripping = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if client.stream.write_all(b"x").await.is_err() {
                break;
            }
        }
    };
    tokio::time::timeout(common::PATIENCE, dripping).await.unwrap();
    assert!(began.elapsed() >= SHORT);
}

#[tokio::test]
async fn a_request_may_take_longer_than_a_connection_may_idle() {
    let (app, go) = app::patient("ok").await;
    let rig = Rig::with(|config| {
        config.timeouts.keep_alive = SHORT;
        config.timeouts.header = SHORT;
    });
    rig.routes([settings("web")]);
    rig.ready("web", &[app.address]);
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    assert!(client.is_silent(SHORT * 3).await);
    go.send(true).unwrap();
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_let_go() {
    let app = app::serve(|_| async { app::text(vec![b'x'; 64 * 1024 * 1024]) }).await;
    let rig = Rig::with(|config| config.timeouts.stalled = SHORT);
    rig.routes([settings("web")]);
    rig.ready("web", &[app.address]);
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    rig.until_load("web", 0, 1).await;
    rig.until_load("web", 0, 0).await;
}

#[tokio::test]
async fn a_client_of_http2_that_makes_no_room_is_let_go() {
    let app = app::serve(|_| async { app::text(vec![b'x'; 64 * 1024 * 1024]) }).await;
    let rig = Rig::with(|config| config.timeouts.stalled = SHORT);
    rig.routes([settings("web")]);
    rig.ready("web", &[app.address]);
    let mut client = Raw::connect(rig.address()).await;
    client.send(frames::opening()).await;
    client.send(frames::request(&HTTP2_GET, None)).await;
    rig.until_load("web", 0, 1).await;
    // It reads all that comes, and never says that there is room for more.
    let mut heard = Vec::new();
    while matches!(
        tokio::time::timeout(common::PATIENCE, client.stream.read_buf(&mut heard)).await.unwrap(),
        Ok(count) if count > 0
    ) {}
    assert!(
        heard.len() > 0xffff && heard.len() < 0x1ffff,
        "{} bytes came",
        heard.len()
    );
    rig.until_load("web", 0, 0).await;
}

#[tokio::test]
async fn what_an_idle_client_of_http2_sends_while_it_is_told_to_go_is_answered() {
    let app = app::ok().await;
    let rig = Rig::with(|config| config.timeouts.keep_alive = SHORT);
    rig.routes([settings("web")]);
    rig.ready("web", &[app.address]);
    let mut client = Raw::connect(rig.address()).await;
    client.send(frames::opening()).await;
    let mut heard = Vec::new();
    for wanted in ["connection ended", "200"] {
        while !frames::said(&heard).contains(wanted) {
            let read = client.stream.read_buf(&mut heard);
            let count = tokio::time::timeout(common::PATIENCE, read).await.unwrap();
            assert!(
                count.unwrap() > 0,
                "closed before {wanted:?}: {}",
                frames::said(&heard)
            );
        }
        if wanted == "connection ended" {
            client.send(frames::request(&HTTP2_GET, None)).await;
        }
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408() {
    let app = app::echo().await;
    let rig = Rig::with(|config| config.timeouts.response_header = Some(SHORT));
    rig.routes([settings("web")]);
    // Reads the whole body before it answers.
    let mirror = app::mirror().await;
    rig.ready("web", &[mirror.address]);
    let mut client = Raw::connect(rig.address()).await;
    client
        .send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 10\r\n\r\nhello")
        .await;
    assert_eq!(client.answer().await.status, 408);
    rig.until_load("web", 0, 0).await;
    drop(app);
}

#[tokio::test]
async fn connections_are_bounded() {
    let app = app::ok().await;
    let rig = Rig::with(|config| {
        config.bounds.connections = 2;
        config.threads = std::num::NonZeroUsize::MIN;
    });
    rig.routes([settings("web")]);
    rig.ready("web", &[app.address]);
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Raw::connect(rig.address()).await;
        client.send(GET).await;
        assert_eq!(client.answer().await.status, 200);
        clients.push(client);
    }
    let mut third = Raw::connect(rig.address()).await;
    third.send(GET).await;
    assert!(third.is_silent(SHORT).await);
    clients.pop();
    assert_eq!(third.answer().await.status, 200);
}

#[tokio::test]
async fn a_drain_lets_requests_end() {
    let (app, go) = app::patient("ok").await;
    let rig = Rig::serving(app.address);
    let (mut busy, mut idle) = (
        Raw::connect(rig.address()).await,
        Raw::connect(rig.address()).await,
    );
    busy.send(GET).await;
    rig.until_load("web", 0, 1).await;
    go.send(true).unwrap();
    idle.send(GET).await;
    assert_eq!(idle.answer().await.status, 200);
    go.send(false).unwrap();
    assert_eq!(busy.answer().await.status, 200);
    busy.send(GET).await;
    rig.until_load("web", 0, 1).await;
    // One that waits in the kernel is answered too.
    let address = rig.address();
    let demand = rig.proxy.demand();
    let drain = tokio::spawn(rig.proxy.drain(common::PATIENCE));
    assert!(idle.is_closed().await, "nothing is lost on it");
    common::until("nothing listens", || {
        std::net::TcpStream::connect(address).is_err()
    })
    .await;
    assert_eq!(demand.snapshot()[0].in_flight, 1);
    go.send(true).unwrap();
    let answer = busy.answer().await;
    assert_eq!(
        (answer.status, answer.header("connection").as_deref()),
        (200, Some("close"))
    );
    assert_eq!(drain.await.unwrap(), Drained { cut: 0 });
}

/// Sends a request, without a look at anything else.
fn ask(client: &mut std::net::TcpStream) {
    client.write_all(GET.as_bytes()).unwrap();
}

/// The status of the next answer.
fn answer(client: &mut std::net::TcpStream) -> String {
    let mut head = [0; 12];
    client.set_read_timeout(Some(common::PATIENCE)).unwrap();
    client.read_exact(&mut head).unwrap();
    String::from_utf8_lossy(&head).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_drain_answers_what_was_sent_before_it() {
    const CLIENTS: usize = 300;
    let app = app::serve(|_| async {
        let mut answer = app::text("");
        *answer.status_mut() = http::StatusCode::NO_CONTENT;
        answer
    })
    .await;
    for kept in [false, true] {
        let rig = Rig::with(|config| config.threads = std::num::NonZeroUsize::MIN);
        rig.routes([settings("web")]);
        rig.ready("web", &[app.address]);
        let connect = || std::net::TcpStream::connect(rig.address()).unwrap();
        let mut clients = Vec::new();
        if kept {
            clients.extend((0..CLIENTS).map(|_| connect()));
            for client in &mut clients {
                ask(client);
                assert_eq!(answer(client), "HTTP/1.1 204");
                client.set_nonblocking(true).unwrap();
                while client.read(&mut [0; 4096]).is_ok() {}
                client.set_nonblocking(false).unwrap();
            }
            clients.iter_mut().for_each(ask);
        } else {
            // Some are accepted by now, some wait in the kernel.
            clients.extend((0..CLIENTS).map(|_| {
                let mut client = connect();
                ask(&mut client);
                client
            }));
        }
        let drain = rig.proxy.drain(common::PATIENCE);
        for client in &mut clients {
            assert_eq!(answer(client), "HTTP/1.1 204", "kept: {kept}");
        }
        assert_eq!(drain.await, Drained { cut: 0 });
    }
}

#[tokio::test]
async fn a_drain_cuts_what_does_not_end_and_tells_who_waits() {
    let (app, _go) = app::patient("ok").await;
    let rig = Rig::serving(app.address);
    rig.routes([settings("web"), settings("other")]);
    let (mut busy, mut held) = (
        Raw::connect(rig.address()).await,
        Raw::connect(rig.address()).await,
    );
    busy.send(GET).await;
    held.send("GET / HTTP/1.1\r\nHost: other\r\n\r\n").await;
    rig.until_load("web", 0, 1).await;
    rig.until_load("other", 1, 0).await;
    let began = Instant::now();
    let drained = rig.proxy.drain(SHORT * 2).await;
    assert!(began.elapsed() < SHORT * 10);
    assert!(drained.cut >= 1);
    assert!(busy.is_closed().await);
    assert_eq!(held.answer().await.status, 503);
}

#[tokio::test]
async fn http2_clients_are_told_to_go() {
    let app = app::ok().await;
    let rig = Rig::serving(app.address);
    let stream = TcpStream::connect(rig.address()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("http://a/")
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
    assert_eq!(rig.proxy.drain(common::PATIENCE).await, Drained { cut: 0 });
    assert!(
        connection.await.unwrap().is_ok(),
        "by GOAWAY, not by a broken connection"
    );
}

/// Says 101, and then what it is told to.
async fn websocket() -> (
    app::App,
    tokio::sync::mpsc::Sender<&'static [u8]>,
    Arc<Mutex<Vec<u8>>>,
) {
    let (say, to_say) = tokio::sync::mpsc::channel::<&'static [u8]>(8);
    let to_say = Arc::new(tokio::sync::Mutex::new(to_say));
    let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
    let ears = Arc::clone(&heard);
    let app = app::serve(move |mut request: http::Request<hyper::body::Incoming>| {
        let (to_say, ears) = (Arc::clone(&to_say), Arc::clone(&ears));
        async move {
            tokio::spawn(async move {
                let mut to_say = to_say.lock().await;
                let mut stream = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
                let mut buffer = [0; 64];
                loop {
                    tokio::select! {
                        Some(bytes) = to_say.recv() => stream.write_all(bytes).await.unwrap(),
                        read = stream.read(&mut buffer) => {
                            let count = read.unwrap();
                            ears.lock().unwrap().extend_from_slice(&buffer[..count]);
                            // As a server does that is told to close: after what it was saying.
                            if count == 0 || ears.lock().unwrap().contains(&0x88) {
                                stream.write_all(b"llo\x82\x02no").await.unwrap();
                                return;
                            }
                        }
                    }
                }
            });
            let mut response = app::text("");
            *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
            response
                .headers_mut()
                .insert("connection", http::HeaderValue::from_static("upgrade"));
            response
                .headers_mut()
                .insert("upgrade", http::HeaderValue::from_static("websocket"));
            response
        }
    })
    .await;
    (app, say, heard)
}

#[tokio::test]
async fn the_sides_of_a_websocket_are_told_between_two_frames() {
    let (app, say, heard) = websocket().await;
    let rig = Rig::serving(app.address);
    let mut client = Raw::connect(rig.address()).await;
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    assert_eq!(client.answer_head().await.unwrap().status, 101);
    // Half a frame, then the drain, then the rest and another.
    say.send(b"\x82\x05he").await.unwrap();
    let mut half = [0; 4];
    client.read_exactly(&mut half).await;
    let drain = tokio::spawn(rig.proxy.drain(common::PATIENCE));
    common::until("the endpoint is told", || !heard.lock().unwrap().is_empty()).await;
    assert_eq!(client.rest(common::PATIENCE).await, b"llo\x88\x02\x03\xe9");
    assert_eq!(*heard.lock().unwrap(), *b"\x88\x82\0\0\0\0\x03\xe9");
    drop(client);
    assert_eq!(drain.await.unwrap(), Drained { cut: 0 });
}

#[tokio::test]
async fn a_proxy_that_is_dropped_stops() {
    let app = app::ok().await;
    let rig = Rig::serving(app.address);
    let address = rig.address();
    assert_eq!(get(address, "/").await.status, 200);
    drop(rig);
    common::until("nothing listens", || {
        std::net::TcpStream::connect(address).is_err()
    })
    .await;
}
