//! Clients that want the process to keep much for them. One test, as others beside it would blur what it measures.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is test code"
)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::raw::Raw;
use common::{Rig, app, settings, until};
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

const MIB: usize = 1024 * 1024;
/// What hostile clients may cost all together: a few hundred connections with full buffers on both sides.
const ALLOWED: usize = 64 * MIB;
const CLIENTS: usize = 200;

/// What this process occupies, clients and application included.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// Sends `piece` until `total` bytes were taken, or nothing more is taken; says how much was.
async fn push(stream: &mut TcpStream, piece: &[u8], total: usize) -> usize {
    let mut taken = 0;
    while taken < total {
        match timeout(Duration::from_millis(300), stream.write(piece)).await {
            Ok(Ok(count @ 1..)) => taken += count,
            _ => break,
        }
    }
    taken
}

/// An application whose answer never ends.
async fn endless() -> app::App {
    app::serve(|_| async {
        let piece = Bytes::from(vec![b'x'; 64 * 1024]);
        let pieces = futures::stream::repeat_with(move || Ok::<_, hyper::Error>(Frame::data(piece.clone())));
        Response::new(StreamBody::new(pieces).boxed())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_cost_no_more_than_their_buffers() {
    let app = endless().await;
    let rig = Rig::with(|config| {
        config.timeouts.header = Duration::from_secs(120);
        config.timeouts.first_byte = Duration::from_secs(120);
    });
    rig.routes([settings("web"), settings("asleep")]);
    rig.ready("web", &[app.address]);
    rig.asleep("asleep");
    let before = resident();
    let check = |what: &str| {
        let grown = resident().saturating_sub(before);
        assert!(grown < ALLOWED, "{what}: {} MiB more", grown / MIB);
    };

    // A head of 100 MB, as one header and as many.
    for (line, what) in [
        (vec![b'x'; 64 * 1024], "one header of 100 MB"),
        (
            b"X-Filler: 0123456789abcdef\r\n".repeat(2048),
            "headers of 100 MB",
        ),
    ] {
        let mut client = Raw::connect(rig.address()).await;
        client.send("GET / HTTP/1.1\r\nHost: web\r\nX-First: ").await;
        let taken = push(&mut client.stream, &line, 100 * MIB).await;
        assert!(taken < 16 * MIB, "{what}: {taken} bytes were taken");
        check(what);
    }
    let mut client = Raw::connect(rig.address()).await;
    client
        .send(format!(
            "GET / HTTP/1.1\r\nHost: web\r\nX: {}\r\n\r\n",
            "x".repeat(160 * 1024)
        ))
        .await;
    assert_eq!(
        client.answer_head().await.unwrap().status,
        431,
        "it says what is wrong where the client still listens"
    );

    // Headers of 100 MB in HTTP/2: one HEADERS frame that never ends, and its continuations.
    let mut client = TcpStream::connect(rig.address()).await.unwrap();
    client
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\0\x01\0\0\0\0\x01")
        .await
        .unwrap();
    let mut continuation = vec![0, 0x40, 0, 9, 0, 0, 0, 0, 1];
    // Literal headers without indexing: a name of one byte and a value of 100.
    while continuation.len() < 9 + 0x4000 - 103 {
        continuation.extend([0, 1, b'x', 100]);
        continuation.extend([b'v'; 100]);
    }
    continuation.resize(9 + 0x4000, 0x82);
    let taken = push(&mut client, &continuation, 100 * MIB).await;
    assert!(taken < 16 * MIB, "HTTP/2: {taken} bytes were taken");
    check("headers of 100 MB in HTTP/2");

    // Those who say nothing, and those who say a head byte by byte.
    let mut open = Vec::new();
    for number in 0..2 * CLIENTS {
        let mut client = Raw::connect(rig.address()).await;
        if number % 2 == 0 {
            client.send("GET / HTTP/1.1\r\nHost: web\r\nX-Slow: ").await;
        }
        open.push(client);
    }
    for _ in 0..20 {
        for client in open.iter_mut().step_by(2) {
            client.send("x").await;
        }
    }
    check("slow and silent clients");

    // A body that never comes, and one that comes for an application that sleeps.
    let mut pushing = JoinSet::new();
    for number in 0..CLIENTS {
        let mut client = Raw::connect(rig.address()).await;
        client
            .send("POST / HTTP/1.1\r\nHost: asleep\r\nContent-Length: 1000000000\r\n\r\n")
            .await;
        if number % 4 == 0 {
            pushing.spawn(async move {
                let taken = push(&mut client.stream, &[b'x'; 16 * 1024], 100 * MIB).await;
                (client, taken)
            });
        } else {
            open.push(client);
        }
    }
    rig.until_load("asleep", CLIENTS.try_into().unwrap(), 0).await;
    while let Some(pushed) = pushing.join_next().await {
        let (client, taken) = pushed.unwrap();
        // The kernel's buffers on both sides, which are not this process's.
        assert!(taken < 16 * MIB, "{taken} bytes were taken");
        open.push(client);
    }
    check("bodies for nobody");

    // Those who never read what they asked for.
    for _ in 0..CLIENTS / 2 {
        let mut client = Raw::connect(rig.address()).await;
        client.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        open.push(client);
    }
    rig.until_load("web", 0, (CLIENTS / 2).try_into().unwrap()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    check("clients that never read");
    drop(open);
    rig.until_load("web", 0, 0).await;
    // A full buffer hides that its client left: the time of the hold ends what waits for it.
    until("the others are gone", || {
        rig.load("asleep").0 as usize <= CLIENTS / 4
    })
    .await;
}
