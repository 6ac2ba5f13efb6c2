//! One watch of one namespace, kept going for ever.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use dormouse_runtime::Backoff;
use futures::StreamExt as _;
use kube::{
    Api, Resource as _, ResourceExt as _,
    runtime::watcher::{self, Event},
};
use tokio::{sync::watch, time::sleep};

use super::{
    Change, Reactions, Readable, Undecodable, Watchable,
    guard::Guard,
    store::{Store, Stored},
};
use crate::{calls::CallError, key::ObjectKey, outage::Outage, requests};

/// How long one watch request lasts, in seconds. The server then ends it and the next resumes where it stopped, at the price
/// of one request; so a watch that is silent for longer, by five seconds of margin, is dead and is replaced.
const WATCH_SECONDS: u32 = 50;
const PAGE_SIZE: u32 = 500;
const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(3);
/// After an outage of so long, objects are listed anew: the answer tells at once that the watch works again, where one that is
/// resumed would be silent until something changes.
const LONG_OUTAGE: Duration = Duration::from_secs(30);

pub(super) struct Follower<R, K> {
    pub(super) namespace: Option<String>,
    pub(super) api: Api<Guard<R, K>>,
    pub(super) labels: Option<String>,
    pub(super) fields: Option<String>,
    pub(super) store: Arc<Store<K>>,
    pub(super) reactions: Arc<Reactions<K>>,
    /// How many namespaces have not been listed yet.
    pub(super) pending: Arc<watch::Sender<usize>>,
}

impl<R: Watchable, K: Readable> Follower<R, K> {
    pub(super) async fn run(self) {
        let mut strategy = watcher::InitialListStrategy::StreamingList;
        let mut backoff = Backoff::new(FIRST_DELAY, MAX_DELAY);
        let mut outage = Outage::default();
        let mut listing = Listing::default();
        let mut synced = false;
        loop {
            let config = watcher::Config {
                label_selector: self.labels.clone(),
                field_selector: self.fields.clone(),
                timeout: Some(WATCH_SECONDS),
                page_size: Some(PAGE_SIZE),
                initial_list_strategy: strategy.clone(),
                ..watcher::Config::default()
            };
            let mut events = pin!(watcher::watcher(self.api.clone(), config));
            let failure = loop {
                match events.next().await {
                    Some(Ok(event)) => {
                        // `Init` is only the announcement of an attempt.
                        if !matches!(event, Event::Init) {
                            backoff.reset();
                            self.recovered(&mut outage);
                        }
                        let listed = self.take(event, &mut listing);
                        if listed && !synced {
                            synced = true;
                            self.pending.send_modify(|pending| *pending -= 1);
                        }
                    }
                    Some(Err(error)) => {
                        let failure = Failure::of(&error);
                        self.failed(&mut outage, &failure.error);
                        if failure.start_over || outage.lasting() >= LONG_OUTAGE {
                            break Some(failure);
                        }
                        sleep(backoff.next_delay()).await;
                    }
                    None => break None,
                }
            };
            if failure.is_some_and(|failure| failure.refused)
                && strategy == watcher::InitialListStrategy::StreamingList
            {
                strategy = watcher::InitialListStrategy::ListWatch;
            } else {
                sleep(backoff.next_delay()).await;
            }
        }
    }

    /// Brings the store up to date and tells the change. Whether this completed a list.
    fn take(&self, event: Event<Guard<R, K>>, listing: &mut Listing<K>) -> bool {
        match event {
            Event::Init => *listing = Listing::default(),
            Event::InitApply(object) if !self.reactions.keeps(&ObjectKey::of(&object)) => {}
            Event::InitApply(object) => match self.decode(object) {
                (key, Some(object)) => {
                    listing.objects.insert(key, object);
                }
                (key, None) => {
                    listing.unreadable.insert(key);
                }
            },
            Event::InitDone => {
                let Listing { objects, unreadable } = std::mem::take(listing);
                if let Some(react) = &self.reactions.on_list {
                    react(&objects.keys().chain(&unreadable).collect());
                }
                for (key, change) in self
                    .store
                    .replace(self.namespace.as_deref(), objects, &unreadable)
                {
                    self.reactions.changed(&key, &change);
                }
                return true;
            }
            Event::Apply(object) if !self.reactions.keeps(&ObjectKey::of(&object)) => {}
            Event::Apply(object) => {
                if let (key, Some(stored)) = self.decode(object) {
                    let change = Change::Applied(stored.object.clone());
                    self.store.insert(key.clone(), stored);
                    self.reactions.changed(&key, &change);
                }
            }
            Event::Delete(object) => {
                let key = ObjectKey::of(&object);
                let known = self.store.remove(&key);
                if let Some(gone) = self.undecodable(&object) {
                    self.reactions.undecodable(&Undecodable { gone: true, ..gone });
                }
                let last = object.into_result().ok().map(Arc::new).or(known);
                if let Some(last) = last.filter(|_| self.reactions.keeps(&key)) {
                    self.reactions.changed(&key, &Change::Deleted(last));
                }
            }
        }
        false
    }

    fn decode(&self, object: Guard<R, K>) -> (ObjectKey, Option<Stored<K>>) {
        let key = ObjectKey::of(&object);
        if let Some(undecodable) = self.undecodable(&object) {
            tracing::warn!(
                kind = undecodable.kind,
                object = %undecodable.key,
                error = undecodable.error,
                "an object cannot be read and is left alone"
            );
            self.reactions.undecodable(&undecodable);
        }
        let version = object.resource_version().unwrap_or_default().into();
        let object = object.into_result().ok();
        let stored = object.map(|object| Stored {
            version,
            object: Arc::new(object),
        });
        (key, stored)
    }

    /// What there is to say of an object that does not decode.
    fn undecodable(&self, object: &Guard<R, K>) -> Option<Undecodable> {
        Some(Undecodable {
            kind: self.reactions.kind.clone(),
            key: ObjectKey::of(object),
            uid: object.uid().unwrap_or_default(),
            error: object.fault()?.to_owned(),
            deleting: object.meta().deletion_timestamp.is_some(),
            finalizers: object.finalizers().to_vec(),
            version: object.resource_version(),
            gone: false,
        })
    }

    fn failed(&self, outage: &mut Outage, error: &CallError) {
        if self
            .reactions
            .on_failure
            .as_ref()
            .is_some_and(|react| react(error))
        {
            return;
        }
        requests::watch_restarted(&self.reactions.kind);
        if let Some(lasting) = outage.failed() {
            let namespace = self.namespace.as_deref().unwrap_or("all");
            let outage = error.outage();
            tracing::warn!(
                kind = self.reactions.kind, namespace, %error, ?lasting, outage,
                "a watch is broken, trying again"
            );
        }
    }

    fn recovered(&self, outage: &mut Outage) {
        if let Some(lasted) = outage.ended() {
            if let Some(react) = &self.reactions.on_recovery {
                react();
            }
            let namespace = self.namespace.as_deref().unwrap_or("all");
            tracing::info!(
                kind = self.reactions.kind,
                namespace,
                ?lasted,
                "a watch works again"
            );
        }
    }
}

struct Listing<K> {
    objects: HashMap<ObjectKey, Stored<K>>,
    unreadable: HashSet<ObjectKey>,
}

impl<K> Default for Listing<K> {
    fn default() -> Self {
        Self {
            objects: HashMap::new(),
            unreadable: HashSet::new(),
        }
    }
}

struct Failure {
    error: CallError,
    /// The server does not know this kind of request.
    refused: bool,
    /// The watch cannot be resumed.
    start_over: bool,
}

impl Failure {
    fn of(error: &watcher::Error) -> Self {
        const CALL: &str = "watch";
        let (error, code) = match error {
            watcher::Error::WatchError(status) => (CallError::from_status(CALL, status), status.code),
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => {
                let code = if let kube::Error::Api(status) = error {
                    status.code
                } else {
                    0
                };
                (CallError::classify(CALL, error), code)
            }
            watcher::Error::NoResourceVersion => (
                CallError::Other {
                    call: CALL,
                    message: "an object has no resourceVersion".into(),
                },
                0,
            ),
        };
        let refused = matches!(error, CallError::Invalid { .. });
        Self {
            error,
            refused,
            start_over: refused || code == 410,
        }
    }
}
