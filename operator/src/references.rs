//! Who refers to what: the Secrets, ConfigMaps, ServiceAccounts and pod templates that running objects were resolved with.
//!
//! ```text
//! reconcile ── lookup(user).get(reference) ──> kept content, or a GET; from then on `user` is among its users
//! watch ── told(reference) ──> another revision? ──> GET ──> other content? ──> its users are looked at again
//! ```
//!
//! Each object is read once per revision, however many refer to it, and kept while any does. What a watch cannot be had for
//! is read whenever it is asked for.

mod read;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dormouse_engine::ObjectKey;
use dormouse_kubernetes::named::Held;
use dormouse_kubernetes::{Action, CallError, Calls, NamedWatches, Namespaces, Queue, Reference, Sighting};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::Client;
use kube::core::ApiResource;
use tokio_util::sync::CancellationToken;

pub use read::{Content, Found};

/// How long an object may be gone before that counts: whoever replaces one deletes and creates it.
const GONE: Duration = Duration::from_secs(1);
/// Changed objects read at once.
const READERS: usize = 8;
/// Delays after a failed read. The last one leaves time to be in use 5 s after the API server answers again.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(2);

type Read = Box<dyn Fn(&Reference) -> BoxFuture<'static, Result<Found, CallError>> + Send + Sync>;
type LookAgain = Box<dyn Fn(&ObjectKey) + Send + Sync>;

/// All references of this process. Cheap to clone.
#[derive(Clone)]
pub struct References {
    shared: Arc<Shared>,
}

struct Shared {
    kinds: Kinds,
    read: Read,
    look_again: LookAgain,
    watches: NamedWatches,
    /// What may have changed and is to be read again.
    stale: Queue<Reference>,
    // Held for a few look-ups, never over an await. The watches' own lock is taken within it, never the other way round.
    state: Mutex<State>,
}

struct Kinds {
    secret: Arc<ApiResource>,
    config_map: Arc<ApiResource>,
    service_account: Arc<ApiResource>,
}

#[derive(Default)]
struct State {
    entries: HashMap<Reference, Entry>,
    by_user: HashMap<ObjectKey, HashSet<Reference>>,
}

struct Entry {
    users: HashSet<ObjectKey>,
    /// What the watch showed last.
    seen: Option<Sighting>,
    /// How often it showed anything.
    sightings: u64,
    found: Option<Found>,
    /// Held while the object is read, so that many who ask at once make one read.
    reading: Arc<tokio::sync::Mutex<()>>,
    _held: Held,
}

impl Entry {
    /// Whether what was read is what the watch showed last.
    fn is_current(&self) -> bool {
        match (&self.seen, &self.found) {
            (_, None | Some(Found::Unreadable)) => false,
            (None | Some(Sighting::Unknown), Some(_)) => true,
            (Some(Sighting::Absent), Some(found)) => matches!(found, Found::Absent),
            (Some(Sighting::Present(mark)), Some(found)) => found.mark() == Some(mark),
        }
    }
}

impl References {
    /// References that are read with `client`. `look_again` is told each object whose references have other content.
    #[must_use]
    pub fn new(
        client: Client,
        calls: Calls,
        look_again: impl Fn(&ObjectKey) + Send + Sync + 'static,
    ) -> Self {
        let read = move |reference: &Reference| read::read(client.clone(), calls.clone(), reference.clone());
        Self::reading_with(Box::new(read), Box::new(look_again))
    }

    fn reading_with(read: Read, look_again: LookAgain) -> Self {
        let kinds = Kinds {
            secret: Arc::new(ApiResource::erase::<Secret>(&())),
            config_map: Arc::new(ApiResource::erase::<ConfigMap>(&())),
            service_account: Arc::new(ApiResource::erase::<ServiceAccount>(&())),
        };
        Self {
            shared: Arc::new(Shared {
                kinds,
                read,
                look_again,
                watches: NamedWatches::default(),
                stale: Queue::new(FIRST_RETRY, LAST_RETRY),
                state: Mutex::default(),
            }),
        }
    }

    /// Watches what is referred to, until the process stops.
    pub async fn run(self, client: Client, namespaces: Namespaces, stopping: CancellationToken) {
        let told = self.clone();
        let watches = self
            .shared
            .watches
            .clone()
            .run(client, namespaces, move |reference, sighting| {
                told.told(reference, sighting)
            });
        tokio::select! {
            () = watches => {}
            () = self.reread(stopping) => {}
        }
    }

    async fn reread(&self, stopping: CancellationToken) {
        let handle = |reference: Reference| {
            let this = self.clone();
            async move { this.reread_one(&reference).await.map(|()| Action::Done) }
        };
        self.shared.stale.run(READERS, stopping, handle).await;
    }

    /// Begins to look up what `user` refers to.
    #[must_use]
    pub fn lookup<'a>(&'a self, user: &'a ObjectKey) -> Lookup<'a> {
        Lookup {
            references: self,
            user,
            found: Mutex::default(),
        }
    }

    /// `user` refers to nothing any more.
    pub fn forget(&self, user: &ObjectKey) {
        self.keep_only(user, &HashSet::new());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_only(&self, user: &ObjectKey, used: &HashSet<Reference>) {
        let mut state = self.lock();
        let State { entries, by_user } = &mut *state;
        let Some(held) = by_user.get_mut(user) else { return };
        held.retain(|reference| {
            let kept = used.contains(reference);
            if !kept && let Some(entry) = entries.get_mut(reference) {
                entry.users.remove(user);
                if entry.users.is_empty() {
                    entries.remove(reference);
                }
            }
            kept
        });
        if held.is_empty() {
            by_user.remove(user);
        }
    }

    /// What a watch shows of an object.
    fn told(&self, reference: &Reference, sighting: Sighting) {
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(reference) else {
            return;
        };
        let gone = sighting == Sighting::Absent;
        let look = sighting == Sighting::Unknown;
        entry.seen = Some(sighting);
        entry.sightings += 1;
        // What nobody has read yet is read by whoever asked for it.
        let stale = entry.found.is_some() && (look || !entry.is_current());
        drop(state);
        if stale && gone {
            self.shared.stale.add_after(reference.clone(), GONE);
        } else if stale {
            self.shared.stale.add(reference.clone());
        }
    }

    async fn reread_one(&self, reference: &Reference) -> Result<(), CallError> {
        let reading = match self.lock().entries.get(reference) {
            Some(entry) if !entry.is_current() || entry.seen == Some(Sighting::Unknown) => {
                entry.reading.clone()
            }
            _ => return Ok(()),
        };
        let _one_reader = reading.lock().await;
        self.read(reference, None).await.map(drop)
    }

    /// Reads an object, keeps it, and has its users looked at again where it has changed: all but the one who `asks`.
    async fn read(
        &self,
        reference: &Reference,
        asks: Option<&ObjectKey>,
    ) -> Result<Option<Arc<Content>>, CallError> {
        let sightings = |state: &State| state.entries.get(reference).map(|entry| entry.sightings);
        let at_first = sightings(&self.lock());
        let found = (self.shared.read)(reference).await?;
        let content = found.content();
        let mut changed = Vec::new();
        if let Some(entry) = self.lock().entries.get_mut(reference) {
            let before = entry.found.replace(found);
            // The answer may be older than what the watch has shown meanwhile.
            if Some(entry.sightings) != at_first && !entry.is_current() {
                self.shared.stale.add(reference.clone());
            }
            if before.is_some_and(|before| before.content() != content) {
                changed.extend(entry.users.iter().filter(|user| Some(*user) != asks).cloned());
            }
        }
        if !changed.is_empty() {
            tracing::info!(reference = %reference, objects = changed.len(), "a reference has changed");
        }
        changed.iter().for_each(|user| (self.shared.look_again)(user));
        Ok(content)
    }
}

/// One resolution of what an object refers to.
pub struct Lookup<'a> {
    references: &'a References,
    user: &'a ObjectKey,
    /// What was answered: the same object twice in one resolution is the same revision.
    found: Mutex<HashMap<Reference, Option<Arc<Content>>>>,
}

impl Lookup<'_> {
    /// A Secret of this name.
    #[must_use]
    pub fn secret(&self, namespace: &str, name: &str) -> Reference {
        reference(&self.references.shared.kinds.secret, namespace, name)
    }

    /// A ConfigMap of this name.
    #[must_use]
    pub fn config_map(&self, namespace: &str, name: &str) -> Reference {
        reference(&self.references.shared.kinds.config_map, namespace, name)
    }

    /// A ServiceAccount of this name.
    #[must_use]
    pub fn service_account(&self, namespace: &str, name: &str) -> Reference {
        reference(&self.references.shared.kinds.service_account, namespace, name)
    }

    /// The content of an object, none if it is not there or may not be read. From now on the user is looked at again when
    /// that changes.
    ///
    /// # Errors
    /// The API server does not say.
    pub async fn get(&self, reference: Reference) -> Result<Option<Arc<Content>>, CallError> {
        if let Some(found) = self.found().get(&reference) {
            return Ok(found.clone());
        }
        let content = self.get_now(&reference).await?;
        self.found().insert(reference, content.clone());
        Ok(content)
    }

    async fn get_now(&self, reference: &Reference) -> Result<Option<Arc<Content>>, CallError> {
        let references = self.references;
        let reading = {
            let mut state = references.lock();
            let State { entries, by_user } = &mut *state;
            let entry = entries.entry(reference.clone()).or_insert_with(|| Entry {
                users: HashSet::new(),
                seen: None,
                sightings: 0,
                found: None,
                reading: Arc::default(),
                _held: references.shared.watches.hold(reference.clone()),
            });
            entry.users.insert(self.user.clone());
            by_user
                .entry(self.user.clone())
                .or_default()
                .insert(reference.clone());
            entry.reading.clone()
        };
        if let Some(kept) = self.kept(reference) {
            return Ok(kept);
        }
        let _one_reader = reading.lock().await;
        // Somebody else may have read it meanwhile.
        match self.kept(reference) {
            Some(kept) => Ok(kept),
            None => references.read(reference, Some(self.user)).await,
        }
    }

    /// What is known without asking.
    fn kept(&self, reference: &Reference) -> Option<Option<Arc<Content>>> {
        let state = self.references.lock();
        let entry = state.entries.get(reference)?;
        let watched = self.references.shared.watches.watches(reference);
        let found = entry.found.as_ref().filter(|_| watched && entry.is_current());
        found.map(Found::content)
    }

    fn found(&self) -> MutexGuard<'_, HashMap<Reference, Option<Arc<Content>>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything was looked up: what the user referred to before and was not asked for now is given back. A lookup that is
    /// dropped instead leaves that as it was.
    pub fn complete(self) {
        let used = self.found().keys().cloned().collect();
        self.references.keep_only(self.user, &used);
    }
}

fn reference(kind: &Arc<ApiResource>, namespace: &str, name: &str) -> Reference {
    Reference {
        resource: kind.clone(),
        key: dormouse_kubernetes::ObjectKey::new(namespace, name),
    }
}

#[cfg(test)]
mod tests;
