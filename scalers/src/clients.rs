//! Everything outgoing goes through here: one connector, and one client per server and identity.
//!
//! ```text
//! scaler ── shared(key, make) ──> an Arc that all triggers with the same key hold; gone with the last of them
//! scaler ── http(identity) ─────> the HTTP client of that TLS identity ─┐
//! AWS SDK ── aws::http bridge ──────────────────────────────────────────┴─> HttpProfile::build: the one connector
//! ```

mod tls;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use reqwest::redirect::Policy;
use rustls::RootCertStore;
use sha2::{Digest, Sha256};
use url::Url;

use crate::aws::AwsEnvironment;
pub use tls::{TlsError, TlsIdentity};

/// A connection that is not there after this long will not come, whatever deadline the read has.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
const IDLE_PER_HOST: usize = 8;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const MAX_REDIRECTS: usize = 10;

/// The lowest TLS version a source may speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinTls {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// What holds for all clients.
#[derive(Clone, Debug, Default)]
pub struct ClientsConfig {
    /// Directories with further CA certificates (`--ca-dir`), trusted besides the system's. They may not exist.
    pub ca_dirs: Vec<PathBuf>,
    /// `KEDA_HTTP_MIN_TLS_VERSION`.
    pub min_tls: MinTls,
    /// `KEDA_HTTP_DISABLE_KEEP_ALIVE`.
    pub disable_keep_alive: bool,
    /// What AWS clients take from the environment.
    pub aws: AwsEnvironment,
}

/// Which redirects a client follows. None leads to another host, so that no credential can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Redirects {
    Never,
    SameHost,
}

/// Identifies a client by what it talks to and as whom, without holding any secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of these parts, in this order. Parts cannot run into each other.
    #[must_use]
    pub fn of(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// This fingerprint and further parts.
    #[must_use]
    pub fn and(self, parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(Self::of(parts).0);
        Self(hash.finalize().into())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint")
    }
}

type Held = Weak<dyn Any + Send + Sync>;

#[derive(Default)]
struct Registry {
    clients: HashMap<(TypeId, Fingerprint), Held>,
    /// Dead entries are swept out once there are this many, which keeps the sweep's cost per insertion constant.
    sweep_at: usize,
}

/// The clients in use, shared by all triggers of the process. Nothing is kept once no trigger holds it.
pub struct Clients {
    config: ClientsConfig,
    roots: Arc<RootCertStore>,
    // Held only to look up or insert, never while a client is built.
    registry: Mutex<Registry>,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Clients {
    /// An empty set of clients that trust the system's certificates and those of [`ClientsConfig::ca_dirs`]. What cannot
    /// be read there is logged and left out.
    #[must_use]
    pub fn new(config: ClientsConfig) -> Self {
        let roots = Arc::new(tls::roots(&config.ca_dirs));
        Self {
            config,
            roots,
            registry: Mutex::default(),
        }
    }

    /// The client with this key, built if no trigger holds one. `endpoint`, credentials and TLS identity all belong
    /// into the key.
    ///
    /// # Errors
    /// What `make` says.
    pub fn shared<T, E>(&self, key: Fingerprint, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E>
    where
        T: Any + Send + Sync,
    {
        let key = (TypeId::of::<T>(), key);
        if let Some(client) = self.held(&key) {
            return Ok(client);
        }
        let client = Arc::new(make()?);
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Two triggers may have built it at once; the first one to get here wins.
        if let Some(first) = registry.clients.get(&key).and_then(live) {
            return Ok(first);
        }
        if registry.clients.len() >= registry.sweep_at {
            registry.clients.retain(|_, client| client.strong_count() > 0);
            registry.sweep_at = (registry.clients.len() * 2).max(64);
        }
        let erased: Arc<dyn Any + Send + Sync> = client.clone();
        registry.clients.insert(key, Arc::downgrade(&erased));
        Ok(client)
    }

    fn held<T: Any + Send + Sync>(&self, key: &(TypeId, Fingerprint)) -> Option<Arc<T>> {
        self.registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clients
            .get(key)
            .and_then(live)
    }

    /// The HTTP client of a TLS identity. It honours `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, and follows redirects
    /// on the same host only.
    ///
    /// # Errors
    /// The identity's certificates or key are not what they should be.
    pub fn http(&self, identity: &TlsIdentity) -> Result<Arc<reqwest::Client>, TlsError> {
        self.connector(identity, Redirects::SameHost)
    }

    /// The one place where a client that opens connections is made.
    pub(crate) fn connector(
        &self,
        identity: &TlsIdentity,
        redirects: Redirects,
    ) -> Result<Arc<reqwest::Client>, TlsError> {
        let key = identity.fingerprint().and(&[if redirects == Redirects::Never {
            "never"
        } else {
            "same host"
        }]);
        self.shared(key, || {
            let policy = match redirects {
                Redirects::Never => Policy::none(),
                Redirects::SameHost => Policy::custom(|attempt| {
                    if attempt.previous().len() > MAX_REDIRECTS {
                        return attempt.error("too many redirects");
                    }
                    let from = attempt.previous().last();
                    if from.is_some_and(|from| same_host(from, attempt.url())) {
                        attempt.follow()
                    } else {
                        attempt.stop()
                    }
                }),
            };
            let idle = if self.config.disable_keep_alive {
                0
            } else {
                IDLE_PER_HOST
            };
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls::client_config(identity, &self.roots, self.config.min_tls)?)
                .redirect(policy)
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(idle)
                .tcp_keepalive(KEEP_ALIVE)
                .user_agent(concat!("dormouse/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(|_| TlsError::Client)
        })
    }

    /// What AWS clients take from the environment.
    pub(crate) fn aws(&self) -> &AwsEnvironment {
        &self.config.aws
    }

    #[cfg(test)]
    fn entries(&self) -> usize {
        self.registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clients
            .len()
    }
}

fn live<T: Any + Send + Sync>(held: &Held) -> Option<Arc<T>> {
    held.upgrade()?.downcast().ok()
}

/// Whether a redirect stays where it is: the same host and port over the same protocol, or from plain HTTP to HTTPS on
/// the usual ports.
fn same_host(from: &Url, to: &Url) -> bool {
    let upgraded = from.scheme() == "http"
        && to.scheme() == "https"
        && from.port_or_known_default() == Some(80)
        && to.port_or_known_default() == Some(443);
    let same = from.scheme() == to.scheme() && from.port_or_known_default() == to.port_or_known_default();
    from.host() == to.host() && (same || upgraded)
}

#[cfg(test)]
mod tests;
