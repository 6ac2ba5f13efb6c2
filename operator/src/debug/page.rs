//! The JSON of `/debug/objects`: plain fields, times as RFC 3339, spans in seconds.

use std::time::Duration;

use dormouse_api::{ScaledObject, conditions};
use dormouse_core::{Action, Activity, DecisionRecord, Pause, TargetKind, TriggerHealth};
use dormouse_engine::{ObjectKey, ObjectView, TriggerView};
use dormouse_translate::annotations;
use kube::ResourceExt;
use serde::Serialize;

use crate::status;

/// One page of objects.
#[derive(Debug, Serialize)]
pub(super) struct Objects {
    pub(super) version: &'static str,
    /// Whether this process decides; one that does not shows readings it took for metric requests, if any.
    pub(super) leader: bool,
    pub(super) items: Vec<ObjectPage>,
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<String>,
}

/// One object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectPage {
    namespace: String,
    name: String,
    target: String,
    pause: PausePage,
    /// The Ready condition: its status, reason and message.
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<[String; 3]>,
    /// Whether its loop runs in this process.
    running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_tick_in_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    polling_interval_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_active: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<DecisionPage>,
    triggers: Vec<TriggerPage>,
}

/// The pause that its annotations ask for.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
enum PausePage {
    None,
    Full {
        replicas: Option<u32>,
    },
    #[serde(rename_all = "camelCase")]
    Directions {
        scale_in: bool,
        scale_out: bool,
    },
    Invalid {
        message: String,
    },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DecisionPage {
    at: String,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u32>,
    reason: &'static str,
    activity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cooling_down_until: Option<String>,
    health: &'static str,
    active_metrics: Vec<String>,
    fallen_back: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TriggerPage {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(rename = "type")]
    type_: String,
    metric: String,
    metric_type: &'static str,
    target: f64,
    failures: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailurePage>,
}

#[derive(Debug, Serialize)]
struct FailurePage {
    category: &'static str,
    message: String,
}

impl ObjectPage {
    pub(super) fn of(key: &ObjectKey, object: &ScaledObject, view: Option<ObjectView>) -> Self {
        let reference = &object.spec.scale_target_ref;
        let ready = object
            .status
            .as_ref()
            .and_then(|status| status::find(status, conditions::READY))
            .map(|ready| {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                [
                    format!("{:?}", ready.status),
                    text(&ready.reason),
                    text(&ready.message),
                ]
            });
        let view = view.as_ref();
        let record = view.and_then(|view| view.decision.as_ref());
        let next_tick = view.and_then(|view| view.next_tick);
        Self {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            target: format!(
                "{}.{}/{}",
                reference.api_version(),
                reference.kind(),
                reference.name
            ),
            pause: PausePage::of(object),
            ready,
            running: next_tick.is_some(),
            next_tick_in_seconds: next_tick.map(seconds),
            polling_interval_seconds: view.map(|view| view.polling_interval.as_secs()),
            replicas: record.map(|record| record.observation.replicas),
            last_active: view.and_then(|view| view.last_active).map(|at| at.to_string()),
            decision: record.map(DecisionPage::of),
            triggers: view
                .map(|view| view.triggers.iter().map(TriggerPage::of).collect())
                .unwrap_or_default(),
        }
    }
}

impl PausePage {
    fn of(object: &ScaledObject) -> Self {
        match annotations::pause(object.annotations()) {
            Ok(Pause::No) => Self::None,
            Ok(Pause::Full { replicas }) => Self::Full { replicas },
            Ok(Pause::Directions { scale_in, scale_out }) => Self::Directions { scale_in, scale_out },
            Err(refusal) => Self::Invalid {
                message: refusal.message,
            },
        }
    }
}

impl DecisionPage {
    fn of(record: &DecisionRecord) -> Self {
        let decision = &record.decision;
        let (activity, until) = match decision.activity {
            Activity::Active => ("active", None),
            Activity::Forced => ("forced", None),
            Activity::CoolingDown { until } => ("coolingDown", Some(until.to_string())),
            Activity::Inactive => ("inactive", None),
        };
        Self {
            at: record.at.to_string(),
            action: match decision.action {
                Action::Stay => "stay",
                Action::Activate { .. } => "activate",
                Action::Deactivate { .. } => "deactivate",
                Action::RaiseToMinimum { .. } => "raiseToMinimum",
                Action::RaiseToDemand { .. } => "raiseToDemand",
            },
            to: decision.action.target(),
            reason: decision.reason.name(),
            activity,
            cooling_down_until: until,
            health: match decision.health {
                TriggerHealth::Good => "good",
                TriggerHealth::Partial => "partial",
                TriggerHealth::Unknown => "unknown",
            },
            active_metrics: decision.active_metrics.clone(),
            fallen_back: decision.fallen_back.clone(),
        }
    }
}

impl TriggerPage {
    fn of(trigger: &TriggerView) -> Self {
        let latest = trigger.latest.as_ref();
        let reading = latest.and_then(|latest| latest.outcome.as_ref().ok());
        let failure = latest.and_then(|latest| latest.outcome.as_ref().err());
        Self {
            index: trigger.index,
            name: trigger.name.clone(),
            type_: trigger.trigger_type.clone(),
            metric: trigger.metric_name.clone(),
            metric_type: match trigger.target.kind {
                TargetKind::AverageValue => "AverageValue",
                TargetKind::Value => "Value",
            },
            target: trigger.target.value,
            failures: latest.map_or(0, |latest| latest.failures),
            value: reading.map(dormouse_core::Reading::value),
            active: reading.map(|reading| reading.active),
            age_seconds: latest.map(|latest| seconds(latest.age)),
            failure: failure.map(|failure| FailurePage {
                category: failure.category,
                message: failure.message.clone(),
            }),
        }
    }
}

/// Milliseconds are as exact as anybody can use.
fn seconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use dormouse_api::{ScaleTargetRef, ScaledObjectSpec, labels};
    use dormouse_core::{MetricTarget, ReadFailure, Reading};
    use dormouse_engine::LatestRead;
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    fn object(annotations: &[(&str, &str)]) -> ScaledObject {
        let mut object = ScaledObject::new(
            "orders",
            ScaledObjectSpec {
                scale_target_ref: ScaleTargetRef {
                    name: "worker".into(),
                    ..ScaleTargetRef::default()
                },
                ..ScaledObjectSpec::default()
            },
        );
        let pairs = annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        object.metadata.annotations = Some(pairs.collect());
        object
    }

    fn trigger(outcome: Result<Reading, ReadFailure>, failures: u32) -> TriggerView {
        TriggerView {
            index: 0,
            name: None,
            trigger_type: "cron".into(),
            metric_name: "s0-cron".into(),
            target: MetricTarget {
                kind: TargetKind::AverageValue,
                value: 1.0,
            },
            latest: Some(LatestRead {
                outcome,
                failures,
                age: Duration::from_micros(1_500_400),
            }),
        }
    }

    #[test]
    fn an_object_is_shown_with_its_readings_and_failures() {
        let reading = Reading::new(7.0, true, Timestamp::UNIX_EPOCH).unwrap();
        let failure = ReadFailure {
            category: "timeout",
            message: "no answer within 3 s".into(),
        };
        let view = ObjectView {
            pause: Pause::No,
            polling_interval: Duration::from_secs(30),
            next_tick: Some(Duration::from_millis(1250)),
            last_active: Some(Timestamp::UNIX_EPOCH),
            decision: None,
            triggers: vec![trigger(Ok(reading), 0), trigger(Err(failure), 4)],
        };
        let key = ObjectKey::new("shop", "orders");
        let page = serde_json::to_value(ObjectPage::of(&key, &object(&[]), Some(view))).unwrap();
        assert_eq!(page["target"], "apps/v1.Deployment/worker");
        assert_eq!(
            (&page["running"], &page["nextTickInSeconds"]),
            (&json!(true), &json!(1.25))
        );
        assert_eq!(page["lastActive"], "1970-01-01T00:00:00Z");
        assert_eq!(
            page["triggers"][0],
            json!({"index": 0, "type": "cron", "metric": "s0-cron", "metricType": "AverageValue", "target": 1.0,
                   "failures": 0, "value": 7.0, "active": true, "ageSeconds": 1.5})
        );
        assert_eq!(
            (&page["triggers"][1]["failures"], &page["triggers"][1]["failure"]),
            (
                &json!(4),
                &json!({"category": "timeout", "message": "no answer within 3 s"})
            )
        );
    }

    #[test]
    fn the_pause_is_what_the_annotations_say_also_where_no_loop_ever_ran() {
        let pause = |annotations: &[(&str, &str)]| {
            let page = ObjectPage::of(&ObjectKey::new("shop", "orders"), &object(annotations), None);
            serde_json::to_value(&page).unwrap()["pause"].clone()
        };
        assert_eq!(pause(&[]), json!({"kind": "none"}));
        assert_eq!(
            pause(&[(labels::PAUSED_REPLICAS, "3")]),
            json!({"kind": "full", "replicas": 3})
        );
        assert_eq!(
            pause(&[(labels::PAUSED_SCALE_IN, "true")]),
            json!({"kind": "directions", "scaleIn": true, "scaleOut": false})
        );
        assert_eq!(pause(&[(labels::PAUSED_REPLICAS, "x")])["kind"], "invalid");
    }
}
