//! Which client certificates count, and for what: the ConfigMap `kube-system/extension-apiserver-authentication`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// How often the ConfigMap is read without a reason to.
const READ_EVERY: Duration = Duration::from_secs(60);
/// How often at most it is read because a certificate was not recognised, or because the last read failed.
const READ_AT_MOST_EVERY: Duration = Duration::from_secs(5);
/// Authorities taken from one bundle.
const MAX_AUTHORITIES: usize = 64;

/// One reading of the ConfigMap, ready for use.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    pub(crate) front_proxy: Option<FrontProxy>,
    /// Signs certificates of users.
    pub(crate) clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// How the aggregation layer identifies itself and passes its users on.
#[derive(Debug)]
pub(crate) struct FrontProxy {
    pub(crate) authority: Arc<dyn ClientCertVerifier>,
    /// Common names it may have; empty: any.
    pub(crate) allowed_names: Vec<String>,
    pub(crate) user_headers: Vec<String>,
    pub(crate) uid_headers: Vec<String>,
    pub(crate) group_headers: Vec<String>,
    pub(crate) extra_prefixes: Vec<String>,
}

/// What is wrong with the ConfigMap.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    #[error("unable to read ConfigMap {NAMESPACE}/{NAME}: deadline of 5 s exceeded")]
    Deadline,
    #[error("unable to read ConfigMap {NAMESPACE}/{NAME}")]
    Read(#[source] kube::Error),
    #[error(
        "ConfigMap {NAMESPACE}/{NAME}, key {key}: not a PEM bundle of 1 to {MAX_AUTHORITIES} certificates"
    )]
    Authorities { key: &'static str },
    #[error("ConfigMap {NAMESPACE}/{NAME}, key {key}: not a JSON list of strings")]
    List { key: &'static str },
}

enum Refreshed {
    Now,
    AMomentAgo,
}

/// The current [`Trust`]: the last reading that made sense.
pub(crate) struct TrustStore {
    client: Client,
    current: ArcSwap<Trust>,
    /// When the ConfigMap was last asked for. Held over the read, so that there is one at a time.
    asked: Mutex<Option<Instant>>,
}

impl TrustStore {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            current: ArcSwap::default(),
            asked: Mutex::new(None),
        }
    }

    pub(crate) fn current(&self) -> Arc<Trust> {
        self.current.load_full()
    }

    /// Reads the ConfigMap again and again; never ends.
    pub(crate) async fn keep_current(&self) {
        let mut last_failure = None::<String>;
        loop {
            let pause = match self.refresh().await {
                Ok(Refreshed::Now) => {
                    last_failure = None;
                    READ_EVERY
                }
                Ok(Refreshed::AMomentAgo) => READ_AT_MOST_EVERY,
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                    let failure = format!("{error}{}", cause.unwrap_or_default());
                    if last_failure.as_ref() != Some(&failure) {
                        warn!("client certificates keep being judged by the last good reading: {failure}");
                    }
                    last_failure = Some(failure);
                    READ_AT_MOST_EVERY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads the ConfigMap because a certificate was not recognised: its authority may be newer than our reading.
    /// Returns at once when it was asked for a moment ago.
    pub(crate) async fn refresh_on_doubt(&self) {
        // The loop reports failures; here the old reading simply goes on.
        let _ = self.refresh().await;
    }

    async fn refresh(&self) -> Result<Refreshed, TrustError> {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|asked| asked.elapsed() < READ_AT_MOST_EVERY) {
            return Ok(Refreshed::AMomentAgo);
        }
        *asked = Some(Instant::now());
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), NAMESPACE);
        let map = timeout(READ_DEADLINE, api.get(NAME))
            .await
            .map_err(|_| TrustError::Deadline)?
            .map_err(TrustError::Read)?;
        let trust = Trust::parse(&map.data.unwrap_or_default())?;
        if self.current.load().front_proxy.is_none() && trust.front_proxy.is_some() {
            info!("the aggregation layer's client authority is known");
        }
        self.current.store(Arc::new(trust));
        Ok(Refreshed::Now)
    }
}

impl Trust {
    /// Reads the ConfigMap's data. A key that is missing turns off what it is for.
    pub(crate) fn parse(data: &BTreeMap<String, String>) -> Result<Self, TrustError> {
        let front_proxy = match authority(data, "requestheader-client-ca-file")? {
            Some(authority) => Some(FrontProxy {
                authority,
                allowed_names: list(data, "requestheader-allowed-names")?,
                user_headers: list(data, "requestheader-username-headers")?,
                uid_headers: list(data, "requestheader-uid-headers")?,
                group_headers: list(data, "requestheader-group-headers")?,
                extra_prefixes: list(data, "requestheader-extra-headers-prefix")?,
            }),
            None => None,
        };
        Ok(Self {
            front_proxy,
            clients: authority(data, "client-ca-file")?,
        })
    }
}

fn authority(
    data: &BTreeMap<String, String>,
    key: &'static str,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TrustError> {
    let Some(bundle) = data.get(key).filter(|bundle| !bundle.trim().is_empty()) else {
        return Ok(None);
    };
    let wrong = || TrustError::Authorities { key };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots
            .add(certificate.map_err(|_| wrong())?)
            .map_err(|_| wrong())?;
        if roots.len() > MAX_AUTHORITIES {
            return Err(wrong());
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|_| wrong())?;
    Ok(Some(verifier))
}

fn list(data: &BTreeMap<String, String>, key: &'static str) -> Result<Vec<String>, TrustError> {
    match data.get(key).filter(|text| !text.is_empty()) {
        Some(text) => serde_json::from_str(text).map_err(|_| TrustError::List { key }),
        None => Ok(Vec::new()),
    }
}
