//! Triggers that would have the operator go where it must not, on the real cluster. At each forbidden place a server waits
//! that would be reached if the operator went there, and none of them may ever hear from it.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Redirect, Response};
use dormouse_tests::cluster::NODE_ADDRESS;
use dormouse_tests::stage::{Leftover, all, podless, scaled_object};
use dormouse_tests::{Scaled, Served, Stage, logs};
use serde_json::{Value, json};

/// What every request would carry.
const TOKEN: &str = "CANARY-EGRESS-TOKEN-3f81";
const AWS_SECRET: &str = "CANARY-EGRESS-KEY-77c1";
const METADATA_SERVICE: &str = "169.254.169.254";
/// Long enough for several reads at an interval of a second.
const WATCHED: Duration = Duration::from_secs(6);

/// A server that should never be asked, or only answers with a redirect.
struct Trap {
    server: Served,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Trap {
    async fn set(host: &str, answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = seen.clone();
        let router = Router::new().fallback(move |request: Request| {
            let answer = answer.clone();
            record
                .lock()
                .expect("no test panics while it holds this")
                .push(format!("{} {:?}", request.uri(), request.headers()));
            async move { answer() }
        });
        Ok(Self {
            server: Served::at(host, router).await?,
            seen,
        })
    }

    fn url(&self) -> String {
        format!("http://{}/depth", self.server.address())
    }

    fn seen(&self) -> Vec<String> {
        self.seen
            .lock()
            .expect("no test panics while it holds this")
            .clone()
    }

    fn was_left_alone(&self) -> Result<()> {
        let seen = self.seen();
        ensure!(seen.is_empty(), "{} was asked: {seen:?}", self.server.address());
        Ok(())
    }
}

/// An address of the node, for as long as this lives.
struct Address(&'static str);

impl Address {
    fn add(address: &'static str) -> Result<Self> {
        // It may be left from a run that was killed.
        let _ = ip(&["addr", "add", address, "dev", "lo"]);
        Ok(Self(address))
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        let _ = ip(&["addr", "del", self.0, "dev", "lo"]);
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let done = Command::new("ip").args(args).status().context("running ip")?;
    ensure!(done.success(), "ip {args:?} failed");
    Ok(())
}

fn ten() -> Response {
    "{\"value\":10}".into_response()
}

fn metrics_api(url: &str) -> Value {
    json!({
        "type": "metrics-api", "authenticationRef": {"name": "token"},
        "metadata": {"url": url, "valueLocation": "value", "targetValue": "5", "authMode": "bearer"},
    })
}

async fn keys(stage: &Stage) -> Result<()> {
    let secret = json!({"token": TOKEN, "key": "AKIDEXAMPLE", "secret": AWS_SECRET});
    stage
        .apply(
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": secret}),
        )
        .await?;
    stage
        .apply(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": "token"},
            "spec": {"secretTargetRef": [{"parameter": "token", "name": "keys", "key": "token"}]},
        }))
        .await?;
    stage
        .apply(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": "operators-own"},
            "spec": {"podIdentity": {"provider": "aws"}},
        }))
        .await
}

async fn apply<'a>(stage: &'a Stage, name: &str, trigger: Value) -> Result<Scaled<'a>> {
    let scaled = Scaled::watch(stage, name);
    stage.apply(podless(name, 0)).await?;
    let spec = json!({
        "scaleTargetRef": {"name": name}, "pollingInterval": 1, "maxReplicaCount": 4, "triggers": [trigger],
    });
    stage.apply(scaled_object(name, spec)).await?;
    Ok(scaled)
}

/// The trigger fails with a sentence that contains `why`, and nothing is ever scaled.
async fn is_kept_away(stage: &Stage, name: &str, url: &str, why: &str) -> Result<()> {
    let scaled = apply(stage, name, metrics_api(url)).await?;
    scaled.condition_is("Ready", "False", "TriggerError").await?;
    scaled.event("KEDAScalerFailed", why, 1).await?;
    let until = Instant::now() + WATCHED;
    while Instant::now() < until {
        ensure!(scaled.counts() == [0], "{name} was scaled: {:?}", scaled.counts());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_trigger_may_lead() -> Result<()> {
    let stage = Stage::set("egress").await?;
    keys(&stage).await?;
    let _metadata_service = Address::add("169.254.169.254/32")?;
    let _link_local = Address::add("169.254.7.7/32")?;
    let metadata = Trap::set(METADATA_SERVICE, ten).await?;
    let link_local = Trap::set("169.254.7.7", ten).await?;
    let stranger = Trap::set(NODE_ADDRESS, ten).await?;
    let to_stranger = stranger.url();
    let redirects = Trap::set(NODE_ADDRESS, move || {
        Redirect::temporary(&to_stranger).into_response()
    })
    .await?;
    let to_metadata = metadata.url();
    let lures = Trap::set(NODE_ADDRESS, move || {
        Redirect::temporary(&to_metadata).into_response()
    })
    .await?;
    // A name in the cluster's DNS that leads to the API server by another way than its own Service.
    let port = 6443;
    stage
        .apply(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "harmless"},
            "spec": {"clusterIP": "None", "ports": [{"port": port}]},
        }))
        .await?;
    stage
        .apply(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "harmless-1", "labels": {"kubernetes.io/service-name": "harmless"}},
            "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": true}}], "ports": [{"port": port}],
        }))
        .await?;
    let name = format!(
        "https://harmless.{}.svc.cluster.local:{port}/healthz",
        stage.namespace.name()
    );
    let mapped = format!(
        "http://[::ffff:169.254.169.254]:{}/depth",
        metadata.server.address().port()
    );
    let decimal = format!("http://2852039166:{}/depth", metadata.server.address().port());
    let node_port = format!("https://{NODE_ADDRESS}:{port}/healthz");
    let cases = [
        ("metadata", metadata.url(), "a link-local address"),
        ("metadata-mapped", mapped, "a link-local address"),
        ("metadata-decimal", decimal, "a link-local address"),
        ("link-local", link_local.url(), "a link-local address"),
        (
            "loopback",
            "http://127.0.0.1:8080/metrics".to_owned(),
            "a loopback address",
        ),
        (
            "loopback-name",
            "http://localhost:8080/metrics".to_owned(),
            "a loopback address",
        ),
        (
            "loopback-six",
            "http://[::1]:8080/metrics".to_owned(),
            "a loopback address",
        ),
        (
            "nowhere",
            "http://0.0.0.0:8080/metrics".to_owned(),
            "a loopback address",
        ),
        (
            "api-service",
            "https://kubernetes.default.svc/healthz".to_owned(),
            "the API server's address",
        ),
        ("api-node", node_port, "the API server's address"),
        ("api-name", name, "the API server's address"),
        ("redirect", redirects.url(), "api returned 307"),
        ("redirect-metadata", lures.url(), "api returned 307"),
    ];
    all(cases.map(|(name, url, why)| {
        let stage = &stage;
        (name.to_owned(), async move {
            is_kept_away(stage, name, &url, why).await
        })
    }))
    .await?;
    for trap in [&metadata, &link_local, &stranger] {
        trap.was_left_alone()?;
    }
    ensure!(
        !redirects.seen().is_empty() && !lures.seen().is_empty(),
        "the redirects were never asked"
    );
    let namespace = stage.namespace.name();
    logs::assert_no_canary(&stage.cluster, &stage.installation, namespace, &[TOKEN]).await?;
    logs::assert_nothing_denied(&stage.cluster, &stage.installation).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_credentials_go_where() -> Result<()> {
    let stage = Stage::set("egress-keys").await?;
    keys(&stage).await?;
    let stranger = Trap::set(NODE_ADDRESS, ten).await?;
    let endpoint = format!("http://{}", stranger.server.address());
    let queue = json!({
        "type": "aws-sqs-queue", "authenticationRef": {"name": "operators-own"},
        "metadata": {"queueURL": format!("{endpoint}/1/orders"), "awsRegion": "us-east-1", "awsEndpoint": endpoint},
    });
    let scaled = apply(&stage, "stranger", queue).await?;
    let message = scaled
        .condition_is("Ready", "False", "ScaledObjectCheckFailed")
        .await?;
    ensure!(
        message.contains("--aws-endpoint-allow") && message.contains("awsEndpoint"),
        "{message}"
    );

    let namespace = stage.namespace.name().to_owned();
    let name = format!("shared-{namespace}");
    let _removed = Leftover::new(&stage.cluster, "clustertriggerauthentication", &name, &namespace);
    let shared = |hosts: &str| {
        json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ClusterTriggerAuthentication",
            "metadata": {"name": name, "annotations": {"dormouse.dev/allowed-hosts": hosts}},
            "spec": {"configMapTargetRef": []},
        })
    };
    stage.apply(shared("*.example.org")).await?;
    let trigger = json!({
        "type": "metrics-api", "authenticationRef": {"name": name, "kind": "ClusterTriggerAuthentication"},
        "metadata": {"url": stranger.url(), "valueLocation": "value", "targetValue": "5"},
    });
    let scaled = apply(&stage, "shared", trigger).await?;
    let message = scaled
        .condition_is("Ready", "False", "ScaledObjectCheckFailed")
        .await?;
    ensure!(message.contains("dormouse.dev/allowed-hosts"), "{message}");
    stranger.was_left_alone()?;
    stage
        .apply(shared(&format!("*.example.org, {NODE_ADDRESS}")))
        .await?;
    scaled.is_ready().await?;
    ensure!(!stranger.seen().is_empty(), "an allowed host was not asked");
    Ok(())
}
