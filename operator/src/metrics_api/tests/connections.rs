//! Connections: protocols, bounds, and the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Version};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::Limits;
use super::fixture::{Client, HOST, HPA, READ, Served, client_config};

const AS_HPA: &[(&str, &str)] = &[("x-remote-user", HPA)];

async fn open(served: &Served, protocol: &str) -> TlsStream<TcpStream> {
    let authorities = served.certificate.authorities().borrow().to_vec();
    let connector = TlsConnector::from(Arc::new(client_config(&authorities, None, &[protocol])));
    let stream = TcpStream::connect(served.address).await.unwrap();
    let name = ServerName::try_from(HOST).unwrap();
    connector.connect(name, stream).await.unwrap()
}

/// Waits for the server to close, and says how long that took.
async fn closed_after(stream: &mut TlsStream<TcpStream>) -> Duration {
    let begun = Instant::now();
    let (socket, _) = stream.get_mut();
    let mut buffer = [0; 4096];
    timeout(Duration::from_secs(20), async {
        loop {
            socket.readable().await.unwrap();
            match socket.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    })
    .await
    .expect("the server closes");
    begun.elapsed()
}

async fn refuses(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_err()
}

#[tokio::test]
async fn both_protocols_are_spoken() {
    let served = Served::start().await;
    let authorities = served.certificate.authorities().borrow().to_vec();
    for (protocol, version) in [("h2", Version::HTTP_2), ("http/1.1", Version::HTTP_11)] {
        let client = Client::speaking(served.address, &authorities, None, &[protocol]);
        let answer = client.get("/healthz", &[]).await;
        assert_eq!((answer.version, answer.body.as_str()), (version, "ok"));
    }
}

#[tokio::test]
async fn silent_connections_are_closed() {
    let served = Served::start_with(Limits {
        handshake: Duration::from_millis(300),
        first_request: Duration::from_millis(300),
        ..Limits::default()
    })
    .await;
    for protocol in ["http/1.1", "h2"] {
        let mut stream = open(&served, protocol).await;
        let after = closed_after(&mut stream).await;
        assert!(
            (Duration::from_millis(200)..Duration::from_secs(8)).contains(&after),
            "{protocol}: {after:?}"
        );
    }
    let silent = TcpStream::connect(served.address).await.unwrap();
    let begun = Instant::now();
    let mut buffer = [0; 1];
    loop {
        silent.readable().await.unwrap();
        match silent.try_read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => break,
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn strangers_cannot_crowd_out_the_aggregation_layer() {
    let served = Served::start_with(Limits {
        unknown_connections: 2,
        ..Limits::default()
    })
    .await;
    let aggregator = served.aggregator();
    assert_eq!(aggregator.get(READ, AS_HPA).await.code, 200);
    let _held = [open(&served, "h2").await, open(&served, "h2").await];
    sleep(Duration::from_millis(50)).await;
    let stranger = served.client(None);
    assert!(stranger.try_send(Method::GET, "/healthz", &[]).await.is_err());
    assert_eq!(served.aggregator().get(READ, AS_HPA).await.code, 200);
}

#[tokio::test]
async fn a_request_beyond_its_time_is_answered_with_a_timeout() {
    let served = Served::start_with(Limits {
        request: Duration::from_millis(200),
        ..Limits::default()
    })
    .await;
    let path = READ.replace("s0-orders", "s0-slow");
    let answer = served.aggregator().get(&path, AS_HPA).await;
    let (code, reason, _) = answer.failure();
    assert_eq!((code, reason.as_str()), (504, "Timeout"));
}

#[tokio::test]
async fn what_is_under_way_at_the_stop_is_answered() {
    let mut served = Served::start().await;
    let client = served.aggregator();
    assert_eq!(client.get(READ, AS_HPA).await.code, 200);
    let path = READ.replace("s0-orders", "s0-slow");
    let under_way = tokio::spawn(async move { client.get(&path, AS_HPA).await });
    while served.source.asked.lock().unwrap().len() < 2 {
        sleep(Duration::from_millis(5)).await;
    }
    served.stop.notify_one();
    while !refuses(served.address).await {
        sleep(Duration::from_millis(5)).await;
    }
    assert!(!served.task.is_finished());
    served.source.slow.notify_one();
    assert_eq!(under_way.await.unwrap().code, 200);
    timeout(Duration::from_secs(2), &mut served.task)
        .await
        .expect("nothing else is waited for")
        .unwrap();
}

#[tokio::test]
async fn a_request_that_never_ends_is_given_up_at_the_deadline() {
    let mut served = Served::start_with(Limits {
        drain: Duration::from_millis(300),
        ..Limits::default()
    })
    .await;
    let client = served.aggregator();
    let path = READ.replace("s0-orders", "s0-slow");
    let under_way = tokio::spawn(async move { client.try_send(Method::GET, &path, AS_HPA).await });
    while served.source.asked.lock().unwrap().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    served.stop.notify_one();
    timeout(Duration::from_secs(2), &mut served.task)
        .await
        .expect("the drain has a deadline")
        .unwrap();
    under_way.abort();
}
