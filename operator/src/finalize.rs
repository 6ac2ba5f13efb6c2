//! The end of a ScaledObject: stop its loop, give the target its replicas back if asked to, let the object go.

use std::sync::Arc;

use dormouse_api::{ScaledObject, labels};
use dormouse_engine::{ObjectKey, Target, TargetState, Urgency};
use dormouse_kubernetes::{CallError, Priority};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tracing::{info, warn};

use crate::context::Context;
use crate::reconcile::{CheckFailure, reference};
use crate::target::ScaleTarget;

/// Lets a deleted object go. Whatever fails on the way, the object is not held back by it, but for the write that releases
/// it.
///
/// # Errors
/// The finalizer could not be removed.
pub async fn finalize(cx: &Context, key: &ObjectKey, object: &Arc<ScaledObject>) -> Result<(), CheckFailure> {
    cx.engine.remove(key).await;
    if !object
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == labels::FINALIZER)
    {
        return Ok(());
    }
    restore_replicas(cx, key, object).await;
    release(cx, key, object.finalizers(), object.resource_version().as_deref()).await?;
    cx.events.send_lifecycle(
        &reference(object),
        true,
        "ScaledObjectDeleted",
        "ScaledObject was deleted",
    );
    info!(object = %key, "object was deleted");
    Ok(())
}

/// Takes our finalizer off an object that has these `finalizers` in this `version`.
///
/// # Errors
/// It could not be removed.
pub(crate) async fn release(
    cx: &Context,
    key: &ObjectKey,
    finalizers: &[String],
    version: Option<&str>,
) -> Result<(), CheckFailure> {
    let rest: Vec<&String> = finalizers
        .iter()
        .filter(|finalizer| *finalizer != labels::FINALIZER)
        .collect();
    let patch = json!({"metadata": {"resourceVersion": version, "finalizers": rest}});
    let api: Api<ScaledObject> = Api::namespaced(cx.client.clone(), &key.namespace);
    let params = PatchParams::default();
    let patch = Patch::Merge(&patch);
    let call = api.patch_metadata(&key.name, &params, &patch);
    match cx
        .calls
        .unary(Priority::Normal, "release a deleted ScaledObject", call)
        .await
    {
        Ok(_) | Err(CallError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Gives the target the replicas it had before, where the object asks for that.
pub(crate) async fn restore_replicas(cx: &Context, key: &ObjectKey, object: &ScaledObject) {
    if !object.spec.restore_to_original_replica_count() {
        return;
    }
    // What this process wrote last may not have come back through the watch yet.
    let status = cx
        .status
        .wanted(key)
        .await
        .or_else(|| object.status.clone())
        .unwrap_or_default();
    let (Some(gvkr), Some(count)) = (status.scale_target_gvkr, status.original_replica_count) else {
        return;
    };
    let name = &object.spec.scale_target_ref.name;
    let target = ScaleTarget::new(&cx.client, &cx.calls, &cx.leadership, &key.namespace, name, &gvkr);
    // Whatever the count is by now, it goes back to what it was.
    let whatever = TargetState {
        replicas: 0,
        version: None,
    };
    if let Err(error) = target
        .set_replicas(u32::try_from(count).unwrap_or(0), &whatever, Urgency::Soon)
        .await
    {
        warn!(object = %key, %error, "original replicas not restored");
    }
}
