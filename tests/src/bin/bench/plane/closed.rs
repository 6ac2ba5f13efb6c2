//! As many requests as are answered, over connections of which each has one request at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use axum::body::Bytes;
use http::Request;
use http::header::{HOST, HeaderValue};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::nginx::ANSWER;
use crate::process::Process;

/// Before anything is counted: connections are made meanwhile.
const WARM_UP: Duration = Duration::from_millis(700);

/// A connection that carries requests.
pub(crate) type Connection = SendRequest<Empty<Bytes>>;

/// Connects; the connection is driven until it ends.
pub(crate) async fn connect(address: SocketAddr) -> Result<Connection> {
    let stream = TcpStream::connect(address).await.context("unable to connect")?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// One request, answered with as many bytes as the application gives.
pub(crate) async fn get(connection: &mut Connection, host: &HeaderValue) -> Result<()> {
    let mut request = Request::new(Empty::new());
    request.headers_mut().insert(HOST, host.clone());
    connection.ready().await?;
    let answer = connection.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    ensure!(
        status == 200 && body.len() == ANSWER,
        "{status}, {} bytes",
        body.len()
    );
    Ok(())
}

/// What a load came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Throughput {
    /// Answers per second of processor time that the measured processes used.
    pub(crate) per_cpu_second: f64,
    /// Answers per second.
    pub(crate) per_second: f64,
}

/// Sends requests to `address` for `span`, over one connection per host, and measures what `processes` need for that.
pub(crate) async fn throughput(
    address: SocketAddr,
    hosts: &[String],
    processes: &[Process],
    span: Duration,
) -> Result<Throughput> {
    let answers = Arc::new(AtomicU64::new(0));
    // Dropped at the end, and with it what is under way.
    let mut clients = JoinSet::new();
    for host in hosts {
        let (host, answers) = (HeaderValue::from_str(host)?, answers.clone());
        clients.spawn(async move {
            let mut connection = connect(address).await?;
            loop {
                get(&mut connection, &host).await?;
                answers.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let used = || -> Result<f64> { processes.iter().map(|process| process.processor_time()).sum() };
    let measured = async {
        sleep(WARM_UP).await;
        let (began, before, cpu) = (Instant::now(), answers.load(Ordering::Relaxed), used()?);
        sleep(span).await;
        let (passed, cpu) = (began.elapsed().as_secs_f64(), used()? - cpu);
        let count = (answers.load(Ordering::Relaxed) - before) as f64;
        ensure!(cpu > 0.0 && count > 0.0, "nothing was answered");
        Ok(Throughput {
            per_cpu_second: count / cpu,
            per_second: count / passed,
        })
    };
    tokio::select! {
        measured = measured => measured,
        Some(ended) = clients.join_next() => {
            let ended: Result<std::convert::Infallible> = ended.context("a client panicked")?;
            Err(ended.err().context("a client ended")?.context("a request failed under load"))
        }
    }
}
