//! Authentication and authorization of each request, in the order of Kubernetes' own aggregated servers: identity
//! headers of the aggregation layer, then the client certificate, then the bearer token.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, header};
use kube::Client;
use percent_encoding::percent_decode_str;
use tracing::warn;

use super::access::{AccessReviews, Wish};
use super::discovery::GROUP;
use super::peer::{Peer, Standing};
use super::review::Unanswered;
use super::source::Caller;
use super::status::Failure;
use super::tokens::TokenReviews;
use super::trust::{FrontProxy, TrustStore};
use super::user::{AUTHENTICATED, Identity, Proof, User};

/// Decides who may ask. Holds what the API server said, for as long as it may be believed.
pub struct Gatekeeper {
    trust: TrustStore,
    tokens: TokenReviews,
    access: AccessReviews,
    own_user: String,
}

impl Gatekeeper {
    /// A gatekeeper that asks `client`. `own_user` is this operator's own user, such as
    /// `system:serviceaccount:keda:keda-operator`: whoever holds its token is another replica passing a query on.
    #[must_use]
    pub fn new(client: Client, own_user: String) -> Self {
        Self {
            trust: TrustStore::new(client.clone()),
            tokens: TokenReviews::new(client.clone()),
            access: AccessReviews::new(client),
            own_user,
        }
    }

    /// Keeps the trusted client authorities current; never ends.
    pub(crate) async fn keep_current(&self) {
        self.trust.keep_current().await;
    }

    /// Whether the peer has shown a certificate that counts for anything.
    pub(crate) fn knows(&self, peer: &Peer) -> bool {
        peer.standing(&self.trust.current()).is_known()
    }

    /// Who sent a request with `headers` over the connection of `peer`.
    pub(crate) async fn identify(&self, peer: &Peer, headers: &HeaderMap) -> Result<Identity, Failure> {
        let standing = self.standing(peer).await;
        if standing.front_proxy
            && let Some(proxy) = &self.trust.current().front_proxy
            && let Some(user) = passed_on(proxy, headers)?
        {
            return Ok(Identity {
                user: Arc::new(user),
                proof: Proof::FrontProxy,
            });
        }
        if let Some(user) = standing.user {
            return Ok(Identity {
                user,
                proof: Proof::Certificate,
            });
        }
        let Some(token) = bearer(headers) else {
            return Err(Failure::unauthorized());
        };
        let owner = self.tokens.owner(token).await.map_err(unavailable)?;
        owner
            .map(|user| Identity {
                user,
                proof: Proof::Token,
            })
            .ok_or_else(Failure::unauthorized)
    }

    /// Whether `identity` may read `metric` in `namespace`, and what the source is to know about the caller.
    pub(crate) async fn admit_read(
        &self,
        identity: &Identity,
        namespace: &str,
        metric: &str,
    ) -> Result<Caller, Failure> {
        if identity.proof == Proof::Token && identity.user.name == self.own_user {
            return Ok(Caller::Forwarded);
        }
        let wish = Wish::Metric { namespace, metric };
        if self.access.allows(identity, wish).await.map_err(unavailable)? {
            return Ok(Caller::Client);
        }
        let user = &identity.user.name;
        Err(Failure::forbidden(format!(
            "{metric}.{GROUP} is forbidden: User \"{user}\" cannot list resource \"{metric}\" in API group \"{GROUP}\" in the namespace \"{namespace}\""
        )))
    }

    /// Whether `identity` may get the document at `path`. The documents are constant and public, so being somebody is
    /// enough; only callers the API server itself holds for nobody are asked about.
    pub(crate) async fn admit_document(&self, identity: &Identity, path: &str) -> Result<(), Failure> {
        if identity.user.is_in(AUTHENTICATED) {
            return Ok(());
        }
        let wish = Wish::Path(path);
        if self.access.allows(identity, wish).await.map_err(unavailable)? {
            return Ok(());
        }
        let user = &identity.user.name;
        Err(Failure::forbidden(format!(
            "forbidden: User \"{user}\" cannot get path \"{path}\""
        )))
    }

    async fn standing(&self, peer: &Peer) -> Standing {
        let standing = peer.standing(&self.trust.current());
        if standing.is_known() || !peer.has_certificate() {
            return standing;
        }
        self.trust.refresh_on_doubt().await;
        peer.standing(&self.trust.current())
    }
}

fn unavailable(error: Unanswered) -> Failure {
    warn!("a caller of the metrics API is turned away: {error}");
    Failure::unavailable("the caller cannot be checked: the Kubernetes API server gave no answer")
}

/// The user in the identity headers, if there is one.
fn passed_on(proxy: &FrontProxy, headers: &HeaderMap) -> Result<Option<User>, Failure> {
    let Some(name) = first(headers, &proxy.user_headers)? else {
        return Ok(None);
    };
    let mut user = User {
        name,
        uid: first(headers, &proxy.uid_headers)?.unwrap_or_default(),
        ..User::default()
    };
    for header in &proxy.group_headers {
        for group in headers.get_all(header) {
            user.groups.push(text(group)?.to_owned());
        }
    }
    user.groups.retain(|group| !group.is_empty());
    user.extra = extra(proxy, headers)?;
    Ok(Some(user.authenticated()))
}

fn extra(proxy: &FrontProxy, headers: &HeaderMap) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let mut extra = BTreeMap::<String, Vec<String>>::new();
    for prefix in &proxy.extra_prefixes {
        let prefix = prefix.to_ascii_lowercase();
        for (name, value) in headers {
            if let Some(key) = name.as_str().strip_prefix(&prefix) {
                let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
                extra.entry(key).or_default().push(text(value)?.to_owned());
            }
        }
    }
    Ok(extra)
}

fn first(headers: &HeaderMap, names: &[String]) -> Result<Option<String>, Failure> {
    for name in names {
        if let Some(value) = headers.get(name).filter(|value| !value.is_empty()) {
            return Ok(Some(text(value)?.to_owned()));
        }
    }
    Ok(None)
}

fn text(value: &http::HeaderValue) -> Result<&str, Failure> {
    std::str::from_utf8(value.as_bytes()).map_err(|_| Failure::unauthorized())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
