//! What the other end of a connection has shown: nothing, or a certificate whose key it holds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::time::Instant;

use super::trust::Trust;
use super::user::User;

/// A certificate is judged again after this long, so that one that expires on an open connection stops counting.
const JUDGED_FOR: Duration = Duration::from_secs(60);

/// The other end of one connection.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    chain: Vec<CertificateDer<'static>>,
    // A plain mutex: taken for a moment per request, never over an await.
    judged: Mutex<Option<(Arc<Trust>, Instant, Standing)>>,
}

/// What a peer's certificate is good for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// It is the aggregation layer, whose identity headers are believed.
    pub(crate) front_proxy: bool,
    /// It is this user.
    pub(crate) user: Option<Arc<User>>,
}

impl Standing {
    pub(crate) fn is_known(&self) -> bool {
        self.front_proxy || self.user.is_some()
    }
}

impl Peer {
    pub(crate) fn new(chain: Vec<CertificateDer<'static>>) -> Self {
        Self {
            chain,
            judged: Mutex::new(None),
        }
    }

    /// Whether it showed a certificate at all, good or bad.
    pub(crate) fn has_certificate(&self) -> bool {
        !self.chain.is_empty()
    }

    /// What its certificate is good for under `trust`.
    pub(crate) fn standing(&self, trust: &Arc<Trust>) -> Standing {
        let Some((leaf, intermediates)) = self.chain.split_first() else {
            return Standing::default();
        };
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((by, at, standing)) = &*judged
            && Arc::ptr_eq(by, trust)
            && at.elapsed() < JUDGED_FOR
        {
            return standing.clone();
        }
        let standing = judge(leaf, intermediates, trust);
        *judged = Some((Arc::clone(trust), Instant::now(), standing.clone()));
        standing
    }
}

fn judge(leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>], trust: &Trust) -> Standing {
    let Some(subject) = subject(leaf) else {
        return Standing::default();
    };
    let vouched = |authority: &Arc<dyn ClientCertVerifier>| {
        authority
            .verify_client_cert(leaf, intermediates, UnixTime::now())
            .is_ok()
    };
    let front_proxy = trust.front_proxy.as_ref().is_some_and(|proxy| {
        vouched(&proxy.authority)
            && (proxy.allowed_names.is_empty() || proxy.allowed_names.contains(&subject.name))
    });
    let is_user = !subject.name.is_empty() && trust.clients.as_ref().is_some_and(vouched);
    Standing {
        front_proxy,
        user: is_user.then(|| Arc::new(subject.authenticated())),
    }
}

/// The user a certificate names: its common name, with its organizations as groups.
fn subject(leaf: &CertificateDer<'_>) -> Option<User> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let subject = certificate.subject();
    let name = subject
        .iter_common_name()
        .last()
        .and_then(|name| name.as_str().ok())
        .unwrap_or_default();
    Some(User {
        name: name.to_owned(),
        groups: subject
            .iter_organization()
            .filter_map(|group| group.as_str().ok())
            .map(str::to_owned)
            .collect(),
        ..User::default()
    })
}
