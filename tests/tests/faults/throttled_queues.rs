//! A queue server that throttles one account in AWS's way, which says nothing about when to come back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::sqs::REGION;
use dormouse_tests::stage::{podless, scaled_object};
use dormouse_tests::{Scaled, SignedSqs, Stage, logs};
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);
const QUEUES: usize = 5;
const INTERVAL: u64 = 1;
const THROTTLED: Duration = Duration::from_secs(15);
/// A poll and what the SDK tries again on its own.
const TRIES: usize = 2;
const CANARY: &str = "CANARY-THROTTLED-";

pub(crate) async fn harm_no_other_account(stage: &Stage) -> Result<()> {
    let server = SignedSqs::start().await?;
    let mut all = Vec::new();
    for account in ["bursting", "calm"] {
        let (id, value) = (format!("AK{account}"), format!("{CANARY}{account}"));
        server.keys.allow(&id, &value);
        stage
            .apply(json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": account},
                "stringData": {"id": id, "value": value},
            }))
            .await?;
        stage
            .apply(json!({
                "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": account},
                "spec": {"secretTargetRef": [
                    {"parameter": "awsAccessKeyID", "name": account, "key": "id"},
                    {"parameter": "awsSecretAccessKey", "name": account, "key": "value"},
                ]},
            }))
            .await?;
        for index in 0..QUEUES {
            let name = format!("{account}-{index}");
            let queue = server.create_queue(&name).await?;
            queue.send(&["work".to_owned()]).await?;
            stage.apply(podless(&name, 0)).await?;
            let scaled = Scaled::watch(stage, &name);
            let metadata = json!({
                "queueURL": queue.url(), "queueLength": "1", "awsRegion": REGION, "awsEndpoint": server.endpoint(),
            });
            let spec = json!({
                "scaleTargetRef": {"name": name}, "pollingInterval": INTERVAL, "cooldownPeriod": 1, "maxReplicaCount": 2,
                "triggers": [{
                    "type": "aws-sqs-queue", "metadata": metadata, "authenticationRef": {"name": account},
                }],
            });
            stage.apply(scaled_object(&name, spec)).await?;
            all.push(scaled);
        }
    }
    for scaled in &all {
        scaled.has(1, 30 * SECOND).await?;
    }

    server.keys.throttle("AKbursting");
    let throttled = Instant::now();
    for scaled in &all[..QUEUES] {
        scaled.condition_is("Ready", "False", "TriggerError").await?;
    }
    tokio::time::sleep((throttled + THROTTLED).saturating_duration_since(Instant::now())).await;
    server.keys.relent("AKbursting");
    let during = throttled..Instant::now();
    let asked = |account: &str| {
        let key = format!("AK{account}");
        let seen = server.keys.seen().into_iter();
        seen.filter(|seen| seen.key == key && during.contains(&seen.at))
            .count()
    };
    let (of_bursting, of_calm) = (asked("bursting"), asked("calm"));
    eprintln!("in {THROTTLED:?}: {of_bursting} requests of the throttled account, {of_calm} of the other");
    let polls = QUEUES * usize::try_from(THROTTLED.as_secs() / INTERVAL)?;
    ensure!(
        of_bursting <= TRIES * (polls + QUEUES),
        "a throttled account was asked {of_bursting} times in {polls} polls"
    );
    ensure!(
        of_calm * 10 >= polls * 8,
        "another account was read {of_calm} times in {polls} polls"
    );
    for scaled in &all {
        let moved: Vec<_> = scaled.counts_since(throttled);
        ensure!(moved == [1], "{} was scaled: {moved:?}", scaled.name());
    }
    for scaled in &all[..QUEUES] {
        scaled
            .condition_is("Ready", "True", "ScaledObjectReady")
            .await
            .with_context(|| format!("{} after the server relented", scaled.name()))?;
    }
    logs::assert_no_canary(
        &stage.cluster,
        &stage.installation,
        stage.namespace.name(),
        &[CANARY],
    )
    .await
}
