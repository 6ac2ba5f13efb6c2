//! The whole main job on a real cluster: a queue worker goes from 0 to what its queue asks for and back to 0, and no
//! message is lost on the way.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dormouse_api::ScaledObject;
use dormouse_tests::example::{NAME, SqsWorker};
use dormouse_tests::scaled_object::holds;
use dormouse_tests::{Cluster, Installation, Namespace, SqsServer, Timeline, logs, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::json;

const INTERVAL: Duration = Duration::from_secs(3);
/// Not a multiple of the interval, so that the tick that ends the cooldown is never in doubt.
const COOLDOWN: Duration = Duration::from_secs(10);
const QUEUE_LENGTH: u32 = 10;
/// One pod must not work off so many before the HPA acts that one replica less would do.
const MESSAGES: usize = 47;
const WANTED: i32 = 5;
const MAX: i32 = 8;
const WORK: Duration = Duration::from_secs(3);
/// How far the test's own clock may see things late: one watch event, one poll of the queue.
const SEEN_LATE: Duration = Duration::from_millis(500);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zero_to_n_and_back_without_losing_a_message() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let installation = Installation::shared(&cluster).await?;
    let server = SqsServer::start().await?;
    let jobs = server.create_queue("jobs").await?;
    let results = server.create_queue("results").await?;
    let namespace = Namespace::create(&cluster, "sqs-worker").await?;
    let example = SqsWorker {
        queue_url: jobs.url().to_owned(),
        result_queue_url: results.url().to_owned(),
        endpoint: server.endpoint(),
        access_key: "CANARY-ACCESS-7f31c9".to_owned(),
        secret_key: "CANARY-SECRET-b05e42".to_owned(),
        work: WORK,
        spec: vec![
            ("pollingInterval", json!(INTERVAL.as_secs())),
            ("cooldownPeriod", json!(COOLDOWN.as_secs())),
            ("maxReplicaCount", json!(MAX)),
        ],
        queue_length: QUEUE_LENGTH,
    };
    let ready = Timeline::of(namespace.api::<ScaledObject>(), NAME, |object| {
        holds(object, "Ready")
    });
    let active = Timeline::of(namespace.api::<ScaledObject>(), NAME, |object| {
        holds(object, "Active")
    });
    let replicas = Timeline::of(namespace.api::<Deployment>(), NAME, |object| {
        object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    });
    let hpa = Timeline::of(
        namespace.api::<HorizontalPodAutoscaler>(),
        &format!("keda-hpa-{NAME}"),
        |object| object.status.as_ref().map_or(0, |status| status.desired_replicas),
    );
    example.apply(&cluster, &namespace).await?;
    ready
        .reaches("the ScaledObject is Ready", 30 * SECOND, |ready| {
            *ready == Some(true)
        })
        .await?;
    replicas
        .reaches("a worker without work is put to sleep", 30 * SECOND, |count| {
            *count == 0
        })
        .await?;

    let bodies: Vec<String> = (1..=MESSAGES).map(|number| format!("message {number}")).collect();
    let began = Instant::now();
    jobs.send(&bodies[..1]).await?;
    let woke = replicas
        .first("0 -> 1", began, 30 * SECOND, |count| *count > 0)
        .await?;
    let latency = woke.at - began;
    ensure!(
        latency <= INTERVAL + SECOND,
        "0 -> 1 took {latency:?} at a polling interval of {INTERVAL:?}"
    );
    ensure!(
        woke.value == 1,
        "the operator scaled from 0 to {}, not to 1",
        woke.value
    );
    jobs.send(&bodies[1..]).await?;

    let grown = replicas
        .first("the HPA scales out", woke.at, 60 * SECOND, |count| {
            *count == WANTED
        })
        .await?;
    let wish = hpa
        .first("the HPA's own wish", began, 30 * SECOND, |count| *count == WANTED)
        .await?;
    ensure!(wish.value == WANTED, "the HPA wants {}", wish.value);

    let mut processed = BTreeSet::new();
    let mut last_work = grown.at;
    until("every message is processed", 240 * SECOND, async || {
        processed.extend(results.drain().await?);
        if jobs.depth().await?.total() > 0 {
            last_work = Instant::now();
        }
        ensure!(
            processed.len() == MESSAGES,
            "{} of {MESSAGES} are",
            processed.len()
        );
        Ok(())
    })
    .await?;
    until("the queue is empty", 30 * SECOND, async || {
        let left = jobs.depth().await?.total();
        if left > 0 {
            last_work = Instant::now();
        }
        ensure!(left == 0, "{left} messages are left");
        Ok(())
    })
    .await?;
    let sent: BTreeSet<String> = bodies.iter().cloned().collect();
    ensure!(
        processed == sent,
        "these came out of the worker and were never sent, or the other way round"
    );

    // The operator's last active poll is at most one interval before the poll at which it found the queue empty.
    let rested = active
        .first("Active turns False", last_work, 2 * INTERVAL + 5 * SECOND, |is| {
            *is == Some(false)
        })
        .await?;
    let slept = replicas
        .first("N -> 0", rested.at, COOLDOWN + 3 * INTERVAL, |count| *count == 0)
        .await?;
    let cooled = slept.at - rested.at;
    let (soonest, latest) = (COOLDOWN - INTERVAL - SEEN_LATE, COOLDOWN + SECOND);
    ensure!(
        (soonest..=latest).contains(&cooled),
        "the pods went {cooled:?} after the first poll that found no work; between {soonest:?} and {latest:?} is right"
    );
    let idle = slept.at - last_work;
    ensure!(
        idle + INTERVAL + SEEN_LATE >= COOLDOWN,
        "the pods went {idle:?} after there was still work: before the cooldown of {COOLDOWN:?}"
    );
    let between: Vec<i32> = replicas
        .changes()
        .iter()
        .filter(|one| one.at >= began)
        .map(|one| one.value)
        .collect();
    ensure!(
        between.iter().max() == Some(&WANTED),
        "the replicas left 0..={WANTED}: {between:?}"
    );
    ensure!(
        between.iter().filter(|count| **count == 0).count() == 1,
        "it slept more than once: {between:?}"
    );

    let canaries = [example.access_key.as_str(), example.secret_key.as_str()];
    logs::assert_no_canary(&cluster, &installation, namespace.name(), &canaries).await?;
    logs::assert_nothing_denied(&cluster, &installation).await?;
    println!(
        "0 -> 1 after {latency:?} (interval {INTERVAL:?}); replicas {between:?}; {MESSAGES} of {MESSAGES} processed"
    );
    println!(
        "N -> 0 {cooled:?} after the first poll without work, {idle:?} after the last work (cooldown {COOLDOWN:?})"
    );
    Ok(())
}
