//! Endpoints that fail in every way they know, above all while they start.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is test code"
)]

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::raw::{Raw, get};
use common::{PATIENCE, Rig, app, by_traffic_port, pod, settings, until};
use dormouse_proxy::Protocol;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};

const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello";

/// A proxy whose route sleeps, and a client that waits for it with this request.
async fn waiting(request: &str) -> (Rig, Raw) {
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.asleep("web");
    let mut client = Raw::connect(rig.address()).await;
    client.send(request).await;
    rig.until_load("web", 1, 0).await;
    (rig, client)
}

/// What an endpoint does with a connection on which a request came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Death {
    /// Resets it in the middle of the head.
    InTheHead,
    /// Resets it once it has the whole request.
    AfterTheRequest,
    /// Says half a head first.
    InTheAnswersHead,
    /// Says half a body first.
    InTheAnswersBody,
}

/// An endpoint that takes connections and dies on them; the number of requests that came whole.
async fn dies(how: Death) -> (SocketAddr, Arc<AtomicUsize>, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let whole = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&whole);
    let dying = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let enough = if how == Death::InTheHead { 8 } else { 16 };
            let mut seen = Vec::new();
            // A probe says nothing.
            while let Ok(1..) = stream.read_buf(&mut seen).await {
                let is_whole = seen.windows(4).any(|window| window == b"\r\n\r\n")
                    && (!seen.starts_with(b"POST") || seen.ends_with(b"hello"));
                if is_whole || (how == Death::InTheHead && seen.len() >= enough) {
                    break;
                }
            }
            if seen.is_empty() {
                continue;
            }
            counter.fetch_add(1, Ordering::SeqCst);
            let said: &[u8] = match how {
                Death::InTheHead | Death::AfterTheRequest => b"",
                Death::InTheAnswersHead => b"HTTP/1.1 200 OK\r\nConte",
                Death::InTheAnswersBody => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            };
            stream.write_all(said).await.unwrap();
            // What was said has to be read before the reset.
            tokio::time::sleep(Duration::from_millis(20)).await;
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
    });
    (address, whole, dying)
}

/// An address whose connections are never established: the kernel's queue is full, and nobody takes from it.
async fn black_hole() -> (SocketAddr, Socket, Vec<TcpStream>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut filling = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
        filling.push(stream.unwrap());
    }
    (address, socket, filling)
}

#[tokio::test]
async fn a_pod_that_dies_before_it_answered_is_made_up_for_by_the_next() {
    for how in [Death::InTheHead, Death::AfterTheRequest] {
        let (rig, mut client) = waiting(GET).await;
        let (dying, _, _task) = dies(how).await;
        rig.ready("web", &[dying]);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(client.is_silent(Duration::from_millis(20)).await);
        let app = app::ok().await;
        rig.ready("web", &[app.address]);
        assert_eq!(client.answer().await.status, 200);
        rig.until_load("web", 0, 0).await;
    }
}

#[tokio::test]
async fn a_request_that_must_not_be_sent_twice_is_not() {
    let (rig, mut client) = waiting(POST).await;
    let (dying, whole, _task) = dies(Death::AfterTheRequest).await;
    let app = app::ok().await;
    rig.ready("web", &[dying]);
    until("it has the request", || whole.load(Ordering::SeqCst) == 1).await;
    rig.ready("web", &[dying, app.address]);
    assert_eq!(client.answer().await.status, 502);
    assert_eq!((whole.load(Ordering::SeqCst), app.connections()), (1, 0));
    rig.until_load("web", 0, 0).await;
}

/// A pod that is the last resort, as long as it still takes connections. It served well, and resets what it is asked now.
#[tokio::test]
async fn a_pod_on_its_way_out_may_reset_even_a_new_connection() {
    let rig = Rig::new();
    rig.routes([settings("web")]);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let leaving = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let _served = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") && matches!(stream.read_buf(&mut seen).await, Ok(1..)) {}
            // A probe says nothing.
            if !seen.is_empty() && counter.fetch_add(1, Ordering::SeqCst) == 0 {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            } else {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
        }
    });
    rig.endpoints("web", &[(leaving, "rs")]);
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    assert_eq!(client.answer().await.status, 200);
    // As long as it is called ready, one that resets what it was asked has failed it.
    client.send(GET).await;
    assert_eq!(client.answer().await.status, 502);
    let app = app::ok().await;
    rig.endpoints("web", &[(leaving, "st")]);
    client.send(GET).await;
    until("it is asked again", || asked.load(Ordering::SeqCst) == 3).await;
    rig.endpoints("web", &[(leaving, "st"), (app.address, "rs")]);
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn an_answer_that_began_is_never_begun_again() {
    for how in [Death::InTheAnswersHead, Death::InTheAnswersBody] {
        let (rig, mut client) = waiting(GET).await;
        let (dying, whole, _task) = dies(how).await;
        rig.ready("web", &[dying]);
        let answer = client.answer_head().await;
        match how {
            Death::InTheAnswersBody => {
                assert_eq!(answer.unwrap().status, 200);
                assert_eq!(client.rest(PATIENCE).await, b"half", "cut short, and closed");
            }
            // The head was a new connection's first: that it can be asked for again is for the proxy to know.
            _ => assert_eq!(answer.unwrap().status, 502),
        }
        assert_eq!(whole.load(Ordering::SeqCst), 1);
        rig.until_load("web", 0, 0).await;
    }
}

#[tokio::test]
async fn a_pod_that_is_proved_and_dies_leaves_all_that_waited_to_its_successor() {
    let app = app::ok().await;
    let rig = Rig::new();
    rig.routes([settings("web")]);
    // Not ready, and proved by a probe of its traffic port; whatever else comes is reset.
    let (dying, ..) = dies(Death::AfterTheRequest).await;
    let mut clients = JoinSet::new();
    rig.asleep("web");
    for _ in 0..30 {
        let address = rig.address();
        clients.spawn(async move { get(address, "/").await.status });
    }
    rig.until_load("web", 30, 0).await;
    rig.proxy.set_probe(&pod(dying), Some(by_traffic_port()));
    rig.endpoints("web", &[(dying, "")]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    rig.ready("web", &[app.address]);
    while let Some(status) = clients.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    rig.until_load("web", 0, 0).await;
}

#[tokio::test]
async fn an_address_that_swallows_connections_costs_one_connect_timeout() {
    let (hole, _socket, _filling) = black_hole().await;
    let app = app::ok().await;
    let rig = Rig::with(|config| config.timeouts.connect = Duration::from_secs(1));
    rig.routes([settings("web")]);
    rig.asleep("web");
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    rig.until_load("web", 1, 0).await;
    rig.ready("web", &[hole]);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let began = Instant::now();
    rig.ready("web", &[hole, app.address]);
    assert_eq!(client.answer().await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for _ in 0..5 {
        let began = Instant::now();
        assert_eq!(get(rig.address(), "/").await.status, 200);
        assert!(
            began.elapsed() < Duration::from_millis(900),
            "it is left alone by now"
        );
    }
}

#[tokio::test]
async fn over_http2_too_it_costs_one_connect_timeout_however_many_wait_for_the_connection() {
    let (hole, _socket, _filling) = black_hole().await;
    let app = app::serve_h2c(|_| async { app::text("ok") }).await;
    let rig = Rig::with(|config| {
        config.timeouts.connect = Duration::from_millis(500);
        config.threads = NonZeroUsize::MIN;
    });
    rig.routes([settings("web")]);
    rig.endpoints_of("web", &[(hole, "rs")], Protocol::H2c);
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let address = rig.address();
        clients.spawn(async move { get(address, "/").await.status });
    }
    rig.until_load("web", 0, 20).await;
    rig.endpoints_of("web", &[(hole, "rs"), (app.address, "rs")], Protocol::H2c);
    while let Some(status) = clients.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_half_open_pod_is_504_after_the_time_for_its_answer() {
    // The kernel takes its connections, and nobody reads them.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let rig = Rig::with(|config| config.timeouts.response_header = Some(Duration::from_millis(200)));
    rig.routes([settings("web")]);
    rig.asleep("web");
    for request in [GET, POST] {
        let mut client = Raw::connect(rig.address()).await;
        client.send(request).await;
        rig.until_load("web", 1, 0).await;
        rig.ready("web", &[silent.local_addr().unwrap()]);
        let answer = client.answer().await;
        assert_eq!(answer.status, 504);
        assert!(answer.text().contains("200ms"), "{}", answer.text());
        rig.asleep("web");
    }
    rig.until_load("web", 0, 0).await;
}

#[tokio::test]
async fn a_first_answer_that_takes_5_s_is_waited_for_and_asked_for_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let app = app::serve(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            app::text("slow")
        }
    })
    .await;
    let (rig, mut client) = waiting(GET).await;
    rig.ready("web", &[app.address]);
    rig.until_load("web", 0, 1).await;
    assert_eq!(client.answer().await.text(), "slow");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_was_not_sent_goes_to_the_next_endpoint_whatever_its_method() {
    let app = app::echo().await;
    let rig = Rig::new();
    rig.routes([settings("web")]);
    for _ in 0..10 {
        // Each time one that nobody knows yet.
        rig.ready("web", &[app::free_address(), app.address]);
        let mut client = Raw::connect(rig.address()).await;
        client
            .send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello")
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    }
}
