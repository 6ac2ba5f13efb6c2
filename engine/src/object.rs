//! One ScaledObject at run time: its connected triggers, its memory, and what is made of its readings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use dormouse_core::{
    Action, DecisionRecord, Fallback, FallbackBehavior, Observation, ReadFailure, Reading, ReadingSet,
    RecordRing, ScalePolicy, TargetKind, TriggerPolicy, TriggerReading, decide,
};
use dormouse_scalers::traffic::Traffic;
use dormouse_scalers::{Hold, Pushed, Told};
use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::board::{MetricError, Served, Slot};
use crate::engine::Clock;
use crate::looks::{LastLook, Looks};
use crate::ports::{
    Acted, CHANGED, GONE, Journal, Leadership, PortError, Target, TargetState, TickOutcome, TickReport,
    TriggerRead, UNANSWERED, Urgency,
};
use crate::reader::Fault;
use crate::source::{Answer, Source};
use crate::spec::{ConnectedTrigger, ObjectSpec};

/// Decisions kept per object.
const RECORDS: usize = 32;
/// How often a tick acts on a target that changes under its hands.
const ATTEMPTS: u32 = 3;
/// After a wake, and each time it is raised while requests wait, no metric is served for so long. An HPA that read the replicas
/// before would set what it makes of both: as of 1.36 it writes its number again where the target changed meanwhile.
const SETTLING: Duration = Duration::from_millis(300);
/// Any single call of a port.
pub(crate) const PORT_DEADLINE: Duration = Duration::from_secs(10);

/// A trigger and where its readings go.
#[derive(Clone)]
pub(crate) struct LiveTrigger {
    pub(crate) connected: ConnectedTrigger,
    pub(crate) slot: Arc<Slot>,
    pub(crate) source: Arc<Source>,
}

/// What one read gave one trigger.
pub(crate) struct Arrival {
    /// Position in [`Object::triggers`].
    pub(crate) trigger: usize,
    pub(crate) reading: TriggerReading,
    pub(crate) took: Duration,
    pub(crate) shared: bool,
    pub(crate) traffic: Traffic,
}

/// What survives a change of the object, as long as this process leads.
pub(crate) struct Memory {
    last_active: std::sync::Mutex<Option<Timestamp>>,
    records: std::sync::Mutex<RecordRing>,
    /// Replicas when last observed; a target that was never seen counts as asleep.
    replicas: AtomicU32,
    /// The target when last observed or set.
    pub(crate) last_look: LastLook,
    /// Until when the target counts as one that is being woken, or raised for requests that wait.
    settling_until: std::sync::Mutex<Option<Instant>>,
    /// When the loop's next polling tick is due; none while no loop runs.
    next_tick: std::sync::Mutex<Option<Instant>>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            last_active: std::sync::Mutex::new(None),
            records: std::sync::Mutex::new(RecordRing::new(RECORDS)),
            replicas: AtomicU32::new(0),
            last_look: LastLook::default(),
            settling_until: std::sync::Mutex::new(None),
            next_tick: std::sync::Mutex::new(None),
        }
    }

    pub(crate) fn last_active(&self) -> Option<Timestamp> {
        *lock(&self.last_active)
    }

    pub(crate) fn next_tick(&self) -> Option<Instant> {
        *lock(&self.next_tick)
    }

    pub(crate) fn newest_record(&self) -> Option<DecisionRecord> {
        lock(&self.records).newest().cloned()
    }

    /// Forgets what an earlier term of leadership knew.
    pub(crate) fn forget_activity(&self) {
        *lock(&self.last_active) = None;
        self.last_look.forget();
    }

    pub(crate) fn records(&self) -> Vec<DecisionRecord> {
        lock(&self.records).iter().cloned().collect()
    }
}

/// A poisoned lock only means that another holder panicked; the values in it are replaced whole and stay sound.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// One generation of an object: replaced as a whole when anything of it changes.
pub(crate) struct Object {
    /// Without its triggers, which are below.
    pub(crate) spec: ObjectSpec,
    pub(crate) policy: ScalePolicy,
    pub(crate) triggers: Vec<LiveTrigger>,
    pub(crate) target: Arc<dyn Target>,
    pub(crate) looks: Arc<Looks>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) leadership: Arc<dyn Leadership>,
    pub(crate) now: Clock,
    /// No tick has come yet since this process began to lead: until then, what a metrics request needs is read for it.
    pub(crate) waits_its_turn: AtomicBool,
    /// Stopped on purpose, as by a pause: from then on nobody keeps its credentials current, and nothing is read for it.
    pub(crate) rests: AtomicBool,
}

impl Object {
    /// Whether replicas run, as far as was last seen.
    pub(crate) fn awake(&self) -> bool {
        self.memory.replicas.load(Ordering::Relaxed) > 0
    }

    /// Runs until the caller drops it or this process no longer leads.
    pub(crate) async fn run(self: Arc<Self>) {
        // Whoever led in between may have changed it.
        self.memory.last_look.forget();
        {
            let mut last_active = lock(&self.memory.last_active);
            if last_active.is_none() {
                *last_active = if self.spec.was_active {
                    Some((self.now)())
                } else {
                    self.spec.last_active
                };
            }
        }
        let mut leading = self.leadership.subscribe();
        tokio::select! {
            never = self.ticks() => match never {},
            _ = leading.wait_for(|leads| !leads) => self.stand_down(),
        }
    }

    /// Another process goes on from here; what this one remembers is no longer the truth.
    pub(crate) fn stand_down(&self) {
        self.memory.forget_activity();
        self.waits_its_turn.store(true, Ordering::Relaxed);
    }

    /// Asks the source of one trigger. What it says is served from that moment on, whatever the loop does meanwhile.
    pub(crate) async fn read_one(&self, index: usize, trigger: &LiveTrigger) -> Arrival {
        let connected = &trigger.connected;
        if let Some(pushed) = trigger.pushed() {
            return self.take_in(index, trigger, pushed.told());
        }
        let (answer, own) = trigger.source.ask(&connected.scaler, &self.now).await;
        let outcome = connected.reading(&answer);
        let failures = trigger.slot.publish(&answer, &outcome);
        Arrival {
            trigger: index,
            reading: TriggerReading {
                metric_name: connected.policy.metric_name.clone(),
                outcome,
                failures,
            },
            took: answer.took,
            shared: !own,
            // Whoever asked tells what it took.
            traffic: if own {
                answer.traffic.clone()
            } else {
                Traffic::default()
            },
        }
    }

    /// Writes a read down.
    pub(crate) fn note(&self, arrival: &Arrival) {
        let Some(LiveTrigger { connected, .. }) = self.triggers.get(arrival.trigger) else {
            return;
        };
        self.journal.read(
            &self.spec.key,
            &TriggerRead {
                index: connected.spec.index,
                name: connected.spec.name.as_deref(),
                label: connected.label(),
                trigger_type: &connected.spec.params.trigger_type,
                metric_name: &connected.policy.metric_name,
                outcome: arrival.reading.outcome.as_ref(),
                took: arrival.took,
                shared: arrival.shared,
                traffic: &arrival.traffic,
            },
        );
    }

    pub(crate) async fn observe(&self, urgency: Urgency) -> Result<TargetState, PortError> {
        let state = within_deadline(self.target.observe(urgency)).await;
        if state.as_ref().is_err_and(|error| error.category == GONE) {
            self.memory.last_look.forget();
        }
        let state = state?;
        self.note_seen(&state);
        Ok(state)
    }

    /// The target as it was seen a short while ago, where another look is one too many.
    pub(crate) fn seen_lately(&self) -> Option<TargetState> {
        // One that has to be made counts too.
        let may_look = self.looks.take();
        let seen = self.memory.last_look.recent(self.policy.polling_interval)?;
        (!may_look).then_some(seen)
    }

    fn note_seen(&self, state: &TargetState) {
        self.memory.replicas.store(state.replicas, Ordering::Relaxed);
        self.memory.last_look.keep(state, self.looks.lifetime());
    }

    /// Remembers that a trigger is active where nothing can be decided: the cooldown begins after it all the same.
    pub(crate) fn note_active(&self) {
        *lock(&self.memory.last_active) = Some((self.now)());
    }

    /// Decides, acts and writes it down. Where the target changed since it was seen (a slow trigger may have taken long to
    /// answer, the look may be one of an earlier tick, and the HPA or a person was quicker), it is looked at and decided on
    /// again. Says whether the target is as was decided.
    pub(crate) async fn decide_and_act(
        &self,
        seen: &mut TargetState,
        readings: &ReadingSet,
        late_by: Duration,
    ) -> bool {
        for attempt in 1..=ATTEMPTS {
            let (record, holds) = self.decide_surely(seen, readings).await;
            let acted = self.act(&record, seen).await;
            let changed =
                matches!(&acted, Some(Acted { result: Err(error), .. }) if error.category == CHANGED);
            if changed
                && attempt < ATTEMPTS
                && let Ok(now) = self.observe(urgency_of(record.decision.action)).await
            {
                *seen = now;
                continue;
            }
            let done = acted.as_ref().is_none_or(|acted| acted.result.is_ok());
            if acted.is_some() && done && matches!(record.decision.action, Action::Activate { .. }) {
                self.note_woken();
            }
            if acted.as_ref().is_some_and(Acted::may_have_happened) {
                holds.into_iter().for_each(Hold::slept);
            }
            let outcome = TickOutcome::Decided {
                record: &record,
                acted: acted.as_ref(),
            };
            self.journal
                .tick(TickReport {
                    spec: &self.spec,
                    late_by,
                    outcome,
                })
                .await;
            return done;
        }
        false
    }

    pub(crate) fn decide(&self, replicas: u32, readings: &ReadingSet) -> DecisionRecord {
        let now = (self.now)();
        let mut last_active = lock(&self.memory.last_active);
        let observation = Observation {
            replicas,
            created: self.spec.created,
            last_active: *last_active,
        };
        let began = std::time::Instant::now();
        let decision = decide(&self.policy, &observation, readings, now);
        self.journal.decision_made(began.elapsed());
        *last_active = decision.last_active;
        DecisionRecord {
            at: now,
            observation,
            readings: readings.clone(),
            decision,
        }
    }

    /// Carries a decision out, if this process still may. What is seen is then the target as it was left.
    async fn act(&self, record: &DecisionRecord, seen: &mut TargetState) -> Option<Acted> {
        lock(&self.memory.records).push(record.clone());
        let to = record.decision.action.target()?;
        if !self.leadership.is_leader() {
            return None;
        }
        let raises = matches!(
            record.decision.action,
            Action::Activate { .. } | Action::RaiseToDemand { .. }
        );
        let settles_in = |wait| *lock(&self.memory.settling_until) = Some(Instant::now() + wait);
        if raises {
            settles_in(PORT_DEADLINE + SETTLING);
        }
        let urgency = urgency_of(record.decision.action);
        let result = within_deadline(self.target.set_replicas(to, seen, urgency)).await;
        let result = match result {
            Ok(left) => {
                self.note_seen(&left);
                *seen = left;
                Ok(())
            }
            Err(error) => {
                self.memory.last_look.forget();
                Err(error)
            }
        };
        let acted = Acted {
            from: record.observation.replicas,
            to,
            result,
        };
        if raises {
            settles_in(if acted.may_have_happened() {
                SETTLING
            } else {
                Duration::ZERO
            });
        }
        Some(acted)
    }

    /// The metric as the autoscaler sees it, from memory. With `read_through`, a source whose reading is older than its
    /// cadence is read here and now, once for all who ask: for a follower whose leader does not answer.
    pub(crate) async fn served(&self, metric: &str, read_through: bool) -> Result<Served, MetricError> {
        let named =
            |trigger: &&LiveTrigger| trigger.connected.policy.metric_name.eq_ignore_ascii_case(metric);
        let (index, trigger) = self
            .triggers
            .iter()
            .enumerate()
            .find(|(_, trigger)| named(trigger))
            .ok_or_else(|| MetricError::UnknownMetric(metric.to_owned()))?;
        let policy = &trigger.connected.policy;
        if self.is_settling() {
            return Err(MetricError::Settling(policy.metric_name.clone()));
        }
        if let Some(pushed) = trigger.pushed() {
            return self.served_told(trigger, pushed.told()).await;
        }
        let nobody_reads = read_through || self.waits_its_turn.load(Ordering::Relaxed);
        if nobody_reads && !self.rests.load(Ordering::Relaxed) {
            let _one_reader = trigger.slot.reading.lock().await;
            let cadence = self.policy.cadence(policy, true);
            if trigger
                .slot
                .latest()
                .is_none_or(|latest| latest.taken.elapsed() > cadence)
            {
                self.note(&self.read_one(index, trigger).await);
            }
        }
        let name = || policy.metric_name.clone();
        let latest = trigger
            .slot
            .wait_for_first()
            .await
            .ok_or_else(|| MetricError::NotYet(name()))?;
        let age = latest.taken.elapsed();
        let max_age = self
            .policy
            .max_age(policy, self.awake(), trigger.connected.scaler.deadline());
        match latest.outcome {
            Ok(reading) if age <= max_age => Ok(Served {
                value: reading.value(),
                at: reading.at,
                fallback: false,
            }),
            Ok(_) => Err(MetricError::TooOld {
                metric: name(),
                age,
                limit: max_age,
            }),
            Err(failure) => self.unreadable(policy, failure, latest.failures).await,
        }
    }

    /// Whether requests wait for a target that was woken or raised for them just now.
    fn is_settling(&self) -> bool {
        let until = *lock(&self.memory.settling_until);
        let told = || {
            self.triggers
                .iter()
                .filter_map(LiveTrigger::pushed)
                .map(Pushed::told)
        };
        until.is_some_and(|until| Instant::now() < until) && told().any(|told| told.waiting)
    }

    /// What a pushed trigger knows at this moment. Its failures are counted by the loop's reads.
    async fn served_told(&self, trigger: &LiveTrigger, told: Told) -> Result<Served, MetricError> {
        match told.unknown {
            None => Ok(Served {
                value: told.observed.value,
                at: (self.now)(),
                fallback: false,
            }),
            Some(error) => {
                let failures = trigger.slot.latest().map_or(0, |latest| latest.failures);
                let failure = trigger.connected.told_of(&Fault::Failed(error));
                self.unreadable(&trigger.connected.policy, failure, failures)
                    .await
            }
        }
    }

    /// What is served of a metric that failed so often in a row.
    async fn unreadable(
        &self,
        policy: &TriggerPolicy,
        failure: ReadFailure,
        failures: u32,
    ) -> Result<Served, MetricError> {
        match self.policy.fallback.filter(|fallback| fallback.holds(failures)) {
            Some(fallback) => self.fallen_back(&fallback, policy).await,
            None => Err(MetricError::Failing {
                metric: policy.metric_name.clone(),
                failure,
            }),
        }
    }

    /// The value that stands in for a reading that failed. What it is made of is looked up now: the count of the last tick
    /// is old, and a count that was never seen is no 0.
    async fn fallen_back(&self, fallback: &Fallback, policy: &TriggerPolicy) -> Result<Served, MetricError> {
        let failing = |error: PortError| MetricError::Failing {
            metric: policy.metric_name.clone(),
            failure: ReadFailure {
                category: error.category,
                message: error.message,
            },
        };
        let current = match fallback.behavior {
            FallbackBehavior::Static => 0,
            _ => self.observe(Urgency::Soon).await.map_err(failing)?.replicas,
        };
        let ready = match policy.target.kind {
            TargetKind::AverageValue => 0,
            TargetKind::Value => within_deadline(self.target.ready_replicas())
                .await
                .map_err(failing)?,
        };
        let value = fallback.metric_value(policy.target, current, ready);
        let value = value.ok_or_else(|| MetricError::FallbackImpossible(policy.metric_name.clone()))?;
        Ok(Served {
            value,
            at: (self.now)(),
            fallback: true,
        })
    }
}

impl Acted {
    /// Whether the target may be as was decided: a call without an answer may have been carried out.
    fn may_have_happened(&self) -> bool {
        match &self.result {
            Ok(()) => true,
            Err(error) => UNANSWERED.contains(&error.category),
        }
    }
}

fn urgency_of(action: Action) -> Urgency {
    match action {
        Action::Activate { .. } | Action::RaiseToDemand { .. } => Urgency::Wake,
        _ => Urgency::Soon,
    }
}

impl ConnectedTrigger {
    /// What an answer means to this trigger. A value that others asked for is held against its own threshold.
    fn reading(&self, answer: &Answer) -> Result<Reading, ReadFailure> {
        let observed = answer.outcome.as_ref().map_err(|fault| self.told_of(fault))?;
        let active = match self.question {
            Some(question) => observed.value > question.activation,
            None => observed.active,
        };
        Reading::new(observed.value, active, answer.at).ok_or_else(|| self.told_of(&Fault::NotFinite))
    }

    /// A fault as a failure of this trigger.
    pub(crate) fn told_of(&self, fault: &Fault) -> ReadFailure {
        fault.told_of(&self.policy.trigger_type, &self.policy.metric_name)
    }
}

/// A loop that runs: while this lives, the object's memory says when the next tick is due.
pub(crate) struct Running<'a>(pub(crate) &'a Memory);

impl Running<'_> {
    pub(crate) fn next_tick_at(&self, due: Instant) {
        *lock(&self.0.next_tick) = Some(due);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *lock(&self.0.next_tick) = None;
    }
}

/// Ports have deadlines of their own; this one holds even where an implementation forgot.
pub(crate) async fn within_deadline<T>(
    call: impl Future<Output = Result<T, PortError>>,
) -> Result<T, PortError> {
    timeout(PORT_DEADLINE, call).await.unwrap_or_else(|_| {
        Err(PortError {
            category: "timeout",
            message: format!("no answer within {} s", PORT_DEADLINE.as_secs()),
        })
    })
}

/// The loop of an object; dropping it stops the loop.
pub(crate) type LoopHandle = Mutex<Option<tokio_util::task::AbortOnDropHandle<()>>>;
