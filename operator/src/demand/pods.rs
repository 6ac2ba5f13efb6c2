//! Which interceptors exist: their pods.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use dormouse_core::demand::PodStage;
use dormouse_engine::DemandHub;
use dormouse_kubernetes::{Namespaces, Watch};
use k8s_openapi::api::core::v1::{ContainerState, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use serde::Deserialize;
use tokio::sync::Notify;

/// A pod, as far as it tells whether it may hold requests.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct InterceptorPod {
    /// Name, uid and whether it is being deleted.
    #[serde(default, deserialize_with = "dormouse_kubernetes::slim::lean")]
    pub metadata: ObjectMeta,
    /// How far it has come.
    #[serde(default)]
    pub status: PodStatus,
}

/// The part of a pod's status that is read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    #[serde(default)]
    pub phase: String,
    /// How its containers are, as soon as a kubelet has them.
    #[serde(default)]
    pub container_statuses: Option<Vec<ContainerStatus>>,
}

/// The part of a container's status that is read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct ContainerStatus {
    /// Waiting, running or terminated.
    #[serde(default)]
    pub state: ContainerState,
}

impl InterceptorPod {
    /// The uid of a pod whose container may hold requests: it was started once, and not all of it has ended. Only that makes
    /// its silence mean anything; one that waits for a node or an image has never had a request, and one whose container has
    /// ended, to be started again later, has none any more, though its phase is `Running`.
    fn reporter(&self) -> Option<(Arc<str>, PodStage)> {
        let may_hold = !matches!(
            self.status.phase.as_str(),
            "" | "Pending" | "Succeeded" | "Failed"
        ) && self.may_run();
        let stage = match self.metadata.deletion_timestamp {
            Some(_) => PodStage::Leaving,
            None => PodStage::Staying,
        };
        let uid = self.metadata.uid.as_deref().filter(|_| may_hold)?;
        Some((uid.into(), stage))
    }

    /// Whether a container runs, as far as is known.
    fn may_run(&self) -> bool {
        let containers = self.status.container_statuses.as_deref().unwrap_or_default();
        let runs = |container: &ContainerStatus| container.state.running.is_some();
        containers.is_empty() || containers.iter().any(runs)
    }
}

/// Tells `hub` which interceptors exist: the pods of `namespace` that `selector` matches. Nothing is told before they have
/// all been listed once. Never returns.
pub fn follow_pods(
    client: &Client,
    namespace: &str,
    selector: &str,
    hub: DemandHub,
) -> impl Future<Output = ()> + Send + 'static {
    let changed = Arc::new(Notify::new());
    let tell = changed.clone();
    let scope = Namespaces::These(vec![namespace.to_owned()]);
    let watch = Watch::<Pod, InterceptorPod>::reduced(client, &scope).labels(selector);
    let (pods, watch) = watch.on_change(move |_, _| tell.notify_one()).start();
    let list = async move {
        pods.synced().await;
        loop {
            let reporters: BTreeMap<_, _> = pods.list().iter().filter_map(|pod| pod.reporter()).collect();
            hub.listed(reporters);
            changed.notified().await;
        }
    };
    async move {
        tokio::select! {
            () = watch => {}
            () = list => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_pod_that_was_started_and_has_not_ended_may_hold_requests() {
        for (phase, may_hold) in [
            ("Pending", false),
            ("Running", true),
            ("Unknown", true),
            ("Succeeded", false),
            ("Failed", false),
        ] {
            let pod = json!({"metadata": {"name": "i", "uid": "u1"}, "status": {"phase": phase}});
            let pod: InterceptorPod = serde_json::from_value(pod).unwrap();
            let expected = may_hold.then(|| ("u1".into(), PodStage::Staying));
            assert_eq!(pod.reporter(), expected, "{phase}");
        }
        let running = json!({"running": {"startedAt": "2026-11-21T05:40:55Z"}});
        let crashed = json!({"terminated": {"exitCode": 1}});
        let backing_off = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        for (states, may_hold) in [
            (vec![&running], true),
            (vec![&crashed], false),
            (vec![&backing_off], false),
            (vec![&backing_off, &running], true),
            (vec![], true),
        ] {
            let containers: Vec<_> = states.iter().map(|state| json!({"state": state})).collect();
            let pod = json!({
                "metadata": {"name": "i", "uid": "u1"},
                "status": {"phase": "Running", "containerStatuses": containers},
            });
            let pod: InterceptorPod = serde_json::from_value(pod).unwrap();
            assert_eq!(pod.reporter().is_some(), may_hold, "{states:?}");
        }
        let terminating = json!({
            "metadata": {"name": "i", "uid": "u1", "deletionTimestamp": "2026-11-21T05:40:55Z"},
            "status": {"phase": "Running"},
        });
        let terminating: InterceptorPod = serde_json::from_value(terminating).unwrap();
        let expected = Some(("u1".into(), PodStage::Leaving));
        assert_eq!(terminating.reporter(), expected, "it may still hold some");
    }
}
