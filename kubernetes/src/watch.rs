//! Watches: an always current copy of the objects of one kind, which no bad object and no bad network can stop.
//!
//! ```text
//! API server ──events──> follow (one per namespace) ──> store ──> on_change(key, change)
//!                          │ └─ an object that does not decode: on_undecodable, the others go on
//!                          └─ failures: log, back off to at most 3 s, resume or list anew
//! ```
//!
//! Of a kind that only Kubernetes knows, [`Watch::of`] watches the metadata; [`crate::named`] does so for single objects.
//!
//! A change is told after the store shows it. What changed or vanished while the watch was broken is told after the next
//! list, so whoever reacts to every change misses none; several changes of one object may be told as one.

mod follow;
mod guard;
mod store;

use std::{collections::HashSet, fmt::Debug, future::Future, sync::Arc};

use futures::future::join_all;
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource, core::DynamicResourceScope};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::{calls::CallError, key::ObjectKey, namespaces::Namespaces};
use follow::Follower;
use guard::Guard;
use store::Store;

/// What happened to an object.
#[derive(Debug, Clone)]
pub enum Change<K> {
    /// It is new or changed; this is its present form.
    Applied(Arc<K>),
    /// It is gone; this is the form last seen.
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The object, in the form last seen.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Applied(object) | Self::Deleted(object) => object,
        }
    }
}

/// An object the API server has and Dormouse cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecodable {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub key: ObjectKey,
    /// Its uid, for Events.
    pub uid: String,
    /// What is wrong with it.
    pub error: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// Its version, for a write that must not overtake another's.
    pub version: Option<String>,
    /// Whether it is gone; what the other fields say was so until then.
    pub gone: bool,
}

type OnChange<K> = Box<dyn Fn(&ObjectKey, &Change<K>) + Send + Sync>;
type OnUndecodable = Box<dyn Fn(&Undecodable) + Send + Sync>;
type OnList = Box<dyn Fn(&HashSet<&ObjectKey>) + Send + Sync>;
type OnFailure = Box<dyn Fn(&CallError) -> bool + Send + Sync>;
type OnRecovery = Box<dyn Fn() + Send + Sync>;
type Keep = Box<dyn Fn(&ObjectKey) -> bool + Send + Sync>;

/// A namespace, or all of them, and how to ask for its objects.
type Scope<R, K> = (Option<String>, Api<Guard<R, K>>);

/// A watch to be started.
///
/// `R` says what is watched, and may be `PartialObjectMeta<T>`, for which only metadata is transferred. Its objects are kept
/// in the form `K`: whole, or with no more than the fields that are read.
pub struct Watch<R, K = R> {
    scopes: Vec<Scope<R, K>>,
    labels: Option<String>,
    fields: Option<String>,
    reactions: Reactions<K>,
}

struct Reactions<K> {
    kind: String,
    on_change: Vec<OnChange<K>>,
    on_undecodable: Vec<OnUndecodable>,
    on_list: Option<OnList>,
    on_failure: Option<OnFailure>,
    on_recovery: Option<OnRecovery>,
    keep: Option<Keep>,
}

impl<K> Reactions<K> {
    fn keeps(&self, key: &ObjectKey) -> bool {
        self.keep.as_ref().is_none_or(|keep| keep(key))
    }

    fn changed(&self, key: &ObjectKey, change: &Change<K>) {
        for react in &self.on_change {
            react(key, change);
        }
    }

    fn undecodable(&self, object: &Undecodable) {
        for react in &self.on_undecodable {
            react(object);
        }
    }
}

/// What can be watched.
pub trait Watchable: Resource<DynamicType: Clone> + Debug + 'static {}

impl<R> Watchable for R where R: Resource<DynamicType: Clone> + Debug + 'static {}

/// The form in which objects are kept.
pub trait Readable: Clone + DeserializeOwned + Debug + Send + Sync + 'static {}

impl<K> Readable for K where K: Clone + DeserializeOwned + Debug + Send + Sync + 'static {}

impl<K: Watchable<Scope = DynamicResourceScope> + Readable> Watch<K> {
    /// Watches objects of a `resource` that is known at run time only: of one namespace, or of all.
    #[must_use]
    pub fn of(client: &Client, resource: &K::DynamicType, namespace: Option<&str>) -> Self {
        let api = match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
            None => Api::all_with(client.clone(), resource),
        };
        Self::over(resource, vec![(namespace.map(str::to_owned), api)])
    }
}

impl<K: Watchable<DynamicType: Default> + Readable> Watch<K> {
    /// Watches the whole cluster.
    #[must_use]
    pub fn all(client: &Client) -> Self {
        Self::over(&K::DynamicType::default(), vec![(None, Api::all(client.clone()))])
    }

    /// Watches the namespaces in scope, each over a watch of its own.
    #[must_use]
    pub fn within(client: &Client, namespaces: &Namespaces) -> Self
    where
        K: Resource<Scope = NamespaceResourceScope>,
    {
        Self::reduced(client, namespaces)
    }
}

impl<R, K> Watch<R, K>
where
    R: Watchable<DynamicType: Default, Scope = NamespaceResourceScope>,
    K: Readable,
{
    /// Watches the namespaces in scope, each over a watch of its own, and keeps of each object what is in `K`.
    #[must_use]
    pub fn reduced(client: &Client, namespaces: &Namespaces) -> Self {
        let resource = R::DynamicType::default();
        match namespaces {
            Namespaces::All => Self::over(&resource, vec![(None, Api::all(client.clone()))]),
            Namespaces::These(names) => {
                let namespaced = |name: &String| (Some(name.clone()), Api::namespaced(client.clone(), name));
                Self::over(&resource, names.iter().map(namespaced).collect())
            }
        }
    }
}

impl<R: Watchable, K: Readable> Watch<R, K> {
    fn over(resource: &R::DynamicType, scopes: Vec<Scope<R, K>>) -> Self {
        let reactions = Reactions {
            kind: R::kind(resource).into_owned(),
            on_change: Vec::new(),
            on_undecodable: Vec::new(),
            on_list: None,
            on_failure: None,
            on_recovery: None,
            keep: None,
        };
        Self {
            scopes,
            labels: None,
            fields: None,
            reactions,
        }
    }

    /// Only objects that match this label selector; an empty one matches all.
    #[must_use]
    pub fn labels(mut self, selector: &str) -> Self {
        self.labels = (!selector.is_empty()).then(|| selector.to_owned());
        self
    }

    /// Only objects that match this field selector, such as `metadata.name=x`.
    #[must_use]
    pub fn fields(mut self, selector: &str) -> Self {
        self.fields = (!selector.is_empty()).then(|| selector.to_owned());
        self
    }

    /// Calls `react` for every change, from the watch's own task: it must be quick. `|key, _| queue.add(key.clone())` is the
    /// usual one.
    #[must_use]
    pub fn on_change(mut self, react: impl Fn(&ObjectKey, &Change<K>) + Send + Sync + 'static) -> Self {
        self.reactions.on_change.push(Box::new(react));
        self
    }

    /// Calls `react` whenever an object is seen that does not decode, and when such an object is gone. The form last decoded, if there is one, stays in the
    /// store: not being able to read an object is no reason to forget it.
    #[must_use]
    pub fn on_undecodable(mut self, react: impl Fn(&Undecodable) + Send + Sync + 'static) -> Self {
        self.reactions.on_undecodable.push(Box::new(react));
        self
    }

    /// Keeps and tells only those objects whose key `keep` accepts at the time they are seen.
    #[must_use]
    pub fn keep(mut self, keep: impl Fn(&ObjectKey) -> bool + Send + Sync + 'static) -> Self {
        self.reactions.keep = Some(Box::new(keep));
        self
    }

    /// Calls `react` after each complete list with the keys on it that are kept: whatever is not among them is not there.
    /// The changes that the list brought are told afterwards.
    #[must_use]
    pub fn on_list(mut self, react: impl Fn(&HashSet<&ObjectKey>) + Send + Sync + 'static) -> Self {
        self.reactions.on_list = Some(Box::new(react));
        self
    }

    /// Calls `react` whenever the watch breaks; where it answers true, nothing is logged. The watch tries again all the same.
    #[must_use]
    pub fn on_failure(mut self, react: impl Fn(&CallError) -> bool + Send + Sync + 'static) -> Self {
        self.reactions.on_failure = Some(Box::new(react));
        self
    }

    /// Calls `react` whenever the watch is heard again after failures that were logged. After a short outage that may be long
    /// after it works again, as a watch tells nothing while nothing changes; after one of half a minute it is at once.
    #[must_use]
    pub fn on_recovery(mut self, react: impl Fn() + Send + Sync + 'static) -> Self {
        self.reactions.on_recovery = Some(Box::new(react));
        self
    }

    /// The store and the task that fills it. The task never returns: it is to be spawned as one the process cannot do
    /// without, or dropped with what needed it.
    #[must_use = "nothing is watched until the task runs"]
    pub fn start(self) -> (Watched<K>, impl Future<Output = ()> + Send + 'static) {
        let Self {
            scopes,
            labels,
            fields,
            reactions,
        } = self;
        let (pending, synced) = watch::channel(scopes.len());
        let store = Arc::new(Store::default());
        let (reactions, pending) = (Arc::new(reactions), Arc::new(pending));
        let followers: Vec<_> = scopes
            .into_iter()
            .map(|(namespace, api)| Follower {
                namespace,
                api,
                labels: labels.clone(),
                fields: fields.clone(),
                store: store.clone(),
                reactions: reactions.clone(),
                pending: pending.clone(),
            })
            .collect();
        let task = async move {
            join_all(followers.into_iter().map(Follower::run)).await;
        };
        (Watched { store, synced }, task)
    }
}

/// The objects a watch has seen. Cheap to clone.
#[derive(Debug)]
pub struct Watched<K> {
    store: Arc<Store<K>>,
    synced: watch::Receiver<usize>,
}

impl<K> Clone for Watched<K> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            synced: self.synced.clone(),
        }
    }
}

impl<K> Watched<K> {
    /// The object of that name.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.store.get(key)
    }

    /// Every object, in no order.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<K>> {
        self.store.list()
    }

    /// Every object with its key, in no order.
    #[must_use]
    pub fn entries(&self) -> Vec<(ObjectKey, Arc<K>)> {
        self.store.entries()
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether there is no object.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the objects of every namespace in scope have been listed once. It stays true while a watch is broken: the
    /// store then shows what was last known.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow() == 0
    }

    /// Waits until [`Self::is_synced`]. Pending for ever if the watch's task is gone before.
    pub async fn synced(&self) {
        let mut synced = self.synced.clone();
        if synced.wait_for(|pending| *pending == 0).await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests;
