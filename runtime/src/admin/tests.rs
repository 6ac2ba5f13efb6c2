use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::telemetry::LogOptions;

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn start(router: Router) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve(listener, router, stop.clone().cancelled_owned()));
    Server { address, stop, task }
}

async fn send(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = request.replace('\n', "\r\n") + "Host: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn put_level(address: SocketAddr, level: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "PUT /log-level HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}",
        level.len()
    );
    stream
        .write_all(format!("{head}\r\n\r\n{level}").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn readiness_names_what_is_missing_until_all_of_it_is_there() {
    let readiness = Readiness::new();
    let (caches, api) = (readiness.check("caches"), readiness.check("metrics API"));
    let server = start(health(readiness)).await;
    let ready = async || send(server.address, "GET /readyz HTTP/1.1\n").await;

    let answer = ready().await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.ends_with("not ready: caches, metrics API\n"),
        "{answer}"
    );
    caches.set(true);
    assert!(ready().await.ends_with("not ready: metrics API\n"));
    api.set(true);
    assert!(ready().await.starts_with("HTTP/1.1 200"));
    drop(caches);
    assert!(
        ready().await.ends_with("not ready: caches\n"),
        "a dropped check must not look ready"
    );
    for alive in ["/healthz", "/livez"] {
        assert!(
            send(server.address, &format!("GET {alive} HTTP/1.1\n"))
                .await
                .starts_with("HTTP/1.1 200")
        );
    }
}

#[tokio::test]
async fn metrics_come_in_the_format_asked_for() {
    let registry = Metrics::new();
    registry.register(|r| {
        r.register(
            "up",
            "One",
            prometheus_client::metrics::gauge::Gauge::<i64>::default(),
        )
    });
    let server = start(metrics(registry)).await;
    let classic = send(server.address, "GET /metrics HTTP/1.1\n").await;
    assert!(
        classic.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{classic}"
    );
    assert!(
        classic.ends_with("\r\n\r\n# HELP up One.\n# TYPE up gauge\nup 0\n"),
        "{classic}"
    );
    let open = send(
        server.address,
        "GET /metrics HTTP/1.1\nAccept: application/openmetrics-text\n",
    )
    .await;
    assert!(
        open.contains("content-type: application/openmetrics-text;") && open.ends_with("# EOF\n"),
        "{open}"
    );
}

#[tokio::test]
async fn the_log_level_is_changed_or_the_refusal_says_what_is_accepted() {
    let (_subscriber, telemetry) = Telemetry::detached(LogOptions::default());
    let server = start(log_level(telemetry)).await;
    assert!(
        put_level(server.address, "debug")
            .await
            .starts_with("HTTP/1.1 200")
    );
    let refusal = put_level(server.address, "loud").await;
    assert!(
        refusal.starts_with("HTTP/1.1 400") && refusal.contains("error, warn, info"),
        "{refusal}"
    );
    assert!(
        put_level(server.address, &"x".repeat(65))
            .await
            .starts_with("HTTP/1.1 413")
    );
}

#[tokio::test]
async fn connections_that_say_nothing_give_way() {
    let server = start(health(Readiness::new())).await;
    let ask = async |stream: &mut TcpStream| {
        let request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut first = [0; 12];
        let read = timeout(Duration::from_secs(5), stream.read_exact(&mut first)).await;
        read.unwrap().map(|_| first)
    };
    let mut silent = Vec::new();
    for _ in 0..2 * MAX_CONNECTIONS {
        silent.push(TcpStream::connect(server.address).await.unwrap());
        let mut late = TcpStream::connect(server.address).await.unwrap();
        assert_eq!(&ask(&mut late).await.unwrap(), b"HTTP/1.1 200");
    }
    let mut end = [0; 1];
    let closed = timeout(Duration::from_secs(5), silent[0].read(&mut end)).await;
    assert!(matches!(closed.unwrap(), Ok(0) | Err(_)), "the oldest was closed");
}

#[tokio::test]
async fn where_all_connections_have_a_request_the_next_one_waits() {
    let (release, released) = tokio::sync::watch::channel(false);
    let inside = Arc::new(AtomicU32::new(0));
    let counter = inside.clone();
    let hangs = move || {
        let mut released = released.clone();
        counter.fetch_add(1, Ordering::Relaxed);
        async move {
            released.wait_for(|released| *released).await.unwrap();
        }
    };
    let server = start(Router::new().route("/hangs", axum::routing::get(hangs))).await;
    let mut clients = Vec::new();
    for number in 0..=MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = b"GET /hangs HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request).await.unwrap();
        clients.push(stream);
        let all_are_inside = async {
            while inside.load(Ordering::Relaxed) as usize <= number.min(MAX_CONNECTIONS - 1) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(5), all_are_inside).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(inside.load(Ordering::Relaxed) as usize, MAX_CONNECTIONS);
    release.send(true).unwrap();
    for stream in &mut clients {
        let mut first = [0; 12];
        let read = timeout(Duration::from_secs(5), stream.read_exact(&mut first)).await;
        read.unwrap().unwrap();
        assert_eq!(&first, b"HTTP/1.1 200", "nobody's request was cut off");
    }
}

#[tokio::test]
async fn shutdown_closes_the_port_and_idle_connections() {
    let server = start(health(Readiness::new())).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    server.stop.cancel();
    timeout(Duration::from_secs(5), server.task)
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
    let mut rest = Vec::new();
    timeout(Duration::from_secs(5), idle.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
}
