//! A work queue of keys: each is handled soon, by one worker at a time, and again after a failure.
//!
//! ```text
//! add ──> ready ──> running ──ok──> gone, or delayed by Action::After
//!           ^          │ └──failed──> delayed by the key's own backoff
//!           └──────────┴── added meanwhile: once more, at once
//! ```
//!
//! The queue holds keys and no facts, so adding a key twice is adding it once, and the worker reads the newest truth from
//! where it is kept. Its size is bounded by the number of keys.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt::{Debug, Display},
    future::Future,
    hash::Hash,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dormouse_runtime::{backoff::delay_after, shutdown::panic_message};
use tokio::{
    sync::Notify,
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// The first delay after a failure.
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// The longest delay after failures.
const MAX_DELAY: Duration = Duration::from_secs(30);
/// How long one key may be worked on.
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// What becomes of a key that was handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing until it is added again.
    Done,
    /// Again after this time, or earlier if it is added.
    After(Duration),
}

/// A queue of keys. Cheap to clone; all clones are the same queue.
#[derive(Debug)]
pub struct Queue<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

#[derive(Debug)]
struct Shared<K> {
    state: Mutex<State<K>>,
    changed: Notify,
    first: Duration,
    cap: Duration,
}

#[derive(Debug)]
struct State<K> {
    entries: HashMap<K, Entry>,
    ready: VecDeque<K>,
    delayed: BTreeMap<Slot, K>,
    sequence: u64,
}

/// When a delayed key is due; the number tells keys of the same instant apart.
type Slot = (Instant, u64);

#[derive(Debug)]
struct Entry {
    place: Place,
    failures: u32,
}

#[derive(Debug)]
enum Place {
    Ready,
    Delayed(Slot),
    Running { again: Option<Instant> },
}

impl<K> Default for Queue<K>
where
    K: Clone + Eq + Hash,
{
    fn default() -> Self {
        Self::new(FIRST_DELAY, MAX_DELAY)
    }
}

impl<K> Queue<K>
where
    K: Clone + Eq + Hash,
{
    /// A queue whose failed keys come back after `first` and then ever later, up to `cap`. [`Queue::default`] has 200 ms
    /// and 30 s.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Self {
        let state = State {
            entries: HashMap::new(),
            ready: VecDeque::new(),
            delayed: BTreeMap::new(),
            sequence: 0,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changed: Notify::new(),
                first,
                cap,
            }),
        }
    }

    /// Has `key` handled as soon as a worker is free, also when it was delayed or is being handled right now.
    pub fn add(&self, key: K) {
        self.add_at(key, Instant::now());
    }

    /// Has `key` handled after `delay`, unless it is due earlier.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.add_at(key, Instant::now() + delay);
    }

    /// How many keys are ready, delayed or being handled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// How many keys could be handled now, if a worker were free.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.lock().ready.len()
    }

    /// Whether `key` is ready or being handled.
    #[must_use]
    pub fn is_due(&self, key: &K) -> bool {
        let state = self.lock();
        let entry = state.entries.get(key);
        entry.is_some_and(|entry| !matches!(entry.place, Place::Delayed(_)))
    }

    /// Whether no key is ready, delayed or being handled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn add_at(&self, key: K, at: Instant) {
        self.lock().add(key, at, Instant::now());
        self.shared.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> State<K>
where
    K: Clone + Eq + Hash,
{
    fn add(&mut self, key: K, at: Instant, now: Instant) {
        let failures = match self.entries.get_mut(&key) {
            None => 0,
            Some(Entry {
                place: Place::Ready, ..
            }) => return,
            Some(Entry {
                place: Place::Running { again },
                ..
            }) => {
                *again = Some(again.map_or(at, |again| again.min(at)));
                return;
            }
            Some(Entry {
                place: Place::Delayed(slot),
                failures,
            }) => {
                if slot.0 <= at {
                    return;
                }
                self.delayed.remove(slot);
                *failures
            }
        };
        self.put(key, at, now, failures);
    }

    fn put(&mut self, key: K, at: Instant, now: Instant, failures: u32) {
        let place = if at <= now {
            self.ready.push_back(key.clone());
            Place::Ready
        } else {
            self.sequence += 1;
            let slot = (at, self.sequence);
            self.delayed.insert(slot, key.clone());
            Place::Delayed(slot)
        };
        self.entries.insert(key, Entry { place, failures });
    }

    /// The next key to handle, which is then running.
    fn take(&mut self, now: Instant) -> Option<K> {
        while let Some(due) = self.delayed.first_entry().filter(|due| due.key().0 <= now) {
            let key = due.remove();
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.place = Place::Ready;
            }
            self.ready.push_back(key);
        }
        let key = self.ready.pop_front()?;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.place = Place::Running { again: None };
        }
        Some(key)
    }

    /// Puts a handled key where it belongs: due at `at` if set, or earlier if it was added meanwhile.
    fn settle(&mut self, key: K, at: Option<Instant>, failures: u32, now: Instant) {
        let Some(Entry {
            place: Place::Running { again },
            ..
        }) = self.entries.remove(&key)
        else {
            return;
        };
        if let Some(at) = at.into_iter().chain(again).min() {
            self.put(key, at, now, failures);
        }
    }
}

impl<K> Queue<K>
where
    K: Clone + Eq + Hash + Display + Send + 'static,
{
    /// Handles keys until `shutdown` is cancelled, `concurrency` at once, then waits for those being handled.
    ///
    /// A key is never handled twice at once. An error, a panic or more than a minute of work is a failure: the key comes back
    /// after its own growing delay; the next success forgets the failures. An error is the worker's to tell, who knows
    /// what it is about; a panic and a worker that does not end are logged here.
    pub async fn run<F, Fut, E>(&self, concurrency: usize, shutdown: CancellationToken, handle: F)
    where
        F: Fn(K) -> Fut,
        Fut: Future<Output = Result<Action, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let mut workers = Workers {
            tasks: JoinSet::new(),
            keys: HashMap::new(),
        };
        loop {
            let next_due = loop {
                let mut state = self.lock();
                let free = workers.tasks.len() < concurrency.max(1);
                match free.then(|| state.take(Instant::now())).flatten() {
                    Some(key) => {
                        drop(state);
                        // What the handler does before its first await may panic as well.
                        let work = catch_unwind(AssertUnwindSafe(|| handle(key.clone())));
                        match work {
                            Ok(work) => workers.start(key, work),
                            Err(_) => self.finish(key, Err(Failed::Broken("panicked".to_owned()))),
                        }
                    }
                    None => break state.delayed.keys().next().filter(|_| free).map(|slot| slot.0),
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some((key, result)) = workers.next() => self.finish(key, result),
                () = self.shared.changed.notified() => {}
                () = sleep_until(next_due.unwrap_or_else(Instant::now)), if next_due.is_some() => {}
            }
        }
        while let Some((key, result)) = workers.next().await {
            self.finish(key, result);
        }
    }

    fn finish(&self, key: K, result: Result<Action, Failed>) {
        let now = Instant::now();
        let failures = self.lock().entries.get(&key).map_or(0, |entry| entry.failures);
        let (at, failures) = match result {
            Ok(Action::Done) => (None, 0),
            Ok(Action::After(delay)) => (Some(now + delay), 0),
            Err(error) => {
                let failures = failures.saturating_add(1);
                let delay = delay_after(failures, self.shared.first, self.shared.cap);
                match error {
                    Failed::Error(error) => {
                        tracing::debug!(key = %key, error, failures, retry_in = ?delay, "unable to reconcile");
                    }
                    Failed::Broken(what) => {
                        tracing::warn!(key = %key, error = what, failures, retry_in = ?delay, "a worker broke down");
                    }
                }
                (Some(now + delay), failures)
            }
        };
        self.lock().settle(key, at, failures, now);
    }
}

struct Workers<K> {
    tasks: JoinSet<Result<Action, Failed>>,
    keys: HashMap<Id, K>,
}

impl<K> Workers<K> {
    fn start<E, Fut>(&mut self, key: K, work: Fut)
    where
        Fut: Future<Output = Result<Action, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let task = self.tasks.spawn(async move {
            match timeout(RUN_LIMIT, work).await {
                // The alternate form shows the causes of errors that keep them.
                Ok(result) => result.map_err(|error| Failed::Error(format!("{error:#}"))),
                Err(_) => Err(Failed::Broken(format!("not done after {RUN_LIMIT:?}"))),
            }
        });
        self.keys.insert(task.id(), key);
    }

    /// The next key that was handled; none while no key is being handled.
    async fn next(&mut self) -> Option<(K, Result<Action, Failed>)> {
        let (id, result) = match self.tasks.join_next_with_id().await? {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(panicked(error))),
        };
        Some((self.keys.remove(&id)?, result))
    }
}

/// Why a key was not handled.
enum Failed {
    /// The worker said so.
    Error(String),
    /// The worker panicked or did not end.
    Broken(String),
}

fn panicked(error: JoinError) -> Failed {
    Failed::Broken(format!("panicked: {}", panic_message(error)))
}

#[cfg(test)]
mod tests;
