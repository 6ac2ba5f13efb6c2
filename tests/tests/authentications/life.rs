//! An authentication from its creation to its end, and what its users see of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use dormouse_api::{ClusterTriggerAuthentication, TriggerAuthentication};
use dormouse_tests::scaled::SOON;
use dormouse_tests::stage::{Leftover, podless, scaled_object};
use dormouse_tests::upstream::Answer;
use dormouse_tests::{Scaled, Stage, Upstream, manifest, until};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams};
use kube::core::ApiResource;
use serde_json::{Value, json};

const FIRST: &str = "CANARY-FIRST-TOKEN-1b7c";
const SECOND: &str = "CANARY-SECOND-TOKEN-f02e";
/// What must be read nowhere but at the source.
pub(crate) const CANARIES: [&str; 2] = [FIRST, SECOND];

/// Finalizer, users by name, one Event per change, and a deletion that nobody holds up.
pub(crate) async fn finalizer_users_and_events(stage: &Stage) -> Result<()> {
    stage.apply(secret("shared", FIRST)).await?;
    stage.apply(authentication("shared", "shared", "token")).await?;
    let upstream = Upstream::start(Answer::value(5.0)).await?;
    for name in ["user-b", "user-a"] {
        stage.apply(podless(name, 1)).await?;
        stage
            .apply(user(name, &upstream, "TriggerAuthentication", "shared"))
            .await?;
    }
    let api = stage.dynamic(&ApiResource::erase::<TriggerAuthentication>(&()));
    has(&api, "shared", "user-a,user-b").await?;
    told(
        stage,
        "shared",
        "TriggerAuthenticationAdded",
        "New TriggerAuthentication configured",
        1,
    )
    .await?;
    let listed = stage
        .namespace
        .kubectl(&["get", "triggerauthentication", "shared", "--output", "wide"])
        .await?;
    ensure!(listed.contains("user-a,user-b"), "{listed}");

    stage.apply(authentication("shared", "shared", "other")).await?;
    told(
        stage,
        "shared",
        "TriggerAuthenticationUpdated",
        "TriggerAuthentication shared is updated",
        1,
    )
    .await?;
    stage.unscale("user-a").await?;
    has(&api, "shared", "user-b").await?;
    api.delete("shared", &DeleteParams::default()).await?;
    until("the authentication is gone", SOON, async || {
        ensure!(api.get_opt("shared").await?.is_none(), "it is still there");
        Ok(())
    })
    .await?;
    told(
        stage,
        "shared",
        "TriggerAuthenticationDeleted",
        "TriggerAuthentication was deleted",
        1,
    )
    .await?;
    told(stage, "shared", "TriggerAuthenticationAdded", "", 1).await
}

/// The same for the cluster-wide kind, whose Events are in the namespace `default`.
pub(crate) async fn of_a_cluster_wide_one(stage: &Stage) -> Result<()> {
    let name = format!("{}-wide", stage.namespace.name());
    let home = stage.installation.namespace();
    let _authentication = Leftover::new(&stage.cluster, "clustertriggerauthentication", &name, home);
    let _secret = Leftover::new(&stage.cluster, "secret", &name, home);
    manifest::apply_value(&stage.cluster, home, secret(&name, FIRST)).await?;
    let mut object = authentication(&name, &name, "token");
    object["kind"] = json!("ClusterTriggerAuthentication");
    stage.apply(object).await?;
    let upstream = Upstream::start(Answer::value(5.0)).await?;
    stage.apply(podless("wide-user", 1)).await?;
    stage
        .apply(user(
            "wide-user",
            &upstream,
            "ClusterTriggerAuthentication",
            &name,
        ))
        .await?;
    let resource = ApiResource::erase::<ClusterTriggerAuthentication>(&());
    let api: Api<DynamicObject> = Api::all_with(stage.cluster.client(), &resource);
    has(&api, &name, "wide-user").await?;
    let events: Api<Event> = Api::namespaced(stage.cluster.client(), "default");
    let selected = ListParams::default().fields(&format!("regarding.name={name}"));
    until("an Event in the namespace default", SOON, async || {
        let found = events.list(&selected).await?.items;
        let added = found
            .iter()
            .filter(|event| event.reason.as_deref() == Some("ClusterTriggerAuthenticationAdded"));
        ensure!(added.count() == 1, "{found:#?}");
        Ok(())
    })
    .await
}

/// The object is not touched: the authentication alone is pointed at another key.
pub(crate) async fn a_changed_authentication_takes_effect(stage: &Stage) -> Result<()> {
    let mut keys = secret("turned", FIRST);
    keys["stringData"]["other"] = json!(SECOND);
    stage.apply(keys).await?;
    stage.apply(authentication("turned", "turned", "token")).await?;
    let upstream = Upstream::start(Answer::value(5.0)).await?;
    stage.apply(podless("turned", 1)).await?;
    let scaled = Scaled::watch(stage, "turned");
    stage
        .apply(user("turned", &upstream, "TriggerAuthentication", "turned"))
        .await?;
    asked_with(&upstream, FIRST, SOON).await?;
    stage.apply(authentication("turned", "turned", "other")).await?;
    asked_with(&upstream, SECOND, Duration::from_secs(10)).await?;
    scaled.is_ready().await?;
    ensure!(scaled.counts() == [1], "{:?}", scaled.counts());
    Ok(())
}

/// A Secret is read again when the source refuses what was in it.
pub(crate) async fn a_changed_secret_takes_effect_once_the_old_one_is_refused(stage: &Stage) -> Result<()> {
    stage.apply(secret("rotated", FIRST)).await?;
    stage.apply(authentication("rotated", "rotated", "token")).await?;
    let upstream = Upstream::start(Answer::value(5.0)).await?;
    stage.apply(podless("rotated", 1)).await?;
    let scaled = Scaled::watch(stage, "rotated");
    stage
        .apply(user("rotated", &upstream, "TriggerAuthentication", "rotated"))
        .await?;
    asked_with(&upstream, FIRST, SOON).await?;
    scaled.is_ready().await?;
    stage.apply(secret("rotated", SECOND)).await?;
    upstream.answer(Answer::status(401, ""));
    asked_with(&upstream, SECOND, SOON).await?;
    upstream.answer(Answer::value(5.0));
    scaled.is_ready().await?;
    ensure!(scaled.counts() == [1], "{:?}", scaled.counts());
    Ok(())
}

/// Waits until the newest request carries this token.
async fn asked_with(upstream: &Upstream, token: &str, deadline: Duration) -> Result<()> {
    let wanted = format!("Bearer {token}");
    until("a request with the right token", deadline, async || {
        let newest = upstream.seen().pop();
        let sent = newest.as_ref().and_then(|seen| seen.headers.get("authorization"));
        ensure!(
            sent.is_some_and(|value| *value == wanted),
            "the newest request has another one, or none"
        );
        Ok(())
    })
    .await
}

/// Waits until an authentication has its finalizer and these users.
async fn has(api: &Api<DynamicObject>, name: &str, users: &str) -> Result<()> {
    until(&format!("{name} has the users {users}"), SOON, async || {
        let object = api.get(name).await?;
        ensure!(
            object.metadata.finalizers == Some(vec!["finalizer.keda.sh".to_owned()]),
            "{:?}",
            object.metadata.finalizers
        );
        ensure!(
            object.data["status"]["scaledobjects"] == users,
            "{}",
            object.data["status"]
        );
        Ok(())
    })
    .await
}

async fn told(stage: &Stage, name: &str, reason: &str, note: &str, times: i32) -> Result<()> {
    until(
        &format!("{times} Events {reason} about {name}"),
        SOON,
        async || {
            let count = stage.count_events(name, reason, note).await?;
            ensure!(count == times, "{count} among {:#?}", stage.events(name).await?);
            Ok(())
        },
    )
    .await
}

fn user(name: &str, upstream: &Upstream, kind: &str, authentication: &str) -> Value {
    scaled_object(
        name,
        json!({
            "scaleTargetRef": {"name": name}, "pollingInterval": 1, "maxReplicaCount": 1,
            "triggers": [{
                "type": "metrics-api", "authenticationRef": {"name": authentication, "kind": kind},
                "metadata": {"url": upstream.url("/"), "valueLocation": "value", "targetValue": "5", "authMode": "bearer"},
            }],
        }),
    )
}

fn authentication(name: &str, secret: &str, key: &str) -> Value {
    json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": name},
        "spec": {"secretTargetRef": [{"parameter": "bearerToken", "name": secret, "key": key}]},
    })
}

fn secret(name: &str, token: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"token": token}})
}
