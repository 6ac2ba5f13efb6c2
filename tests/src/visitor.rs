//! Clients of the HTTP example, one for each way to speak HTTP. Each opens a connection of its own and checks all that it
//! gets.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::header::{CONTENT_TYPE, HOST, TE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::AbortOnDropHandle;

use crate::client_pod::{ClientPod, Errand, Outcome, Task};
use crate::cluster::Cluster;
use crate::install::Installation;
use crate::wait::until;

/// The header that says whether a request had to wait for a pod.
const COLD: &str = "x-keda-http-cold-start";

/// A way to speak HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Way {
    /// `GET` of HTTP/1.1.
    Get,
    /// `HEAD` of HTTP/1.1.
    Head,
    /// `POST` of HTTP/1.1 with a chunked body.
    Post,
    /// An answer that begins before the request has ended.
    Duplex,
    /// HTTP/2 in the clear, by prior knowledge.
    H2c,
    /// A gRPC call: HTTP/2, and a status in the trailers.
    Grpc,
    /// A WebSocket: an upgrade, and messages both ways.
    WebSocket,
    /// Server-sent events: a response in pieces.
    Events,
    /// `Expect: 100-continue`: the body follows once it is wanted.
    Expect,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Get,
        Self::Head,
        Self::Post,
        Self::Duplex,
        Self::H2c,
        Self::Grpc,
        Self::WebSocket,
        Self::Events,
        Self::Expect,
    ];
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What came of a request that was answered as it should.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Visit {
    /// From the first byte sent to the last one received.
    pub took: Duration,
    /// Whether it had to wait for a pod, where that is said.
    pub cold: Option<bool>,
    /// The pod that answered, where it says so.
    pub pod: Option<String>,
}

/// A client of one host behind one address.
#[derive(Clone, Debug)]
pub struct Visitor {
    address: SocketAddr,
    host: String,
    deadline: Duration,
    /// Where its requests are made, if not here.
    pod: Option<ClientPod>,
}

impl Visitor {
    /// A client that sends requests for `host` to the interceptors of `installation`, by their Service; once that takes
    /// connections: the node hears of its pods some time after they are ready.
    ///
    /// # Errors
    /// When there is no such Service, or it takes no connection for 15 s.
    pub async fn of(cluster: &Cluster, installation: &Installation, host: &str) -> Result<Self> {
        let arguments = [
            "--namespace",
            installation.namespace(),
            "get",
            "service",
            "keda-add-ons-http-interceptor-proxy",
            "--output=jsonpath={.spec.clusterIP}:{.spec.ports[0].port}",
        ];
        let address = cluster.kubectl(&arguments).await?;
        let address: SocketAddr = address
            .parse()
            .with_context(|| format!("{address:?} is no address"))?;
        until(
            "the interceptors' Service takes connections",
            Duration::from_secs(15),
            async || Ok(TcpStream::connect(address).await?),
        )
        .await?;
        Ok(Self::at(address, host))
    }

    /// A client of what listens there.
    #[must_use]
    pub fn at(address: SocketAddr, host: &str) -> Self {
        Self {
            address,
            host: host.to_owned(),
            deadline: Duration::from_secs(60),
            pod: None,
        }
    }

    /// The same, but its requests are made in that pod.
    #[must_use]
    pub fn in_pod(mut self, pod: &ClientPod) -> Self {
        self.pod = Some(pod.clone());
        self
    }

    /// The pod in which its requests are made, if they are not made here.
    pub(crate) fn pod(&self) -> Option<&ClientPod> {
        self.pod.as_ref()
    }

    /// Something to do in its pod.
    pub(crate) fn errand(&self, task: Task) -> Errand {
        Errand {
            address: self.address,
            host: self.host.clone(),
            deadline: self.deadline,
            task,
        }
    }

    /// With another deadline than a minute.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Where it connects to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whom it asks for.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Makes one request and checks the whole answer.
    ///
    /// # Errors
    /// Whatever is not as it should be, with how long it took until then.
    pub async fn visit(&self, way: Way) -> Result<Visit> {
        if let Some(pod) = &self.pod {
            return match pod.run(&self.errand(Task::Visit(way))).await? {
                Outcome::Visit(visit) => Ok(visit),
                other => bail!("{other:?} of a visit"),
            };
        }
        let began = Instant::now();
        let visit = async {
            match way {
                Way::Get => self.get("/hello?delay=5").await,
                Way::Head => self.head().await,
                Way::Post => self.post().await,
                Way::Duplex => self.duplex().await,
                Way::H2c => self.h2c().await,
                Way::Grpc => self.grpc().await,
                Way::WebSocket => self.web_socket().await,
                Way::Events => self.events().await,
                Way::Expect => self.expect().await,
            }
        };
        let ended = timeout(self.deadline, visit).await;
        let ended = ended.unwrap_or_else(|_elapsed| Err(anyhow!("no answer within {:?}", self.deadline)));
        let took = began.elapsed();
        let (cold, pod) = ended.with_context(|| format!("{way}, after {took:?}"))?;
        Ok(Visit { took, cold, pod })
    }

    /// A `GET`, whatever its answer.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ask(&self, path: &str) -> Result<(StatusCode, String)> {
        if let Some(pod) = &self.pod {
            return match pod.run(&self.errand(Task::Ask(path.to_owned()))).await? {
                Outcome::Ask { status, body } => Ok((StatusCode::from_u16(status)?, body)),
                other => bail!("{other:?} of a question"),
            };
        }
        let asked = async {
            let mut sender = self.http1().await?;
            let request = self.request(Method::GET, path).body(Full::default())?;
            let answer = sender.0.send_request(request).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await.context("the body broke off")?;
            Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
        };
        let ended = timeout(self.deadline, asked).await;
        ended.unwrap_or_else(|_elapsed| Err(anyhow!("no answer within {:?}", self.deadline)))
    }

    async fn get(&self, path: &str) -> Result<Found> {
        let mut sender = self.http1().await?;
        let request = self.request(Method::GET, path).body(Full::default())?;
        described(sender.0.send_request(request).await?, "GET", 0).await
    }

    async fn post(&self) -> Result<Found> {
        let (sender, connection) = http1::handshake(self.connect().await?).await?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let mut sender = sender;
        let pieces = futures::stream::iter(0..20).then(async |_| {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(Bytes::from_static(&[b'x'; 500])))
        });
        let body = http_body_util::StreamBody::new(Box::pin(pieces));
        let request = self.request(Method::POST, "/upload").body(body)?;
        described(sender.send_request(request).await?, "POST", 10_000).await
    }

    async fn head(&self) -> Result<Found> {
        let mut sender = self.http1().await?;
        let request = self.request(Method::HEAD, "/hello").body(Full::default())?;
        let answer = sender.0.send_request(request).await?;
        let (cold, status) = (cold(answer.headers()), answer.status());
        let body = answer.into_body().collect().await.context("the body broke off")?;
        let length = body.to_bytes().len();
        ensure!(
            status == StatusCode::OK && length == 0,
            "{status} and {length} bytes"
        );
        Ok((cold, None))
    }

    async fn duplex(&self) -> Result<Found> {
        let (sender, connection) = http1::handshake(self.connect().await?).await?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let mut sender = sender;
        let (mut pieces, body) = futures::channel::mpsc::channel(1);
        let piece = |text: &'static str| {
            Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(Bytes::from_static(text.as_bytes())))
        };
        pieces.send(piece("one")).await?;
        let body = http_body_util::StreamBody::new(body);
        let request = self.request(Method::POST, "/echo").body(body)?;
        let answer = sender.send_request(request).await?;
        let (cold, status) = (cold(answer.headers()), answer.status());
        ensure!(status == StatusCode::OK, "{status}");
        let mut back = answer.into_body();
        for text in ["one", "two", "three"] {
            if text != "one" {
                pieces.send(piece(text)).await?;
            }
            let mut seen = Vec::new();
            while seen.len() < text.len() {
                let frame = back.frame().await.context("the answer ended early")?;
                seen.extend_from_slice(
                    frame
                        .context("the body broke off")?
                        .data_ref()
                        .unwrap_or(&Bytes::new()),
                );
            }
            ensure!(seen == text.as_bytes(), "{seen:?} came back for {text}");
        }
        drop(pieces);
        ensure!(back.frame().await.is_none(), "more than was sent came back");
        Ok((cold, None))
    }

    async fn h2c(&self) -> Result<Found> {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), self.connect().await?).await?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let uri = format!("http://{}/hello", self.host);
        let request = Request::post(uri).body(Full::new(Bytes::from_static(b"hello")))?;
        described(sender.send_request(request).await?, "POST", 5).await
    }

    async fn grpc(&self) -> Result<Found> {
        const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), self.connect().await?).await?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::post(format!("http://{}/echo.Echo/Say", self.host))
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .body(Full::new(Bytes::from_static(MESSAGE)))?;
        let answer = sender.send_request(request).await?;
        let cold = cold(answer.headers());
        let status = answer.status();
        let early = answer.headers().get("grpc-status").cloned();
        let body = answer.into_body().collect().await.context("the body broke off")?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let body = body.to_bytes();
        ensure!(
            status == StatusCode::OK && trailers.get("grpc-status").is_some_and(|status| status == "0"),
            "{status}, grpc-status {early:?} in the head and {:?} in the trailers",
            trailers.get("grpc-status")
        );
        ensure!(body == MESSAGE, "{body:?} came back");
        Ok((cold, None))
    }

    async fn web_socket(&self) -> Result<Found> {
        let stream = TcpStream::connect(self.address).await.context("connecting")?;
        let (mut socket, answer) =
            tokio_tungstenite::client_async(format!("ws://{}/", self.host), stream).await?;
        let cold = cold(answer.headers());
        for text in ["one", "two", "three"] {
            socket.send(Message::text(text)).await?;
            match socket.next().await {
                Some(Ok(message)) => ensure!(message == Message::text(text), "{message:?} came back"),
                other => bail!("{other:?} instead of {text}"),
            }
        }
        socket.close(None).await?;
        Ok((cold, None))
    }

    async fn events(&self) -> Result<Found> {
        let mut sender = self.http1().await?;
        let request = self
            .request(Method::GET, "/events?count=3&interval=60")
            .body(Full::default())?;
        let answer = sender.0.send_request(request).await?;
        let (cold, status) = (cold(answer.headers()), answer.status());
        ensure!(status == StatusCode::OK, "{status}");
        let mut body = answer.into_body();
        let (mut text, mut pieces, began) = (Vec::new(), Vec::new(), Instant::now());
        while let Some(frame) = body.frame().await {
            let frame = frame.context("the events broke off")?;
            if let Some(data) = frame.data_ref() {
                text.extend_from_slice(data);
                pieces.push(began.elapsed());
            }
        }
        let text = String::from_utf8_lossy(&text);
        let found = text.matches("data: event ").count();
        ensure!(found == 3, "{found} events: {text:?}");
        let spread = pieces.last().copied().unwrap_or_default();
        ensure!(
            pieces.len() >= 3 && spread >= Duration::from_millis(60),
            "events that are 60 ms apart came after {pieces:?}"
        );
        Ok((cold, None))
    }

    async fn expect(&self) -> Result<Found> {
        let mut stream = BufReader::new(TcpStream::connect(self.address).await.context("connecting")?);
        let head = format!(
            "POST /upload HTTP/1.1\r\nHost: {}\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
            self.host
        );
        stream.write_all(head.as_bytes()).await?;
        let first = status_line(&mut stream).await?;
        ensure!(
            first.starts_with("HTTP/1.1 100 "),
            "{first:?} instead of 100 Continue"
        );
        ensure!(
            status_line(&mut stream).await?.is_empty(),
            "100 Continue has headers"
        );
        stream.write_all(b"hello").await?;
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await?;
        ensure!(
            rest.starts_with("HTTP/1.1 200 ") && rest.contains(r#""bytes":5"#),
            "{rest:?} after 100 Continue"
        );
        let cold = rest.contains(&format!("{COLD}: true"));
        Ok((Some(cold), None))
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.host)
    }

    async fn connect(&self) -> Result<TokioIo<TcpStream>> {
        let stream = TcpStream::connect(self.address).await.context("connecting")?;
        stream.set_nodelay(true)?;
        Ok(TokioIo::new(stream))
    }

    pub(crate) async fn http1(&self) -> Result<Http1> {
        let (sender, connection) = http1::handshake(self.connect().await?).await?;
        Ok(Http1(sender, AbortOnDropHandle::new(tokio::spawn(connection))))
    }
}

/// A connection.
pub(crate) struct Http1(
    pub(crate) http1::SendRequest<Full<Bytes>>,
    #[expect(dead_code, reason = "held: the connection ends with it")]
    AbortOnDropHandle<Result<(), hyper::Error>>,
);

/// Whether it had to wait, and who answered.
type Found = (Option<bool>, Option<String>);

fn cold(headers: &HeaderMap) -> Option<bool> {
    headers.get(COLD).map(|value| value == "true")
}

/// The answer of one who says what was asked.
async fn described(answer: Response<Incoming>, method: &str, bytes: u64) -> Result<Found> {
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.context("the body broke off")?.to_bytes();
    let text = String::from_utf8_lossy(&body);
    ensure!(parts.status == StatusCode::OK, "{}: {text:?}", parts.status);
    let said: Value = serde_json::from_str(&text).with_context(|| format!("{text:?} is not what it says"))?;
    ensure!(
        said["method"] == method && said["bytes"] == bytes,
        "it was asked {said}"
    );
    Ok((cold(&parts.headers), said["pod"].as_str().map(str::to_owned)))
}

async fn status_line(stream: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    Ok(line.trim_end().to_owned())
}
