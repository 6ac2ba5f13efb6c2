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
    /// When it was said for the first time.
    said: Option<Instant>,
    /// The interceptor has asked for it since.
    was_asked: bool,
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
        let is_of_use = pod.may_be_used() && self.is_selected();
        if is_of_use {
            // A watch that begins anew tells nothing of a pod whose name another one has by then.
            let namesakes = words.iter_mut().filter(|(other, _)| {
                (&other.namespace, &other.name) == (&name.namespace, &name.name) && other.uid != name.uid
            });
            namesakes.for_each(Word::take_back);
        }
        let next = match words.get(&name) {
            // That has to be said before anything else is.
            Some(word) if word.takes_back() => None,
            // Interceptors hear two operators, the slower of which must not unsay that it is ready: only who takes back does.
            Some(word) if !is_of_use || (word.probe.ready && !pod.probe.ready) => {
                Some(probe_spec::over(name.clone()).probe)
            }
            Some(word) => Some(self.probe(pod)).filter(|probe| *probe != word.probe),
            None => (is_of_use && pod.is_news() && words.len() < MOST_PODS).then(|| self.probe(pod)),
        };
        if let Some(probe) = next {
            words.insert(name, Word::new(probe));
        }
        self.say(&mut words);
    }

    /// Somebody still waits: says again what may have been forgotten.
    pub(super) fn remind(&self) {
        let mut words = self.lock();
        if words.is_empty() {
            return;
        }
        if !self.is_selected() {
            words.iter_mut().for_each(Word::take_back);
        }
        self.say(&mut words);
    }

    /// Whether other pods are meant by now, and all that was said is taken back.
    pub(super) fn is_over(&self) -> bool {
        self.lock().is_empty() && !self.is_selected()
    }

    /// The interceptor asks for this pod. When it was told of it a short while ago, unless it has asked before.
    pub(super) fn asked(&self, pod: &Pod) -> Option<Instant> {
        let mut words = self.lock();
        let word = words.get_mut(pod)?;
        let was_asked = std::mem::replace(&mut word.was_asked, true);
        word.said.filter(|said| !was_asked && said.elapsed() < KNOWN)
    }

    fn probe(&self, pod: &Told) -> PodProbe {
        PodProbe {
            service: self.selection.service.clone(),
            ..pod.probe.clone()
        }
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
            word.said.get_or_insert(now);
            !word.takes_back()
        });
    }
}

impl Word {
    fn new(probe: PodProbe) -> Self {
        Self {
            probe,
            due: Instant::now(),
            said: None,
            was_asked: false,
        }
    }

    fn take_back((pod, word): (&Pod, &mut Self)) {
        *word = Self::new(probe_spec::over(pod.clone()).probe);
    }

    fn takes_back(&self) -> bool {
        self.probe.addresses.is_empty()
    }
}
