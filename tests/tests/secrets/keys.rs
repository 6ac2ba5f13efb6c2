//! The keys of queues on a server that checks signatures.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dormouse_tests::sqs::REGION;
use dormouse_tests::stage::{podless, scaled_object};
use dormouse_tests::{Scaled, SignedSqs, Stage};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::{authentication, first_use, nothing_failed, secret};

const ROTATIONS: usize = 3;
/// How long an object goes on with its last key, to show that it needs no other.
const AFTERWARDS: Duration = Duration::from_secs(4);

/// Connections that the operator keeps to one server.
const POOLED: usize = 8;

/// How a Secret gets its new content.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    Patched,
    DeletedAndCreated,
}

/// Whatever is a secret in these tests.
pub(crate) fn secrets() -> [&'static str; 2] {
    ["CANARY-SQS-", "canary-sqs-"]
}

fn key(name: &str, round: usize) -> (String, String) {
    (format!("AK{name}{round}"), format!("CANARY-SQS-{name}-{round}"))
}

/// An object whose queue's key comes from a Secret of its own.
pub(crate) struct Rotated<'a> {
    stage: &'a Stage,
    server: &'a SignedSqs,
    name: &'static str,
    since: Instant,
}

impl<'a> Rotated<'a> {
    /// Sets it up with its first key and waits until it is read with it.
    pub(crate) async fn settle(
        stage: &'a Stage,
        server: &'a SignedSqs,
        name: &'static str,
        interval: u32,
    ) -> Result<Self> {
        let queue = server.create_queue(name).await?;
        let (id, value) = key(name, 0);
        server.keys.allow(&id, &value);
        stage
            .apply(secret(name, json!({"id": id, "value": value})))
            .await?;
        let spec = json!({"secretTargetRef": [
            {"parameter": "awsAccessKeyID", "name": name, "key": "id"},
            {"parameter": "awsSecretAccessKey", "name": name, "key": "value"},
        ]});
        stage
            .apply(authentication("TriggerAuthentication", name, spec))
            .await?;
        stage.apply(podless(name, 1)).await?;
        let scaled = Scaled::watch(stage, name);
        stage
            .apply(object(name, queue.url(), &server.endpoint(), interval))
            .await?;
        scaled.is_ready().await?;
        let this = Self {
            stage,
            server,
            name,
            since: Instant::now(),
        };
        first_use(&format!("the first key of {name}"), this.since, || this.used(&id)).await?;
        Ok(this)
    }

    /// When a key was first accepted.
    fn used(&self, id: &str) -> Option<Instant> {
        let seen = self.server.keys.seen();
        seen.iter()
            .find(|seen| seen.key == id && seen.accepted)
            .map(|seen| seen.at)
    }

    async fn write(&self, round: usize, way: Way) -> Result<()> {
        let (id, value) = key(self.name, round);
        let api: Api<Secret> = self.stage.namespace.api();
        let values = json!({"id": id, "value": value});
        match way {
            Way::Patched => {
                let patch = Patch::Merge(json!({ "stringData": values }));
                api.patch(self.name, &PatchParams::default(), &patch).await?;
            }
            Way::DeletedAndCreated => {
                api.delete(self.name, &DeleteParams::default()).await?;
                let new: Secret = serde_json::from_value(secret(self.name, values))?;
                api.create(&PostParams::default(), &new).await?;
            }
        }
        Ok(())
    }

    /// Its first key was used all the time, over the few connections that all share to this server, and never refused.
    pub(crate) fn was_left_alone(&self) -> Result<()> {
        let (id, _) = key(self.name, 0);
        let seen: Vec<_> = self
            .server
            .keys
            .seen()
            .into_iter()
            .filter(|seen| seen.key == id)
            .collect();
        let connections: BTreeSet<u64> = seen.iter().map(|seen| seen.connection).collect();
        ensure!(
            connections.len() <= POOLED,
            "{} has had connections {connections:?}",
            self.name
        );
        ensure!(seen.iter().all(|seen| seen.accepted), "{} was refused", self.name);
        let due = self.since.elapsed().as_secs();
        let count = u64::try_from(seen.len())?;
        ensure!(
            count + 3 >= due,
            "{} was read {count} times in {due} s at an interval of 1 s",
            self.name
        );
        Ok(())
    }
}

/// Changes the key again and again, and revokes the old one as soon as the new one was used; answers how long each change
/// took.
pub(crate) async fn rotate(
    stage: &Stage,
    server: &SignedSqs,
    name: &'static str,
    interval: u32,
    way: Way,
) -> Result<Vec<Duration>> {
    let rotated = Rotated::settle(stage, server, name, interval).await?;
    let mut took = Vec::new();
    for round in 1..=ROTATIONS {
        let (id, value) = key(name, round);
        server.keys.allow(&id, &value);
        let changed = Instant::now();
        rotated.write(round, way).await?;
        let what = format!("key {round} of {name}");
        took.push(first_use(&what, changed, || rotated.used(&id)).await?);
        server.keys.revoke(&key(name, round - 1).0);
    }
    tokio::time::sleep(AFTERWARDS).await;
    let refused: Vec<_> = server
        .keys
        .seen()
        .into_iter()
        .filter(|seen| seen.key.starts_with(&format!("AK{name}")) && !seen.accepted)
        .collect();
    ensure!(
        refused.is_empty(),
        "{name}: these requests were refused: {refused:#?}"
    );
    nothing_failed(stage, name).await?;
    Ok(took)
}

fn object(name: &str, queue: &str, endpoint: &str, interval: u32) -> Value {
    scaled_object(
        name,
        json!({
            "scaleTargetRef": {"name": name}, "pollingInterval": interval, "maxReplicaCount": 2,
            "triggers": [{
                "type": "aws-sqs-queue", "authenticationRef": {"name": name},
                "metadata": {"queueURL": queue, "queueLength": "1", "awsRegion": REGION, "awsEndpoint": endpoint},
            }],
        }),
    )
}
