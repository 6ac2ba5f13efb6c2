//! The scale target, through its /scale subresource: Deployments, StatefulSets, and any custom resource that has one.

use std::sync::Arc;

use dormouse_api::GroupVersionKindResource;
use dormouse_engine::ports::CHANGED;
use dormouse_engine::{Leadership, PortError, Target, TargetState, Urgency};
use dormouse_kubernetes::{CallError, Calls, ObjectKey, Priority, Reference};
use futures::FutureExt;
use futures::future::BoxFuture;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, TestOperation};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::pods::ready_condition;

/// Pods counted at most for the fallback of a `Value` target.
const MOST_PODS: u32 = 1000;

/// One scale target.
#[derive(Clone)]
pub struct ScaleTarget {
    api: Api<DynamicObject>,
    pods: Api<Pod>,
    calls: Calls,
    leadership: Arc<dyn Leadership>,
    reference: Reference,
    name: String,
}

impl ScaleTarget {
    /// The target `name` of kind `gvkr` in `namespace`.
    #[must_use]
    pub fn new(
        client: &Client,
        calls: &Calls,
        leadership: &Arc<dyn Leadership>,
        namespace: &str,
        name: &str,
        gvkr: &GroupVersionKindResource,
    ) -> Self {
        let gvk = GroupVersionKind::gvk(&gvkr.group, &gvkr.version, &gvkr.kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, &gvkr.resource);
        Self {
            api: Api::namespaced_with(client.clone(), namespace, &resource),
            pods: Api::namespaced(client.clone(), namespace),
            calls: calls.clone(),
            leadership: leadership.clone(),
            reference: Reference {
                resource: Arc::new(resource),
                key: ObjectKey::new(namespace, name),
            },
            name: name.to_owned(),
        }
    }

    /// Reads the /scale subresource.
    ///
    /// # Errors
    /// The call failed.
    pub async fn scale(&self, priority: Priority) -> Result<Scale, CallError> {
        self.calls
            .unary(
                priority,
                "read the scale of a target",
                self.api.get_scale(&self.name),
            )
            .await
    }

    /// Whether the object itself exists, whatever its subresources.
    ///
    /// # Errors
    /// The call failed for another reason than that it is not there.
    pub async fn exists(&self) -> Result<bool, CallError> {
        let call = self.api.get_opt(&self.name);
        let found = self
            .calls
            .unary(Priority::Normal, "read a scale target", call)
            .await?;
        Ok(found.is_some())
    }

    /// The object itself, as those refer to it who read its pod template.
    #[must_use]
    pub fn reference(&self) -> Reference {
        self.reference.clone()
    }
}

/// The replicas a target asks for.
#[must_use]
pub fn replicas(scale: &Scale) -> u32 {
    let replicas = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    u32::try_from(replicas).unwrap_or(0)
}

fn state(scale: &Scale) -> TargetState {
    TargetState {
        replicas: replicas(scale),
        version: scale.metadata.resource_version.clone(),
    }
}

impl ScaleTarget {
    async fn count_ready(&self) -> Result<u32, CallError> {
        let scale = self.scale(Priority::Normal).await?;
        let Some(selector) = scale.status.and_then(|status| status.selector) else {
            return Ok(0);
        };
        let params = ListParams::default().labels(&selector).limit(MOST_PODS);
        let pods = self
            .calls
            .unary(
                Priority::Normal,
                "list the pods of a target",
                self.pods.list(&params),
            )
            .await?;
        let is_ready = |pod: &&Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            phase == Some("Running") && ready_condition(pod).is_some()
        };
        Ok(u32::try_from(pods.items.iter().filter(is_ready).count()).unwrap_or(u32::MAX))
    }
}

impl ScaleTarget {
    /// Sets the replicas if the target is still as it was seen. What was seen without a version is overwritten.
    ///
    /// The version of a target changes for seconds after it was put to sleep, with the status of its pods. To go by it would
    /// often refuse a wake that nothing speaks against, and cost a read and a second write. So one without replicas is woken
    /// if it still has none; only where that is not told as expected does the version decide.
    async fn write(&self, to: u32, seen: &TargetState, priority: Priority) -> Result<Scale, CallError> {
        if seen.replicas == 0 && seen.version.is_some() {
            match self.patch(&from_none(to), priority).await {
                // That there are replicas, or a zero that is spelled out, or another reason that the second answer tells.
                Err(CallError::Invalid { .. } | CallError::Other { .. }) if self.leadership.is_leader() => {}
                answer => return answer,
            }
        }
        let mut patch = json!({"spec": {"replicas": to}});
        if let Some(version) = &seen.version {
            patch["metadata"] = json!({"resourceVersion": version});
        }
        self.patch(&Patch::Merge(patch), priority).await
    }

    async fn patch(&self, patch: &Patch<Value>, priority: Priority) -> Result<Scale, CallError> {
        let params = PatchParams::default();
        let call = self.api.patch_scale(&self.name, &params, patch);
        self.calls
            .unary(priority, "set the scale of a target", call)
            .await
    }
}

/// From no replicas, and from nothing else, to these. The spec of a `Scale` without replicas is empty.
fn from_none(to: u32) -> Patch<Value> {
    Patch::Json(json_patch::Patch(vec![
        PatchOperation::Test(TestOperation {
            path: PointerBuf::from_tokens(["spec"]),
            value: json!({}),
        }),
        PatchOperation::Add(AddOperation {
            path: PointerBuf::from_tokens(["spec", "replicas"]),
            value: to.into(),
        }),
    ]))
}

/// A failed call as the engine sees it. The API server's own sentence names the object.
#[must_use]
pub fn port_error(error: &CallError) -> PortError {
    PortError {
        category: error.category(),
        message: error.to_string(),
    }
}

impl Target for ScaleTarget {
    fn observe(&self, urgency: Urgency) -> BoxFuture<'_, Result<TargetState, PortError>> {
        async move {
            let scale = self.scale(priority(urgency)).await;
            scale
                .map(|scale| state(&scale))
                .map_err(|error| port_error(&error))
        }
        .boxed()
    }

    fn set_replicas<'a>(
        &'a self,
        to: u32,
        seen: &'a TargetState,
        urgency: Urgency,
    ) -> BoxFuture<'a, Result<TargetState, PortError>> {
        async move {
            if !self.leadership.is_leader() {
                return Err(not_leading());
            }
            let written = self.write(to, seen, priority(urgency)).await;
            written.map(|scale| state(&scale)).map_err(|error| match error {
                CallError::Conflict { .. } => PortError {
                    category: CHANGED,
                    message: error.to_string(),
                },
                error => port_error(&error),
            })
        }
        .boxed()
    }

    fn ready_replicas(&self) -> BoxFuture<'_, Result<u32, PortError>> {
        async { self.count_ready().await.map_err(|error| port_error(&error)) }.boxed()
    }
}

fn priority(urgency: Urgency) -> Priority {
    match urgency {
        Urgency::Wake => Priority::Wake,
        Urgency::Soon => Priority::Normal,
        Urgency::Routine => Priority::Routine,
    }
}

/// What a write is answered with on a replica that may not write.
#[must_use]
pub fn not_leading() -> PortError {
    PortError {
        category: "not-leader",
        message: "this replica does not lead, and so writes nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests;
