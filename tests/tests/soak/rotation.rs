//! Two things that must not wear the operator out: certificates that live for a minute, and sources that all fail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dormouse_tests::fleet::{METRIC, Member};
use dormouse_tests::operators::Usage;
use dormouse_tests::sources::Mood;
use dormouse_tests::{Fleet, MetricReads, Operators, Sources, Stage, until};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;

const SECOND: Duration = Duration::from_secs(1);
const CERTIFICATES: &str = "kedaorg-certs";
/// A certificate of a minute is replaced after two thirds of it, and the CA that signs it stays.
const AT_LEAST_EVERY: Duration = Duration::from_secs(60);
const FAILING: usize = 60;
/// What a process may hold more at the end than after its first third.
const MORE_DESCRIPTORS: usize = 16;
const MORE_MEMORY_KIB: u64 = 6 << 10;

/// Replaces the certificate that an earlier test may have left, which lives for a year.
pub(crate) async fn begin_with_a_short_one(stage: &Stage) -> Result<()> {
    let (namespace, name) = (stage.installation.namespace(), stage.installation.name());
    let kubectl = async |arguments: &[&str]| {
        let arguments = [&["--namespace", namespace], arguments].concat();
        stage.cluster.kubectl(&arguments).await
    };
    let deployment = format!("deployment/{name}");
    kubectl(&["delete", "secret", CERTIFICATES, "--ignore-not-found"]).await?;
    kubectl(&["rollout", "restart", &deployment]).await?;
    kubectl(&["rollout", "status", &deployment, "--timeout=25s"]).await?;
    Ok(())
}

pub(crate) async fn no_read_fails(stage: &Stage, watched: Duration) -> Result<()> {
    let sources = Sources::start().await?;
    let fleet = Fleet::new(stage, &sources);
    let names: Vec<_> = (0..4).map(|index| format!("served-{index}")).collect();
    fleet.turn(&names, &Mood::Value(10.0));
    fleet
        .add(&names.iter().map(|name| Member::new(name, 2)).collect::<Vec<_>>())
        .await?;
    fleet.are("Ready", "True", &names, 60 * SECOND).await?;
    until("metrics are served", 60 * SECOND, async || {
        for name in &names {
            stage.metric(name, METRIC).await.map_err(anyhow::Error::msg)?;
        }
        Ok(())
    })
    .await?;
    tokio::time::sleep(5 * SECOND).await;

    let secrets: Api<Secret> = Api::namespaced(stage.cluster.client(), stage.installation.namespace());
    let reads = MetricReads::start(&stage.cluster, stage.namespace.name(), &names, METRIC, SECOND / 2);
    let mut certificates = BTreeSet::new();
    let began = Instant::now();
    while began.elapsed() < watched {
        let data = secrets.get(CERTIFICATES).await?.data.unwrap_or_default();
        certificates.insert(data.get("tls.crt").map(|pem| pem.0.clone()).unwrap_or_default());
        tokio::time::sleep(2 * SECOND).await;
    }
    let failed = reads.failed();
    eprintln!(
        "{} certificates, {} reads, {} failed",
        certificates.len(),
        reads.count(),
        failed.len()
    );
    let whole = watched.as_secs() / AT_LEAST_EVERY.as_secs();
    ensure!(
        certificates.len() as u64 > whole,
        "there were {} certificates in {watched:?}; each lives for a minute",
        certificates.len()
    );
    ensure!(
        failed.is_empty(),
        "{} of {} reads failed while certificates rotated, the first one with {:?}",
        failed.len(),
        reads.count(),
        failed[0].failure
    );
    Ok(())
}

pub(crate) async fn nothing_grows(stage: &Stage, watched: Duration) -> Result<()> {
    let operators = Operators::of(&stage.cluster, &stage.installation);
    let sources = Sources::start().await?;
    let fleet = Fleet::new(stage, &sources);
    let moods = [
        Mood::Status(500, "no".to_owned()),
        Mood::Hangs,
        Mood::Stalls,
        Mood::Floods,
        Mood::Says("<html>}{".to_owned()),
        Mood::Throttles(SECOND),
    ];
    let names: Vec<_> = (0..FAILING).map(|index| format!("failing-{index}")).collect();
    for (name, mood) in names.iter().zip(moods.iter().cycle()) {
        sources.is(name, mood.clone());
    }
    fleet
        .add(&names.iter().map(|name| Member::new(name, 1)).collect::<Vec<_>>())
        .await?;
    fleet.are("Ready", "False", &names, 60 * SECOND).await?;
    let replicas = fleet.replicas(&names);
    tokio::time::sleep(watched / 3).await;
    let before = at_rest(&operators).await?;
    tokio::time::sleep(watched * 2 / 3).await;
    let after = at_rest(&operators).await?;
    eprintln!("held {before:?}, then {after:?}");
    for (pod, usage) in &after {
        let Some(then) = before.get(pod) else {
            anyhow::bail!("{pod} was not there before: an operator died of failing sources");
        };
        ensure!(
            usage.descriptors <= then.descriptors + MORE_DESCRIPTORS
                && usage.threads <= then.threads + 2
                && usage.resident <= then.resident + MORE_MEMORY_KIB,
            "{pod} grows: {then:?}, then {usage:?}"
        );
    }
    for (name, seen) in &replicas {
        ensure!(
            seen.changes().len() <= 1,
            "{name} was scaled on nothing: {:?}",
            seen.changes()
        );
    }
    Ok(())
}

/// The least that each process held within a few seconds: what hangs comes and goes with its reads.
async fn at_rest(operators: &Operators) -> Result<BTreeMap<String, Usage>> {
    let mut least: BTreeMap<String, Usage> = BTreeMap::new();
    for _ in 0..8 {
        for (pod, usage) in operators.usage().await? {
            let least = least.entry(pod).or_insert(usage);
            least.resident = least.resident.min(usage.resident);
            least.descriptors = least.descriptors.min(usage.descriptors);
            least.threads = least.threads.min(usage.threads);
        }
        tokio::time::sleep(SECOND / 2).await;
    }
    Ok(least)
}
