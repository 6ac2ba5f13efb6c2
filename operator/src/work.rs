//! What waits to be done: queues of keys, filled by watches and emptied by workers.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use dormouse_api::ScaledObject;
use dormouse_api::conditions::ACTIVE;
use dormouse_engine::ObjectKey;
use dormouse_kubernetes::{Action, CallError, Queue};
use dormouse_runtime::Metrics;
use tracing::warn;

use crate::context::{Stores, engine_key};
use crate::events::Events;
use crate::metrics::QueueDepths;
use crate::status::holds;
use crate::undecodable::UndecodableObjects;

/// The queues of work, shared by the watches that fill them.
#[derive(Clone, Default)]
pub(crate) struct Work {
    pub(crate) objects: Queue<ObjectKey>,
    pub(crate) authentications: Queue<dormouse_kubernetes::ObjectKey>,
    pub(crate) cluster_authentications: Queue<dormouse_kubernetes::ObjectKey>,
    /// Objects whose status may have been changed by somebody else.
    pub(crate) statuses: Queue<ObjectKey>,
    pub(crate) undecodable: UndecodableObjects,
    /// Objects whose first tick after a start or a take-over may wait its turn.
    resuming: Arc<Mutex<HashSet<ObjectKey>>>,
}

impl Work {
    pub(crate) fn take_resuming(&self, key: &ObjectKey) -> bool {
        self.resuming
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key)
    }

    /// Has everything looked at again: first those objects that requests wait for, which are `awaited`, then those with
    /// replicas.
    pub(crate) fn resume_all(&self, stores: &Stores, awaited: &HashSet<dormouse_kubernetes::ObjectKey>) {
        let keys = in_order(&stores.scaled_objects.list(), awaited);
        self.resuming
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(keys.iter().cloned());
        keys.into_iter().for_each(|key| self.objects.add(key));
        for authentication in stores.trigger_authentications.list() {
            self.authentications
                .add(dormouse_kubernetes::ObjectKey::of(&*authentication));
        }
        for authentication in stores.cluster_trigger_authentications.list() {
            self.cluster_authentications
                .add(dormouse_kubernetes::ObjectKey::of(&*authentication));
        }
    }

    /// Shows in the metrics how much waits in each queue.
    pub(crate) fn show_depths(&self, metrics: &Metrics, events: &Events) {
        let (objects, statuses, undecodable) = (
            self.objects.clone(),
            self.statuses.clone(),
            self.undecodable.clone(),
        );
        let authentications = self.authentications.clone();
        let cluster_authentications = self.cluster_authentications.clone();
        let events = events.clone();
        QueueDepths::default()
            .with("scaledobjects", move || objects.len())
            .with("statuses", move || statuses.len())
            .with("undecodable", move || undecodable.waiting())
            .with("triggerauthentications", move || authentications.len())
            .with("clustertriggerauthentications", move || {
                cluster_authentications.len()
            })
            .with("events", move || events.waiting())
            .register(metrics);
    }
}

/// The keys of objects in the order in which they are looked at.
fn in_order(
    objects: &[Arc<ScaledObject>],
    awaited: &HashSet<dormouse_kubernetes::ObjectKey>,
) -> Vec<ObjectKey> {
    let mut ranked: Vec<_> = objects
        .iter()
        .map(|object| {
            let key = dormouse_kubernetes::ObjectKey::of(&**object);
            let status = object.status.as_ref();
            let active = status.is_some_and(|status| holds(status, ACTIVE));
            (!awaited.contains(&key), !active, key)
        })
        .collect();
    ranked.sort_by_key(|(not_awaited, inactive, _)| (*not_awaited, *inactive));
    ranked.iter().map(|(.., key)| engine_key(key)).collect()
}

/// What the queue does next with an authentication that was looked at, and one log record where it failed.
pub(crate) fn or_later(
    key: &dormouse_kubernetes::ObjectKey,
    outcome: Result<(), CallError>,
) -> Result<Action, CallError> {
    match outcome {
        Err(error) if error.is_namespace_ending() => {}
        Err(error) => {
            let outage = error.outage();
            warn!(authentication = %key, outage, %error, "authentication not brought in order, trying again");
            return Err(error);
        }
        Ok(()) => {}
    }
    Ok(Action::Done)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_requests_wait_for_goes_first_and_then_what_runs() {
        let object = |name: &str, active: &str| {
            let object = json!({
                "metadata": {"name": name, "namespace": "shop"},
                "spec": {"scaleTargetRef": {"name": name}, "triggers": []},
                "status": {"conditions": [{"type": "Active", "status": active}]},
            });
            Arc::new(serde_json::from_value(object).unwrap())
        };
        let objects = [
            object("rests", "False"),
            object("runs", "True"),
            object("awaited", "False"),
        ];
        let awaited = [dormouse_kubernetes::ObjectKey::new("shop", "awaited")].into();
        let order: Vec<_> = in_order(&objects, &awaited)
            .into_iter()
            .map(|key| key.name)
            .collect();
        assert_eq!(order, ["awaited", "runs", "rests"]);
    }
}
