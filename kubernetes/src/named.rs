//! Single objects that others refer to by name: each is watched once, however many refer to it, and no longer than any does.
//!
//! ```text
//! hold(reference) ──> wanted (counted) ──plan──> watches of metadata: of one name, of a namespace, of the whole cluster
//!      └─ Held: given back when dropped                         └──> tell(reference, what is there)
//! ```
//!
//! A watch costs a connection, a task and a request a minute, whatever it shows, so few names of a namespace are watched one
//! by one, many by one watch of the namespace, and many namespaces by one of the cluster; what nobody refers to is dropped as
//! it arrives. Where the wider watch is not granted, the names are watched one by one however many they are. Where even that
//! is refused, the holder is told now and again that it has to look for itself.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::{Client, core::ApiResource};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    calls::CallError,
    key::ObjectKey,
    namespaces::Namespaces,
    slim::Revision,
    watch::{Change, Watch},
};

/// More names than this in one namespace are watched together; they are again watched one by one at half as many.
const NAMES: usize = 16;
/// More watches than this of one kind become one of the whole cluster; at half as many they are several again.
const WATCHES: usize = 64;
/// How long what is wanted may go on changing before it is planned for anew.
const GATHER: Duration = Duration::from_millis(100);
/// How long a refused watch of one name waits for its next attempt.
const REFUSED_NAME: Duration = Duration::from_secs(30);
/// How long a refused watch of a namespace or cluster does.
const REFUSED_WIDE: Duration = Duration::from_secs(600);

/// One object that is referred to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Its kind.
    pub resource: Arc<ApiResource>,
    /// Its name.
    pub key: ObjectKey,
}

/// `Secret team-a/keys`
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.resource.kind, self.key)
    }
}

/// What is known of a referred object now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// It is there, with this [`Revision::mark`].
    Present(String),
    /// There is none of that name.
    Absent,
    /// It may not be watched: whoever wants to know has to look, now and at each of these.
    Unknown,
}

/// What a watch covers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Scope {
    Name(ObjectKey),
    Namespace(Arc<str>),
    Cluster,
}

impl Scope {
    fn covers(&self, key: &ObjectKey) -> bool {
        match self {
            Self::Name(name) => name == key,
            Self::Namespace(namespace) => *namespace == key.namespace,
            Self::Cluster => true,
        }
    }

    /// Every scope that covers `key`.
    fn all_of(key: &ObjectKey) -> [Self; 3] {
        [
            Self::Name(key.clone()),
            Self::Namespace(key.namespace.clone()),
            Self::Cluster,
        ]
    }
}

/// A watch by what it covers.
type Place = (Arc<ApiResource>, Scope);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Starting,
    /// It has shown everything once; from then on it tells every change, late at worst.
    Listed,
    /// Until then.
    Refused(Instant),
}

#[derive(Default)]
struct State {
    wanted: HashMap<Reference, usize>,
    watches: HashMap<Place, Progress>,
    /// Names whose refusal was logged.
    told: HashSet<Reference>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self, place: &Place, progress: Progress) {
        if let Some(known) = self.lock().watches.get_mut(place) {
            *known = progress;
            self.changed.notify_one();
        }
    }

    /// Notes that a watch is not granted.
    fn refused(&self, place: &Place, error: &CallError) {
        let (resource, scope) = place;
        let wait = match scope {
            Scope::Name(key) => {
                let reference = Reference {
                    resource: resource.clone(),
                    key: key.clone(),
                };
                if self.lock().told.insert(reference.clone()) {
                    tracing::info!(
                        object = %reference, error = error.category(),
                        "an object that is referred to may not be watched, and is read every {REFUSED_NAME:?} instead"
                    );
                }
                REFUSED_NAME
            }
            Scope::Namespace(_) | Scope::Cluster => REFUSED_WIDE,
        };
        self.progress(place, Progress::Refused(Instant::now() + wait));
    }
}

/// The referred objects. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub struct NamedWatches {
    shared: Arc<Shared>,
}

/// A reference that is in use; dropping it gives it back.
pub struct Held {
    reference: Reference,
    shared: Arc<Shared>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Some(count) = state.wanted.get_mut(&self.reference) {
            *count -= 1;
            if *count == 0 {
                state.wanted.remove(&self.reference);
                self.shared.changed.notify_one();
            }
        }
    }
}

impl NamedWatches {
    /// Has `reference` watched while the answer lives. Every change after this call is told; what is there already is told
    /// as well, once it is seen.
    #[must_use = "nothing is watched without it"]
    pub fn hold(&self, reference: Reference) -> Held {
        let mut state = self.shared.lock();
        let count = state.wanted.entry(reference.clone()).or_default();
        *count += 1;
        if *count == 1 {
            self.shared.changed.notify_one();
        }
        Held {
            reference,
            shared: self.shared.clone(),
        }
    }

    /// Whether a held reference is watched, or will be in a moment: every change is told then. False where that is refused.
    #[must_use]
    pub fn watches(&self, reference: &Reference) -> bool {
        let state = self.shared.lock();
        let progress = |scope| state.watches.get(&(reference.resource.clone(), scope)).copied();
        let found = Scope::all_of(&reference.key).map(progress);
        // A name is refused only after whatever is wider was, or was not worth while.
        found.contains(&Some(Progress::Listed)) || !matches!(found[0], Some(Progress::Refused(_)))
    }

    /// How many references are held, and how many watches show them.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let state = self.shared.lock();
        let refused = |progress: &&Progress| !matches!(progress, Progress::Refused(_));
        (state.wanted.len(), state.watches.values().filter(refused).count())
    }

    /// Runs the watches, for ever. `tell` is called from their tasks and must be quick; it may hear what it knows already.
    pub async fn run(
        self,
        client: Client,
        namespaces: Namespaces,
        tell: impl Fn(&Reference, Sighting) + Send + Sync + 'static,
    ) {
        let tell: Tell = Arc::new(tell);
        let whole_cluster = namespaces == Namespaces::All;
        let mut tasks: HashMap<Place, AbortOnDropHandle<()>> = HashMap::new();
        loop {
            let next = self.settle(whole_cluster, &client, &tell, &mut tasks);
            tokio::select! {
                () = self.shared.changed.notified() => sleep(GATHER).await,
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    /// Starts what is missing and stops what is no longer needed. Answers when to look again, whatever happens.
    fn settle(
        &self,
        whole_cluster: bool,
        client: &Client,
        tell: &Tell,
        tasks: &mut HashMap<Place, AbortOnDropHandle<()>>,
    ) -> Option<Instant> {
        let (mut look, mut start) = (Vec::new(), Vec::new());
        let now = Instant::now();
        let mut state = self.shared.lock();
        let State {
            wanted,
            watches,
            told,
        } = &mut *state;
        told.retain(|reference| wanted.contains_key(reference));
        watches.retain(|(resource, scope), progress| {
            let over = matches!(progress, Progress::Refused(until) if *until <= now);
            if let Scope::Name(key) = scope
                && over
            {
                look.push(Reference {
                    resource: resource.clone(),
                    key: key.clone(),
                });
            }
            !over
        });
        let wished = plan(wanted.keys(), watches, whole_cluster);
        for place in &wished {
            if !watches.contains_key(place) {
                watches.insert(place.clone(), Progress::Starting);
                start.push(place.clone());
            }
        }
        // A watch ends when another one has shown all that it covers, so that there is no moment without.
        let ready = |place: &Place| watches.get(place) == Some(&Progress::Listed);
        let needed: HashSet<Place> = wanted
            .keys()
            .flat_map(|reference| {
                let places = Scope::all_of(&reference.key).map(|scope| (reference.resource.clone(), scope));
                let covered = places.iter().any(|place| wished.contains(place) && ready(place));
                places.into_iter().filter(move |_| !covered)
            })
            .collect();
        watches.retain(|place, progress| {
            matches!(progress, Progress::Refused(_)) || wished.contains(place) || needed.contains(place)
        });
        tasks.retain(|place, _| {
            watches
                .get(place)
                .is_some_and(|progress| !matches!(progress, Progress::Refused(_)))
        });
        let next = watches.values().filter_map(|progress| match progress {
            Progress::Refused(until) => Some(*until),
            _ => None,
        });
        let next = next.min();
        drop(state);
        for place in start {
            tasks.insert(place.clone(), self.start(client, place, tell.clone()));
        }
        for reference in look {
            tell(&reference, Sighting::Unknown);
        }
        next
    }

    fn start(&self, client: &Client, place: Place, tell: Tell) -> AbortOnDropHandle<()> {
        let (resource, scope) = place.clone();
        let namespace = match &scope {
            Scope::Name(key) if key.namespace.is_empty() => None,
            Scope::Name(key) => Some(&*key.namespace),
            Scope::Namespace(namespace) => Some(&**namespace),
            Scope::Cluster => None,
        };
        let mut watch = Watch::<Revision>::of(client, &resource, namespace);
        if let Scope::Name(key) = &scope {
            watch = watch.fields(&format!("metadata.name={}", key.name));
        }
        let refer = move |key: &ObjectKey| Reference {
            resource: resource.clone(),
            key: key.clone(),
        };
        let (kept, listed, refused) = (self.shared.clone(), self.shared.clone(), self.shared.clone());
        let (refer_kept, at_list, at_failure) = (refer.clone(), place.clone(), place);
        let told = tell.clone();
        let (_, task) = watch
            .keep(move |key| kept.lock().wanted.contains_key(&refer_kept(key)))
            .on_list(move |keys| {
                let missing: Vec<Reference> = {
                    let state = listed.lock();
                    let gone = |reference: &&Reference| {
                        reference.resource == at_list.0
                            && scope.covers(&reference.key)
                            && !keys.contains(&reference.key)
                    };
                    state.wanted.keys().filter(gone).cloned().collect()
                };
                listed.progress(&at_list, Progress::Listed);
                missing
                    .iter()
                    .for_each(|reference| told(reference, Sighting::Absent));
            })
            .on_change(move |key, change| {
                let sighting = match change {
                    Change::Applied(object) => Sighting::Present(Revision::mark(&object.metadata)),
                    Change::Deleted(_) => Sighting::Absent,
                };
                tell(&refer(key), sighting);
            })
            .on_failure(move |error| {
                let is_refused = matches!(error, CallError::Forbidden { .. } | CallError::NotFound { .. });
                if is_refused {
                    refused.refused(&at_failure, error);
                }
                is_refused
            })
            .start();
        AbortOnDropHandle::new(tokio::spawn(task))
    }
}

type Tell = Arc<dyn Fn(&Reference, Sighting) + Send + Sync>;

/// The fewest watches that show all that is wanted. Between its two bounds a kind stays watched as it is, so that a
/// reference that comes and goes does not start and stop anything but itself.
fn plan<'a>(
    wanted: impl Iterator<Item = &'a Reference>,
    watches: &HashMap<Place, Progress>,
    whole_cluster: bool,
) -> HashSet<Place> {
    let mut by_kind: HashMap<&Arc<ApiResource>, HashMap<&Arc<str>, Vec<&ObjectKey>>> = HashMap::new();
    for Reference { resource, key } in wanted {
        let names = by_kind
            .entry(resource)
            .or_default()
            .entry(&key.namespace)
            .or_default();
        names.push(key);
    }
    let mut plan = HashSet::new();
    for (resource, namespaces) in by_kind {
        let worth = |scope: Scope, count: usize, bound: usize| match watches.get(&(resource.clone(), scope)) {
            Some(Progress::Refused(_)) => false,
            Some(_) => count > bound / 2,
            None => count > bound,
        };
        let mut scopes = Vec::new();
        for (namespace, names) in namespaces {
            // What belongs to no namespace has none to be watched as a whole.
            if !namespace.is_empty() && worth(Scope::Namespace(namespace.clone()), names.len(), NAMES) {
                scopes.push(Scope::Namespace(namespace.clone()));
            } else {
                scopes.extend(names.into_iter().cloned().map(Scope::Name));
            }
        }
        if whole_cluster && worth(Scope::Cluster, scopes.len(), WATCHES) {
            scopes = vec![Scope::Cluster];
        }
        plan.extend(scopes.into_iter().map(|scope| (resource.clone(), scope)));
    }
    plan
}

#[cfg(test)]
mod tests;
