//! The open sessions, and what is asked of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dormouse_core::demand::RouteKey;
use dormouse_engine::Interceptors;
use dormouse_engine::demand::busy;
use dormouse_scalers::error::ReadErrorKind;
use dormouse_scalers::{Hold, ReadError};
use dormouse_wire::demand::from_operator::Message;
use dormouse_wire::demand::hold_release::Outcome;
use dormouse_wire::demand::{FromOperator, HoldAnswer, HoldRelease, HoldRequest, Route};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tonic::Status;

use super::messages::to_interceptor;

/// Sessions at once, of all interceptors and of one.
const MOST_SESSIONS: (usize, usize) = (1024, 4);
/// How long an interceptor goes on holding when it hears no more of a hold: longer than the operator may take to decide and
/// to set the target's replicas.
const LONGEST_HOLD_MILLIS: u32 = 20_000;

/// Where messages to one interceptor go.
pub(super) type Outbox = mpsc::Sender<Result<FromOperator, Status>>;

/// A cheap handle to all sessions of this process.
#[derive(Clone, Default)]
pub struct Sessions {
    // Never held over an await.
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Numbers sessions and holds.
    last: u64,
    open: BTreeMap<u64, Open>,
    holds: HashMap<u64, mpsc::Sender<Answered>>,
}

struct Open {
    reporter: Arc<str>,
    outbox: Outbox,
}

impl State {
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

/// What an interceptor said to a hold; nothing, if its session ended.
type Answered = (Arc<str>, Option<HoldAnswer>);

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a session, until the guard is dropped.
    pub(super) fn open(&self, reporter: Arc<str>, outbox: Outbox) -> Result<Opened, Status> {
        let mut state = self.lock();
        let own = state.open.values().filter(|open| open.reporter == reporter);
        if state.open.len() >= MOST_SESSIONS.0 || own.count() >= MOST_SESSIONS.1 {
            return Err(Status::resource_exhausted("too many sessions"));
        }
        let id = state.number();
        let open = Open {
            reporter: reporter.clone(),
            outbox,
        };
        state.open.insert(id, open);
        Ok(Opened {
            id,
            reporter,
            sessions: self.clone(),
        })
    }

    /// Tells every interceptor. One that takes nothing in misses it.
    pub(super) fn tell_all(&self, message: &Message) {
        for open in self.lock().open.values() {
            drop(open.outbox.try_send(Ok(to_interceptor(message.clone()))));
        }
    }

    /// Registers a hold and asks for it. What was asked is called off again when the guard is dropped.
    fn ask(
        &self,
        route: &RouteKey,
        reporters: &[Arc<str>],
    ) -> Result<(FleetHold, mpsc::Receiver<Answered>), ReadError> {
        let mut state = self.lock();
        let id = state.number();
        // Room for the end of every session beside the answers.
        let (answers, answered) = mpsc::channel(MOST_SESSIONS.0 + reporters.len());
        let mut outboxes = Vec::with_capacity(reporters.len());
        for reporter in reporters {
            // The newest session of each: an older one may be on its way out.
            let newest = state.open.values().rev().find(|open| open.reporter == *reporter);
            let outbox = newest.map(|open| open.outbox.clone());
            outboxes.push(outbox.ok_or_else(|| cannot_be_asked(reporter))?);
        }
        state.holds.insert(id, answers);
        drop(state);
        let mut hold = FleetHold {
            id,
            sessions: self.clone(),
            asked: Vec::with_capacity(outboxes.len()),
            outcome: Outcome::CalledOff,
        };
        for (reporter, outbox) in reporters.iter().zip(outboxes) {
            let request = Message::Hold(HoldRequest {
                id,
                route: Some(Route {
                    namespace: route.namespace.to_string(),
                    name: route.name.to_string(),
                }),
                deadline_millis: LONGEST_HOLD_MILLIS,
            });
            let sent = outbox.try_send(Ok(to_interceptor(request)));
            sent.map_err(|_full_or_gone| cannot_be_asked(reporter))?;
            hold.asked.push(outbox);
        }
        Ok((hold, answered))
    }
}

fn cannot_be_asked(reporter: &str) -> ReadError {
    ReadError::new(
        ReadErrorKind::Unreachable,
        format!("the interceptor pod {reporter} has no session with this operator that listens"),
    )
}

impl Interceptors for Sessions {
    fn hold<'a>(
        &'a self,
        route: &'a RouteKey,
        reporters: Vec<Arc<str>>,
    ) -> BoxFuture<'a, Result<Box<dyn Hold>, ReadError>> {
        async move {
            let (hold, mut answered) = self.ask(route, &reporters)?;
            let mut missing: HashSet<Arc<str>> = reporters.into_iter().collect();
            while !missing.is_empty() {
                let Some((reporter, answer)) = answered.recv().await else {
                    break;
                };
                let Some(answer) = answer else {
                    if missing.contains(&reporter) {
                        return Err(cannot_be_asked(&reporter));
                    }
                    continue;
                };
                let held = u64::from(answer.in_flight) + u64::from(answer.pending);
                if held > 0 {
                    return Err(busy(route, held));
                }
                missing.remove(&reporter);
            }
            Ok(Box::new(hold) as Box<dyn Hold>)
        }
        .boxed()
    }
}

/// What interceptors hold for the operator.
struct FleetHold {
    id: u64,
    sessions: Sessions,
    asked: Vec<Outbox>,
    outcome: Outcome,
}

impl Hold for FleetHold {
    fn slept(mut self: Box<Self>) {
        self.outcome = Outcome::Asleep;
    }
}

impl Drop for FleetHold {
    fn drop(&mut self) {
        self.sessions.lock().holds.remove(&self.id);
        for outbox in &self.asked {
            let release = Message::Release(HoldRelease {
                id: self.id,
                outcome: self.outcome.into(),
            });
            // An interceptor that takes nothing in lets go by itself at its deadline.
            drop(outbox.try_send(Ok(to_interceptor(release))));
        }
    }
}

/// A registered session.
pub(super) struct Opened {
    id: u64,
    reporter: Arc<str>,
    sessions: Sessions,
}

impl Opened {
    pub(super) fn reporter(&self) -> &Arc<str> {
        &self.reporter
    }

    /// Passes on an answer to a hold. One that nobody waits for any more is dropped.
    pub(super) fn answer(&self, answer: HoldAnswer) {
        let state = self.sessions.lock();
        if let Some(hold) = state.holds.get(&answer.id) {
            drop(hold.try_send((self.reporter.clone(), Some(answer))));
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut state = self.sessions.lock();
        state.open.remove(&self.id);
        for hold in state.holds.values() {
            drop(hold.try_send((self.reporter.clone(), None)));
        }
    }
}
