//! The HTTP clients for the API server.
//!
//! The library's own stack does not survive a network that drops packets without a word, so this one is put together here:
//! dead peers are noticed by keepalive and by the kernel's own user timeout, connecting has a deadline, a connection that
//! stays silent for a minute while an answer is due is closed, and nothing is retried behind the caller's back.
//!
//! The clients speak HTTP/1.1. Each watch and each call then has a connection of its own, so a connection that dies takes
//! one of them with it and not all, and a large list never holds up the small write behind it; that matters more here than
//! the handshakes, of which a pool of idle connections saves most.

use std::{path::Path, time::Duration};

use http::{HeaderValue, header::USER_AGENT};
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt},
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use tower::{
    BoxError,
    util::{MapErrLayer, MapResponseLayer, option_layer},
};

use crate::{
    calls::{Calls, MAX_CALLS, Throttle},
    requests::Requests,
};

/// The time to reach the API server, name lookup and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The quiet time after which the kernel asks whether the peer is still there, and the time between such questions.
const KEEPALIVE: Duration = Duration::from_secs(3);
/// How long sent bytes may stay unacknowledged before the kernel gives the connection up.
const USER_TIMEOUT: Duration = Duration::from_secs(6);
/// How long an answer may stay silent. Watches end on the server's side before that (see [`crate::watch`]).
const SILENCE: Duration = Duration::from_secs(60);
/// The most that a connection reads at once. Answers may be longer, and by default the buffer of a connection that a long
/// list came over stays several hundred kilobytes large, for as long as its watch lasts.
const READ_AT_ONCE: usize = 64 << 10;
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(30);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The pod's service account could not be read.
    #[error("unable to read the pod's service account")]
    InCluster(#[source] InClusterError),
    /// The kubeconfig could not be used.
    #[error("unable to use the kubeconfig")]
    Kubeconfig(#[source] KubeconfigError),
    /// The kubeconfig names a proxy.
    #[error(
        "the kubeconfig's cluster has a proxy-url, which is not supported: accepted is a direct connection"
    )]
    Proxy,
    /// Certificates, keys or credentials could not be used.
    #[error("unable to set up the connection to the API server")]
    Setup(#[source] kube::Error),
}

/// Where the API server is and who Dormouse is there: `kubeconfig` if one is given, else the pod's service account if there
/// is one, else the user's own kubeconfig (`KUBECONFIG`, `~/.kube/config`).
///
/// # Errors
/// When the source that applies cannot be used. No other is tried then.
pub async fn config(kubeconfig: Option<&Path>) -> Result<Config, ClientError> {
    let options = KubeConfigOptions::default();
    match kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(ClientError::Kubeconfig)?;
            Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(ClientError::Kubeconfig)
        }
        None if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() => {
            Config::incluster().map_err(ClientError::InCluster)
        }
        None => Config::from_kubeconfig(&options)
            .await
            .map_err(ClientError::Kubeconfig),
    }
}

/// One API server: the clients and the bounds on their use.
#[derive(Clone)]
pub struct Cluster {
    /// For watches and, through [`Self::calls`], for unary calls.
    pub client: Client,
    /// For the leader election alone: its renewals share no connection and no queue with anything else.
    pub election: Client,
    /// For watches that come and go: each takes a connection with it when it ends, and the calls' own are to be there.
    pub passing: Client,
    /// The bounds every unary call obeys.
    pub calls: Calls,
    /// The namespace the process runs in, or the kubeconfig's.
    pub namespace: String,
}

impl Cluster {
    /// Clients for the API server of `config`. Nothing is sent yet.
    ///
    /// # Errors
    /// When certificates or credentials cannot be used.
    pub fn new(config: Config) -> Result<Self, ClientError> {
        let (throttle, requests) = (Throttle::new(), Requests::default());
        Ok(Self {
            client: client(config.clone(), &throttle, &requests)?,
            election: client(config.clone(), &Throttle::new(), &requests)?,
            passing: client(config.clone(), &throttle, &requests)?,
            calls: Calls::new(throttle).counting(requests),
            namespace: config.default_namespace,
        })
    }
}

/// A client with a pool of its own, which reports the server's wish for patience to `throttle` and is counted in `requests`.
fn client(mut config: Config, throttle: &Throttle, requests: &Requests) -> Result<Client, ClientError> {
    // An error means that a provider is installed, which is as good: there is only one in the tree.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if config.proxy_url.is_some() {
        return Err(ClientError::Proxy);
    }
    config.headers.push((
        USER_AGENT,
        HeaderValue::from_static(concat!("dormouse/", env!("CARGO_PKG_VERSION"))),
    ));

    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE));
    tcp.set_tcp_user_timeout(Some(USER_TIMEOUT));
    let tls = config
        .rustls_https_connector_with_connector(tcp)
        .map_err(ClientError::Setup)?;
    let mut connector = TimeoutConnector::new(tls);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_write_timeout(Some(USER_TIMEOUT));
    connector.set_read_timeout(Some(SILENCE));
    // The silence that counts is the one after a request, not the time the connection lay in the pool.
    connector.set_reset_reader_on_write(true);

    let http = legacy::Builder::new(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_CALLS)
        .http1_max_buf_size(READ_AT_ONCE)
        .build::<_, Body>(connector);

    let throttle = throttle.clone();
    let auth = config.auth_layer().map_err(ClientError::Setup)?;
    let headers = config.extra_headers_layer().map_err(ClientError::Setup)?;
    let namespace = config.default_namespace.clone();
    let stack = ClientBuilder::new(http, namespace)
        .with_layer(&MapErrLayer::new(BoxError::from))
        .with_layer(&MapResponseLayer::new(move |answer| {
            throttle.observe(&answer);
            answer
        }))
        .with_layer(requests)
        .with_layer(&headers)
        .with_layer(&option_layer(auth))
        .with_layer(&config.base_uri_layer());
    Ok(stack.build())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use http::Request;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::calls::{CallError, Priority};

    async fn listening() -> (TcpListener, Config) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        (listener, Config::new(url))
    }

    fn get(path: &str) -> Request<Vec<u8>> {
        Request::get(path).body(Vec::new()).unwrap()
    }

    #[tokio::test]
    async fn a_request_carries_our_name_and_a_busy_server_holds_later_calls_back() {
        let (listener, config) = listening().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap();
            let busy = "Too many requests, please try again later.\n";
            let answer = format!(
                "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 20\r\nContent-Length: {}\r\n\r\n{busy}",
                busy.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(head[..read].to_vec()).unwrap().to_lowercase()
        });
        let cluster = Cluster::new(config).unwrap();
        let call = cluster.calls.unary(Priority::Normal, "read the version", async {
            cluster.client.request_text(get("/version")).await
        });
        assert!(matches!(call.await.unwrap_err(), CallError::Throttled { .. }));
        assert!(
            server
                .await
                .unwrap()
                .contains(concat!("user-agent: dormouse/", env!("CARGO_PKG_VERSION")))
        );

        let start = Instant::now();
        let call = cluster.calls.unary(Priority::Normal, "read the version", async {
            cluster.client.request_text(get("/version")).await
        });
        let Err(CallError::Throttled { retry_after, .. }) = call.await else {
            panic!("the server was asked again")
        };
        assert!(retry_after > Duration::from_secs(15) && start.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_server_that_accepts_and_says_nothing_costs_one_deadline() {
        let (_listener, config) = listening().await;
        let cluster = Cluster::new(config).unwrap();
        let start = Instant::now();
        let call = cluster.calls.unary(Priority::Wake, "read the version", async {
            cluster.client.request_text(get("/version")).await
        });
        assert!(matches!(call.await.unwrap_err(), CallError::Timeout { .. }));
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn a_closed_port_is_told_apart() {
        let (listener, config) = listening().await;
        drop(listener);
        let cluster = Cluster::new(config).unwrap();
        let call = cluster.calls.unary(Priority::Normal, "read the version", async {
            cluster.client.request_text(get("/version")).await
        });
        let error = call.await.unwrap_err();
        assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
    }
}
