//! ScaledObjects that refer to something that is not there, is not what it should be, or belongs to somebody else.

use std::time::Duration;

use anyhow::{Result, ensure};
use dormouse_tests::stage::{podless, scaled_object};
use dormouse_tests::{Scaled, Stage};
use serde_json::{Value, json};

use crate::cases::{Good, REPLICAS, Repair, Wrong};

const TARGET: &str = "ScaledObject doesn't have correct scaleTargetRef specification";
const BEARER: &str = "bearer token=<empty> is required when bearer auth is enabled";

/// What the cases below refer to besides what each brings along.
pub(crate) async fn prepare(stage: &Stage) -> Result<()> {
    stage.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "plain"}, "data": {"a": "b"}})).await?;
    stage.apply(secret("keys", "token")).await
}

/// Every such reference, one object each.
pub(crate) fn all(good: &Good) -> Vec<Wrong> {
    targets(good)
        .into_iter()
        .chain(rivals(good))
        .chain(authentications(good))
        .collect()
}

fn targets(good: &Good) -> Vec<Wrong> {
    let aimed = |name: &str, sentence: &str, reference: Value| {
        Wrong::spoiled(good, name, format!("{TARGET}: {sentence}"), |object| {
            object["spec"]["scaleTargetRef"] = reference
        })
    };
    vec![
        aimed(
            "no-target",
            "deployments.apps \"absent\" not found",
            json!({"name": "absent"}),
        )
        .warned("ScaledObjectCheckFailed", "Target resource doesn't exist")
        .repaired_by(Repair::Apply(vec![podless("absent", REPLICAS)])),
        aimed(
            "no-such-kind",
            "the API server serves no kind \"Nothing\" in \"example.com/v1\"",
            json!({"name": "x", "apiVersion": "example.com/v1", "kind": "Nothing"}),
        ),
        aimed(
            "bad-api-version",
            "apiVersion \"a/b/c\" is not valid: accepted are \"version\" and \"group/version\"",
            json!({"name": "x", "apiVersion": "a/b/c", "kind": "Nothing"}),
        ),
        aimed(
            "no-scale",
            "",
            json!({"name": "plain", "apiVersion": "v1", "kind": "ConfigMap"}),
        )
        .warned(
            "ScaledObjectCheckFailed",
            "Target resource doesn't expose /scale subresource",
        ),
        aimed(
            "cluster-scoped",
            "Namespace belongs to the whole cluster, and only namespaced kinds are accepted",
            json!({"name": "default", "apiVersion": "v1", "kind": "Namespace"}),
        ),
    ]
}

fn rivals(good: &Good) -> Vec<Wrong> {
    let unspoiled = |_: &mut Value| {};
    let on = |name: &str, target: &str| scaled_object(name, good.spec(target));
    let with_hpa = |object: &mut Value, hpa: &str| {
        object["spec"]["advanced"] = json!({"horizontalPodAutoscalerConfig": {"name": hpa}});
    };
    let mut first = on("hpa-name-first", "hpa-name-first");
    with_hpa(&mut first, "shared");
    let managed = |name: &str, by: &str| {
        format!("the workload '{name}' of type 'apps/v1.Deployment' is already managed by {by}")
    };
    vec![
        Wrong::spoiled(
            good,
            "rival-second",
            managed("rival-second", "the ScaledObject 'rival-first'"),
            unspoiled,
        )
        .besides([on("rival-first", "rival-second")])
        .repaired_by(Repair::Delete("scaledobject", "rival-first".into())),
        Wrong::spoiled(
            good,
            "hpa-name-second",
            "the HPA 'shared' is already managed by the ScaledObject 'hpa-name-first'",
            |object| with_hpa(object, "shared"),
        )
        .besides([podless("hpa-name-first", REPLICAS), first]),
        Wrong::spoiled(
            good,
            "foreign-hpa",
            managed("foreign-hpa", "the hpa 'by-hand'"),
            unspoiled,
        )
        .besides([hpa("by-hand", "foreign-hpa")])
        .repaired_by(Repair::Delete("hpa", "by-hand".into())),
        Wrong::spoiled(
            good,
            "own-name",
            managed(
                "own-name",
                "the hpa 'keda-hpa-own-name', which ScaledObject 'own-name' does not own: delete that HPA",
            ),
            unspoiled,
        )
        .besides([hpa("keda-hpa-own-name", "elsewhere")])
        .repaired_by(Repair::Delete("hpa", "keda-hpa-own-name".into())),
    ]
}

fn authentications(good: &Good) -> Vec<Wrong> {
    let bearer = |name: &str, sentence: &str, authentication: &str| {
        Wrong::spoiled(good, name, sentence, |object| with_bearer(object, authentication))
    };
    let role = json!({"podIdentity": {"provider": "aws", "roleArn": "arn:aws:iam::1:role/r", "identityOwner": "workload"}});
    let block = json!({"oauth2": {
        "clientId": "id", "tokenUrl": "http://tokens.shop.svc/token",
        "clientSecret": {"valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
    }});
    vec![
        bearer("no-auth", BEARER, "no-auth-yet").repaired_by(Repair::Apply(vec![from_secret(
            "no-auth-yet",
            "keys",
            "token",
        )])),
        bearer("no-secret", BEARER, "of-no-secret")
            .besides([from_secret("of-no-secret", "no-secret-yet", "token")])
            .repaired_by(Repair::Apply(vec![secret("no-secret-yet", "token")])),
        bearer("no-key", BEARER, "of-no-key")
            .besides([
                secret("other-keys", "other"),
                from_secret("of-no-key", "other-keys", "token"),
            ])
            .repaired_by(Repair::Apply(vec![secret("other-keys", "token")])),
        bearer(
            "auth-block",
            "TriggerAuthentication \"of-block\": spec.oauth2 is not supported yet: use secretTargetRef",
            "of-block",
        )
        .besides([authentication("of-block", block)])
        .repaired_by(Repair::Apply(vec![from_secret("of-block", "keys", "token")])),
        bearer(
            "auth-roles",
            "spec.podIdentity: roleArn can't be set if identityOwner is workload",
            "of-roles",
        )
        .besides([authentication("of-roles", role)]),
    ]
}

/// What is missing but not needed is told in a Warning, and the object works.
pub(crate) async fn missing_but_not_needed(stage: &Stage, good: &Good) -> Result<()> {
    let scaled = Scaled::watch(stage, "not-needed");
    stage.apply(podless("not-needed", 0)).await?;
    let mut object = good.object("not-needed");
    object["spec"]["triggers"][0]["authenticationRef"] =
        json!({"name": "absent", "kind": "ClusterTriggerAuthentication"});
    stage.apply(object).await?;
    scaled.is_ready().await?;
    scaled.has(i64::from(REPLICAS), Duration::from_secs(40)).await?;
    scaled
        .event(
            "KEDAScalerFailed",
            "ClusterTriggerAuthentication \"absent\" not found",
            1,
        )
        .await?;
    let failed = stage
        .count_events("not-needed", "ScaledObjectCheckFailed", "")
        .await?;
    ensure!(
        failed == 0,
        "{failed} Warnings say that the object is not in order"
    );
    Ok(())
}

/// A name that no label can hold is refused in a sentence, as the HPA selects its metrics by that label.
pub(crate) async fn a_name_that_is_too_long(stage: &Stage, good: &Good) -> Result<()> {
    let name = "n".repeat(64);
    let scaled = Scaled::watch(stage, &name);
    stage.apply(podless("long-name", REPLICAS)).await?;
    stage.apply(scaled_object(&name, good.spec("long-name"))).await?;
    scaled.is_refused("63").await?;
    scaled.event("ScaledObjectCheckFailed", "63", 1).await
}

fn with_bearer(object: &mut Value, authentication: &str) {
    let trigger = &mut object["spec"]["triggers"][0];
    trigger["metadata"]["authMode"] = json!("bearer");
    trigger["authenticationRef"] = json!({"name": authentication});
}

fn authentication(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": name}, "spec": spec})
}

fn from_secret(name: &str, secret: &str, key: &str) -> Value {
    authentication(
        name,
        json!({"secretTargetRef": [{"parameter": "bearerToken", "name": secret, "key": key}]}),
    )
}

fn secret(name: &str, key: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {key: "a-token"}})
}

fn hpa(name: &str, target: &str) -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name},
        "spec": {
            "minReplicas": REPLICAS, "maxReplicas": REPLICAS,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
        },
    })
}
