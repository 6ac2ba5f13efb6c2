//! Cold starts of the example, as its clients and its own log see them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use dormouse_tests::http_echo::{self, HttpEcho};
use dormouse_tests::visitor::{Visitor, Way};
use dormouse_tests::{Cluster, Installation, Namespace};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::core::ApiResource;
use serde_json::Value;
use tokio::time::Instant;

use crate::objects::Tally;

/// For a cold start, and for going to sleep again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Which pods this covers: one is enough for all clients there are.
const TARGET: u32 = 100;

/// What one cold start took, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// From the request to the change of the scale.
    pub(crate) to_scale: f64,
    /// From the application's listening to the answer.
    pub(crate) listening_to_answer: f64,
    /// From the kubelet's word of the pod's address to the EndpointSlice that has it.
    pub(crate) address_to_slice: f64,
    /// From the later of the application's listening and the kubelet's word of the pod's address to the answer.
    pub(crate) known_to_answer: f64,
    /// From the request to the answer.
    pub(crate) total: f64,
}

impl Sample {
    /// What is ours of it, the rest being the platform's.
    pub(crate) fn ours(&self) -> f64 {
        self.to_scale + self.listening_to_answer
    }
}

/// An application that sleeps between its samples.
pub(crate) struct ColdStarts<'a> {
    namespace: &'a Namespace,
    visitor: Visitor,
    awake: Tally,
    /// Pods that have an address.
    pods: Tally,
    /// EndpointSlices that have one.
    slices: Tally,
}

/// The example, asleep, of which the application listens so many milliseconds after its start.
pub(crate) async fn cold_starts<'a>(
    cluster: &Cluster,
    installation: &Installation,
    namespace: &'a Namespace,
    late: u64,
) -> Result<ColdStarts<'a>> {
    let example = example(namespace, late);
    example.asleep(cluster, namespace).await?;
    let of = |resource: ApiResource| Api::namespaced_with(cluster.client(), namespace.name(), &resource);
    Ok(ColdStarts {
        namespace,
        visitor: Visitor::of(cluster, installation, example.host()).await?,
        awake: Tally::follow(of(ApiResource::erase::<Deployment>(&())), |object| {
            object.data["spec"]["replicas"]
                .as_u64()
                .is_some_and(|count| count > 0)
        }),
        pods: Tally::follow(of(ApiResource::erase::<Pod>(&())), |object| {
            object.data["status"]["podIP"].is_string()
        }),
        slices: Tally::follow(of(ApiResource::erase::<EndpointSlice>(&())), |object| {
            object.data["endpoints"][0]["addresses"][0].is_string()
        }),
    })
}

/// The example as users copy it, but for what it waits for at its end.
pub(crate) fn example(namespace: &Namespace, late: u64) -> HttpEcho {
    HttpEcho::new(format!("{}.example.com", namespace.name()))
        .target(TARGET)
        .variable("START_MS", late)
        .variable("LINGER_MS", 0)
}

/// When the newest object of these came to be so.
async fn since(tally: &Tally, what: &str) -> Result<Instant> {
    tally.reach(what, 1, PATIENCE).await?;
    let newest = tally.since().into_values().max();
    newest.with_context(|| format!("{what}, and no longer"))
}

impl ColdStarts<'_> {
    /// One cold start, and the way back to sleep.
    pub(crate) async fn sample(&self) -> Result<Sample> {
        http_echo::sleeps(self.namespace, PATIENCE).await?;
        let began = Instant::now();
        self.visitor
            .visit(Way::H2c)
            .await
            .context("a cold start failed")?;
        let (answered, answered_at) = (Instant::now(), Timestamp::now());
        let scaled = since(&self.awake, "the Deployment has replicas").await?;
        let addressed = since(&self.pods, "the pod has an address").await?;
        let listed = since(&self.slices, "the EndpointSlice has an address").await?;
        let listened_at = listened_at(self.namespace).await?;
        let millis = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64() * 1000.0;
        let listening_to_answer = answered_at.duration_since(listened_at).as_secs_f64() * 1000.0;
        Ok(Sample {
            to_scale: millis(began, scaled),
            listening_to_answer,
            address_to_slice: millis(addressed, listed),
            known_to_answer: millis(addressed, answered).min(listening_to_answer),
            total: millis(began, answered),
        })
    }
}

/// When the application began to listen, by its own log.
pub(super) async fn listened_at(namespace: &Namespace) -> Result<Timestamp> {
    let log = namespace
        .kubectl(&["logs", "--selector=app=http-echo", "--tail=-1"])
        .await?;
    let line = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .rfind(|line| line["message"] == "listening");
    let line = line.with_context(|| format!("the application did not say that it listens: {log}"))?;
    let time = line["timestamp"].as_str().context("a line without a time")?;
    time.parse().with_context(|| format!("{time:?} is no time"))
}
