//! Scripted servers and ready-made surroundings of a trigger.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::Response;
use dormouse_scalers::{
    AuthParams, AwsEnvironment, Clients, ClientsConfig, Connect, EgressRules, Observed, ReadError, Sensitive,
    Trigger, TriggerParams, connect,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What every secret of these tests contains, and no text ever may.
pub(crate) const CANARY: &str = "canary";

/// One request as a server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }
}

/// An HTTP server that answers by a script and keeps what it saw. Stops when dropped.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Peer {
    pub(crate) async fn start(script: impl Fn(&Seen) -> Response + Clone + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0", script).await
    }

    pub(crate) async fn start_on(
        address: impl tokio::net::ToSocketAddrs,
        script: impl Fn(&Seen) -> Response + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address)
            .await
            .expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        let router = Router::new().fallback(move |request: Request| {
            let (script, record) = (script.clone(), Arc::clone(&record));
            async move {
                let (parts, body) = request.into_parts();
                let request = Seen {
                    method: parts.method.to_string(),
                    target: parts.uri.to_string(),
                    headers: parts.headers,
                    body: to_bytes(body, 1 << 20).await.unwrap_or_default(),
                };
                record
                    .lock()
                    .expect("no test panics while it holds this")
                    .push(request.clone());
                script(&request)
            }
        });
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { address, seen, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen
            .lock()
            .expect("no test panics while it holds this")
            .clone()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A server that reads a request's head, writes these bytes, and then closes the connection or keeps it open. Tells of
/// each connection that the other side ended.
pub(crate) struct RawPeer {
    pub(crate) address: SocketAddr,
    pub(crate) ended: mpsc::UnboundedReceiver<()>,
    task: JoinHandle<()>,
}

impl RawPeer {
    pub(crate) async fn start(bytes: &'static [u8], keep_open: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let (tell, ended) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_raw(stream, bytes, keep_open, tell.clone()));
            }
        });
        Self { address, ended, task }
    }
}

async fn serve_raw(mut stream: TcpStream, bytes: &[u8], keep_open: bool, ended: mpsc::UnboundedSender<()>) {
    let mut buffer = [0; 4096];
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => head.extend_from_slice(&buffer[..n]),
            _ => break,
        }
    }
    let _ = stream.write_all(bytes).await;
    if keep_open {
        while matches!(stream.read(&mut buffer).await, Ok(n) if n > 0) {}
        let _ = ended.send(());
    }
}

impl Drop for RawPeer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer with a body.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<axum::body::Body>) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).expect("the test's headers are valid")
}

/// Parameters of a trigger.
pub(crate) fn params(trigger_type: &str, metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> TriggerParams {
    TriggerParams {
        trigger_type: trigger_type.to_owned(),
        metadata: metadata
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        auth: AuthParams {
            params: auth
                .iter()
                .map(|(k, v)| ((*k).to_owned(), Sensitive::new(*v)))
                .collect(),
            ..AuthParams::default()
        },
        ..TriggerParams::default()
    }
}

/// The surroundings of a trigger in no cluster.
pub(crate) fn context(params: TriggerParams) -> Connect {
    let aws = AwsEnvironment {
        web_identity_token_file: None,
        endpoint_urls: std::collections::BTreeMap::new(),
    };
    Connect {
        namespace: "default".to_owned(),
        default_deadline: Duration::from_secs(3),
        clients: Arc::new(Clients::new(ClientsConfig {
            aws,
            egress: EgressRules::with_loopback(),
            ..ClientsConfig::default()
        })),
        endpoints: None,
        pods: None,
        demand: None,
        params,
    }
}

/// Connects a trigger that is right.
pub(crate) fn connected(params: TriggerParams) -> Arc<dyn Trigger> {
    connect(&context(params)).expect("the parameters are right")
}

/// Reads once within the trigger's deadline, and checks that no failure shows a secret.
pub(crate) async fn read(trigger: &Arc<dyn Trigger>) -> Result<Observed, ReadError> {
    let outcome = tokio::time::timeout(trigger.deadline(), Arc::clone(trigger).read()).await;
    let outcome = outcome.expect("the peer answers well within the deadline");
    if let Err(error) = &outcome {
        let texts = format!("{error} {error:?}");
        assert!(!texts.to_lowercase().contains(CANARY), "{texts}");
    }
    outcome
}
