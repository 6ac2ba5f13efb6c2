//! Who is asked: one read at a time per question, and one for all objects that ask the same question.
//!
//! ```text
//! trigger of A ─┐                 ┌─ a read is on its way ──> wait for its answer
//! trigger of B ─┼─ Source ── ask ─┼─ answered just now    ──> that answer
//! trigger of C ─┘                 └─ else                 ──> one read, in a task of its own
//! ```
//!
//! Loops that ask a shared question also share its phase: their ticks fall on the same moments, and so on one read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use dormouse_scalers::clients::Fingerprint;
use dormouse_scalers::traffic::Traffic;
use dormouse_scalers::{Observed, Question, Trigger};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::engine::Clock;
use crate::reader::{Fault, Reading};

/// How old an answer to a shared question may be to be taken for one that was asked now.
pub(crate) const REUSE: Duration = Duration::from_millis(250);

/// What a source said, or why it did not.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Tells reads apart: no failure may count twice for one object.
    pub(crate) id: u64,
    pub(crate) outcome: Result<Observed, Fault>,
    pub(crate) taken: Instant,
    pub(crate) at: Timestamp,
    pub(crate) took: Duration,
    /// What the read did on the wire.
    pub(crate) traffic: Traffic,
}

impl Answer {
    /// What was known without asking anybody.
    pub(crate) fn at_once(outcome: Result<Observed, Fault>, now: &Clock) -> Arc<Self> {
        Self::new(outcome, Instant::now(), now, Traffic::default())
    }

    fn new(outcome: Result<Observed, Fault>, began: Instant, now: &Clock, traffic: Traffic) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            outcome,
            taken: Instant::now(),
            at: now(),
            took: began.elapsed(),
            traffic,
        })
    }
}

/// One question to one server.
#[derive(Default)]
pub(crate) struct Source {
    shared: bool,
    // Never held over an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    flight: Option<Flight>,
    last: Option<Arc<Answer>>,
    /// The first tick of the loop that asked first, and how many loops keep to it.
    phase: Option<(Instant, usize)>,
}

/// A read on its way. It stays after its answer for as long as its code holds on to a thread.
struct Flight {
    began: Instant,
    answer: watch::Receiver<Option<Arc<Answer>>>,
    _task: AbortOnDropHandle<()>,
}

enum Asked {
    Known(Arc<Answer>),
    OnItsWay(watch::Receiver<Option<Arc<Answer>>>, bool),
}

impl Source {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to the question, and whether it was asked for this caller.
    pub(crate) async fn ask(self: &Arc<Self>, scaler: &Arc<dyn Trigger>, now: &Clock) -> (Arc<Answer>, bool) {
        match self.join_or_start(scaler, now) {
            Asked::Known(answer) => (answer, false),
            Asked::OnItsWay(mut answer, own) => {
                let began = Instant::now();
                let told = answer.wait_for(Option::is_some).await;
                let told = told.ok().and_then(|told| told.clone());
                // Without an answer the task itself broke off, and the next to ask starts another.
                (
                    told.unwrap_or_else(|| Answer::new(Err(Fault::Panicked), began, now, Traffic::default())),
                    own,
                )
            }
        }
    }

    fn join_or_start(self: &Arc<Self>, scaler: &Arc<dyn Trigger>, now: &Clock) -> Asked {
        let mut state = self.lock();
        if let Some(answer) = state.last.as_ref().filter(|last| last.taken.elapsed() < REUSE) {
            return Asked::Known(answer.clone());
        }
        if let Some(flight) = &state.flight {
            if flight.answer.borrow().is_some() {
                let stuck = Err(Fault::Stuck(flight.began.elapsed()));
                return Asked::Known(Answer::new(stuck, Instant::now(), now, Traffic::default()));
            }
            if flight.answer.has_changed().is_ok() {
                return Asked::OnItsWay(flight.answer.clone(), false);
            }
        }
        let (tell, answer) = watch::channel(None);
        let began = Instant::now();
        let task = fly(Arc::downgrade(self), scaler.clone(), now.clone(), began, tell);
        state.flight = Some(Flight {
            began,
            answer: answer.clone(),
            _task: AbortOnDropHandle::new(tokio::spawn(task)),
        });
        Asked::OnItsWay(answer, true)
    }

    /// Joins the loops that ask this question; `first` is when the new one ticks first. Alone, a loop goes by its own
    /// start.
    pub(crate) fn keep_step(self: &Arc<Self>, first: Instant) -> Step {
        let mut state = self.lock();
        let (anchor, loops) = state.phase.get_or_insert((first, 0));
        *loops += 1;
        Step {
            anchor: *anchor,
            source: self.clone(),
        }
    }
}

/// One read, from its start until its code is gone. It holds the source weakly: with the last trigger that asks, the read
/// ends too.
async fn fly(
    source: Weak<Source>,
    scaler: Arc<dyn Trigger>,
    now: Clock,
    began: Instant,
    tell: watch::Sender<Option<Arc<Answer>>>,
) {
    let traffic = Traffic::default();
    let mut reading = Reading::start(scaler, traffic.clone());
    let (outcome, ended) = reading.answer().await;
    let answer = Answer::new(outcome, began, &now, traffic);
    if let Some(source) = source.upgrade() {
        let mut state = source.lock();
        state.last = source.shared.then(|| answer.clone());
        // Told under the lock: who asks next sees either this read on its way or none.
        tell.send_replace(Some(answer));
        if ended {
            state.flight = None;
        }
    }
    if !ended {
        reading.gone().await;
        if let Some(source) = source.upgrade() {
            source.lock().flight = None;
        }
    }
}

/// A loop's place in the phase of a shared question; dropping it leaves.
pub(crate) struct Step {
    pub(crate) anchor: Instant,
    source: Arc<Source>,
}

impl Drop for Step {
    fn drop(&mut self) {
        let mut state = self.source.lock();
        state.phase = state
            .phase
            .filter(|(_, loops)| *loops > 1)
            .map(|(anchor, loops)| (anchor, loops - 1));
    }
}

/// The shared questions of all objects. Nothing is kept once no trigger asks it.
#[derive(Default)]
pub(crate) struct Sources {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    sources: HashMap<Fingerprint, Weak<Source>>,
    /// Dead entries are swept out once there are this many, which keeps the sweep's cost per insertion constant.
    sweep_at: usize,
}

impl Sources {
    /// The source of a question: the one that others ask already, or a new one.
    pub(crate) fn of(&self, question: Option<Question>) -> Arc<Source> {
        let Some(question) = question else {
            return Arc::default();
        };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = held.sources.get(&question.fingerprint).and_then(Weak::upgrade) {
            return source;
        }
        if held.sources.len() >= held.sweep_at {
            held.sources.retain(|_, source| source.strong_count() > 0);
            held.sweep_at = (held.sources.len() * 2).max(64);
        }
        let source = Arc::new(Source {
            shared: true,
            state: Mutex::default(),
        });
        held.sources.insert(question.fingerprint, Arc::downgrade(&source));
        source
    }
}
