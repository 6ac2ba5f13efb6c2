//! Writes down what the engine did: metrics at once, status when it changed, an Event and a log line for each change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dormouse_api::{ScaledObject, conditions};
use dormouse_core::{Action, DecisionRecord};
use dormouse_engine::ports::GONE;
use dormouse_engine::{
    Acted, Journal, Leadership, ObjectKey, ObjectSpec, PortError, TickOutcome, TickReport, TriggerRead,
};
use dormouse_kubernetes::Watched;
use dormouse_kubernetes::calls::OUTAGE;
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::ObjectReference;
use tracing::{debug, error, info, warn};

use crate::context::watch_key;
use crate::events::Events;
use crate::metrics::OperatorMetrics;
use crate::status_book::StatusBook;
use crate::{reconcile, status};

/// The first and the longest wait between two attempts to look up a failing object's parameters again.
const REFRESH: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// The journal of an operator.
pub struct OperatorJournal {
    /// Prometheus metrics.
    pub metrics: Arc<OperatorMetrics>,
    /// Statuses.
    pub status: StatusBook,
    /// Events.
    pub events: Events,
    /// Who may write.
    pub leadership: Arc<dyn Leadership>,
    /// ScaledObjects, for what Events refer to.
    pub objects: Watched<ScaledObject>,
    /// HPAs, for what their controller says of them.
    pub hpas: Watched<HorizontalPodAutoscaler>,
    /// Asks for an object's references to be looked up again: its credentials may have changed.
    pub refresh: Box<dyn Fn(&ObjectKey) + Send + Sync>,
    /// What was failing at the last tick.
    pub failing: Mutex<HashMap<ObjectKey, Failing>>,
}

/// An object whose triggers fail.
#[derive(Debug, Default)]
pub struct Failing {
    /// The last message of each failing metric: an Event goes out when it changes.
    messages: HashMap<String, String>,
    /// When the parameters are looked up again, and how long to wait after that.
    next_refresh: Option<(Instant, Duration)>,
}

impl OperatorJournal {
    fn about(&self, key: &ObjectKey) -> Option<ObjectReference> {
        let found = self.objects.get(&watch_key(key))?;
        Some(reconcile::reference(&found))
    }

    async fn decided(&self, spec: &ObjectSpec, record: &DecisionRecord, acted: Option<&Acted>) {
        let key = &spec.key;
        if !self.leadership.is_leader() {
            return;
        }
        let new_failures = self.note_failures(key, record);
        let hpa = self.hpa_condition(key).await;
        let changed = self.status.update(key, |status| {
            status::set_decided(status, record, spec.policy.fallback);
            let hpa = hpa
                .as_ref()
                .map(|(holds, why, message)| (holds.as_str(), why.as_str(), message.as_str()));
            status::set_hpa_active(status, hpa);
        });
        let Some(changed) = changed.await else { return };
        if let Some(error) = &changed.failed {
            debug!(object = %key, %error, "status not written");
        }
        let Some(about) = self.about(key) else { return };
        for (metric, failure) in new_failures {
            warn!(object = %key, metric, reason = "KEDAScalerFailed", error = failure, "trigger cannot be read");
            self.events.send(&about, true, "KEDAScalerFailed", failure);
        }
        let fallback = |status| status::holds(status, conditions::FALLBACK);
        match (fallback(&changed.before), fallback(&changed.after)) {
            (false, true) => {
                warn!(object = %key, metrics = ?record.decision.fallen_back, "fallback holds");
                let note = "ScaledObject fallback is active";
                self.events
                    .send_lifecycle(&about, false, "ScaledObjectFallbackActivated", note);
            }
            (true, false) => {
                info!(object = %key, "fallback no longer holds");
                let note = "ScaledObject fallback is no longer active";
                self.events
                    .send_lifecycle(&about, false, "ScaledObjectFallbackDeactivated", note);
            }
            _ => {}
        }
        if let Some(acted) = acted {
            let kind = changed.after.scale_target_kind.as_deref().unwrap_or_default();
            self.note_action(key, &about, kind, record, acted);
        }
    }

    /// Remembers what fails, asks for fresh parameters, and gives back what is news: metrics and messages.
    fn note_failures(&self, key: &ObjectKey, record: &DecisionRecord) -> Vec<(String, String)> {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let now: HashMap<String, String> = record
            .readings
            .iter()
            // A trigger that is merely slower than another one has not failed.
            .filter(|reading| reading.failures > 0)
            .filter_map(|reading| {
                Some((
                    reading.metric_name.clone(),
                    reading.outcome.as_ref().err()?.message.clone(),
                ))
            })
            .collect();
        if now.is_empty() {
            if record.readings.iter().all(|reading| reading.outcome.is_ok()) {
                failing.remove(key);
            }
            return Vec::new();
        }
        let entry = failing.entry(key.clone()).or_default();
        let news = now
            .iter()
            .filter(|(metric, message)| entry.messages.get(*metric) != Some(message));
        let news = news
            .map(|(metric, message)| (metric.clone(), message.clone()))
            .collect();
        if record
            .readings
            .iter()
            .all(|reading| reading.outcome.is_ok() || reading.failures > 0)
        {
            entry.messages = now;
        } else {
            entry.messages.extend(now);
        }
        let (due, wait) = entry.next_refresh.unwrap_or((Instant::now(), REFRESH.0));
        if Instant::now() >= due {
            entry.next_refresh = Some((Instant::now() + wait, (wait * 2).min(REFRESH.1)));
            (self.refresh)(key);
        }
        news
    }

    /// `ScalingActive` of the object's HPA: (status, reason, message).
    async fn hpa_condition(&self, key: &ObjectKey) -> Option<(String, String, String)> {
        let name = self.status.wanted(key).await?.hpa_name?;
        let hpa = self.hpas.get(&dormouse_kubernetes::ObjectKey::new(
            key.namespace.as_str(),
            name.as_str(),
        ))?;
        let conditions = hpa.status.as_ref()?.conditions.as_deref().unwrap_or_default();
        let active = conditions
            .iter()
            .find(|condition| condition.type_ == "ScalingActive")?;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Some((active.status.clone(), text(&active.reason), text(&active.message)))
    }

    fn note_action(
        &self,
        key: &ObjectKey,
        about: &ObjectReference,
        kind: &str,
        record: &DecisionRecord,
        acted: &Acted,
    ) {
        let decision = &record.decision;
        let (from, to) = (acted.from, acted.to);
        let reason = decision.reason.name();
        match &acted.result {
            Ok(()) => {
                info!(object = %key, from, to, reason, metrics = ?decision.active_metrics, "target scaled")
            }
            Err(error) => {
                let outage = outage(error);
                warn!(object = %key, from, to, reason, %error, outage, "target not scaled");
            }
        }
        let name = self.objects.get(&watch_key(key));
        let workload = name
            .map(|object| object.spec.scale_target_ref.name.clone())
            .unwrap_or_default();
        let target = format!("{kind} {}/{workload}", key.namespace);
        match (decision.action, &acted.result) {
            (Action::Activate { .. }, Ok(())) => {
                let cause = if decision.active_metrics.is_empty() {
                    "caused by forced activation annotation".to_owned()
                } else {
                    format!("triggered by {}", decision.active_metrics.join(";"))
                };
                let note = format!("Scaled {target} from {from} to {to}, {cause}");
                self.events.send(about, false, "KEDAScaleTargetActivated", note);
            }
            (Action::Activate { .. }, Err(error)) => {
                let note = format!("Failed to scale {target} from {from} to {to}: {error}");
                self.events
                    .send(about, true, "KEDAScaleTargetActivationFailed", note);
            }
            (Action::Deactivate { .. }, Ok(())) => {
                let note = format!("Deactivated {target} from {from} to {to}");
                self.events.send(about, false, "KEDAScaleTargetDeactivated", note);
            }
            (Action::Deactivate { .. }, Err(error)) => {
                let note = format!("Failed to deactivate {target} from {from} to {to}: {error}");
                self.events
                    .send(about, true, "KEDAScaleTargetDeactivationFailed", note);
            }
            (Action::RaiseToMinimum { .. } | Action::RaiseToDemand { .. } | Action::Stay, _) => {}
        }
    }

    async fn target_unknown(&self, key: &ObjectKey, error: &PortError) {
        if !self.leadership.is_leader() {
            return;
        }
        self.metrics.object_error(key);
        // Nothing is wrong with the object, and a server that cannot be asked must not be told that of each of them.
        if let Some(outage) = outage(error) {
            return warn!(object = %key, %error, outage, "target cannot be read");
        }
        let message = error.message.as_str();
        let changed = self
            .status
            .update(key, |status| status::set_target_unknown(status, message))
            .await;
        let Some(changed) = changed else { return };
        if status::find(&changed.before, conditions::READY) != status::find(&changed.after, conditions::READY)
        {
            if error.category == GONE {
                // Somebody's doing, and often the first sight of a whole namespace's end.
                info!(object = %key, error = message, "target is gone");
            } else {
                warn!(object = %key, error = message, "target cannot be read");
            }
        }
    }

    async fn rests(&self, key: &ObjectKey, rest: Duration) {
        const MESSAGE: &str = "Scaling of this ScaledObject broke off by an internal failure; its replicas stay as they \
                               are until it is tried again, within 5 minutes, or at once when the ScaledObject changes";
        self.metrics.quarantined(key);
        self.metrics.object_error(key);
        if !self.leadership.is_leader() {
            return;
        }
        error!(object = %key, retry_in = ?rest, "internal failure: this object is quarantined");
        let changed = self
            .status
            .update(key, |status| status::set_quarantined(status, MESSAGE))
            .await;
        if let Some(about) = self.about(key)
            && changed.is_some_and(|changed| changed.before != changed.after)
        {
            self.events.send(&about, true, "KEDAScalerFailed", MESSAGE);
        }
    }

    /// Forgets an object.
    pub fn forget(&self, key: &ObjectKey) {
        self.failing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

/// The outage that a port's failure is part of, for the log.
fn outage(error: &PortError) -> Option<&'static str> {
    matches!(error.category, "timeout" | "unreachable" | "throttled").then_some(OUTAGE)
}

impl Journal for OperatorJournal {
    fn read(&self, object: &ObjectKey, read: &TriggerRead<'_>) {
        self.metrics.read(object, read, self.leadership.is_leader());
    }

    fn decision_made(&self, took: Duration) {
        self.metrics.decision_made(took);
    }

    fn woke(&self, after: Duration) {
        self.metrics.woke(after);
    }

    fn tick<'a>(&'a self, report: TickReport<'a>) -> BoxFuture<'a, ()> {
        async move {
            if self.leadership.is_leader() {
                self.metrics.tick(&report.spec.key, report.late_by);
            }
            match report.outcome {
                TickOutcome::TargetUnknown(error) => self.target_unknown(&report.spec.key, error).await,
                TickOutcome::Decided { record, acted } => self.decided(report.spec, record, acted).await,
            }
        }
        .boxed()
    }

    fn quarantined<'a>(&'a self, spec: &'a ObjectSpec, rest: Duration) -> BoxFuture<'a, ()> {
        self.rests(&spec.key, rest).boxed()
    }
}
