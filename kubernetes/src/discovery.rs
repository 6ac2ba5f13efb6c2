//! From an apiVersion and a kind to the resource it is served as.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kube::{
    Client,
    core::{ApiResource, GroupVersionKind},
    discovery::{Scope, pinned_kind},
    error::DiscoveryError,
};
use tokio::time::Instant;

use crate::calls::{CallError, Calls, Priority};

/// How long a kind that was found is taken for granted.
const FOUND_FOR: Duration = Duration::from_secs(600);
/// How long a kind that was not found, or could not be looked up, is not asked for again.
const MISSING_FOR: Duration = Duration::from_secs(3);
/// How many kinds are remembered.
const MAX_KINDS: usize = 256;

/// A kind as the API server serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// Group, version, kind and plural name.
    pub resource: ApiResource,
    /// Whether its objects belong to a namespace.
    pub namespaced: bool,
    /// Whether its objects have a `/scale`.
    pub scalable: bool,
}

/// Why there is no resource for a kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryFailure {
    /// Not of the form `group/version` or `version`.
    #[error("apiVersion {api_version:?} is not valid: accepted are \"version\" and \"group/version\"")]
    BadApiVersion {
        /// What was given, cut to 100 characters.
        api_version: String,
    },
    /// The API server does not serve it.
    #[error("the API server serves no kind {kind:?} in {api_version:?}")]
    NoSuchKind {
        /// The apiVersion asked for.
        api_version: String,
        /// The kind asked for.
        kind: String,
    },
    /// It could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
}

type Answer = Result<Arc<Kind>, DiscoveryFailure>;

/// What a kind is served as, remembered for ten minutes. Cheap to clone.
#[derive(Clone)]
pub struct Discovery {
    client: Client,
    calls: Calls,
    known: Arc<Mutex<HashMap<KindName, Arc<Slot>>>>,
}

/// An apiVersion and a kind.
type KindName = (String, String);

/// One kind. The lock is held while the API server is asked, on purpose: a thousand objects of one kind ask once.
#[derive(Default)]
struct Slot(tokio::sync::Mutex<Option<(Answer, Instant)>>);

impl Discovery {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(client: Client, calls: Calls) -> Self {
        Self {
            client,
            calls,
            known: Arc::default(),
        }
    }

    /// The resource of `kind` in `api_version`. Deployments and StatefulSets of `apps/v1` are known without asking.
    ///
    /// # Errors
    /// When there is none, or it could not be asked.
    pub async fn resolve(&self, api_version: &str, kind: &str) -> Answer {
        if let Some(known) = well_known(api_version, kind) {
            return Ok(Arc::new(known));
        }
        let gvk = parse(api_version, kind)?;
        let slot = self.slot(api_version, kind);
        let mut slot = slot.0.lock().await;
        if let Some((answer, until)) = &*slot
            && *until > Instant::now()
        {
            return answer.clone();
        }
        let answer = self.ask(api_version, &gvk).await;
        let lasts = if answer.is_ok() { FOUND_FOR } else { MISSING_FOR };
        *slot = Some((answer.clone(), Instant::now() + lasts));
        answer
    }

    fn slot(&self, api_version: &str, kind: &str) -> Arc<Slot> {
        let key = (api_version.to_owned(), kind.to_owned());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KINDS && !known.contains_key(&key) {
            // Slots in use are locked or held; of the others, the ones that are no longer true go, or else all.
            let now = Instant::now();
            let is_true = |slot: &Arc<Slot>| match slot.0.try_lock() {
                Ok(answer) => answer.as_ref().is_some_and(|(_, until)| *until > now),
                Err(_) => true,
            };
            known.retain(|_, slot| is_true(slot));
            if known.len() >= MAX_KINDS {
                known.clear();
            }
        }
        known.entry(key).or_default().clone()
    }

    async fn ask(&self, api_version: &str, gvk: &GroupVersionKind) -> Answer {
        let missing = || DiscoveryFailure::NoSuchKind {
            api_version: api_version.to_owned(),
            kind: gvk.kind.clone(),
        };
        let asked = self.calls.unary(Priority::Normal, "look up a kind", async {
            match pinned_kind(&self.client, gvk).await {
                Ok(found) => Ok(Some(found)),
                Err(kube::Error::Discovery(
                    DiscoveryError::MissingKind(_) | DiscoveryError::MissingResource(_),
                )) => Ok(None),
                Err(error) => Err(error),
            }
        });
        match asked.await {
            Ok(Some((resource, capabilities))) => Ok(Arc::new(Kind {
                resource,
                namespaced: capabilities.scope == Scope::Namespaced,
                scalable: capabilities
                    .subresources
                    .iter()
                    .any(|(resource, _)| resource.plural == "scale"),
            })),
            Ok(None) | Err(CallError::NotFound { .. }) => Err(missing()),
            Err(error) => Err(error.into()),
        }
    }
}

fn parse(api_version: &str, kind: &str) -> Result<GroupVersionKind, DiscoveryFailure> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    // Both become part of a path.
    let legal = |part: &str| {
        part.len() <= 253
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
    };
    if version.is_empty() || !legal(version) || !legal(group) || api_version.starts_with('/') {
        return Err(DiscoveryFailure::BadApiVersion {
            api_version: api_version.chars().take(100).collect(),
        });
    }
    Ok(GroupVersionKind::gvk(group, version, kind))
}

fn well_known(api_version: &str, kind: &str) -> Option<Kind> {
    let plural = match (api_version, kind) {
        ("apps/v1", "Deployment") => "deployments",
        ("apps/v1", "StatefulSet") => "statefulsets",
        _ => return None,
    };
    let gvk = GroupVersionKind::gvk("apps", "v1", kind);
    Some(Kind {
        resource: ApiResource::from_gvk_with_plural(&gvk, plural),
        namespaced: true,
        scalable: true,
    })
}

#[cfg(test)]
mod tests;
