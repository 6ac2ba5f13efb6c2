//! What one interceptor is told of the pods of one route before it asks.
//!
//! ```text
//! pod starts, may be probed | is ready since a moment ──> told, and again while somebody waits
//! is over, not ready any more, not the Service's any more ──> taken back
//! ```
//!
//! An interceptor counts a pod for an endpoint of the Service on this word alone, for some seconds.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dormouse_core::demand::RouteKey;
use dormouse_wire::demand::{Pod, PodProbe};
use tokio::time::Instant;

use super::messages;
use super::probe_spec::{self, Told};
use super::probes::{PodBooth, Selection};
use super::sessions::Outbox;

/// Pods of one route that are told ahead.
const MOST_PODS: usize = 100;
/// For how long an interceptor is believed to know what it was told; it forgets later than that.
const KNOWN: Duration = Duration::from_secs(10);
/// How soon a word is said again: interceptors forget after twice that which Service a pod is of.
pub(super) const AGAIN: Duration = Duration::from_secs(5);

/// Tells one interceptor of the pods of one route.
pub(super) struct Ahead {
    route: RouteKey,
    selection: Selection,
    booth: PodBooth,
    outbox: Outbox,
    words: Mutex<HashMap<Pod, Word>>,
}

/// What there is to say of a pod.
struct Word {
    /// Without addresses: it is taken back.
    probe: PodProbe,
    /// When it is to be said, or to be said again.
    due: Instant,
    /// When it was said for the first time; nothing any more once the interceptor asked for it.
    unasked: Option<Instant>,
}

impl Ahead {
    pub(super) fn new(route: RouteKey, selection: Selection, booth: PodBooth, outbox: Outbox) -> Self {
        Self {
            route,
            selection,
            booth,
            outbox,
            words: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Pod, Word>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pod that the Service's selector takes in, as it is now.
    pub(super) fn see(&self, pod: &Told) {
        let mut words = self.lock();
        let name = pod.probe.pod.clone().unwrap_or_default();
        let before = words.get(&name).map(|word| &word.probe);
        // Interceptors hear two operators, the slower of which must not unsay what the other said: only who takes back does.
        let is_lost = before.is_some_and(|before| before.ready && !pod.probe.ready);
        if pod.is_worth_telling_ahead() && !is_lost && self.is_selected() {
            let mut probe = pod.probe.clone();
            probe.service.clone_from(&self.selection.service);
            if before != Some(&probe) && (before.is_some() || words.len() < MOST_PODS) {
                words.insert(name, Word::new(probe));
            }
        } else if let Some(word) = words.get_mut(&name) {
            *word = Word::new(probe_spec::over(name).probe);
        }
        self.say(&mut words);
    }

    /// Somebody still waits: says again what may have been forgotten.
    pub(super) fn remind(&self) {
        let mut words = self.lock();
        if !self.is_selected() {
            for (name, word) in &mut *words {
                *word = Word::new(probe_spec::over(name.clone()).probe);
            }
        }
        self.say(&mut words);
    }

    /// When the interceptor was told of this pod, unless it has asked for it since.
    pub(super) fn asked(&self, pod: &Pod) -> Option<Instant> {
        let told = self.lock().get_mut(pod)?.unasked.take();
        told.filter(|told| told.elapsed() < KNOWN)
    }

    /// Whether the route's Service is the same, and selects as it did.
    fn is_selected(&self) -> bool {
        self.booth.selection(&self.route).as_ref() == Some(&self.selection)
    }

    /// Says what is due, as long as there is room for what must not be lost: holds and their releases.
    fn say(&self, words: &mut HashMap<Pod, Word>) {
        let now = Instant::now();
        words.retain(|_, word| {
            let has_room = self.outbox.capacity() > self.outbox.max_capacity() / 2;
            if word.due > now
                || !has_room
                || self
                    .outbox
                    .try_send(Ok(messages::probe_spec(&word.probe)))
                    .is_err()
            {
                return true;
            }
            word.due = now + AGAIN;
            word.unasked.get_or_insert(now);
            !word.probe.addresses.is_empty()
        });
    }
}

impl Word {
    fn new(probe: PodProbe) -> Self {
        Self {
            probe,
            due: Instant::now(),
            unasked: None,
        }
    }
}
