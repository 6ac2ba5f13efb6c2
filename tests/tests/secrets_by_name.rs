//! An operator that may read Secrets of certain names only: it watches those one by one and uses them as ever, and no other.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::stage::{podless, scaled_object};
use dormouse_tests::upstream::Answer;
use dormouse_tests::{Cluster, Installation, Scaled, Stage, Upstream, until};
use serde_json::{Value, json};

const TOKENS: [&str; 2] = ["CANARY-NARROW-0", "CANARY-NARROW-1"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_named_secrets_are_read_and_followed() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let narrow = Installation::standard().set("permissions.operator.restrict.namesAllowList={granted}");
    narrow.install(&cluster).await?;
    let outcome = scenario(&cluster, narrow).await;
    // The next test file expects the installation without restrictions.
    Installation::standard().install(&cluster).await?;
    outcome
}

async fn scenario(cluster: &Cluster, installation: Installation) -> Result<()> {
    let stage = Stage::beside(cluster, installation, "narrow").await?;
    let operator = "--as=system:serviceaccount:keda:keda-operator";
    let list = ["auth", "can-i", "list", "secrets", operator];
    ensure!(
        stage.namespace.kubectl(&list).await.is_err(),
        "the operator may list Secrets of any name"
    );

    let upstream = Upstream::start(Answer::value(1.0)).await?;
    let mut watched = Vec::new();
    for name in ["granted", "withheld"] {
        stage.apply(secret(name, json!({"token": TOKENS[0]}))).await?;
        let spec = json!({"secretTargetRef": [{"parameter": "bearerToken", "name": name, "key": "token"}]});
        stage
            .apply(json!({
                "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": name}, "spec": spec,
            }))
            .await?;
        stage.apply(podless(name, 1)).await?;
        watched.push(Scaled::watch(&stage, name));
        stage.apply(scaled_object(name, json!({
            "scaleTargetRef": {"name": name}, "pollingInterval": 30, "maxReplicaCount": 1,
            "triggers": [{
                "type": "metrics-api", "authenticationRef": {"name": name},
                "metadata": {"url": upstream.url("/"), "valueLocation": "value", "targetValue": "5", "authMode": "bearer"},
            }],
        })))
        .await?;
    }
    watched[0].is_ready().await?;
    watched[1].is_refused("bearer token=<empty> is required").await?;
    let changed = Instant::now();
    stage
        .apply(secret("granted", json!({"token": TOKENS[1]})))
        .await?;
    let wanted = format!("Bearer {}", TOKENS[1]);
    let used = || {
        let seen = upstream.seen();
        let new = seen.iter().find(|seen| {
            seen.headers
                .get("authorization")
                .is_some_and(|header| header.as_bytes() == wanted.as_bytes())
        });
        new.map(|seen| seen.at)
    };
    let took = until("the new token is shown", Duration::from_secs(20), async || {
        Ok(used().context("it is not")?.saturating_duration_since(changed))
    })
    .await?;
    ensure!(took <= Duration::from_secs(5), "it was in use after {took:?}");
    eprintln!("with rights to named Secrets alone: in use after {took:?}");
    Ok(())
}

fn secret(name: &str, values: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values})
}
