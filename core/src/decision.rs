//! The decision itself: whether a target sleeps, wakes or stays.
//!
//! ```text
//! any trigger active, or forced ──> current 0, or below min in idle mode ──> Activate
//!                               ├─> requests wait, nothing serves them, too few for them ──> RaiseToDemand
//!                               └─> else nothing (the HPA moves 1..N)
//! none active ──> knowledge missing ──> nothing (never down on a failure)
//!             └─> above its resting count ──> cooldown over ──> Deactivate
//!             │                           └─> else wait
//!             └─> below min without idle mode ──> RaiseToMinimum
//! ```

use std::time::Duration;

use jiff::Timestamp;

use crate::policy::ScalePolicy;
use crate::reading::{ReadingSet, TriggerReading};

/// What the shell saw of the target before the decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// `spec.replicas` of the target.
    pub replicas: u32,
    /// When the object was created.
    pub created: Timestamp,
    /// When a trigger was last active. A shell that takes over an object whose Active condition is True passes the
    /// moment of its take-over, so that a cooldown is never cut short by a lost memory.
    pub last_active: Option<Timestamp>,
}

/// What is to be done with the target's replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Leave them.
    Stay,
    /// Wake the target.
    Activate {
        /// The replicas to set.
        to: u32,
    },
    /// Put the target to rest.
    Deactivate {
        /// The replicas to set.
        to: u32,
    },
    /// Lift the target to its minimum, though nothing is active.
    RaiseToMinimum {
        /// The replicas to set.
        to: u32,
    },
    /// Lift a target that was woken and does not serve yet to what has come to wait for it meanwhile.
    RaiseToDemand {
        /// The replicas to set.
        to: u32,
    },
}

impl Action {
    /// The replicas to set, or `None` where they stay.
    #[must_use]
    pub fn target(&self) -> Option<u32> {
        match *self {
            Self::Stay => None,
            Self::Activate { to }
            | Self::Deactivate { to }
            | Self::RaiseToMinimum { to }
            | Self::RaiseToDemand { to } => Some(to),
        }
    }
}

/// Whether the object asks for replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// At least one trigger is active.
    Active,
    /// Only the annotation asks for it.
    Forced,
    /// Nothing is active, and the cooldown still runs.
    CoolingDown {
        /// When the target may rest.
        until: Timestamp,
    },
    /// Nothing is active.
    Inactive,
}

impl Activity {
    /// Whether replicas are asked for.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Active | Self::Forced)
    }
}

/// How well the triggers could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriggerHealth {
    /// All of them, or a fallback stands in.
    Good,
    /// The object is active, but some trigger failed.
    Partial,
    /// Nothing is active and some trigger failed: whether there is demand is unknown.
    Unknown,
}

/// Why the decision came out as it did: one name per branch. Log line, Event, condition and label derive from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Fully paused by annotation.
    Paused,
    /// Woken from zero or idle.
    Woken,
    /// It should wake, but `paused-scale-out` is set.
    WakeBlockedByPause,
    /// Active, and the HPA has the replicas.
    HeldByAutoscaler,
    /// Woken, and more waits than the replicas that were asked for can take.
    RaisedToDemand,
    /// A trigger failed, so nothing may go down.
    ReadingMissing,
    /// It rests once the cooldown is over.
    CoolingDown,
    /// Put to rest.
    Rested,
    /// It could rest, but `paused-scale-in` is set.
    RestBlockedByPause,
    /// Below its minimum, and lifted to it.
    BelowMinimum,
    /// At rest, and nothing asks for more.
    Resting,
}

impl Reason {
    /// Bounded name for labels and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Woken => "woken",
            Self::WakeBlockedByPause => "wake-blocked-by-pause",
            Self::HeldByAutoscaler => "held-by-autoscaler",
            Self::RaisedToDemand => "raised-to-demand",
            Self::ReadingMissing => "reading-missing",
            Self::CoolingDown => "cooling-down",
            Self::Rested => "rested",
            Self::RestBlockedByPause => "rest-blocked-by-pause",
            Self::BelowMinimum => "below-minimum",
            Self::Resting => "resting",
        }
    }
}

/// What is to be done, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What to do with the replicas.
    pub action: Action,
    /// Whether replicas are asked for.
    pub activity: Activity,
    /// How well the triggers could be read.
    pub health: TriggerHealth,
    /// Which branch was taken.
    pub reason: Reason,
    /// Metric names of the active triggers, fallbacks included.
    pub active_metrics: Vec<String>,
    /// Metric names that live on their fallback.
    pub fallen_back: Vec<String>,
    /// The last moment of activity, to be remembered.
    pub last_active: Option<Timestamp>,
    /// When another look could give another answer, given the same readings; never zero.
    pub recheck_after: Duration,
}

/// Decides from the policy, the target as it is and what the triggers said. Pure and total.
///
/// The table is KEDA's, with three differences: a failing trigger does not stop the others from refreshing the last
/// moment of activity; a fallback of 0 replicas lets the target rest only once the fallback holds and the cooldown is
/// over; and `paused-scale-out` also stops the lift to the minimum.
#[must_use]
pub fn decide(
    policy: &ScalePolicy,
    observation: &Observation,
    readings: &ReadingSet,
    now: Timestamp,
) -> Decision {
    let observation = &remembering(observation, readings);
    let verdicts: Vec<(&TriggerReading, Verdict)> = readings
        .iter()
        .map(|reading| (reading, verdict(policy, observation, reading)))
        .collect();
    let named = |wanted: fn(Verdict) -> bool| -> Vec<String> {
        verdicts
            .iter()
            .filter(|(_, v)| wanted(*v))
            .map(|(r, _)| r.metric_name.clone())
            .collect()
    };
    let active_metrics = named(|v| matches!(v, Verdict::Active | Verdict::FallenBack { active: true }));
    let fallen_back = named(|v| matches!(v, Verdict::FallenBack { .. }));
    let missing = verdicts.iter().any(|(_, v)| matches!(v, Verdict::Missing));
    // Resource metrics alone say nothing about zero: such an object never sleeps.
    let resource_only = policy.triggers.is_empty() && !policy.resources.is_empty();
    let triggered = !active_metrics.is_empty() || resource_only;
    let outcome = if policy.pause.is_full() {
        Outcome {
            action: Action::Stay,
            reason: Reason::Paused,
            cooldown_until: None,
        }
    } else if triggered || policy.force_activation {
        when_active(policy, observation, Wish::of(policy, readings))
    } else {
        when_inactive(policy, observation, missing, now)
    };
    let activity = if triggered {
        Activity::Active
    } else if policy.force_activation {
        Activity::Forced
    } else {
        outcome
            .cooldown_until
            .map_or(Activity::Inactive, |until| Activity::CoolingDown { until })
    };
    let health = match (missing, activity.is_active()) {
        (false, _) => TriggerHealth::Good,
        (true, true) => TriggerHealth::Partial,
        // A fallback will stand in if this goes on: nothing is wrong with the object yet.
        (true, false) if policy.fallback.is_some_and(|fallback| fallback.replicas > 0) => TriggerHealth::Good,
        (true, false) => TriggerHealth::Unknown,
    };
    Decision {
        action: outcome.action,
        activity,
        health,
        reason: outcome.reason,
        active_metrics,
        fallen_back,
        last_active: if activity.is_active() {
            Some(now)
        } else {
            observation.last_active
        },
        recheck_after: recheck_after(policy, outcome.cooldown_until, now),
    }
}

/// What one trigger contributes.
#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Active,
    Inactive,
    Missing,
    FallenBack { active: bool },
}

fn verdict(policy: &ScalePolicy, observation: &Observation, reading: &TriggerReading) -> Verdict {
    match (&reading.outcome, policy.fallback) {
        (Ok(reading), _) if reading.active => Verdict::Active,
        (Ok(_), _) => Verdict::Inactive,
        (Err(_), Some(fallback)) if fallback.holds(reading.failures) => Verdict::FallenBack {
            active: fallback.replicas_at(observation.replicas) > 0,
        },
        (Err(_), _) => Verdict::Missing,
    }
}

/// The observation with the newest moment of demand that a source knows of.
fn remembering(observation: &Observation, readings: &ReadingSet) -> Observation {
    let known = readings
        .iter()
        .filter_map(|reading| reading.outcome.as_ref().ok());
    let newest = known.filter_map(|reading| reading.last_demand).max();
    Observation {
        last_active: observation.last_active.max(newest),
        ..observation.clone()
    }
}

/// What the triggers that count what is held ask for at once.
#[derive(Clone, Copy)]
struct Wish {
    /// Replicas that could take all of it, within the bounds.
    replicas: u32,
    /// Some of it waits, and nothing serves it yet.
    waiting: bool,
}

impl Wish {
    fn of(policy: &ScalePolicy, readings: &ReadingSet) -> Self {
        let sizing = policy.triggers.iter().filter(|trigger| trigger.sizes);
        let mut wish = Self {
            replicas: 0,
            waiting: false,
        };
        for trigger in sizing {
            let reading = readings
                .iter()
                .find(|reading| reading.metric_name == trigger.metric_name);
            if let Some(Ok(reading)) = reading.map(|reading| &reading.outcome) {
                wish.replicas = wish.replicas.max(trigger.target.replicas_for(reading.value()));
                wish.waiting |= reading.waiting;
            }
        }
        wish.replicas = wish.replicas.min(policy.replicas.max());
        wish
    }
}

struct Outcome {
    action: Action,
    reason: Reason,
    cooldown_until: Option<Timestamp>,
}

impl Outcome {
    fn of(action: Action, reason: Reason) -> Self {
        Self {
            action,
            reason,
            cooldown_until: None,
        }
    }
}

fn when_active(policy: &ScalePolicy, observation: &Observation, wish: Wish) -> Outcome {
    let replicas = policy.replicas;
    let at_rest =
        observation.replicas == 0 || (replicas.idle().is_some() && observation.replicas < replicas.min());
    let too_few = wish.waiting && observation.replicas < wish.replicas;
    if !at_rest && !too_few {
        return Outcome::of(Action::Stay, Reason::HeldByAutoscaler);
    }
    if policy.pause.blocks_scale_out() {
        return Outcome::of(Action::Stay, Reason::WakeBlockedByPause);
    }
    let to = replicas.min().max(1).max(wish.replicas);
    if at_rest {
        Outcome::of(Action::Activate { to }, Reason::Woken)
    } else {
        Outcome::of(Action::RaiseToDemand { to }, Reason::RaisedToDemand)
    }
}

fn when_inactive(policy: &ScalePolicy, observation: &Observation, missing: bool, now: Timestamp) -> Outcome {
    let replicas = policy.replicas;
    if missing {
        return Outcome::of(Action::Stay, Reason::ReadingMissing);
    }
    let may_rest = match replicas.idle() {
        Some(idle) => observation.replicas > idle,
        None => observation.replicas > 0 && replicas.min() == 0,
    };
    if may_rest {
        let until = cooldown_end(policy, observation);
        // Strictly after, as KEDA: at the very end of the cooldown the target still runs.
        if now <= until {
            return Outcome {
                action: Action::Stay,
                reason: Reason::CoolingDown,
                cooldown_until: Some(until),
            };
        }
        if policy.pause.blocks_scale_in() {
            return Outcome::of(Action::Stay, Reason::RestBlockedByPause);
        }
        return Outcome::of(
            Action::Deactivate {
                to: replicas.resting(),
            },
            Reason::Rested,
        );
    }
    if replicas.idle().is_none() && observation.replicas < replicas.min() {
        if policy.pause.blocks_scale_out() {
            return Outcome::of(Action::Stay, Reason::WakeBlockedByPause);
        }
        return Outcome::of(
            Action::RaiseToMinimum { to: replicas.min() },
            Reason::BelowMinimum,
        );
    }
    Outcome::of(Action::Stay, Reason::Resting)
}

/// When the cooldown that applies ends. The initial one counts for objects that were never active, and only for those.
fn cooldown_end(policy: &ScalePolicy, observation: &Observation) -> Timestamp {
    let (from, period) = match observation.last_active {
        Some(last_active) => (last_active, policy.cooldown_period),
        None => (observation.created, policy.initial_cooldown_period),
    };
    from.checked_add(period).unwrap_or(Timestamp::MAX)
}

fn recheck_after(policy: &ScalePolicy, cooldown_until: Option<Timestamp>, now: Timestamp) -> Duration {
    const SHORTEST: Duration = Duration::from_millis(1);
    let interval = policy.polling_interval.max(SHORTEST);
    cooldown_until
        .and_then(|until| Duration::try_from(until.duration_since(now)).ok())
        .map_or(interval, |rest| (rest + SHORTEST).min(interval))
}

#[cfg(test)]
mod tests;
