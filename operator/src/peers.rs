//! The way from a follower to the leader's metrics API.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dormouse_api::labels;
use dormouse_core::Quantity;
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::AUTHORIZATION;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use tokio::sync::watch;

use crate::metrics_api::{ExternalMetric, MetricQuery};

/// Where a pod finds the token of its ServiceAccount.
pub const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// How long a token is used before its file is read again; the kubelet replaces it well before it ends.
const TOKEN_AGE: Duration = Duration::from_secs(60);
/// The longest answer that is read.
const LONGEST_ANSWER: usize = 64 * 1024;

/// What the leader said.
pub enum PeerAnswer {
    /// A value.
    Metric(ExternalMetric),
    /// Its reason for giving none.
    Refused(String),
    /// Nothing of use: no connection, no answer, or not the leader.
    Silent,
}

/// Asks the leader, whoever that is.
pub struct Leader {
    server_name: String,
    token_file: PathBuf,
    authorities: watch::Receiver<Arc<[CertificateDer<'static>]>>,
    connected: Mutex<Option<Connected>>,
    token: Mutex<Option<(Instant, String)>>,
}

#[derive(Clone)]
struct Connected {
    address: SocketAddr,
    authorities: Arc<[CertificateDer<'static>]>,
    client: reqwest::Client,
}

#[derive(Deserialize)]
struct ValueList {
    items: Vec<Value>,
}

#[derive(Deserialize)]
struct Value {
    timestamp: Timestamp,
    value: String,
}

#[derive(Deserialize)]
struct Status {
    message: String,
}

impl Leader {
    /// A way to whoever answers as `server_name` with a certificate of `authorities`.
    #[must_use]
    pub fn new(
        server_name: String,
        token_file: &Path,
        authorities: watch::Receiver<Arc<[CertificateDer<'static>]>>,
    ) -> Self {
        Self {
            server_name,
            token_file: token_file.to_owned(),
            authorities,
            connected: Mutex::default(),
            token: Mutex::default(),
        }
    }

    /// Asks the leader at `address`. The caller sets the deadline.
    pub async fn ask(&self, address: &str, query: MetricQuery<'_>) -> PeerAnswer {
        let (Some(connected), Some(token)) = (self.connected(address), self.token().await) else {
            return PeerAnswer::Silent;
        };
        let escape = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let selector = format!("{}={}", labels::SCALED_OBJECT_NAME, query.scaled_object);
        let url = format!(
            "https://{}:{}/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/{}?labelSelector={}",
            self.server_name,
            connected.address.port(),
            escape(query.namespace),
            escape(query.metric),
            escape(&selector)
        );
        let request = connected
            .client
            .get(url)
            .header(AUTHORIZATION, format!("Bearer {token}"));
        match request.send().await {
            Ok(response) => understand(response).await,
            Err(_) => PeerAnswer::Silent,
        }
    }

    fn connected(&self, address: &str) -> Option<Connected> {
        let address: SocketAddr = address.parse().ok()?;
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let authorities = self.authorities.borrow().clone();
        let usable =
            |known: &&Connected| known.address == address && Arc::ptr_eq(&known.authorities, &authorities);
        if connected.as_ref().filter(usable).is_none() {
            *connected = self.connect(address, &authorities).map(|client| Connected {
                address,
                authorities,
                client,
            });
        }
        connected.clone()
    }

    fn connect(
        &self,
        address: SocketAddr,
        authorities: &[CertificateDer<'static>],
    ) -> Option<reqwest::Client> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.iter().cloned());
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(roots)
        .with_no_client_auth();
        reqwest::Client::builder()
            .use_preconfigured_tls(tls)
            .resolve(&self.server_name, address)
            .connect_timeout(Duration::from_millis(500))
            .timeout(Duration::from_secs(2))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .ok()
    }

    async fn token(&self) -> Option<String> {
        let fresh = |known: &Option<(Instant, String)>| {
            known
                .as_ref()
                .filter(|(read, _)| read.elapsed() < TOKEN_AGE)
                .map(|(_, token)| token.clone())
        };
        if let Some(token) = fresh(&self.token.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Some(token);
        }
        let token = tokio::fs::read_to_string(&self.token_file)
            .await
            .ok()?
            .trim()
            .to_owned();
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), token.clone()));
        Some(token)
    }
}

async fn understand(response: reqwest::Response) -> PeerAnswer {
    let status = response.status();
    if response
        .content_length()
        .is_none_or(|length| length > LONGEST_ANSWER as u64)
    {
        return PeerAnswer::Silent;
    }
    let Ok(body) = response.bytes().await else {
        return PeerAnswer::Silent;
    };
    if status.is_success() {
        let answer = serde_json::from_slice::<ValueList>(&body)
            .ok()
            .and_then(|list| list.items.into_iter().next());
        let metric = answer.and_then(|item| {
            Some(ExternalMetric {
                value: Quantity::parse(&item.value).ok()?,
                timestamp: item.timestamp,
            })
        });
        return metric.map_or(PeerAnswer::Silent, PeerAnswer::Metric);
    }
    match serde_json::from_slice::<Status>(&body) {
        // Anything but a plain error is about this replica or its rights, not about the metric.
        Ok(answer) if status.as_u16() == 500 && !answer.message.contains("is not the leader") => {
            PeerAnswer::Refused(answer.message)
        }
        _ => PeerAnswer::Silent,
    }
}
