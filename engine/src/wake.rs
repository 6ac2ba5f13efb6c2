//! Triggers that are told of changes: the loop looks at them the moment there is news, and makes sure of them before it puts
//! their target to sleep.
//!
//! ```text
//! news ──> asleep and active, or waiting unserved ──> decide ──> set replicas, on what was seen of the target last
//!      │                                                      └─ failed ──> again, soon: requests are held meanwhile
//!      ├─> waiting, and nothing to do ──> look at the target again after a while: somebody else may have put it to sleep
//!      └─> else nothing: the next polling tick sees it
//! ```

use std::time::Duration;

use dormouse_core::{Action, DecisionRecord, ReadFailure, Reading, ReadingSet, TriggerReading};
use dormouse_scalers::error::ReadErrorKind;
use dormouse_scalers::traffic::Traffic;
use dormouse_scalers::{Hold, Pushed, ReadError, Told};
use futures::FutureExt;
use futures::future::{join_all, select_all};
use tokio::sync::watch;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};

use crate::object::{Arrival, LiveTrigger, Object};
use crate::ports::{PortError, TargetState, TickOutcome, TickReport, Urgency};
use crate::reader::Fault;
use crate::source::Answer;

/// How long it may take to make sure that a target may sleep.
const HOLD_DEADLINE: Duration = Duration::from_secs(5);

/// The first and the longest wait after news that could not be acted on: requests are held meanwhile.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// While requests wait and nothing is to be done, the target is looked at this often: somebody else may have put it to sleep.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What came of news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heeded {
    /// There was nothing to do.
    Nothing,
    /// The target is as it should be, and requests wait nevertheless.
    Waiting,
    /// The target was looked at, and is as it should be.
    Acted,
    /// It could not be reached.
    Failed,
}

/// Where an object's pushed triggers say that there is something to look at.
pub(crate) struct News {
    receivers: Vec<watch::Receiver<u64>>,
    /// When to look again without news, and how long the wait for that was.
    again: Option<(Instant, Duration)>,
}

impl News {
    /// All of them count as news at first: what there is may have come before anybody listened.
    pub(crate) fn of(object: &Object) -> Self {
        let mut receivers: Vec<watch::Receiver<u64>> = Vec::new();
        for pushed in object.triggers.iter().filter_map(LiveTrigger::pushed) {
            let mut news = pushed.news();
            if !receivers.iter().any(|known| known.same_channel(&news)) {
                news.mark_changed();
                receivers.push(news);
            }
        }
        Self {
            receivers,
            again: None,
        }
    }

    /// Comes back when there is news, or old news to be tried again; never, where nobody tells any.
    pub(crate) async fn next(&mut self) {
        while !self.receivers.is_empty() {
            let news = self.receivers.iter_mut();
            let first = select_all(news.map(|news| Box::pin(news.changed())))
                .map(|(changed, index, _)| (changed, index));
            let (changed, index) = match self.again {
                None => first.await,
                Some((at, _)) => match timeout_at(at, first).await {
                    Ok(first) => first,
                    Err(_elapsed) => return,
                },
            };
            match changed {
                Ok(()) => return,
                Err(_gone) => drop(self.receivers.swap_remove(index)),
            }
        }
        std::future::pending().await
    }

    /// Takes note of what came of it.
    pub(crate) fn heeded(&mut self, heeded: Heeded) {
        let (at, wait) = match heeded {
            Heeded::Nothing => return self.again = None,
            Heeded::Acted | Heeded::Waiting => (LOOK_AGAIN, Duration::ZERO),
            Heeded::Failed => {
                let last = self.again.map_or(Duration::ZERO, |(_, wait)| wait);
                let wait = (last * 2).clamp(AGAIN.0, AGAIN.1);
                (wait, wait)
            }
        };
        self.again = Some((Instant::now() + at, wait));
    }
}

impl LiveTrigger {
    pub(crate) fn pushed(&self) -> Option<&dyn Pushed> {
        self.connected.scaler.pushed()
    }
}

impl Object {
    /// Acts on what the pushed triggers say at this moment, if it wakes the target or lifts it; anything else waits for the
    /// next polling tick.
    pub(crate) async fn heed_news(&self) -> Heeded {
        let mut waiting = false;
        let readings = self.triggers.iter().map(|trigger| {
            let told = trigger.pushed().map(Pushed::told);
            waiting |= told.as_ref().is_some_and(|told| told.waiting);
            told.map_or_else(|| trigger.outstanding(), |told| self.certain(trigger, &told))
        });
        let readings = ReadingSet(readings.collect());
        let known = self.memory.last_look.any();
        let asleep = known.as_ref().is_some_and(|seen| seen.replicas == 0);
        if !waiting && !asleep {
            return Heeded::Nothing;
        }
        let would_act = known.as_ref().map(|seen| self.would_act(seen, &readings));
        if would_act == Some(false) {
            if !waiting {
                return Heeded::Nothing;
            }
            if self.memory.last_look.is_younger_than(LOOK_AGAIN) || !self.looks.take_for_waiting() {
                return Heeded::Waiting;
            }
        }
        // A target at rest is nearly always still what was seen; if not, setting its replicas fails, and it is looked at then.
        let mut seen = match known {
            Some(seen) if would_act == Some(true) && seen.replicas == 0 && seen.version.is_some() => seen,
            _ => match self.observe(Urgency::Wake).await {
                Ok(seen) => seen,
                Err(error) => {
                    self.note_unknown(&error).await;
                    return Heeded::Failed;
                }
            },
        };
        if would_act == Some(false) && !self.would_act(&seen, &readings) {
            return Heeded::Waiting;
        }
        if self.decide_and_act(&mut seen, &readings, Duration::ZERO).await {
            Heeded::Acted
        } else {
            Heeded::Failed
        }
    }

    /// The target was woken just now: tells after how long.
    pub(crate) fn note_woken(&self) {
        let told = self
            .triggers
            .iter()
            .filter_map(LiveTrigger::pushed)
            .map(Pushed::told);
        if let Some(after) = told.filter_map(|told| told.began_ago).max() {
            self.journal.woke(after);
        }
    }

    fn would_act(&self, seen: &TargetState, readings: &ReadingSet) -> bool {
        let record = self.decide(seen.replicas, readings);
        record.decision.action.target().is_some()
    }

    async fn note_unknown(&self, error: &PortError) {
        let outcome = TickOutcome::TargetUnknown(error);
        let report = TickReport {
            spec: &self.spec,
            late_by: Duration::ZERO,
            outcome,
        };
        self.journal.tick(report).await;
    }

    /// Takes in what a pushed trigger knows, as if its source had been read.
    pub(crate) fn take_in(&self, index: usize, trigger: &LiveTrigger, told: Told) -> Arrival {
        let mut reading = self.certain(trigger, &told);
        let answer = Answer::at_once(
            told.unknown
                .map_or(Ok(told.observed), |error| Err(Fault::Failed(error))),
            &self.now,
        );
        let outcome = match &answer.outcome {
            Ok(_) => reading.outcome.clone(),
            Err(fault) => Err(trigger.connected.told_of(fault)),
        };
        reading.failures = trigger.slot.publish(&answer, &outcome);
        Arrival::own(index, reading)
    }

    /// What a pushed trigger says for a decision. The certain part of what is otherwise unknown is enough where it asks for
    /// replicas, as that never takes any away.
    pub(crate) fn certain(&self, trigger: &LiveTrigger, told: &Told) -> TriggerReading {
        let now = (self.now)();
        let unknown = told.unknown.as_ref().filter(|_| !told.observed.active);
        let reading = Reading::new(told.observed.value, told.observed.active, now);
        let outcome = match (unknown, reading) {
            (Some(error), _) => Err(trigger.connected.told_of(&Fault::Failed(error.clone()))),
            (None, None) => Err(trigger.connected.told_of(&Fault::NotFinite)),
            (None, Some(mut reading)) => {
                reading.waiting = told.waiting;
                reading.last_demand = told.quiet_for.and_then(|quiet| now.checked_sub(quiet).ok());
                Ok(reading)
            }
        };
        let failing = outcome.is_err();
        TriggerReading {
            metric_name: trigger.connected.policy.metric_name.clone(),
            outcome,
            failures: match trigger.slot.latest() {
                Some(latest) if failing => latest.failures,
                _ => 0,
            },
        }
    }

    /// A decision, and where it puts the target to sleep, the holds that make sure of it. Where one cannot be had, the
    /// decision is made again on what that says of its trigger.
    pub(crate) async fn decide_surely(
        &self,
        seen: &TargetState,
        readings: &ReadingSet,
    ) -> (DecisionRecord, Vec<Box<dyn Hold>>) {
        let record = self.decide(seen.replicas, readings);
        if !matches!(record.decision.action, Action::Deactivate { to: 0 }) || !self.leadership.is_leader() {
            return (record, Vec::new());
        }
        let mut asked = Vec::new();
        for (index, (trigger, reading)) in self.triggers.iter().zip(&readings.0).enumerate() {
            if let Some(pushed) = trigger.pushed() {
                let hold = timeout(HOLD_DEADLINE, pushed.hold());
                asked.push(async move { (index, trigger.held(hold.await, reading)) }.boxed());
            }
        }
        let wanted = asked.len();
        let mut holds = Vec::new();
        let mut refused = readings.clone();
        for (index, answer) in join_all(asked).await {
            match answer {
                Ok(hold) => holds.push(hold),
                Err(reading) => refused.0[index] = reading,
            }
        }
        if holds.len() == wanted {
            return (record, holds);
        }
        (self.decide(seen.replicas, &refused), Vec::new())
    }
}

impl Arrival {
    /// A reading that took no time and no network.
    fn own(trigger: usize, reading: TriggerReading) -> Self {
        Self {
            trigger,
            reading,
            took: Duration::ZERO,
            shared: false,
            traffic: Traffic::default(),
        }
    }
}

impl LiveTrigger {
    /// A hold, or the reading that stands for its refusal: active where something is under way, and else unknown.
    fn held(
        &self,
        answer: Result<Result<Box<dyn Hold>, ReadError>, Elapsed>,
        reading: &TriggerReading,
    ) -> Result<Box<dyn Hold>, TriggerReading> {
        let fault = match answer {
            Ok(Ok(hold)) => return Ok(hold),
            Ok(Err(error)) => Fault::Failed(error),
            Err(_elapsed) => Fault::TimedOut(HOLD_DEADLINE),
        };
        let mut refused = reading.clone();
        match (&fault, &mut refused.outcome) {
            (Fault::Failed(error), Ok(reading)) if error.kind == ReadErrorKind::Busy => reading.active = true,
            (_, outcome) => *outcome = Err(self.connected.told_of(&fault)),
        }
        Err(refused)
    }

    /// What stands for a reading that has not come. It is missing, which never lowers anything; where the read before it
    /// failed, that failure stands.
    pub(crate) fn outstanding(&self) -> TriggerReading {
        let standing = self
            .slot
            .latest()
            .and_then(|latest| Some((latest.outcome.err()?, latest.failures)));
        let (failure, failures) = standing.unwrap_or_else(|| {
            let pending = ReadFailure {
                category: "pending",
                message: "not read yet".into(),
            };
            (pending, 0)
        });
        TriggerReading {
            metric_name: self.connected.policy.metric_name.clone(),
            outcome: Err(failure),
            failures,
        }
    }
}
