//! Applications.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub type Body = BoxBody<Bytes, hyper::Error>;

/// A server on loopback that stops when dropped.
pub struct App {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Drop for App {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl App {
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// An address that nothing listens on.
pub fn free_address() -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    socket.local_addr().unwrap()
}

async fn listen(address: Option<SocketAddr>) -> TcpListener {
    TcpListener::bind(address.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))
        .await
        .unwrap()
}

/// Serves HTTP/1.1 (with upgrades), at `address` or any.
pub async fn serve_at<F, A>(address: Option<SocketAddr>, answer: F) -> App
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = listen(address).await;
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let serving = tokio::spawn(async move {
        // Dropped with this task.
        let mut tasks = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            let answer = answer.clone();
            tasks.spawn(async move {
                let service = service_fn(move |request| {
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                let mut builder = hyper::server::conn::http1::Builder::new();
                builder.half_close(true).header_read_timeout(None);
                builder
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await
                    .ok();
            });
        }
    });
    App {
        address,
        connections,
        serving,
    }
}

/// Answers `said` once it is told that it may.
pub async fn patient(said: &'static str) -> (App, watch::Sender<bool>) {
    let (go, may_go) = watch::channel(false);
    let app = serve(move |_| {
        let mut may_go = may_go.clone();
        async move {
            may_go.wait_for(|go| *go).await.unwrap();
            text(said)
        }
    })
    .await;
    (app, go)
}

/// Serves HTTP/1.1.
pub async fn serve<F, A>(answer: F) -> App
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    serve_at(None, answer).await
}

/// Serves HTTP/2 by prior knowledge.
pub async fn serve_h2c<F, A>(answer: F) -> App
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = listen(None).await;
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let serving = tokio::spawn(async move {
        let mut tasks = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            let answer = answer.clone();
            tasks.spawn(async move {
                let service = service_fn(move |request| {
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                builder.serve_connection(TokioIo::new(stream), service).await.ok();
            });
        }
    });
    App {
        address,
        connections,
        serving,
    }
}

pub fn text(text: impl Into<Bytes>) -> Response<Body> {
    Response::new(full(text))
}

pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

/// Answers everything with `ok`.
pub async fn ok() -> App {
    serve(|_| async { text("ok") }).await
}

/// Answers with the head of the request, line by line.
pub async fn mirror() -> App {
    serve(|request: Request<Incoming>| async move {
        let mut lines = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
        for (name, value) in request.headers() {
            lines.push_str(&format!(
                "{name}: {}\n",
                String::from_utf8_lossy(value.as_bytes())
            ));
        }
        let body = request
            .into_body()
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        lines.push('\n');
        lines.push_str(&String::from_utf8_lossy(&body));
        text(lines)
    })
    .await
}

/// Answers each request with its body, as it comes.
pub async fn echo() -> App {
    serve(|request: Request<Incoming>| async move { Response::new(request.into_body().boxed()) }).await
}
