//! The loop of one object.
//!
//! ```text
//! polling tick ── target and sources asked at once ──> an active reading ──> wake, at once
//!      │                                          ├──> all have come ─────> decide
//!      │                                          └──> next moment of the cadence: decide; what is outstanding is missing
//!      ├── a reading that comes later ──> served at once; decides if it is active, or the last one
//!      ├── news of a trigger that is told of changes ──> wakes or lifts the target, at once
//!      └── in between, awake ──> sources read for the metrics API alone
//! ```
//!
//! A trigger has one read in flight; while that is outstanding, further ticks wait for it instead of starting another.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dormouse_core::{Action, ReadingSet, TriggerReading};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::cadence::{Cadence, Moment};
use crate::object::{Arrival, LiveTrigger, Object, Running};
use crate::ports::{PortError, TargetState, TickOutcome, TickReport, Urgency};
use crate::wake::{Heeded, News};

/// Over how long first ticks are spread after a start or a take-over.
const SPREAD: Duration = Duration::from_secs(5);

/// The reads of one object that are on their way. They end with it.
struct Reads {
    tasks: JoinSet<Arrival>,
    outstanding: Vec<bool>,
}

impl Reads {
    fn none(object: &Object) -> Self {
        Self {
            tasks: JoinSet::new(),
            outstanding: vec![false; object.triggers.len()],
        }
    }

    /// Starts a read of each of these triggers that has none in flight.
    fn start(&mut self, object: &Arc<Object>, wanted: impl Fn(&LiveTrigger) -> bool) {
        let triggers = object.triggers.iter().zip(&mut self.outstanding).enumerate();
        for (index, (trigger, outstanding)) in triggers {
            if !*outstanding && wanted(trigger) {
                *outstanding = true;
                let object = object.clone();
                self.tasks.spawn(async move {
                    let trigger = &object.triggers[index];
                    object.read_one(index, trigger).await
                });
            }
        }
    }

    /// The next reading that comes; never, while none is on its way.
    async fn next(&mut self) -> Arrival {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(arrival)) => {
                    if let Some(outstanding) = self.outstanding.get_mut(arrival.trigger) {
                        *outstanding = false;
                    }
                    return arrival;
                }
                // Not the scaler's fault, which has a task of its own: this object's.
                Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// What the triggers said since the last polling tick began, by their position.
struct Round {
    readings: Vec<Option<TriggerReading>>,
    late_by: Duration,
}

impl Round {
    fn new(triggers: usize, late_by: Duration) -> Self {
        Self {
            readings: vec![None; triggers],
            late_by,
        }
    }

    fn complete(&self) -> bool {
        self.readings.iter().all(Option::is_some)
    }

    /// Takes a reading in, if it was still waited for. One from in between comes too late to decide anything.
    fn take(&mut self, arrival: Arrival) -> bool {
        match self.readings.get_mut(arrival.trigger) {
            Some(slot @ None) => {
                *slot = Some(arrival.reading);
                true
            }
            _ => false,
        }
    }

    fn has_active(&self) -> bool {
        self.readings.iter().flatten().any(is_active)
    }
}

fn is_active(reading: &TriggerReading) -> bool {
    reading.outcome.as_ref().is_ok_and(|reading| reading.active)
}

impl Object {
    pub(crate) async fn ticks(self: &Arc<Self>) -> Infallible {
        let mut due = Instant::now();
        if self.waits_its_turn.load(Ordering::Relaxed) {
            due += self.first_tick_delay();
        }
        let shared = self
            .triggers
            .iter()
            .find(|trigger| trigger.connected.question.is_some());
        let step = shared.map(|trigger| trigger.source.keep_step(due));
        let anchor = step.as_ref().map_or(due, |step| step.anchor);
        let cadence = Cadence::new(anchor, self.policy.polling_interval);
        let mut reads = Reads::none(self);
        let mut news = News::of(self);
        let mut round = Round::new(0, Duration::ZERO);
        let mut moment = Moment {
            at: due,
            polling: true,
        };
        let running = Running(&self.memory);
        running.next_tick_at(due);
        // A loop sleeps nearly all the time: what only its ticks need is boxed, and so not held meanwhile.
        loop {
            loop {
                tokio::select! {
                    arrival = reads.next() => self.late(&mut round, arrival).await,
                    () = news.next() => news.heeded(Box::pin(self.heed_news()).await),
                    () = sleep_until(moment.at) => break,
                }
            }
            let began = Instant::now();
            if moment.polling {
                running.next_tick_at(cadence.polling_after(began));
                self.waits_its_turn.store(false, Ordering::Relaxed);
                round = Round::new(self.triggers.len(), began.saturating_duration_since(moment.at));
                let close = cadence.after(began).at;
                Box::pin(self.polling_tick(&mut reads, &mut news, &mut round, close)).await;
            } else if self.awake() {
                reads.start(self, |trigger| !trigger.connected.spec.use_cached_metrics);
            }
            moment = cadence.next(began, Instant::now());
            running.next_tick_at(cadence.polling_from(moment));
        }
    }

    /// Spreads objects over the window by their uid; those with replicas go into its first half. Objects that ask the same
    /// question stay together.
    fn first_tick_delay(&self) -> Duration {
        let window = self.policy.polling_interval.min(SPREAD) / 2;
        let mut hasher = DefaultHasher::new();
        match self
            .triggers
            .iter()
            .find_map(|trigger| trigger.connected.question)
        {
            Some(question) => question.fingerprint.hash(&mut hasher),
            None => self.spec.uid.hash(&mut hasher),
        }
        let share = u32::try_from(hasher.finish() >> 48).unwrap_or(0);
        let offset = window * share / 0x1_0000;
        if self.spec.was_active {
            offset
        } else {
            window + offset
        }
    }

    /// Asks the target and all sources at the same time, and decides: at once where a reading wakes the target, and else
    /// when all have come, or at `close` with those that have.
    async fn polling_tick(
        self: &Arc<Self>,
        reads: &mut Reads,
        news: &mut News,
        round: &mut Round,
        close: Instant,
    ) {
        reads.start(self, |_| true);
        let mut observed = pin!(self.observe(Urgency::Routine));
        let lately = self.seen_lately();
        let of_an_earlier_tick = lately.is_some();
        let mut state: Option<Result<TargetState, PortError>> = lately.map(Ok);
        let mut woken = false;
        while state.is_none() || !(round.complete() || Instant::now() >= close) {
            tokio::select! {
                result = &mut observed, if state.is_none() => state = Some(result),
                arrival = reads.next() => {
                    self.note(&arrival);
                    round.take(arrival);
                }
                // Not delayed by a target or a source that is slow. What this tick saw of the target is old then.
                () = news.next() => {
                    let heeded = self.heed_news().await;
                    news.heeded(heeded);
                    if heeded == Heeded::Acted {
                        state = Some(self.observe(Urgency::Wake).await);
                    }
                }
                () = sleep_until(close), if state.is_some() => {}
            }
            // One active trigger is enough to wake the target: a slower one beside it must not delay that.
            if let Some(Ok(seen)) = &mut state
                && !woken
                && !round.complete()
                && round.has_active()
            {
                let readings = self.in_order(round);
                let decision = self.decide(seen.replicas, &readings).decision;
                if matches!(decision.action, Action::Activate { .. }) {
                    woken = true;
                    self.decide_and_act(seen, &readings, round.late_by).await;
                }
            }
        }
        // A look at the target that failed must not cost a wake: this one goes before all other calls.
        if !self.awake() && matches!(state, Some(Err(_))) && round.has_active() {
            state = Some(self.observe(Urgency::Wake).await);
        }
        // An old look is enough to stay, and to wake, which comes about only where there are still no replicas.
        if let Some(Ok(seen)) = &state
            && of_an_earlier_tick
            && !woken
            && self.needs_a_fresh_look(seen.replicas, round)
        {
            state = Some(self.observe(Urgency::Soon).await);
        }
        if let Some(state) = state {
            self.conclude(state, round).await;
        }
    }

    /// Whether a target with so many replicas would be put to rest, or lifted while nothing is active: not on an old look.
    fn needs_a_fresh_look(&self, replicas: u32, round: &Round) -> bool {
        let decision = self.decide(replicas, &self.in_order(round)).decision;
        matches!(
            decision.action,
            Action::Deactivate { .. } | Action::RaiseToMinimum { .. }
        )
    }

    /// A reading that came after its tick. It is served already; what is left is to decide on it.
    async fn late(&self, round: &mut Round, arrival: Arrival) {
        self.note(&arrival);
        let active = is_active(&arrival.reading);
        if round.take(arrival) && (active || round.complete()) {
            let urgency = if active && !self.awake() {
                Urgency::Wake
            } else {
                Urgency::Soon
            };
            let state = self.observe(urgency).await;
            self.conclude(state, round).await;
        }
    }

    async fn conclude(&self, state: Result<TargetState, PortError>, round: &Round) {
        match state {
            Ok(mut seen) => {
                self.decide_and_act(&mut seen, &self.in_order(round), round.late_by)
                    .await;
            }
            Err(error) => {
                if round.has_active() {
                    self.note_active();
                }
                let report = TickReport {
                    spec: &self.spec,
                    late_by: round.late_by,
                    outcome: TickOutcome::TargetUnknown(&error),
                };
                self.journal.tick(report).await;
            }
        }
    }

    /// The readings in the order of the policy: of pushed triggers what they know now, which may be more than when the tick
    /// began. Those that have not come are [outstanding](LiveTrigger::outstanding).
    fn in_order(&self, round: &Round) -> ReadingSet {
        let readings = self.triggers.iter().zip(&round.readings);
        let newest = |(trigger, reading): (&LiveTrigger, &Option<TriggerReading>)| match trigger.pushed() {
            Some(pushed) => self.certain(trigger, &pushed.told()),
            None => reading.clone().unwrap_or_else(|| trigger.outstanding()),
        };
        ReadingSet(readings.map(newest).collect())
    }
}
