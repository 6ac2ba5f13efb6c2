//! TriggerAuthentications and ClusterTriggerAuthentications: their finalizer, their Events, and who uses them.

use std::fmt::Debug;

use dormouse_api::{
    ClusterTriggerAuthentication, ScaledObject, TriggerAuthentication, TriggerAuthenticationStatus, labels,
};
use dormouse_kubernetes::{CallError, ObjectKey, Priority, Watched};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::{info, warn};

use crate::context::Context;

/// What differs between the two kinds.
pub trait Authentication:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// Reasons of the Events: added, updated, deleted.
    const REASONS: [&'static str; 3];
    /// Value of the `type` label of `keda_resource_registered_total`.
    const METRIC: &'static str;
    /// The store its watch fills.
    fn store(cx: &Context) -> &Watched<Self>;
    /// The API of its namespace.
    fn api(client: Client, namespace: &str) -> Api<Self>;
    /// Its status.
    fn status(&self) -> Option<&TriggerAuthenticationStatus>;
}

impl Authentication for TriggerAuthentication {
    const REASONS: [&'static str; 3] = [
        "TriggerAuthenticationAdded",
        "TriggerAuthenticationUpdated",
        "TriggerAuthenticationDeleted",
    ];
    const METRIC: &'static str = "trigger_authentication";

    fn store(cx: &Context) -> &Watched<Self> {
        &cx.stores.trigger_authentications
    }

    fn api(client: Client, namespace: &str) -> Api<Self> {
        Api::namespaced(client, namespace)
    }

    fn status(&self) -> Option<&TriggerAuthenticationStatus> {
        self.status.as_ref()
    }
}

impl Authentication for ClusterTriggerAuthentication {
    const REASONS: [&'static str; 3] = [
        "ClusterTriggerAuthenticationAdded",
        "ClusterTriggerAuthenticationUpdated",
        "ClusterTriggerAuthenticationDeleted",
    ];
    const METRIC: &'static str = "cluster_trigger_authentication";

    fn store(cx: &Context) -> &Watched<Self> {
        &cx.stores.cluster_trigger_authentications
    }

    fn api(client: Client, _namespace: &str) -> Api<Self> {
        Api::all(client)
    }

    fn status(&self) -> Option<&TriggerAuthenticationStatus> {
        self.status.as_ref()
    }
}

/// Whether a ScaledObject refers to an authentication of this kind and key.
fn refers_to<K: Authentication>(object: &ScaledObject, key: &ObjectKey) -> bool {
    let same_scope = key.namespace.is_empty() || object.namespace().as_deref() == Some(&*key.namespace);
    let mut references = object
        .spec
        .triggers
        .iter()
        .filter_map(|trigger| trigger.authentication_ref.as_ref());
    same_scope && references.any(|reference| *reference.name == *key.name && reference.kind() == K::kind(&()))
}

/// The ScaledObjects that use an authentication, for checking them again when it changes.
#[must_use]
pub fn users<K: Authentication>(objects: &Watched<ScaledObject>, key: &ObjectKey) -> Vec<ObjectKey> {
    objects
        .list()
        .iter()
        .filter(|object| refers_to::<K>(object, key))
        .map(|object| ObjectKey::of(&**object))
        .collect()
}

/// The keys of the authentications that an object refers to.
#[must_use]
pub fn used_by<K: Authentication>(object: &ScaledObject) -> Vec<ObjectKey> {
    let namespaced = K::kind(&()) == TriggerAuthentication::kind(&());
    let namespace = if namespaced {
        object.namespace().unwrap_or_default()
    } else {
        String::new()
    };
    let references = object
        .spec
        .triggers
        .iter()
        .filter_map(|trigger| trigger.authentication_ref.as_ref());
    references
        .filter(|reference| reference.kind() == K::kind(&()))
        .map(|reference| ObjectKey::new(namespace.as_str(), reference.name.as_str()))
        .collect()
}

/// Brings one authentication in order: finalizer, the list of its users, Events. Leaders only.
///
/// # Errors
/// A call failed: try again.
pub async fn reconcile<K: Authentication>(cx: &Context, key: &ObjectKey) -> Result<(), CallError> {
    let Some(object) = K::store(cx).get(key) else {
        cx.metrics.unregister(K::METRIC, &key.namespace, &key.name);
        cx.authentications.forget(key);
        return Ok(());
    };
    if cx.leadership.is_leader() {
        cx.metrics.registered(K::METRIC, &key.namespace, &key.name, &[]);
    }
    // On a follower too: it may lead when the next change comes.
    let moved_on = cx.authentications.moved_on(key, object.meta());
    if !cx.leadership.is_leader() {
        return Ok(());
    }
    let kind = K::kind(&());
    let api = K::api(cx.client.clone(), &key.namespace);
    let [added, updated, deleted] = K::REASONS;
    let has_finalizer = object
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == labels::FINALIZER);
    let about = object.object_ref(&());
    if object.meta().deletion_timestamp.is_some() {
        if has_finalizer {
            let rest: Vec<_> = object
                .finalizers()
                .iter()
                .filter(|other| *other != labels::FINALIZER)
                .collect();
            set_finalizers(cx, &api, &*object, &json!(rest)).await?;
            cx.events
                .send_lifecycle(&about, false, deleted, format!("{kind} was deleted"));
        }
        return Ok(());
    }
    let is_new = object.meta().generation.is_none_or(|generation| generation == 1);
    if !has_finalizer {
        let mut all = object.finalizers().to_vec();
        all.push(labels::FINALIZER.to_owned());
        set_finalizers(cx, &api, &*object, &json!(all)).await?;
        if is_new {
            cx.events
                .send_lifecycle(&about, false, added, format!("New {kind} configured"));
        }
        info!(authentication = %key, kind = %kind, "authentication is watched over");
    }
    if moved_on || (!has_finalizer && !is_new) {
        cx.events
            .send_lifecycle(&about, false, updated, format!("{kind} {} is updated", key.name));
    }
    if (moved_on || !has_finalizer) && K::kind(&()) == ClusterTriggerAuthentication::kind(&()) {
        warn_of_open_hosts(cx, key, object.meta(), &about);
    }
    let mut names: Vec<String> = users::<K>(&cx.stores.scaled_objects, key)
        .iter()
        .map(|user| user.name.to_string())
        .collect();
    names.sort();
    names.dedup();
    let names = names.join(",");
    if object
        .status()
        .and_then(|status| status.scaledobjects.as_deref())
        .unwrap_or_default()
        == names
    {
        return Ok(());
    }
    let patch = Patch::Merge(json!({"status": {"scaledobjects": names}}));
    let params = PatchParams::default();
    let call = api.patch_status(&key.name, &params, &patch);
    cx.calls
        .unary(Priority::Normal, "write the status of an authentication", call)
        .await
        .map(drop)
}

/// Credentials that every namespace may send anywhere are worth a word, once.
fn warn_of_open_hosts(cx: &Context, key: &ObjectKey, metadata: &ObjectMeta, about: &ObjectReference) {
    let listed = metadata.annotations.as_ref();
    if listed.is_some_and(|annotations| annotations.contains_key(labels::ALLOWED_HOSTS)) {
        return;
    }
    let note = format!(
        "every namespace can send these credentials to any host: annotation {} may list the hosts that may see them",
        labels::ALLOWED_HOSTS
    );
    warn!(authentication = %key, reason = "AllowedHostsMissing", "{note}");
    cx.events.send(about, true, "AllowedHostsMissing", note);
}

async fn set_finalizers<K: Authentication>(
    cx: &Context,
    api: &Api<K>,
    object: &K,
    finalizers: &serde_json::Value,
) -> Result<(), CallError> {
    let version = object.resource_version();
    let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}}));
    let params = PatchParams::default();
    let name = object.name_any();
    let call = api.patch_metadata(&name, &params, &patch);
    match cx
        .calls
        .unary(Priority::Normal, "set the finalizer of an authentication", call)
        .await
    {
        Ok(_) | Err(CallError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
