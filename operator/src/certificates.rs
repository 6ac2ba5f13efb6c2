//! The certificates this operator serves with: an authority of its own, made and rotated by the leader.
//!
//! ```text
//! leader:    Secret ─> plan ─> new authority ─> Secret (old leaf, both authorities) ─> APIService caBundle (both)
//!                         └─── after the bundle has had time to spread: new leaf ─> Secret ─> (later) old authority out
//! everybody: Secret ─> ServingCertificate ─> each new TLS handshake
//! ```
//!
//! The order is what lets a rotation fail no read: a leaf is stored, and so served by any replica, only after those who
//! verify it have long been given its authority. Without rotation the files of a directory are served, as somebody else
//! renews them.

mod api_service;
mod files;
mod issue;
mod material;
mod plan;
mod rotation;
mod secret;

#[cfg(test)]
pub(crate) mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use kube::Client;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

pub(crate) use material::pem;

/// Names and times of the rotation.
#[derive(Clone, Debug)]
pub struct RotationSettings {
    /// The operator's namespace, which holds the Secret and the Services.
    pub namespace: String,
    /// The Secret's name.
    pub secret: String,
    /// Services whose names the certificate bears, each in its four forms.
    pub services: Vec<String>,
    /// The last part of the longest form, such as `cluster.local`.
    pub cluster_domain: String,
    /// The Service that the APIService must point at for its caBundle to be ours to write.
    pub metrics_service: String,
    /// Whether the leader writes the APIService's caBundle.
    pub patch_api_service: bool,
    /// How long a serving certificate is valid.
    pub validity: Duration,
    /// How long an authority is valid.
    pub authority_validity: Duration,
    /// The share of a certificate's life after which it is replaced: above 0, below 1.
    pub rotate_at: f64,
    /// How long a caBundle takes to be used by every API server, and the Secret to be read by every replica.
    pub propagation: Duration,
    /// How long a replaced authority stays in the bundle after the last certificate it signed was replaced.
    pub overlap: Duration,
    /// How often the Secret and, by the leader, the APIService are looked at.
    pub check_every: Duration,
}

impl RotationSettings {
    /// The settings for a certificate of `validity`, which the times of the procedure fit into.
    #[must_use]
    pub fn new(namespace: &str, validity: Duration) -> Self {
        Self {
            namespace: namespace.to_owned(),
            secret: "kedaorg-certs".to_owned(),
            services: [
                "keda-operator",
                "keda-metrics-apiserver",
                "keda-admission-webhooks",
            ]
            .map(str::to_owned)
            .to_vec(),
            cluster_domain: "cluster.local".to_owned(),
            metrics_service: "keda-metrics-apiserver".to_owned(),
            patch_api_service: true,
            validity,
            authority_validity: validity.max(Duration::from_hours(24 * 365 * 10)),
            rotate_at: 2.0 / 3.0,
            propagation: (validity / 6).min(Duration::from_mins(2)),
            overlap: (validity / 6).min(Duration::from_hours(1)),
            check_every: (validity / 24).clamp(Duration::from_millis(100), Duration::from_secs(5)),
        }
    }

    /// Every DNS name the certificate bears.
    pub(crate) fn dns_names(&self) -> Vec<String> {
        let Self {
            namespace,
            cluster_domain,
            ..
        } = self;
        self.services
            .iter()
            .flat_map(|service| {
                [
                    service.clone(),
                    format!("{service}.{namespace}"),
                    format!("{service}.{namespace}.svc"),
                    format!("{service}.{namespace}.svc.{cluster_domain}"),
                ]
            })
            .collect()
    }
}

/// The certificate in use and the authorities that vouch for it and its neighbours; a cheap handle.
#[derive(Clone, Debug)]
pub struct ServingCertificate(Arc<Hot>);

#[derive(Debug)]
struct Hot {
    key: ArcSwapOption<CertifiedKey>,
    ready: watch::Sender<bool>,
    authorities: watch::Sender<Arc<[CertificateDer<'static>]>>,
}

impl Default for ServingCertificate {
    fn default() -> Self {
        Self::new()
    }
}

impl ServingCertificate {
    /// A handle that holds no certificate yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Hot {
            key: ArcSwapOption::empty(),
            ready: watch::Sender::new(false),
            authorities: watch::Sender::new(Arc::default()),
        }))
    }

    /// What gives each TLS handshake the certificate of that moment.
    #[must_use]
    pub fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::clone(&self.0) as Arc<dyn ResolvesServerCert>
    }

    /// Ends when there is a certificate to serve with.
    pub async fn ready(&self) {
        let mut ready = self.0.ready.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = ready.wait_for(|ready| *ready).await;
    }

    /// Whether there is a certificate to serve with.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    /// The authorities to trust when calling another replica: those of the current certificate and of its successor.
    /// Empty until known.
    #[must_use]
    pub fn authorities(&self) -> watch::Receiver<Arc<[CertificateDer<'static>]>> {
        self.0.authorities.subscribe()
    }

    /// Makes, serves and rotates the certificate by way of the Secret; never ends. Only while `leader` says so is
    /// anything written.
    pub async fn rotate(
        &self,
        client: Client,
        settings: RotationSettings,
        leader: impl Fn() -> bool + Send + Sync,
    ) {
        rotation::Rotation::new(client, settings, self.clone(), leader)
            .run()
            .await;
    }

    /// Serves `tls.crt`, `tls.key` and, if it is there, `ca.crt` of `directory`, and what they are replaced by, looking
    /// `every` so often; never ends.
    pub async fn follow_files(&self, directory: PathBuf, every: Duration) {
        files::follow(&directory, every, self).await;
    }

    fn serve(&self, key: Arc<CertifiedKey>) {
        self.0.key.store(Some(key));
        self.0
            .ready
            .send_if_modified(|ready| !std::mem::replace(ready, true));
    }

    fn trust(&self, authorities: Vec<CertificateDer<'static>>) {
        self.0.authorities.send_if_modified(|current| {
            let is_new = **current != *authorities;
            if is_new {
                *current = authorities.into();
            }
            is_new
        });
    }
}

impl ResolvesServerCert for Hot {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key.load_full()
    }
}
