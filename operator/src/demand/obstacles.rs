//! Why requests wait: what keeps the pods of a route from starting, for those who wait in vain.
//!
//! ```text
//! every second: routes that have waited for a while ──> list their pods ──> all of them stuck? ──> Obstacle ──> interceptors
//! ```
//!
//! Only the leader looks, and only while requests wait and none is served: nothing is asked in a cold start that goes well.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dormouse_core::demand::RouteKey;
use dormouse_engine::{DemandHub, Leadership};
use dormouse_wire::demand::from_operator::Message;
use dormouse_wire::demand::{Obstacle, Route};
use futures::StreamExt;
use futures::stream;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, info};

use super::probes::{ReadPods, Selector};
use super::sessions::Sessions;

const LOOK: Duration = Duration::from_secs(1);
/// How long requests wait before anybody asks why.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at the pods of one route.
const AGAIN: Duration = Duration::from_secs(5);
/// How often what lasts is told again: interceptors forget it after a while, and may have come since.
const TELL_AGAIN: Duration = Duration::from_secs(20);
/// Routes whose pods are listed in one go, and at once; the others have their turn in the next.
const LOOKS: (usize, usize) = (64, 4);

/// Looks for what keeps pods from starting.
pub struct Obstacles {
    pub(super) hub: DemandHub,
    pub(super) sessions: Sessions,
    pub(super) pods: Arc<dyn ReadPods>,
    /// What selects a route's pods.
    pub(super) selector: Selector,
    pub(super) leadership: Arc<dyn Leadership>,
}

/// A route whose requests wait.
struct Waiting {
    since: Instant,
    looked: Option<Instant>,
    told: Option<(&'static str, Instant)>,
}

impl Obstacles {
    /// Tells interceptors, for as long as this process leads; never ends.
    pub async fn follow(self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = HashMap::new();
        loop {
            looks.tick().await;
            if self.leadership.is_leader() {
                self.look(&mut waiting).await;
            } else {
                waiting.clear();
            }
        }
    }

    async fn look(&self, waiting: &mut HashMap<RouteKey, Waiting>) {
        let now = Instant::now();
        let routes = self.hub.waiting();
        waiting.retain(|route, state| {
            let waits = routes.contains(route);
            if !waits && state.told.is_some() {
                self.tell(route, "");
            }
            waits
        });
        for route in routes {
            waiting.entry(route).or_insert(Waiting {
                since: now,
                looked: None,
                told: None,
            });
        }
        let is_due = |state: &Waiting| {
            now - state.since >= PATIENCE && state.looked.is_none_or(|looked| now - looked >= AGAIN)
        };
        let due = waiting.iter().filter(|(_, state)| is_due(state));
        let mut due: Vec<(Option<Instant>, RouteKey)> =
            due.map(|(route, state)| (state.looked, route.clone())).collect();
        due.sort();
        due.truncate(LOOKS.0);
        let looks = stream::iter(due).map(|(_, route)| self.obstacle(route));
        let mut looked = looks.buffer_unordered(LOOKS.1);
        while let Some((route, found)) = looked.next().await {
            let Some(state) = waiting.get_mut(&route) else {
                continue;
            };
            state.looked = Some(now);
            let before = state.told.map(|(what, _)| what);
            let lasts = state.told.is_some_and(|(_, at)| now - at < TELL_AGAIN);
            if found == before && (found.is_none() || lasts) {
                continue;
            }
            if found != before {
                info!(%route, obstacle = found.unwrap_or("none any more"), "requests wait for pods that do not start");
            }
            self.tell(&route, found.unwrap_or_default());
            state.told = found.map(|what| (what, now));
        }
    }

    /// What keeps all pods of a route from starting.
    async fn obstacle(&self, route: RouteKey) -> (RouteKey, Option<&'static str>) {
        let Some(selection) = (self.selector)(&route) else {
            return (route, None);
        };
        let found = match self.pods.pods(&route.namespace, &selection.labels).await {
            Ok(pods) => of_all(&pods),
            Err(error) => {
                debug!(%route, %error, "the pods that requests wait for cannot be listed");
                None
            }
        };
        (route, found)
    }

    fn tell(&self, route: &RouteKey, what: &str) {
        self.sessions.tell_all(&Message::Obstacle(Obstacle {
            route: Some(Route {
                namespace: route.namespace.to_string(),
                name: route.name.to_string(),
            }),
            what: what.to_owned(),
        }));
    }
}

/// What keeps every one of these pods from starting; one that may still start is none.
fn of_all(pods: &[Pod]) -> Option<&'static str> {
    let living = pods.iter().filter(|pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
    });
    let obstacles: Option<Vec<_>> = living.map(of_pod).collect();
    obstacles?.first().copied()
}

/// In words for whoever sent a request: no names of images, nodes or anything else of the cluster.
fn of_pod(pod: &Pod) -> Option<&'static str> {
    let status = pod.status.as_ref()?;
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let mut containers = lists.into_iter().flatten().flatten();
    containers.find_map(of_container).or_else(|| {
        let mut conditions = status.conditions.iter().flatten();
        let unscheduled = conditions.any(|condition| {
            condition.type_ == "PodScheduled"
                && condition.status == "False"
                && condition.reason.as_deref() == Some("Unschedulable")
        });
        unscheduled.then_some("no node has room for it")
    })
}

fn of_container(container: &ContainerStatus) -> Option<&'static str> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    match waiting.reason.as_deref()? {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => Some("its image cannot be pulled"),
        "CrashLoopBackOff" => Some("it starts and ends again"),
        "CreateContainerConfigError" => Some("its configuration is not complete"),
        "CreateContainerError" | "RunContainerError" => Some("its container cannot be started"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-1"}, "status": status})).unwrap()
    }

    fn waiting(list: &str, reason: &str) -> Pod {
        pod(json!({"phase": "Pending", list: [{
            "name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": reason}},
        }]}))
    }

    #[test]
    fn pods_are_stuck_for_reasons_that_are_told_without_names() {
        for (stuck, what) in [
            (
                waiting("containerStatuses", "ImagePullBackOff"),
                Some("its image cannot be pulled"),
            ),
            (
                waiting("initContainerStatuses", "ErrImagePull"),
                Some("its image cannot be pulled"),
            ),
            (
                waiting("containerStatuses", "CrashLoopBackOff"),
                Some("it starts and ends again"),
            ),
            (
                waiting("containerStatuses", "CreateContainerConfigError"),
                Some("its configuration is not complete"),
            ),
            (waiting("containerStatuses", "ContainerCreating"), None),
            (
                pod(json!({"phase": "Pending", "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"},
                ]})),
                Some("no node has room for it"),
            ),
            (pod(json!({"phase": "Running"})), None),
        ] {
            assert_eq!(of_all(std::slice::from_ref(&stuck)), what, "{stuck:?}");
        }
    }

    #[test]
    fn one_pod_that_may_start_is_enough_and_those_that_go_do_not_count() {
        let stuck = || waiting("containerStatuses", "ImagePullBackOff");
        let starting = || waiting("containerStatuses", "ContainerCreating");
        assert_eq!(of_all(&[]), None, "they are not there yet");
        assert_eq!(of_all(&[stuck(), starting()]), None);
        let mut going = starting();
        going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-21T00:00:00Z")).unwrap();
        let ended = pod(json!({"phase": "Failed"}));
        assert_eq!(
            of_all(&[going, ended, stuck()]),
            Some("its image cannot be pulled")
        );
    }
}
