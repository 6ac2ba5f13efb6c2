//! One ScaledObject, from what the user wrote to what runs: check, set up, say so in the status.
//!
//! ```text
//! finalizer + label ──> policy, triggers ──> who else wants the target ──> /scale ──> references ──> engine.apply ──> status
//!        (1 write)                                                                    (HPA, 1 write)              (1 write)
//! ```
//!
//! Nothing here waits for a source: reading triggers is the engine's. On a process that does not lead, scalers are connected
//! and nothing is written.

use std::sync::Arc;
use std::time::Duration;

use dormouse_api::{GroupVersionKindResource, ScaledObject, ScaledObjectStatus, conditions, labels};
use dormouse_core::Pause;
use dormouse_engine::{Applied, ApplyError, ObjectKey, ObjectSpec, Ports, TriggerSpec};
use dormouse_kubernetes::calls::OUTAGE;
use dormouse_kubernetes::discovery::DiscoveryFailure;
use dormouse_kubernetes::{CallError, Priority};
use dormouse_translate::parameters::ResolveError;
use dormouse_translate::triggers::{distinct_authentications, distinct_types};
use dormouse_translate::{Resolver, annotations, policy, resources, triggers};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tracing::{debug, info, warn};

use crate::autoscaler::HpaAutoscaler;
use crate::conflicts::{in_the_way, outranked, target_type};
use crate::context::{Context, VERSION, watch_key};
pub use crate::failure::CheckFailure;
use crate::metrics::ResourceTrigger;
use crate::objects::ClusterObjects;
use crate::target::{ScaleTarget, replicas};
use crate::{changes, finalize, measured, status};

/// What a check found out on its way, for the status.
#[derive(Default)]
struct Found {
    target: Option<GroupVersionKindResource>,
    original_replicas: Option<u32>,
    missing: Vec<String>,
    measured: Vec<String>,
    applied: Option<Applied>,
    stopped: bool,
}

/// Brings one object in order.
///
/// # Errors
/// The object is not in order, or a call failed: try again, less and less often.
pub async fn reconcile(cx: &Arc<Context>, key: &ObjectKey, resumed: bool) -> Result<(), CheckFailure> {
    let outcome = bring_in_order(cx, key, resumed).await;
    let Err(failure) = outcome else { return Ok(()) };
    if failure.is_namespace_ending() {
        // The object's own deletion comes next, and is what there is to act on.
        debug!(object = %key, error = %failure, "the namespace is being deleted");
        return Ok(());
    }
    match failure.outage {
        Some(outage) => warn!(object = %key, outage, error = %failure, "check failed, trying again"),
        // What is wrong with the object itself was told when it changed.
        None => debug!(object = %key, error = %failure, "check failed, trying again"),
    }
    Err(failure)
}

async fn bring_in_order(cx: &Arc<Context>, key: &ObjectKey, resumed: bool) -> Result<(), CheckFailure> {
    let Some(mut object) = cx.stores.scaled_objects.get(&watch_key(key)) else {
        forget(cx, key).await;
        return Ok(());
    };
    let leads = cx.leadership.is_leader();
    if object.metadata.deletion_timestamp.is_some() {
        return if leads {
            finalize::finalize(cx, key, &object).await
        } else {
            Ok(())
        };
    }
    if leads {
        let status = object.status.clone().unwrap_or_default();
        cx.status.open(
            key,
            object.metadata.uid.as_deref().unwrap_or_default(),
            object.metadata.resource_version.as_deref(),
            &status,
        );
        match mark(cx, &object).await {
            Ok(Some(marked)) => object = Arc::new(marked),
            // A name that makes no label is refused by the check, in better words.
            Ok(None) | Err(CallError::Invalid { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let types: Vec<&str> = object
        .spec
        .triggers
        .iter()
        .map(|trigger| trigger.type_.as_str())
        .collect();
    if leads {
        cx.metrics
            .registered("scaled_object", &key.namespace, &key.name, &types);
    }
    let mut found = Found::default();
    let checked = check(cx, key, &object, resumed, leads, &mut found).await;
    let ending = checked.as_ref().is_err_and(CheckFailure::is_namespace_ending);
    if leads && !ending {
        report(cx, key, &object, &found, checked.as_ref().err()).await?;
    }
    checked
}

/// Series of triggers that an object no longer has, or that nobody reads while it is paused, leave the metrics.
fn keep_series(cx: &Context, key: &ObjectKey, object: &ScaledObject, found: &Found) {
    if annotations::pause_in_force(object.annotations()).is_full() {
        cx.metrics.has_triggers(key, &[], &[]);
    } else if let Some(applied) = &found.applied {
        let triggers = object.spec.triggers.iter().enumerate();
        let resources: Vec<ResourceTrigger<'_>> = triggers
            .filter(|(_, trigger)| matches!(trigger.type_.as_str(), "cpu" | "memory"))
            .map(|(index, trigger)| ResourceTrigger {
                index,
                name: trigger.name.as_deref().filter(|name| !name.is_empty()),
                resource: &trigger.type_,
            })
            .collect();
        cx.metrics.has_triggers(key, &applied.metric_names, &resources);
    }
}

/// The object is gone: from the API server, or from what this operator watches.
async fn forget(cx: &Context, key: &ObjectKey) {
    cx.engine.remove(key).await;
    cx.references.forget(key);
    cx.status.close(key);
    cx.metrics.forget(key);
    cx.metrics.unregister("scaled_object", &key.namespace, &key.name);
}

/// The finalizer and the label that HPAs select by, in one write. The answer is the object as it is then, if it was not so
/// before.
async fn mark(cx: &Context, object: &ScaledObject) -> Result<Option<ScaledObject>, CallError> {
    let name = object.name_any();
    let mut marked = object.clone();
    let finalizers = marked.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == labels::FINALIZER) {
        finalizers.push(labels::FINALIZER.to_owned());
    }
    let own_labels = marked.metadata.labels.get_or_insert_default();
    own_labels.insert(labels::SCALED_OBJECT_NAME.to_owned(), name.clone());
    if marked.finalizers() == object.finalizers() && marked.labels() == object.labels() {
        return Ok(None);
    }
    // The version makes a patch that was computed from an old list fail instead of dropping someone else's finalizer.
    let patch = json!({"metadata": {
        "resourceVersion": object.resource_version(),
        "finalizers": marked.finalizers(),
        "labels": {labels::SCALED_OBJECT_NAME: name},
    }});
    let api: Api<ScaledObject> = Api::namespaced(
        cx.client.clone(),
        object.metadata.namespace.as_deref().unwrap_or_default(),
    );
    let params = PatchParams::default();
    let patch = Patch::Merge(&patch);
    let key = dormouse_kubernetes::ObjectKey::of(object);
    // Before the patch: the watch may show its effect before its answer comes.
    cx.stores
        .seen_objects
        .expect(&key, changes::of_scaled_object(&marked));
    let call = api.patch_metadata(&name, &params, &patch);
    let patched = cx
        .calls
        .unary(Priority::Normal, "mark a ScaledObject as watched over", call)
        .await;
    if let Err(error) = patched {
        cx.stores
            .seen_objects
            .expect(&key, changes::of_scaled_object(object));
        return Err(error);
    }
    Ok(Some(marked))
}

async fn check(
    cx: &Arc<Context>,
    key: &ObjectKey,
    object: &Arc<ScaledObject>,
    resumed: bool,
    leads: bool,
    found: &mut Found,
) -> Result<(), CheckFailure> {
    // A brake must work on an object that is wrong, too: pausing comes before all checks but that of the target.
    let pause = annotations::pause_in_force(object.annotations());
    if let Pause::Full { replicas } = pause {
        found.stopped = cx.engine.stop(key).await;
        let gvkr = resolve_target(cx, key, object).await?;
        hold_paused(cx, key, object, &gvkr, replicas, found).await?;
        return match annotations::pause(object.annotations()) {
            Ok(_) => Ok(()),
            Err(refusal) => Err(CheckFailure::new(
                "ScaledObject doesn't have a correct specification",
                refusal,
            )),
        };
    }
    let mut policy = policy(object)
        .map_err(|refusal| CheckFailure::new("ScaledObject doesn't have a correct specification", refusal))?;
    let plans = triggers(object).map_err(|refusal| {
        CheckFailure::new(
            "ScaledObject doesn't have correct triggers specification",
            refusal,
        )
    })?;
    let gvkr = resolve_target(cx, key, object).await?;
    found.target = Some(gvkr.clone());
    let ports = ports(cx, key, object, &gvkr);
    let (others, hpas) = cx.stores.neighbours.of(object, &cx.stores);
    if let Some(conflict) = in_the_way(object, &gvkr, &others, &hpas) {
        // Two owners of one target would fight over it for ever.
        cx.engine.stop(key).await;
        if leads && let Err(error) = ports.autoscaler.remove().await {
            warn!(object = %key, %error, "the HPA of an object that may not scale is still there");
        }
        return Err(CheckFailure {
            message: conflict,
            scaler: None,
            transient: false,
            outage: None,
        });
    }
    for other in outranked(object, &others).filter(|_| leads) {
        (cx.look_again)(ObjectKey::new(&key.namespace, other.name_any()), Duration::ZERO);
    }
    let target = scale_target(cx, key, object, &gvkr);
    if leads {
        found.original_replicas = Some(check_scale(cx, key, object, &target).await?);
    }
    let objects = ClusterObjects {
        trigger_authentications: &cx.stores.trigger_authentications,
        cluster_trigger_authentications: &cx.stores.cluster_trigger_authentications,
        lookup: cx.references.lookup(key),
        target: target.reference(),
    };
    let resources = resources(object).map_err(|error| CheckFailure {
        scaler: Some(error.to_string()),
        ..CheckFailure::new(
            "failed to ensure HPA is correctly created for ScaledObject",
            error,
        )
    })?;
    measured::check(cx, key, &objects, &gvkr, &resources).await?;
    found.measured = measured::names(&resources);
    policy.resources = resources;
    let resolver = Resolver::new(&objects, object, &cx.resolver);
    let mut specs = Vec::with_capacity(plans.len());
    for plan in &plans {
        let resolved = resolver
            .resolve(plan.trigger)
            .await
            .map_err(|error| CheckFailure {
                transient: matches!(error, ResolveError::Lookup(_)),
                outage: matches!(error, ResolveError::Lookup(_)).then_some(OUTAGE),
                scaler: None,
                message: format!("failed to ensure HPA is correctly created for ScaledObject: {error}"),
            })?;
        found.missing.extend(resolved.missing);
        specs.push(TriggerSpec {
            index: plan.index,
            name: plan.trigger.name.clone().filter(|name| !name.is_empty()),
            target_kind: plan.target_kind,
            use_cached_metrics: plan.trigger.use_cached_metrics,
            params: resolved.params,
        });
    }
    objects.lookup.complete();
    let status = object.status.clone().unwrap_or_default();
    let spec = ObjectSpec {
        key: key.clone(),
        uid: object.uid().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or_default(),
        created: object
            .creation_timestamp()
            .map_or_else(jiff::Timestamp::now, |time| time.0),
        policy,
        triggers: specs,
        last_active: status.last_active_time.as_ref().map(|time| time.0),
        was_active: status::holds(&status, conditions::ACTIVE),
        resumed,
    };
    found.applied = Some(cx.engine.apply(spec, ports).await.map_err(apply_failure)?);
    Ok(())
}

fn scale_target(
    cx: &Context,
    key: &ObjectKey,
    object: &ScaledObject,
    gvkr: &GroupVersionKindResource,
) -> ScaleTarget {
    let name = &object.spec.scale_target_ref.name;
    ScaleTarget::new(&cx.client, &cx.calls, &cx.leadership, &key.namespace, name, gvkr)
}

fn ports(
    cx: &Context,
    key: &ObjectKey,
    object: &Arc<ScaledObject>,
    gvkr: &GroupVersionKindResource,
) -> Ports {
    let autoscaler = HpaAutoscaler {
        client: cx.client.clone(),
        calls: cx.calls.clone(),
        leadership: cx.leadership.clone(),
        hpas: cx.stores.hpas.clone(),
        seen: cx.stores.seen_hpas.clone(),
        object: object.clone(),
        target: gvkr.clone(),
        look_again: cx.look_again.clone(),
        known_name: object.status.as_ref().and_then(|status| status.hpa_name.clone()),
        version: VERSION,
    };
    Ports {
        target: Arc::new(scale_target(cx, key, object, gvkr)),
        autoscaler: Arc::new(autoscaler),
    }
}

/// Stops everything about an object, whatever else may be wrong with it.
async fn hold_paused(
    cx: &Context,
    key: &ObjectKey,
    object: &Arc<ScaledObject>,
    gvkr: &GroupVersionKindResource,
    replicas: Option<u32>,
    found: &mut Found,
) -> Result<(), CheckFailure> {
    let ports = ports(cx, key, object, gvkr);
    found.stopped |= cx
        .engine
        .pause(key, replicas, &ports)
        .await
        .map_err(apply_failure)?;
    cx.references.forget(key);
    Ok(())
}

async fn resolve_target(
    cx: &Context,
    key: &ObjectKey,
    object: &ScaledObject,
) -> Result<GroupVersionKindResource, CheckFailure> {
    let reference = &object.spec.scale_target_ref;
    let prefix = "ScaledObject doesn't have correct scaleTargetRef specification";
    if reference.name.is_empty() {
        return Err(CheckFailure::new(
            prefix,
            "ScaledObject.spec.scaleTargetRef.name is missing",
        ));
    }
    let found = cx
        .discovery
        .resolve(reference.api_version(), reference.kind())
        .await;
    let kind = found.map_err(|error| CheckFailure {
        transient: matches!(error, DiscoveryFailure::Call(_)),
        outage: matches!(error, DiscoveryFailure::Call(_)).then_some(OUTAGE),
        ..CheckFailure::new(
            prefix,
            format!("{error} (ScaledObject {key}, spec.scaleTargetRef)"),
        )
    })?;
    if !kind.namespaced {
        let refusal = format!(
            "{} belongs to the whole cluster, and only namespaced kinds are accepted",
            reference.kind()
        );
        return Err(CheckFailure::new(prefix, refusal));
    }
    Ok(GroupVersionKindResource {
        group: kind.resource.group.clone(),
        version: kind.resource.version.clone(),
        kind: kind.resource.kind.clone(),
        resource: kind.resource.plural.clone(),
    })
}

/// Reads the target's scale; if there is none, says whether it is the target or its /scale that is missing.
async fn check_scale(
    cx: &Context,
    key: &ObjectKey,
    object: &ScaledObject,
    target: &ScaleTarget,
) -> Result<u32, CheckFailure> {
    let prefix = "ScaledObject doesn't have correct scaleTargetRef specification";
    let error = match target.scale(Priority::Normal).await {
        Ok(scale) => return Ok(replicas(&scale)),
        Err(error) => error,
    };
    if !matches!(error, CallError::NotFound { .. }) {
        return Err(CheckFailure {
            transient: true,
            outage: error.outage(),
            ..CheckFailure::new(prefix, error)
        });
    }
    let note = match target.exists().await {
        Ok(true) => "Target resource doesn't expose /scale subresource",
        _ => "Target resource doesn't exist",
    };
    if !was_failed(cx, key).await {
        cx.events
            .send(&reference(object), true, "ScaledObjectCheckFailed", note);
    }
    let CallError::NotFound { message, .. } = &error else {
        return Err(CheckFailure::new(prefix, error));
    };
    Err(CheckFailure::new(prefix, message))
}

async fn was_failed(cx: &Context, key: &ObjectKey) -> bool {
    cx.status
        .wanted(key)
        .await
        .is_some_and(|status| status::check_failed(&status))
}

fn apply_failure(error: ApplyError) -> CheckFailure {
    let transient = match &error {
        ApplyError::Autoscaler(port) | ApplyError::PausedReplicas(port) => {
            matches!(port.category, "timeout" | "unreachable" | "throttled")
        }
        ApplyError::Trigger { .. } | ApplyError::DuplicateMetric { .. } => false,
    };
    let scaler = matches!(error, ApplyError::Trigger { .. }).then(|| error.to_string());
    CheckFailure {
        transient,
        outage: transient.then_some(OUTAGE),
        scaler,
        ..CheckFailure::new(
            "failed to ensure HPA is correctly created for ScaledObject",
            error,
        )
    }
}

/// An object as Events refer to it.
#[must_use]
pub fn reference(object: &ScaledObject) -> ObjectReference {
    object.object_ref(&())
}

/// Writes what was found into the status, in one patch, and emits the Events of the change.
async fn report(
    cx: &Context,
    key: &ObjectKey,
    object: &ScaledObject,
    found: &Found,
    failure: Option<&CheckFailure>,
) -> Result<(), CheckFailure> {
    let hpa = object.spec.hpa_name(&object.name_any());
    let pause = annotations::pause_in_force(object.annotations());
    cx.metrics.checked(key, pause.is_paused());
    keep_series(cx, key, object, found);
    if failure.is_some() {
        cx.metrics.object_error(key);
    }
    // An API server that did not answer says nothing about the object: what its status says stays.
    if failure.is_some_and(|failure| failure.transient) {
        return Ok(());
    }
    let changed = cx.status.update(key, |status| {
        status.triggers_types = Some(distinct_types(object));
        status.authentications_types = Some(distinct_authentications(object));
        if let Some(target) = &found.target
            && (failure.is_none() || found.original_replicas.is_some())
        {
            status.scale_target_kind = Some(target_type(target));
            status.scale_target_gvkr = Some(target.clone());
        }
        if status.original_replica_count.is_none() {
            status.original_replica_count = found
                .original_replicas
                .and_then(|count| i32::try_from(count).ok());
        }
        if let Some(applied) = &found.applied {
            status.external_metric_names.clone_from(&applied.metric_names);
            status.resource_metric_names.clone_from(&found.measured);
            status.hpa_name = Some(hpa.clone());
            status
                .triggers_activity
                .retain(|name, _| applied.metric_names.contains(name));
            status
                .health
                .retain(|name, _| applied.metric_names.contains(name));
        }
        match failure {
            None => status::set_checked(status, pause),
            Some(failure) => {
                status::set_check_failed(status, &failure.message);
                status::set_paused(status, pause);
            }
        }
    });
    let Some(changed) = changed.await else {
        return Ok(());
    };
    emit(cx, key, object, found, failure, &changed.before, &changed.after);
    match changed.failed {
        None => Ok(()),
        // What is not written stays wanted, and nothing else may come by to write it.
        Some(error) => Err(error.into()),
    }
}

fn emit(
    cx: &Context,
    key: &ObjectKey,
    object: &ScaledObject,
    found: &Found,
    failure: Option<&CheckFailure>,
    before: &ScaledObjectStatus,
    after: &ScaledObjectStatus,
) {
    let about = reference(object);
    if let Some(failure) = failure {
        if status::find(before, conditions::READY) != status::find(after, conditions::READY) {
            warn!(object = %key, reason = "ScaledObjectCheckFailed", message = %failure, "object is not in order");
            if let Some(scaler) = &failure.scaler {
                cx.events.send(&about, true, "KEDAScalerFailed", scaler);
            }
            cx.events
                .send_lifecycle(&about, true, "ScaledObjectCheckFailed", &failure.message);
        }
        return;
    }
    if let Some(applied) = &found.applied {
        if !applied.built.is_empty() {
            for missing in &found.missing {
                cx.events.send(&about, true, "KEDAScalerFailed", missing);
            }
        }
        for type_ in &applied.built {
            cx.events.send(
                &about,
                false,
                "KEDAScalersStarted",
                format!("Scaler {type_} is built"),
            );
        }
        if applied.started {
            let note = "Started scalers watch".to_owned();
            cx.events.send_with_action(
                &about,
                false,
                "KEDAScalersStarted",
                "ScalersWatchStarted".to_owned(),
                note,
            );
        }
    }
    if found.stopped {
        cx.events
            .send(&about, false, "KEDAScalersStopped", "Stopped scalers watch");
    }
    match (
        status::holds(before, conditions::PAUSED),
        status::holds(after, conditions::PAUSED),
    ) {
        (false, true) => {
            cx.events
                .send_lifecycle(&about, false, "ScaledObjectPaused", "ScaledObject is paused")
        }
        (true, false) => {
            let note = "pause annotation removed for ScaledObject";
            cx.events
                .send_lifecycle(&about, false, "ScaledObjectUnpaused", note);
        }
        _ => {}
    }
    if !status::holds(before, conditions::READY) && status::holds(after, conditions::READY) {
        info!(object = %key, metrics = ?after.external_metric_names, "object is ready");
        cx.events.send_lifecycle(
            &about,
            false,
            "ScaledObjectReady",
            "ScaledObject is ready for scaling",
        );
    }
}
