//! From a request for what sleeps to the change of its scale: many targets that have no pods, one request for each.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context as _, Result};
use dormouse_tests::visitor::Visitor;
use dormouse_tests::{Cluster, Installation};
use kube::core::ApiResource;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::figures::Figures;
use crate::objects::{self, Field, Item};
use crate::plane::percentile;
use crate::steps::say;

/// Targets at a time. Each has an HPA, and Kubernetes looks at all of those every 15 seconds: with many, what is measured
/// is how long they keep the API server busy.
const GROUP: usize = 100;
const GROUPS: usize = 5;
const EDGES: usize = GROUPS * GROUP;
/// Between two of them: each is to find an operator that has nothing else to do.
const APART: Duration = Duration::from_millis(50);
/// Clients that wait at the same time: each leaves a second after it came.
const WAITING: usize = 20;
const READY: Duration = Duration::from_secs(180);
const AWAKE: Duration = Duration::from_secs(30);
/// The interceptor may know the last route a moment later, and the HPAs of the group before go on for a while.
const SETTLED: Duration = Duration::from_secs(5);

/// In milliseconds.
#[derive(Default)]
struct Took {
    /// From a request to the change of a scale.
    requests: Vec<f64>,
    /// From a patch of `/scale` by hand.
    patches: Vec<f64>,
}

/// Measures 500 edges.
pub(crate) async fn all(cluster: &Cluster, installation: &Installation, figures: &mut Figures) -> Result<()> {
    say("500 requests, each for another target that sleeps");
    objects::define(cluster).await?;
    let mut took = Took::default();
    let mut outcome = Ok(());
    for _ in 0..GROUPS {
        let field = Field::new(cluster).await?;
        outcome = edges(cluster, installation, &field, &mut took).await;
        let cleared = field.clear(Duration::from_secs(120)).await;
        outcome = outcome.and(cleared);
        if outcome.is_err() {
            break;
        }
    }
    objects::undefine(cluster).await?;
    took.requests.sort_by(f64::total_cmp);
    took.patches.sort_by(f64::total_cmp);
    let at = |share| {
        outcome
            .is_ok()
            .then(|| percentile(&took.requests, share))
            .flatten()
    };
    let note = |share: &str| match &outcome {
        Ok(()) => format!("{share} of {EDGES} edges; seen by a watch"),
        Err(error) => format!("{error:#}"),
    };
    figures.add("request_to_scale_p50", at(0.5), "ms", 5.0, note("half"));
    figures.add("request_to_scale_p99", at(0.99), "ms", 10.0, note("99%"));
    figures.add("request_to_scale_max", at(1.0), "ms", None, "");
    for (name, share) in [
        ("request_to_scale_floor_p50", 0.5),
        ("request_to_scale_floor_p99", 0.99),
        ("request_to_scale_floor_max", 1.0),
    ] {
        let note = "a bare patch of /scale, in between";
        figures.add(name, percentile(&took.patches, share), "ms", None, note);
    }
    Ok(())
}

async fn edges(cluster: &Cluster, installation: &Installation, field: &Field, took: &mut Took) -> Result<()> {
    let all = objects::items(2 * GROUP);
    let (items, bare) = all.split_at(GROUP);
    let namespace = field.namespace.name();
    let ready = field.ready();
    field.create_targets(&all).await?;
    field.create(&services(), items, service).await?;
    let route = |item: &Item| route(item, namespace);
    field.create(&routes(), items, route).await?;
    field
        .create(&objects::scaled_objects(), items, scaled_object)
        .await?;
    ready.reach("the ScaledObjects are Ready", GROUP, READY).await?;
    sleep(SETTLED).await;

    let awake = field.awake();
    let address = Visitor::of(cluster, installation, "").await?.address();
    let mut ticks = interval(APART / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut waiting, mut sent, mut patched) = (VecDeque::new(), Vec::new(), Vec::new());
    for (item, bare) in items.iter().zip(bare) {
        ticks.tick().await;
        let mut client = TcpStream::connect(address).await.context("the interceptor")?;
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", host(item, namespace));
        sent.push((item, Instant::now()));
        client.write_all(request.as_bytes()).await?;
        // It waits for as long as its client does.
        waiting.push_back(client);
        if waiting.len() > WAITING {
            waiting.pop_front();
        }
        // In between, what the platform takes for the same change.
        ticks.tick().await;
        patched.push((bare, Instant::now()));
        field.wake(bare).await?;
    }
    awake.reach("every target has replicas", 2 * GROUP, AWAKE).await?;
    let since = awake.since();
    let millis = |(item, began): &(&Item, Instant)| {
        let awake = since.get(&item.name)?;
        Some(awake.saturating_duration_since(*began).as_secs_f64() * 1000.0)
    };
    took.requests.extend(sent.iter().filter_map(millis));
    took.patches.extend(patched.iter().filter_map(millis));
    Ok(())
}

fn host(item: &Item, namespace: &str) -> String {
    format!("{}.{namespace}.example.com", item.name)
}

fn services() -> ApiResource {
    ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&())
}

fn routes() -> ApiResource {
    ApiResource::erase::<dormouse_api::InterceptorRoute>(&())
}

fn service(item: &Item) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": item.name},
        "spec": {"selector": {"app": item.name}, "ports": [{"name": "http", "port": 80}]},
    })
}

fn route(item: &Item, namespace: &str) -> Value {
    json!({
        "apiVersion": "http.keda.sh/v1beta1", "kind": "InterceptorRoute", "metadata": {"name": item.name},
        "spec": {
            "target": {"service": item.name, "port": 80}, "rules": [{"hosts": [host(item, namespace)]}],
            "scalingMetric": {"concurrency": {"targetValue": 100}},
        },
    })
}

fn scaled_object(item: &Item) -> Value {
    json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": item.name},
        "spec": {
            "scaleTargetRef": objects::target_ref(item), "cooldownPeriod": 3600, "maxReplicaCount": 10,
            "triggers": [{
                "type": "external-push",
                "metadata": {
                    "scalerAddress": "keda-add-ons-http-external-scaler.keda:9090", "interceptorRoute": item.name,
                },
            }],
        },
    })
}
