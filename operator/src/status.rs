//! What the status of a ScaledObject says: pure functions from a decision to conditions, health and activity.

use std::collections::BTreeMap;

use dormouse_api::conditions::{self, reason};
use dormouse_api::{Condition, ConditionStatus, HealthStatus, ScaledObjectStatus, TriggerActivity};
use dormouse_core::{Activity, Decision, DecisionRecord, Fallback, Pause, ReadingSet, TriggerHealth};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The condition of a type, if it is there.
#[must_use]
pub fn find<'a>(status: &'a ScaledObjectStatus, type_: &str) -> Option<&'a Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)
}

/// Whether a condition is True.
#[must_use]
pub fn holds(status: &ScaledObjectStatus, type_: &str) -> bool {
    find(status, type_).is_some_and(|condition| condition.status == ConditionStatus::True)
}

/// Puts a condition in its place, or at the end.
pub fn set(status: &mut ScaledObjectStatus, condition: Condition) {
    if status.conditions.is_empty() {
        status.conditions = Condition::initial();
    }
    match status
        .conditions
        .iter_mut()
        .find(|old| old.type_ == condition.type_)
    {
        Some(old) => *old = condition,
        None => status.conditions.push(condition),
    }
}

/// The object was checked and is in order. A check reads no trigger: that one fails stays said until a tick can read it.
pub fn set_checked(status: &mut ScaledObjectStatus, pause: Pause) {
    let message = if pause.is_full() {
        "ScaledObject is paused"
    } else {
        "ScaledObject is defined correctly and is ready for scaling"
    };
    let trigger_fails = find(status, conditions::READY).is_some_and(|ready| {
        matches!(
            ready.reason.as_deref(),
            Some(reason::TRIGGER_ERROR | reason::PARTIAL_TRIGGER_ERROR)
        )
    });
    if pause.is_full() || !trigger_fails {
        let ready = Condition::new(
            conditions::READY,
            ConditionStatus::True,
            reason::SCALED_OBJECT_READY,
            message,
        );
        set(status, ready);
    }
    set_paused(status, pause);
    if find(status, conditions::FALLBACK).is_none_or(|condition| condition.reason.is_none()) {
        set(status, no_fallback());
    }
}

/// The object, its target or its HPA is not in order.
pub fn set_check_failed(status: &mut ScaledObjectStatus, message: &str) {
    let ready = Condition::new(
        conditions::READY,
        ConditionStatus::False,
        reason::SCALED_OBJECT_CHECK_FAILED,
        message,
    );
    set(status, ready);
    let active = Condition::new(
        conditions::ACTIVE,
        ConditionStatus::Unknown,
        reason::UNKNOWN_STATE,
        "ScaledObject check failed",
    );
    set(status, active);
    if find(status, conditions::FALLBACK).is_none_or(|condition| condition.reason.is_none()) {
        set(status, no_fallback());
    }
}

/// Whether the last check failed: then a tick of the loop that still runs has no say about Ready and Active.
#[must_use]
pub fn check_failed(status: &ScaledObjectStatus) -> bool {
    find(status, conditions::READY)
        .is_some_and(|ready| ready.reason.as_deref() == Some(reason::SCALED_OBJECT_CHECK_FAILED))
}

/// The pause that the annotations ask for, whatever else is wrong with the object.
pub fn set_paused(status: &mut ScaledObjectStatus, pause: Pause) {
    let was_paused = holds(status, conditions::PAUSED);
    if pause.is_paused() {
        let message = "ScaledObject is paused";
        set(
            status,
            Condition::new(
                conditions::PAUSED,
                ConditionStatus::True,
                reason::SCALED_OBJECT_PAUSED,
                message,
            ),
        );
    } else if was_paused {
        let message = "pause annotation removed for ScaledObject";
        set(
            status,
            Condition::new(
                conditions::PAUSED,
                ConditionStatus::False,
                reason::SCALED_OBJECT_UNPAUSED,
                message,
            ),
        );
    }
    status.paused_replica_count = match pause {
        Pause::Full { replicas } => replicas.and_then(|replicas| i32::try_from(replicas).ok()),
        _ => None,
    };
}

fn no_fallback() -> Condition {
    Condition::new(
        conditions::FALLBACK,
        ConditionStatus::False,
        reason::NO_FALLBACK_FOUND,
        "No fallbacks are active on this scaled object",
    )
}

/// What a polling tick changes. The last moment of activity is written on the edges of activity alone, rounded up to a full
/// second, so that reading it back never shortens a cooldown.
pub fn set_decided(status: &mut ScaledObjectStatus, record: &DecisionRecord, fallback: Option<Fallback>) {
    let decision = &record.decision;
    let was_active = holds(status, conditions::ACTIVE);
    // A target is woken as soon as one trigger is active, and a tick does not wait for a slow one beyond its time: what is
    // not known yet is told by the report that follows.
    let complete = record
        .readings
        .iter()
        .all(|reading| reading.outcome.is_ok() || reading.failures > 0);
    if !check_failed(status) {
        if complete {
            set(status, ready(decision));
        }
        if complete || decision.activity.is_active() {
            set(status, active(decision));
        }
    }
    if complete {
        set(status, fallback_condition(decision));
    }
    let is_active = decision.activity.is_active();
    // While the last check failed, the Active condition says nothing, and so is no edge.
    let edge = is_active != was_active && !check_failed(status) && (complete || is_active);
    if edge || (is_active && status.last_active_time.is_none()) {
        status.last_active_time = decision.last_active.map(|at| Time(up_to_second(at)));
    }
    if complete {
        status.triggers_activity = status
            .external_metric_names
            .iter()
            .map(|name| {
                (
                    name.clone(),
                    TriggerActivity {
                        is_active: decision.active_metrics.contains(name),
                    },
                )
            })
            .collect();
        set_health(&mut status.health, &record.readings, fallback);
    }
}

fn fallback_condition(decision: &Decision) -> Condition {
    if decision.fallen_back.is_empty() {
        no_fallback()
    } else {
        Condition::new(
            conditions::FALLBACK,
            ConditionStatus::True,
            reason::FALLBACK_EXISTS,
            "At least one trigger is falling back on this scaled object",
        )
    }
}

fn up_to_second(at: Timestamp) -> Timestamp {
    let whole = Timestamp::from_second(at.as_second()).unwrap_or(at);
    if whole == at {
        at
    } else {
        whole.checked_add(SignedDuration::from_secs(1)).unwrap_or(at)
    }
}

fn ready(decision: &Decision) -> Condition {
    let (status, reason, message) = match decision.health {
        TriggerHealth::Good => (
            ConditionStatus::True,
            reason::SCALED_OBJECT_READY,
            "ScaledObject is defined correctly and is ready for scaling",
        ),
        TriggerHealth::Partial => (
            ConditionStatus::Unknown,
            reason::PARTIAL_TRIGGER_ERROR,
            "Some triggers defined in ScaledObject are not working correctly",
        ),
        TriggerHealth::Unknown => (
            ConditionStatus::False,
            reason::TRIGGER_ERROR,
            "Triggers defined in ScaledObject are not working correctly",
        ),
    };
    Condition::new(conditions::READY, status, reason, message)
}

fn active(decision: &Decision) -> Condition {
    let (status, reason, message) = match decision.activity {
        Activity::Active => (
            ConditionStatus::True,
            reason::SCALER_ACTIVE,
            "Scaling is performed because triggers are active",
        ),
        Activity::Forced => (
            ConditionStatus::True,
            reason::SCALER_ACTIVE,
            "Scaling is performed because activation is being forced by annotation",
        ),
        Activity::CoolingDown { .. } => (
            ConditionStatus::False,
            reason::SCALER_COOLDOWN,
            "Scaler cooling down because triggers are not active",
        ),
        Activity::Inactive => (
            ConditionStatus::False,
            reason::SCALER_NOT_ACTIVE,
            "Scaling is not performed because triggers are not active",
        ),
    };
    Condition::new(conditions::ACTIVE, status, reason, message)
}

/// The target's replicas could not be read.
pub fn set_target_unknown(status: &mut ScaledObjectStatus, message: &str) {
    if !check_failed(status) {
        set(
            status,
            Condition::new(
                conditions::READY,
                ConditionStatus::False,
                reason::ERROR_GETTING_CURRENT_REPLICAS,
                message,
            ),
        );
    }
}

/// The loop of the object broke off. The first tick that reads all triggers again takes this back.
pub fn set_quarantined(status: &mut ScaledObjectStatus, message: &str) {
    if !check_failed(status) {
        set(
            status,
            Condition::new(
                conditions::READY,
                ConditionStatus::False,
                reason::TRIGGER_ERROR,
                message,
            ),
        );
    }
}

/// Health is kept while a fallback is set. The count is written when a metric turns from Happy to Failing or back, and when
/// it crosses the threshold, not on every failure.
fn set_health(
    health: &mut BTreeMap<String, HealthStatus>,
    readings: &ReadingSet,
    fallback: Option<Fallback>,
) {
    let Some(fallback) = fallback else {
        health.clear();
        return;
    };
    health.retain(|name, _| readings.iter().any(|reading| reading.metric_name == *name));
    for reading in readings.iter() {
        let written = health.get(&reading.metric_name);
        let failing = reading.outcome.is_err();
        let status = if failing { "Failing" } else { "Happy" };
        let flipped = written.is_none_or(|written| written.status.as_deref() != Some(status));
        let count_written = written
            .and_then(|written| written.number_of_failures)
            .unwrap_or(0);
        let held = u32::try_from(count_written).is_ok_and(|count| fallback.holds(count));
        if flipped || held != fallback.holds(reading.failures) {
            let failures = i32::try_from(reading.failures).unwrap_or(i32::MAX);
            let entry = HealthStatus {
                number_of_failures: Some(failures),
                status: Some(status.to_owned()),
            };
            health.insert(reading.metric_name.clone(), entry);
        }
    }
}

/// Mirrors what the HPA controller says of its HPA; `scaling_active` is (status, reason, message) of its condition
/// `ScalingActive`.
pub fn set_hpa_active(status: &mut ScaledObjectStatus, scaling_active: Option<(&str, &str, &str)>) {
    let Some((holds, why, message)) = scaling_active else {
        return;
    };
    let condition = match (holds, why) {
        ("True", _) => Condition::new(
            conditions::HPA_ACTIVE,
            ConditionStatus::True,
            reason::HPA_ACTIVE,
            "HPA is actively scaling",
        ),
        (_, reason::SCALING_DISABLED) => Condition::new(
            conditions::HPA_ACTIVE,
            ConditionStatus::True,
            reason::SCALING_DISABLED,
            message,
        ),
        (_, why) => {
            let why = if why.is_empty() {
                reason::HPA_METRICS_UNAVAILABLE
            } else {
                why
            };
            let message = format!("HPA is not actively scaling: {message}");
            Condition::new(conditions::HPA_ACTIVE, ConditionStatus::False, why, message)
        }
    };
    set(status, condition);
}

/// The merge patch that turns `before` into `after`: what changed, and null for what is gone. `None` where nothing changed.
#[must_use]
pub fn merge_patch(before: &serde_json::Value, after: &serde_json::Value) -> Option<serde_json::Value> {
    use serde_json::{Map, Value};
    if before == after {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return Some(after.clone());
    };
    let mut patch = Map::new();
    for (key, value) in new {
        if let Some(change) = merge_patch(old.get(key).unwrap_or(&Value::Null), value) {
            patch.insert(key.clone(), change);
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests;
