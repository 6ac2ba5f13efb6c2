//! An SQS server that checks signatures, with keys that come and go while it runs.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use http::HeaderValue;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustack_auth::AuthError;
use rustack_auth::credentials::CredentialProvider;
use rustack_sqs_core::config::SqsConfig;
use rustack_sqs_core::handler::RustackSqsHandler;
use rustack_sqs_core::provider::RustackSqs;
use rustack_sqs_http::body::SqsResponseBody;
use rustack_sqs_http::service::{SqsHttpConfig, SqsHttpService};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::served::listen;
use crate::sqs::{Queue, REGION, client};

const CONNECTIONS: usize = 1000;
const SEEN_KEPT: usize = 10_000;
/// The key with which the test itself prepares its queues.
const ADMIN: (&str, &str) = ("AKADMIN", "admin-secret");

/// A request that was answered.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The ID of the key it was signed with.
    pub key: String,
    /// Whether the answer was a success.
    pub accepted: bool,
    /// Which connection it came over.
    pub connection: u64,
    /// When it came.
    pub at: Instant,
}

/// The keys a server knows, and what was asked of it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Keys {
    secrets: Arc<Mutex<HashMap<String, String>>>,
    throttled: Arc<Mutex<HashSet<String>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keys {
    /// From now on, requests signed with this key are served.
    pub fn allow(&self, id: &str, secret: &str) {
        lock(&self.secrets).insert(id.to_owned(), secret.to_owned());
    }

    /// From now on, requests signed with this key are refused.
    pub fn revoke(&self, id: &str) {
        lock(&self.secrets).remove(id);
    }

    /// From now on, requests signed with this key are told that they are too many.
    pub fn throttle(&self, id: &str) {
        lock(&self.throttled).insert(id.to_owned());
    }

    /// Ends [`throttle`](Self::throttle).
    pub fn relent(&self, id: &str) {
        lock(&self.throttled).remove(id);
    }

    /// The requests answered so far, at most 10,000.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).clone()
    }
}

impl CredentialProvider for Keys {
    fn get_secret_key(&self, id: &str) -> Result<String, AuthError> {
        let secret = lock(&self.secrets).get(id).cloned();
        secret.ok_or_else(|| AuthError::AccessKeyNotFound(id.to_owned()))
    }
}

/// A server on the node's address; it ends with this value.
pub struct SignedSqs {
    address: SocketAddr,
    /// Its keys.
    pub keys: Keys,
    _serve: AbortOnDropHandle<()>,
}

impl SignedSqs {
    /// Starts a server that knows no key but the test's own.
    ///
    /// # Errors
    /// When the address cannot be bound, as outside the cluster's network.
    pub async fn start() -> Result<Self> {
        let listener = listen().await?;
        let address = listener.local_addr().context("reading the port")?;
        let keys = Keys::default();
        keys.allow(ADMIN.0, ADMIN.1);
        let serve = serve(listener, keys.clone(), REGION.to_owned());
        let serve = AbortOnDropHandle::new(tokio::spawn(async move {
            let _ = serve.await;
        }));
        Ok(Self {
            address,
            keys,
            _serve: serve,
        })
    }

    /// The URL of the server, as `awsEndpoint` takes it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Creates a queue.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create_queue(&self, name: &str) -> Result<Queue> {
        Queue::create(client(&self.endpoint(), ADMIN.0, ADMIN.1), name).await
    }
}

/// Serves the SQS protocol from memory to whoever signs with one of `keys`.
///
/// # Errors
/// When the listener has no address.
pub async fn serve(listener: TcpListener, keys: Keys, region: String) -> Result<()> {
    let address = listener.local_addr().context("reading the bound address")?;
    let provider = RustackSqs::new(SqsConfig {
        skip_signature_validation: false,
        default_region: region.clone(),
        host: address.ip().to_string(),
        port: address.port(),
        ..SqsConfig::default()
    });
    let service = SqsHttpService::new(
        Arc::new(RustackSqsHandler::new(Arc::new(provider))),
        SqsHttpConfig {
            skip_signature_validation: false,
            region,
            credential_provider: Some(Arc::new(keys.clone())),
        },
    );
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    for connection in 0.. {
        let permit = room
            .clone()
            .acquire_owned()
            .await
            .context("the semaphore is never closed")?;
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (service, keys) = (service.clone(), keys.clone());
        let respond = hyper::service::service_fn(move |request: http::Request<Incoming>| {
            let (key, at, keys) = (signer(&request), Instant::now(), keys.clone());
            let is_throttled = lock(&keys.throttled).contains(&key);
            let answer = service.call(request);
            async move {
                let response = if is_throttled { too_many() } else { answer.await? };
                let mut seen = lock(&keys.seen);
                if seen.len() < SEEN_KEPT {
                    let accepted = response.status().is_success();
                    seen.push(Seen {
                        key,
                        accepted,
                        connection,
                        at,
                    });
                }
                drop(seen);
                Ok::<_, Infallible>(response)
            }
        });
        tokio::spawn(async move {
            let _permit = permit;
            let server = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = server.serve_connection(TokioIo::new(stream), respond).await {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }
    Ok(())
}

/// What SQS says to an account that asks more often than it may.
fn too_many() -> http::Response<SqsResponseBody> {
    let body = br#"{"__type":"com.amazonaws.sqs#RequestThrottled","message":"The request was denied due to request throttling."}"#;
    let mut response = http::Response::new(SqsResponseBody::from_json(body.to_vec()));
    *response.status_mut() = http::StatusCode::BAD_REQUEST;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-amz-json-1.0"),
    );
    let code = HeaderValue::from_static("RequestThrottled;Sender");
    headers.insert("x-amzn-query-error", code);
    response
}

/// The ID of the key in `Authorization: AWS4-HMAC-SHA256 Credential=ID/date/...`.
fn signer<B>(request: &http::Request<B>) -> String {
    let header = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let credential = header.and_then(|text| text.split_once("Credential="));
    let id = credential.and_then(|(_, rest)| rest.split('/').next());
    id.unwrap_or_default().to_owned()
}
