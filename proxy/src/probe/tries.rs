//! Tries at one port, until one succeeds.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::pace::Pace;
use super::spec::{HttpCheck, Scheme};
use super::tls;

const TCP_PAUSE: Duration = Duration::from_millis(5);
const HTTP_PAUSE: Duration = Duration::from_millis(10);
/// One try to connect. The first packets to an address that is being set up are lost, and TCP repeats them only after a
/// second: later tries overtake it.
const CONNECT: Duration = Duration::from_millis(200);
/// Tries to connect that may overlap.
const OVERLAP: usize = 40;

/// Resolves when the address takes a connection.
pub(super) async fn tcp(address: SocketAddr) {
    let pace = Pace::new(TCP_PAUSE);
    let mut next = Instant::now();
    let mut tries = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(connected) = tries.next() => if connected { return },
            () = sleep_until(next), if tries.len() < OVERLAP => {
                tries.push(async move { matches!(timeout(CONNECT, TcpStream::connect(address)).await, Ok(Ok(_))) });
                next = Instant::now() + pace.pause();
            }
        }
    }
}

/// Resolves when the address answers a request as a healthy one does.
pub(super) async fn http(address: SocketAddr, check: &HttpCheck, at_most: Duration) {
    let pace = Pace::new(HTTP_PAUSE);
    while !matches!(timeout(at_most, is_healthy(address, check)).await, Ok(true)) {
        sleep(pace.pause()).await;
    }
}

async fn is_healthy(address: SocketAddr, check: &HttpCheck) -> bool {
    let Ok(stream) = TcpStream::connect(address).await else {
        return false;
    };
    let status = match check.scheme {
        Scheme::Http => status(stream, address, check).await,
        Scheme::Https => match tls::connect(stream, address).await {
            Ok(stream) => status(stream, address, check).await,
            Err(_) => return false,
        },
    };
    // No redirect is followed: that there is one will do, as for the kubelet.
    status.is_ok_and(|status| (200..400).contains(&status))
}

async fn status<S>(stream: S, address: SocketAddr, check: &HttpCheck) -> hyper::Result<u16>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the sender, or with the endpoint.
    tokio::spawn(connection);
    Ok(sender
        .send_request(request(address, check))
        .await?
        .status()
        .as_u16())
}

fn request(address: SocketAddr, check: &HttpCheck) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = check.path.clone().into();
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static("kube-probe/dormouse"));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let Ok(host) = HeaderValue::try_from(address.to_string()) {
        headers.insert(HOST, host);
    }
    for (name, value) in &check.headers {
        headers.insert(name, value.clone());
    }
    request
}
