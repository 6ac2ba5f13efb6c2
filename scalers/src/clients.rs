//! Everything outgoing goes through here: one connector, and one client per server and identity.
//!
//! ```text
//! scaler ── shared(key, make) ──> an Arc that all triggers with the same key hold; gone with the last of them
//! scaler ── http(identity) ─────> the HTTP client of that TLS identity ─┐
//! AWS SDK ── aws::http bridge ──────────────────────────────────────────┼─> egress: judges each address
//! other protocols ── egress().connect(host, port) ──────────────────────┘
//! ```

pub mod egress;
mod hosts;
mod http;
mod tls;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::RootCertStore;
use sha2::{Digest, Sha256};

use crate::aws::AwsEnvironment;
use crate::backpressure::{Account, Backpressure};
pub use egress::{Egress, EgressDenied, EgressRules};
pub use hosts::HostList;
pub use http::{HttpClient, HttpError};
pub use tls::{TlsError, TlsIdentity};

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
    /// Where they may connect to.
    pub egress: EgressRules,
    /// Hosts that an `awsEndpoint` may name when an identity of the operator signs, besides AWS' own
    /// (`--aws-endpoint-allow`).
    pub aws_endpoints: HostList,
    /// What AWS clients take from the environment.
    pub aws: AwsEnvironment,
}

/// Where a client may connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reach {
    /// Where a manifest may lead.
    Egress,
    /// Everywhere: for servers that no manifest can name.
    Everywhere,
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
    egress: Egress,
    roots: Arc<RootCertStore>,
    // Held only to look up or insert, never while a client is built.
    registry: Mutex<Registry>,
    backpressure: Arc<Backpressure>,
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
            egress: Egress::new(config.egress.clone()),
            config,
            roots,
            registry: Mutex::default(),
            backpressure: Arc::default(),
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

    /// The HTTP client of a TLS identity.
    ///
    /// # Errors
    /// The identity's certificates or key are not what they should be.
    pub fn http(&self, identity: &TlsIdentity) -> Result<Arc<HttpClient>, TlsError> {
        self.connector(identity, Redirects::SameHost, Reach::Egress)
    }

    /// Where scalers may connect to, for those that do not speak HTTP.
    #[must_use]
    pub fn egress(&self) -> &Egress {
        &self.egress
    }

    /// The one place where a client that opens connections is made.
    pub(crate) fn connector(
        &self,
        identity: &TlsIdentity,
        redirects: Redirects,
        reach: Reach,
    ) -> Result<Arc<HttpClient>, TlsError> {
        let key = identity.fingerprint().and(&[
            if redirects == Redirects::Never {
                "never"
            } else {
                "same host"
            },
            if reach == Reach::Everywhere {
                "everywhere"
            } else {
                ""
            },
        ]);
        self.shared(key, || {
            HttpClient::new(http::Settings {
                tls: tls::client_config(identity, &self.roots, self.config.min_tls)?,
                redirects,
                keep_alive: !self.config.disable_keep_alive,
                egress: (reach == Reach::Egress).then(|| self.egress.clone()),
            })
        })
    }

    /// Hosts that an `awsEndpoint` may name when an identity of the operator signs.
    pub(crate) fn aws_endpoints(&self) -> &HostList {
        &self.config.aws_endpoints
    }

    /// TLS as this identity speaks it, for sources that are not read over HTTP.
    ///
    /// # Errors
    /// The identity's certificates or key are not what they should be.
    pub(crate) fn tls(&self, identity: &TlsIdentity) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        self.shared(identity.fingerprint(), || {
            tls::client_config(identity, &self.roots, self.config.min_tls)
        })
    }

    /// What servers asked of this identity; all clients with the same key share it.
    pub(crate) fn account(&self, key: Fingerprint) -> Account {
        Account::new(&self.backpressure, key)
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

#[cfg(test)]
mod tests;
