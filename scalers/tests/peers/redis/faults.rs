use std::sync::Arc;
use std::time::{Duration, Instant};

use dormouse_scalers::connect;
use dormouse_scalers::error::ReadErrorKind;
use dormouse_test_servers::redis::{RedisServer, free_address};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{LOOPBACK, failure, list_of, reads_until, trigger, value};
use crate::support::{CANARY, context, params, read};

#[tokio::test]
async fn a_server_that_restarts_is_read_again_by_the_next_tick() {
    let mut server = RedisServer::start_open(LOOPBACK).await.unwrap();
    let trigger = list_of(&server);
    server.push("orders", 2).await.unwrap();
    assert_eq!(value(&trigger).await, 2.0);
    server.restart().await.unwrap();
    server.push("orders", 1).await.unwrap();
    assert_eq!(
        value(&trigger).await,
        1.0,
        "the old connection is dead, and nobody need notice"
    );

    server.kill().await.unwrap();
    for _ in 0..5 {
        let error = failure(&trigger).await;
        assert_eq!(error.kind, ReadErrorKind::Unreachable);
        assert!(error.message.contains("Connection refused"), "{error}");
    }
    server.restart().await.unwrap();
    assert_eq!(value(&trigger).await, 0.0);
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_in_time_and_taken_up_again() {
    let server = RedisServer::start_open(LOOPBACK).await.unwrap();
    let trigger = list_of(&server);
    server.push("orders", 2).await.unwrap();
    assert_eq!(value(&trigger).await, 2.0);
    server.freeze().unwrap();
    let began = Instant::now();
    let error = failure(&trigger).await;
    assert_eq!(error.kind, ReadErrorKind::Timeout, "{error}");
    assert!(began.elapsed() < trigger.deadline(), "{:?}", began.elapsed());
    server.thaw().unwrap();
    assert_eq!(value(&trigger).await, 2.0);
}

#[tokio::test]
async fn a_connection_that_died_in_silence_costs_no_read() {
    let server = RedisServer::start_open(LOOPBACK).await.unwrap();
    server.push("orders", 2).await.unwrap();
    let relay = Relay::start(server.address().to_string()).await;
    let trigger = trigger("redis", &relay.address, &[("listName", "orders")], &[]);
    assert_eq!(value(&trigger).await, 2.0);
    // The way there forgets the connection, as a NAT gateway does: neither side hears of it.
    relay.forget();
    let began = Instant::now();
    assert_eq!(
        value(&trigger).await,
        2.0,
        "it is asked again over a new connection"
    );
    assert!(began.elapsed() < trigger.deadline());
}

#[tokio::test]
async fn a_thousand_triggers_on_a_dead_server_make_few_attempts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accepted = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            drop(stream);
        }
    });
    let clients = context(params("redis", &[], &[])).clients;
    let triggers: Vec<_> = (0..1000)
        .map(|n| {
            let list = format!("list-{n}");
            let metadata = [
                ("address", address.as_str()),
                ("listName", &list),
                ("databaseIndex", "1"),
            ];
            let mut cx = context(params("redis", &metadata, &[]));
            cx.clients = Arc::clone(&clients);
            connect(&cx).unwrap()
        })
        .collect();
    let outcomes = futures::future::join_all(triggers.iter().map(read)).await;
    assert!(outcomes.iter().all(Result::is_err));
    let attempts = accepted.load(std::sync::atomic::Ordering::Relaxed);
    assert!(attempts <= 20, "{attempts} connections");
    task.abort();
}

#[tokio::test]
async fn answers_that_make_no_sense() {
    for (answer, kind, part) in [
        ("$3\r\nabc\r\n", ReadErrorKind::BadAnswer, "not a number"),
        ("$2\r\n12\r\n", ReadErrorKind::BadAnswer, "not a number"),
        (":-1\r\n", ReadErrorKind::BadAnswer, "not a number"),
        ("$-1\r\n", ReadErrorKind::BadAnswer, "not a number"),
        ("*0\r\n", ReadErrorKind::BadAnswer, "not a number"),
        (":99999999999999999999\r\n", ReadErrorKind::BadAnswer, "protocol"),
        (
            "HTTP/1.1 400 canary\r\n\r\n",
            ReadErrorKind::BadAnswer,
            "protocol",
        ),
        (
            "-ERR canary\r\n",
            ReadErrorKind::BadAnswer,
            "answered LLEN with an error",
        ),
        (
            "-LOADING canary\r\n",
            ReadErrorKind::Unreachable,
            "is loading its data (LOADING)",
        ),
        (
            "-CLUSTERDOWN canary\r\n",
            ReadErrorKind::Unreachable,
            "(CLUSTERDOWN)",
        ),
        (
            "-MASTERDOWN canary\r\n",
            ReadErrorKind::Unreachable,
            "(MASTERDOWN)",
        ),
        ("-DENIED canary\r\n", ReadErrorKind::Denied, "protected mode"),
        (
            "-ERR max number of clients reached\r\n",
            ReadErrorKind::Throttled { retry_after: None },
            "no room",
        ),
        ("-MOVED 1 127.0.0.1:1\r\n", ReadErrorKind::Unreachable, "(MOVED)"),
        (
            "-CANARY\r\n",
            ReadErrorKind::BadAnswer,
            "answered LLEN with an error",
        ),
    ] {
        let peer = Scripted::start(answer.as_bytes().to_vec()).await;
        let trigger = trigger(
            "redis",
            &peer.address,
            &[("listName", "orders")],
            &[("password", "canary")],
        );
        let error = failure(&trigger).await;
        assert_eq!(error.kind, kind, "{answer:?}: {error}");
        assert!(error.message.contains(part), "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let mut answer = b"$536870912\r\n".to_vec();
    answer.resize(8 << 20, b'x');
    let peer = Scripted::start(answer).await;
    let trigger = trigger("redis", &peer.address, &[("listName", "orders")], &[]);
    let began = Instant::now();
    let error = failure(&trigger).await;
    assert!(error.message.starts_with("connection to redis failed"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(1), "it was not waited for");
}

#[tokio::test]
async fn a_server_that_says_nothing_at_all() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let auth = [("password", "canary")];
    let trigger = trigger("redis", &address, &[("listName", "orders")], &auth);
    let error = failure(&trigger).await;
    assert_eq!(error.kind, ReadErrorKind::Timeout, "{error}");
    let free = free_address(LOOPBACK).await.unwrap();
    assert!(!error.message.contains(CANARY) && free.port() != 0);
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    let trigger = trigger("redis", "redis.invalid:6379", &[("listName", "orders")], &[]);
    let error = failure(&trigger).await;
    assert_eq!(error.kind, ReadErrorKind::Unreachable);
    assert!(
        error.message.contains("unable to resolve redis.invalid"),
        "{error}"
    );
}

#[tokio::test]
async fn where_egress_does_not_lead() {
    for (address, class) in [
        ("169.254.169.254:80", "link-local"),
        ("0.0.0.0:6379", "loopback"),
        ("[fd00:ec2::254]:80", "metadata"),
    ] {
        let error = failure(&trigger("redis", address, &[("listName", "orders")], &[])).await;
        assert_eq!(error.kind, ReadErrorKind::EgressDenied, "{address}: {error}");
        assert!(error.message.contains(class), "{address}: {error}");
    }
    // Where a node or a sentinel leads to is judged as well.
    let peer = Scripted::start(b"-MOVED 1 169.254.169.254:80\r\n".to_vec()).await;
    let moved = trigger("redis-cluster", &peer.address, &[("listName", "orders")], &[]);
    let error = failure(&moved).await;
    assert_eq!(error.kind, ReadErrorKind::EgressDenied, "{error}");
    let named = b"*2\r\n$15\r\n169.254.169.254\r\n$2\r\n80\r\n".to_vec();
    let peer = Scripted::start(named).await;
    let metadata = [("listName", "orders"), ("sentinelMaster", "m")];
    let error = failure(&trigger("redis-sentinel", &peer.address, &metadata, &[])).await;
    assert_eq!(error.kind, ReadErrorKind::EgressDenied, "{error}");
}

#[tokio::test]
async fn a_busy_server_is_only_late() {
    let server = RedisServer::start_open(LOOPBACK).await.unwrap();
    let trigger = list_of(&server);
    server.push("orders", 1).await.unwrap();
    assert_eq!(value(&trigger).await, 1.0);
    server.freeze().unwrap();
    let reading = tokio::spawn({
        let trigger = Arc::clone(&trigger);
        async move { value(&trigger).await }
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    server.thaw().unwrap();
    assert_eq!(reading.await.unwrap(), 1.0);
    reads_until(&trigger, "one more read", Duration::from_secs(5), Result::is_ok).await;
}

/// Answers AUTH with OK and everything else with the same bytes.
struct Scripted {
    address: String,
    task: JoinHandle<()>,
}

impl Scripted {
    async fn start(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(count) = stream.read(&mut buffer).await {
                        let login = buffer[..count].windows(4).any(|word| word == b"AUTH");
                        let bytes: &[u8] = if login { b"+OK\r\n" } else { &answer };
                        if count == 0 || stream.write_all(bytes).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, task }
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes bytes on until it forgets the connections there are; new ones work.
struct Relay {
    address: String,
    forget: tokio::sync::watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Relay {
    #[expect(
        clippy::disallowed_methods,
        reason = "it stands for the network, not for a scaler"
    )]
    async fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (forget, generation) = tokio::sync::watch::channel(0_u64);
        let task = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (to, mut generation) = (to.clone(), generation.clone());
                generation.mark_unchanged();
                tokio::spawn(async move {
                    let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = generation.changed() => {
                            // Both ends stay open, and nothing passes any more.
                            std::future::pending::<()>().await;
                        }
                    }
                });
            }
        });
        Self {
            address,
            forget,
            task,
        }
    }

    fn forget(&self) {
        self.forget.send_modify(|generation| *generation += 1);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
