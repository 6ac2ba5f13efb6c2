//! Two operators, one of which is lost: killed in the middle of scaling, then asked to stop. The other goes on, replicas
//! never fall for it, and the HPA is not left without its metric.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dormouse_api::ScaledObject;
use dormouse_tests::scaled_object::holds;
use dormouse_tests::upstream::Answer;
use dormouse_tests::{Cluster, Installation, MetricReads, Namespace, Operators, Timeline, Upstream, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

const SECOND: Duration = Duration::from_secs(1);
const COOLDOWN: Duration = Duration::from_secs(12);
/// From the kill to the first decision of the next leader: the lease's 15 s and one second.
const TAKE_OVER: Duration = Duration::from_secs(16);
/// Reads may fail for as long as the Service still leads to the pod that was killed.
const BLIND: Duration = Duration::from_secs(5);
/// What the test's own eyes add on a busy machine: a watch event, a poll.
const SEEN_LATE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_killed_while_it_scales_and_the_other_goes_on() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let pair = Installation::standard().replicas(2);
    pair.install(&cluster).await?;
    let outcome = scenario(&cluster, &pair).await;
    // The next test file expects the installation with one replica.
    Installation::standard().install(&cluster).await?;
    outcome
}

async fn scenario(cluster: &Cluster, pair: &Installation) -> Result<()> {
    let upstream = Upstream::start(Answer::value(0.0)).await?;
    let namespace = Namespace::create(cluster, "failover").await?;
    namespace.apply(&manifests(&upstream.url("/depth"))).await?;
    let replicas = Timeline::of(namespace.api::<Deployment>(), "worker", |worker| {
        worker.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    });
    let ready = Timeline::of(namespace.api::<ScaledObject>(), "worker", |object| {
        holds(object, "Ready")
    });
    ready
        .reaches("the ScaledObject is Ready", 30 * SECOND, |ready| {
            *ready == Some(true)
        })
        .await?;
    replicas
        .reaches("asleep", 30 * SECOND, |count| *count == 0)
        .await?;
    // Five times a second.
    let reads = MetricReads::start(
        cluster,
        namespace.name(),
        &["worker".to_owned()],
        "s0-metric-api-value",
        SECOND / 5,
    );
    let operators = Operators::of(cluster, pair);

    // 40 / 5 = 8 replicas: killed between 0 -> 1 and 8.
    upstream.answer(Answer::value(40.0));
    replicas
        .reaches("0 -> 1", 30 * SECOND, |count| *count >= 1)
        .await?;
    let killed = operators.leader().await?;
    let killed_at = Instant::now();
    operators.kill(&killed).await?;
    let next = until("another replica leads", TAKE_OVER + SEEN_LATE, async || {
        let now = operators.leader().await?;
        ensure!(now != killed, "{killed} still holds the lease");
        Ok(now)
    })
    .await?;
    eprintln!(
        "{next} leads {:?} after the kill of {killed}",
        killed_at.elapsed()
    );
    replicas
        .reaches(
            "the HPA reaches 8 with the metric of whoever answers",
            60 * SECOND,
            |count| *count == 8,
        )
        .await?;
    ensure!(never_fell(&replicas), "replicas fell: {:?}", replicas.changes());
    let late: Vec<_> = reads
        .failed()
        .into_iter()
        .filter(|read| read.began > killed_at + BLIND)
        .collect();
    ensure!(
        late.is_empty(),
        "metric reads failed later than {BLIND:?} after the kill: {late:?}"
    );
    // The process that comes back in the killed pod says so where it does not know an object yet.
    let denied = reads.failed().into_iter().filter(|read| {
        let failure = read.failure.as_deref().unwrap_or_default();
        failure.contains("ScaledObject.keda.sh \"worker\" not found")
    });
    let denied: Vec<_> = denied.collect();
    ensure!(
        denied.is_empty(),
        "the ScaledObject was said not to exist: {denied:?}"
    );
    eprintln!(
        "{} metric reads failed of {}",
        reads.failed().len(),
        reads.count()
    );

    // The new leader puts the workload to sleep, and not before the cooldown, though it was not the one that woke it.
    upstream.answer(Answer::value(0.0));
    let silent = Instant::now();
    replicas
        .reaches("asleep again", 90 * SECOND, |count| *count == 0)
        .await?;
    let slept = replicas.changes().last().context("there were changes")?.at;
    ensure!(
        slept >= silent + COOLDOWN - SECOND,
        "asleep {:?} after the last message",
        slept - silent
    );

    // A clean stop: no read fails, and the other one is there within moments.
    upstream.answer(Answer::value(40.0));
    replicas
        .reaches("awake again", 30 * SECOND, |count| *count >= 1)
        .await?;
    operators.are_ready(2, 60 * SECOND).await?;
    let stopped = operators.leader().await?;
    let before = reads.failed().len();
    let stopped_at = Instant::now();
    operators.stop(&stopped).await?;
    until(
        "the lease changes hands at once",
        2 * SECOND + SEEN_LATE,
        async || {
            let now = operators.leader().await?;
            ensure!(now != stopped, "{stopped} still holds the lease");
            Ok(())
        },
    )
    .await?;
    eprintln!(
        "another replica leads {:?} after {stopped} was told to stop",
        stopped_at.elapsed()
    );
    let api: Api<Pod> = Api::namespaced(cluster.client(), pair.namespace());
    until("the stopped pod is gone", 60 * SECOND, async || {
        ensure!(api.get_opt(&stopped).await?.is_none(), "it is still there");
        Ok(())
    })
    .await?;
    let failed = reads.failed().len() - before;
    ensure!(failed == 0, "{failed} metric reads failed during a clean stop");
    ensure!(
        reads.count() > 100,
        "only {} metric reads were made",
        reads.count()
    );
    Ok(())
}

fn manifests(url: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: worker}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: worker}}}}
  template:
    metadata: {{labels: {{app: worker}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - {{name: worker, image: "localhost/pause:dev", imagePullPolicy: Never}}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {{name: worker}}
spec:
  scaleTargetRef: {{name: worker}}
  pollingInterval: 2
  cooldownPeriod: {cooldown}
  maxReplicaCount: 10
  triggers:
    - type: metrics-api
      metadata: {{url: "{url}", valueLocation: value, targetValue: "5"}}
"#,
        cooldown = COOLDOWN.as_secs()
    )
}

/// While there is work, no count is lower than the one before it.
fn never_fell(replicas: &Timeline<i32>) -> bool {
    let counts: Vec<i32> = replicas.changes().iter().map(|change| change.value).collect();
    let awake = counts
        .iter()
        .rposition(|count| *count == 0)
        .map_or(&counts[..], |at| &counts[at..]);
    awake.is_sorted()
}
