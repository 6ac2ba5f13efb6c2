//! Each source of a parameter, seen at the far end: in the request that the operator makes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::stage::{Leftover, podless, scaled_object};
use dormouse_tests::upstream::{Answer, Seen};
use dormouse_tests::{Scaled, Stage, Upstream, manifest, until};
use serde_json::{Value, json};

const HEADER_VALUE: &str = "CANARY-CUSTOM-c41d";
const PASSWORD: &str = "CANARY-PASSWORD-88e2";
const CLUSTER_TOKEN: &str = "CANARY-CLUSTER-05af";
const SECRET_KEY: &str = "CANARY-AWS-SECRET-e9b3";
/// What must be read nowhere but at the source.
pub(crate) const CANARIES: [&str; 4] = [HEADER_VALUE, PASSWORD, CLUSTER_TOKEN, SECRET_KEY];

/// A header whose name is in a ConfigMap and whose value is in a Secret.
pub(crate) async fn from_a_secret_and_a_config_map(stage: &Stage) -> Result<()> {
    stage
        .apply(secret("custom", json!({"value": HEADER_VALUE})))
        .await?;
    stage
        .apply(config_map("custom", json!({"header": "X-Custom-Key"})))
        .await?;
    let spec = json!({
        "configMapTargetRef": [{"parameter": "customAuthHeader", "name": "custom", "key": "header"}],
        "secretTargetRef": [{"parameter": "customAuthValue", "name": "custom", "key": "value"}],
    });
    stage.apply(authentication("custom", spec)).await?;
    let seen = first_request(
        stage,
        "custom",
        "custom",
        "TriggerAuthentication",
        podless("custom", 1),
    )
    .await?;
    ensure!(
        header(&seen, "x-custom-key") == Some(HEADER_VALUE),
        "the header did not arrive"
    );
    Ok(())
}

/// Variables of the target's containers: plain, from a Secret by key, and all of a ConfigMap with a prefix; of the first
/// container, or of the one that is named.
pub(crate) async fn from_the_environment(stage: &Stage) -> Result<()> {
    stage.apply(secret("env", json!({"password": PASSWORD}))).await?;
    stage.apply(config_map("env", json!({"LOGIN": "worker"}))).await?;
    let mut target = podless("env", 1);
    let first = &mut target["spec"]["template"]["spec"]["containers"][0];
    first["envFrom"] = json!([{"prefix": "APP_", "configMapRef": {"name": "env"}}]);
    first["env"] = json!([{"name": "SHARED", "value": "of the first"}]);
    let mut second = first.clone();
    second["name"] = json!("second");
    second["env"] = json!([
        {"name": "SHARED", "value": "of the second"},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "env", "key": "password"}}},
    ]);
    target["spec"]["template"]["spec"]["containers"] = json!([first, second]);
    let spec = json!({"env": [
        {"parameter": "username", "name": "APP_LOGIN"},
        {"parameter": "password", "name": "PASSWORD", "containerName": "second"},
        {"parameter": "apiKey", "name": "SHARED"},
    ]});
    stage.apply(authentication("env", spec)).await?;
    let seen = first_request(stage, "env", "basic,apiKey", "TriggerAuthentication", target).await?;
    let basic = header(&seen, "authorization").and_then(|value| value.strip_prefix("Basic "));
    // base64 of "worker:CANARY-PASSWORD-88e2"
    ensure!(
        basic == Some("d29ya2VyOkNBTkFSWS1QQVNTV09SRC04OGUy"),
        "user and password did not arrive"
    );
    ensure!(
        header(&seen, "x-api-key") == Some("of the first"),
        "the key is {:?}",
        header(&seen, "x-api-key")
    );
    Ok(())
}

/// A ClusterTriggerAuthentication's Secrets are in the operator's own namespace.
pub(crate) async fn from_a_cluster_wide_one(stage: &Stage) -> Result<()> {
    let name = format!("{}-wide", stage.namespace.name());
    let home = stage.installation.namespace();
    let _authentication = Leftover::new(&stage.cluster, "clustertriggerauthentication", &name, home);
    let _secret = Leftover::new(&stage.cluster, "secret", &name, home);
    manifest::apply_value(
        &stage.cluster,
        home,
        secret(&name, json!({"token": CLUSTER_TOKEN})),
    )
    .await?;
    // A Secret of the same name in the object's namespace must not be taken for it.
    stage.apply(secret(&name, json!({"token": "wrong"}))).await?;
    let mut object = authentication(
        &name,
        json!({
            "secretTargetRef": [{"parameter": "bearerToken", "name": name, "key": "token"}],
        }),
    );
    object["kind"] = json!("ClusterTriggerAuthentication");
    stage.apply(object).await?;
    let seen = first_request_with(
        stage,
        "wide",
        &name,
        "bearer",
        "ClusterTriggerAuthentication",
        podless("wide", 1),
    )
    .await?;
    let expected = format!("Bearer {CLUSTER_TOKEN}");
    ensure!(
        header(&seen, "authorization") == Some(expected.as_str()),
        "the token did not arrive"
    );
    Ok(())
}

/// `queueURLFromEnv` and `awsAccessKeyIDFromEnv` without any authentication object.
pub(crate) async fn keys_of_a_queue_from_the_environment(stage: &Stage) -> Result<()> {
    let answer = json!({"Attributes": {"ApproximateNumberOfMessages": "5", "ApproximateNumberOfMessagesNotVisible": "0"}});
    let upstream = Upstream::start(Answer::status(200, answer.to_string())).await?;
    stage
        .apply(secret("queue", json!({"secret": SECRET_KEY})))
        .await?;
    let mut target = podless("queue", 1);
    target["spec"]["template"]["spec"]["containers"][0]["env"] = json!([
        {"name": "HOST", "value": upstream.url("")},
        {"name": "QUEUE", "value": "$(HOST)/000000000000/from-env"},
        {"name": "KEY", "value": "AKFROMENV"},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "queue", "key": "secret"}}},
    ]);
    stage.apply(target).await?;
    let scaled = Scaled::watch(stage, "queue");
    stage.apply(scaled_object("queue", json!({
        "scaleTargetRef": {"name": "queue"}, "pollingInterval": 1, "maxReplicaCount": 1,
        "triggers": [{"type": "aws-sqs-queue", "metadata": {
            "queueURLFromEnv": "QUEUE", "awsAccessKeyIDFromEnv": "KEY", "awsSecretAccessKeyFromEnv": "SECRET",
            "awsRegion": "eu-west-1", "awsEndpoint": upstream.url(""),
        }}],
    })))
    .await?;
    scaled.is_ready().await?;
    scaled.condition_is("Active", "True", "ScalerActive").await?;
    let seen = upstream.seen().into_iter().next().context("no request")?;
    let signed = header(&seen, "authorization").unwrap_or_default();
    ensure!(
        signed.contains("Credential=AKFROMENV/") && signed.contains("/eu-west-1/sqs/"),
        "the request was signed by {signed:?}"
    );
    let value = stage.metric_value("queue", "s0-aws-sqs-from-env").await?;
    ensure!(value == "5", "{value}");
    Ok(())
}

async fn first_request(stage: &Stage, name: &str, modes: &str, kind: &str, target: Value) -> Result<Seen> {
    first_request_with(stage, name, name, modes, kind, target).await
}

/// The first request of a ScaledObject `name` that uses an authentication.
async fn first_request_with(
    stage: &Stage,
    name: &str,
    authentication: &str,
    modes: &str,
    kind: &str,
    target: Value,
) -> Result<Seen> {
    let upstream = Upstream::start(Answer::value(5.0)).await?;
    stage.apply(target).await?;
    stage.apply(scaled_object(name, json!({
        "scaleTargetRef": {"name": name}, "pollingInterval": 1, "maxReplicaCount": 1,
        "triggers": [{
            "type": "metrics-api", "authenticationRef": {"name": authentication, "kind": kind},
            "metadata": {"url": upstream.url("/"), "valueLocation": "value", "targetValue": "5", "authModes": modes},
        }],
    })))
    .await?;
    until(
        &format!("a request of {name}"),
        Duration::from_secs(30),
        async || upstream.seen().into_iter().next().context("there is none"),
    )
    .await
}

fn header<'s>(seen: &'s Seen, name: &str) -> Option<&'s str> {
    seen.headers.get(name)?.to_str().ok()
}

fn authentication(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": name}, "spec": spec})
}

fn secret(name: &str, values: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values})
}

fn config_map(name: &str, values: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": values})
}
