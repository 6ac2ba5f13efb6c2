//! Writes the Ready condition of routes: the leader alone, and only what differs from what is there.
//!
//! ```text
//! routes, Services, ConfigMaps, who scales on what: changed ──> a moment's rest ──> judge all ──> patch those that differ
//! ```
//!
//! All routes are judged at once, as any two of them may be in conflict; that costs microseconds for each. The rest in
//! between bounds how often it is done while much changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dormouse_api::{InterceptorRoute, InterceptorRouteStatus, RouteCondition, ScaledObject, conditions};
use dormouse_core::routes::BuildOptions;
use dormouse_engine::Leadership;
use dormouse_kubernetes::{CallError, Calls, ObjectKey, Priority, Watched};
use futures::StreamExt;
use futures::stream;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::sleep;
use tracing::{info, warn};

use super::slim::{Page, Service};
use super::verdict::{self, References, Verdict};
use super::{RouteStores, RouteUsers};
use crate::status_book::is_older;

/// Between one judgement and the next.
const REST: Duration = Duration::from_millis(500);
/// After a write that failed.
const AGAIN: Duration = Duration::from_secs(3);
/// Statuses written at once.
const WRITERS: usize = 8;

/// What the status of routes is made of, and where it goes.
pub struct RouteStatuses {
    /// The routes and what they may name.
    pub stores: RouteStores,
    /// The objects that may scale on them.
    pub scaled_objects: Watched<ScaledObject>,
    /// Which of them do.
    pub users: RouteUsers,
    /// As the interceptors build their table.
    pub options: BuildOptions,
    /// Client of the API server.
    pub client: Client,
    /// Its bounded calls.
    pub calls: Calls,
    /// Who may write.
    pub leadership: Arc<dyn Leadership>,
}

/// What this process wrote last of a route, while its watch may be behind that.
struct Written {
    uid: Option<String>,
    version: Option<String>,
    status: InterceptorRouteStatus,
}

impl References for RouteStatuses {
    fn service(&self, key: &ObjectKey) -> Option<Arc<Service>> {
        self.stores.services.get(key)
    }

    fn page(&self, key: &ObjectKey) -> Option<Arc<Page>> {
        self.stores.pages.get(key)
    }

    fn is_used(&self, route: &ObjectKey) -> bool {
        self.users.is_used(route)
    }

    fn in_trouble(&self, route: &ObjectKey) -> Option<(ObjectKey, Arc<str>)> {
        self.users.in_trouble(route)
    }
}

impl RouteStatuses {
    /// Keeps the statuses true for as long as this process leads; never ends.
    pub async fn follow(self) {
        self.stores.routes.synced().await;
        self.stores.services.synced().await;
        self.stores.pages.synced().await;
        self.scaled_objects.synced().await;
        let mut leads = self.leadership.subscribe();
        let mut written = HashMap::new();
        loop {
            if leads.wait_for(|leads| *leads).await.is_err() {
                return std::future::pending().await;
            }
            let complete = self.write_all(&mut written).await;
            let changed = async {
                tokio::select! {
                    () = self.stores.changed.notified() => {}
                    () = sleep(AGAIN), if !complete => {}
                }
                sleep(REST).await;
            };
            tokio::select! {
                () = changed => {}
                _ = leads.wait_for(|leads| !*leads) => {
                    // Another process writes from now on.
                    written.clear();
                }
            }
        }
    }

    /// Judges all routes and writes what differs. Says whether nothing is left to be written.
    async fn write_all(&self, written: &mut HashMap<ObjectKey, Written>) -> bool {
        let objects = self.stores.routes.list();
        written.retain(|key, _| self.stores.routes.get(key).is_some());
        let verdicts = verdict::judge(&objects, self, self.options);
        let mut due = Vec::new();
        for (object, verdict) in verdicts {
            let key = ObjectKey::of(&*object);
            if let Some(status) = due_status(&object, written.get(&key), verdict, Timestamp::now()) {
                due.push((key, object, status));
            }
        }
        let mut complete = true;
        let mut writes = stream::iter(due)
            .map(|(key, object, status)| async move {
                let done = self.write(&key, &status).await;
                (key, object, status, done)
            })
            .buffer_unordered(WRITERS);
        while let Some((key, object, status, done)) = writes.next().await {
            match done {
                Ok(version) => {
                    tell(&key, &status);
                    let uid = object.metadata.uid.clone();
                    written.insert(key, Written { uid, version, status });
                }
                // It was deleted meanwhile, or is about to be.
                Err(error) if error.is_not_found() || error.is_namespace_ending() => {}
                Err(error) => {
                    complete = false;
                    warn!(route = %key, %error, "the status of a route is not written, trying again");
                }
            }
        }
        complete
    }

    /// Says which version the object has then.
    async fn write(
        &self,
        key: &ObjectKey,
        status: &InterceptorRouteStatus,
    ) -> Result<Option<String>, CallError> {
        const CALL: &str = "write the status of an InterceptorRoute";
        if !self.leadership.is_leader() {
            return Err(CallError::Other {
                call: CALL,
                message: "this replica does not lead".to_owned(),
            });
        }
        let resource = ApiResource::erase::<InterceptorRoute>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &resource);
        let patch = Patch::Merge(json!({ "status": status }));
        let params = PatchParams::default();
        let call = api.patch_status(&key.name, &params, &patch);
        let written = self.calls.unary(Priority::Normal, CALL, call).await?;
        Ok(written.resource_version())
    }
}

fn tell(key: &ObjectKey, status: &InterceptorRouteStatus) {
    let ready = status
        .conditions
        .iter()
        .find(|one| one.type_ == conditions::READY);
    if let Some(ready) = ready {
        info!(route = %key, ready = ?ready.status, reason = ready.reason, message = ready.message, "the status of a route has changed");
    }
}

/// The status that a route has to get, if it differs from the one it has.
fn due_status(
    object: &InterceptorRoute,
    written: Option<&Written>,
    verdict: Verdict,
    now: Timestamp,
) -> Option<InterceptorRouteStatus> {
    let newer = written.filter(|written| {
        written.uid == object.metadata.uid
            && is_older(
                object.metadata.resource_version.as_deref(),
                written.version.as_deref(),
            )
    });
    let known = newer
        .map(|written| &written.status)
        .or(object.status.as_ref())
        .cloned()
        .unwrap_or_default();
    let before = known
        .conditions
        .iter()
        .find(|condition| condition.type_ == conditions::READY);
    let since = before
        .filter(|before| before.status == verdict.status)
        .map(|before| before.last_transition_time.clone());
    let ready = RouteCondition {
        type_: conditions::READY.to_owned(),
        status: verdict.status,
        observed_generation: object.metadata.generation,
        last_transition_time: since.unwrap_or(Time(now)),
        reason: verdict.reason.to_owned(),
        message: verdict.message,
    };
    if before == Some(&ready) {
        return None;
    }
    let mut status = known;
    status
        .conditions
        .retain(|condition| condition.type_ != conditions::READY);
    status.conditions.insert(0, ready);
    Some(status)
}

#[cfg(test)]
mod tests {
    use dormouse_api::ConditionStatus;

    use super::*;

    fn object(version: &str, generation: i64, status: Option<&InterceptorRouteStatus>) -> InterceptorRoute {
        let metadata =
            json!({"name": "web", "uid": "u1", "resourceVersion": version, "generation": generation});
        let spec = json!({"target": {"service": "web"}, "scalingMetric": {}});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
    }

    fn verdict(status: ConditionStatus, reason: &'static str) -> Verdict {
        Verdict {
            status,
            reason,
            message: reason.to_owned(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_status_is_written_when_it_differs_and_its_time_moves_with_the_status_alone() {
        let good = || verdict(ConditionStatus::True, "Reconciled");
        let first = due_status(&object("1", 1, None), None, good(), at(1)).unwrap();
        assert_eq!(first.conditions[0].last_transition_time, Time(at(1)));
        let same = object("2", 1, Some(&first));
        assert_eq!(due_status(&same, None, good(), at(2)), None);
        let changed = object("3", 2, Some(&first));
        let second = due_status(&changed, None, good(), at(3)).unwrap();
        let ready = &second.conditions[0];
        assert_eq!(
            (ready.observed_generation, &ready.last_transition_time),
            (Some(2), &Time(at(1)))
        );
        let bad = verdict(ConditionStatus::False, "NoRules");
        let third = due_status(&changed, None, bad, at(4)).unwrap();
        assert_eq!(third.conditions.len(), 1);
        assert_eq!(third.conditions[0].last_transition_time, Time(at(4)));
    }

    #[test]
    fn what_this_process_wrote_is_newer_than_a_watch_that_is_behind() {
        let good = || verdict(ConditionStatus::True, "Reconciled");
        let status = due_status(&object("1", 1, None), None, good(), at(1)).unwrap();
        let written = Written {
            uid: Some("u1".to_owned()),
            version: Some("5".to_owned()),
            status,
        };
        assert_eq!(
            due_status(&object("4", 1, None), Some(&written), good(), at(2)),
            None
        );
        assert!(
            due_status(&object("6", 1, None), Some(&written), good(), at(2)).is_some(),
            "somebody took it away"
        );
        let another = Written {
            uid: Some("u0".to_owned()),
            ..written
        };
        assert!(due_status(&object("4", 1, None), Some(&another), good(), at(2)).is_some());
    }
}
