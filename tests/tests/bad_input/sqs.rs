//! Queues on real SQS servers: one that does not exist yet, one that refuses the key.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use dormouse_tests::sqs::{REGION, client, free_address};
use dormouse_tests::stage::{podless, scaled_object};
use dormouse_tests::{Queue, Scaled, SqsServer, Stage, until};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

/// The one key pair that the strict server knows.
const KEY: &str = "AKSTRICT";
pub(crate) const SECRET: &str = "CANARY-RIGHT-SECRET-6a1d";
/// What the operator is given first.
pub(crate) const WRONG_KEY: &str = "CANARY-WRONG-KEY-77e0";
pub(crate) const WRONG_SECRET: &str = "CANARY-WRONG-SECRET-12bc";
/// A failing object's references are looked up again after 10 s, then less often.
const LOOKED_UP: Duration = Duration::from_secs(60);

/// An SQS server that checks signatures; it ends with this value.
pub(crate) struct StrictServer {
    endpoint: String,
    _child: Child,
}

impl StrictServer {
    /// Starts the server that was built with the workspace.
    pub(crate) async fn start() -> Result<Self> {
        let own = std::env::current_exe().context("finding this program")?;
        let program = own
            .ancestors()
            .map(|dir| dir.join("sqs-server"))
            .find(|file| file.is_file());
        let program =
            program.context("there is no sqs-server beside this program; build the workspace's programs")?;
        let address = free_address().await?;
        let child = Command::new(&program)
            .args(["--bind", &address.to_string()])
            .env("SQS_ACCESS_KEY", KEY)
            .env("SQS_SECRET_KEY", SECRET)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("unable to start {}", program.display()))?;
        let endpoint = format!("http://{address}");
        let asked = client(&endpoint, KEY, SECRET);
        until(
            "the strict SQS server answers",
            Duration::from_secs(15),
            async || {
                asked
                    .list_queues()
                    .send()
                    .await
                    .map_err(|_| anyhow!("it does not"))
            },
        )
        .await?;
        Ok(Self {
            endpoint,
            _child: child,
        })
    }
}

/// The queue comes into being after the object that reads it.
pub(crate) async fn missing_until_created(stage: &Stage, server: &SqsServer) -> Result<()> {
    let name = "missing-queue";
    let scaled = Scaled::watch(stage, name);
    stage.apply(keys("moto-keys", "test", "test")).await?;
    stage.apply(authentication("moto-keys")).await?;
    stage.apply(podless(name, 2)).await?;
    let url = format!("{}/123456789012/late", server.endpoint());
    stage
        .apply(object(name, &url, &server.endpoint(), "moto-keys"))
        .await?;
    scaled.condition_is("Ready", "False", "TriggerError").await?;
    scaled
        .event("KEDAScalerFailed", "error reading SQS queue \"late\"", 1)
        .await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    ensure!(
        scaled.counts() == [2],
        "replicas moved without a queue: {:?}",
        scaled.counts()
    );

    let queue = server.create_queue("late").await?;
    queue.send(&["1".into(), "2".into(), "3".into()]).await?;
    let created = Instant::now();
    scaled.is_ready().await?;
    scaled
        .turned(created, Duration::from_secs(40), |count| count == 3)
        .await?;
    while !queue.drain().await?.is_empty() {}
    scaled.has(0, Duration::from_secs(60)).await
}

/// The server knows another key; the Secret is corrected, and nothing else is touched.
pub(crate) async fn forbidden_until_the_key_is_right(stage: &Stage, server: &StrictServer) -> Result<()> {
    let name = "forbidden-queue";
    let queue = Queue::create(client(&server.endpoint, KEY, SECRET), "strict").await?;
    queue.send(&["1".into(), "2".into(), "3".into()]).await?;
    let scaled = Scaled::watch(stage, name);
    stage.apply(keys("strict-keys", WRONG_KEY, WRONG_SECRET)).await?;
    stage.apply(authentication("strict-keys")).await?;
    stage.apply(podless(name, 2)).await?;
    stage
        .apply(object(name, queue.url(), &server.endpoint, "strict-keys"))
        .await?;
    scaled.condition_is("Ready", "False", "TriggerError").await?;
    scaled
        .event("KEDAScalerFailed", "error reading SQS queue \"strict\"", 1)
        .await?;
    let told = stage
        .metric(name, "s0-aws-sqs-strict")
        .await
        .err()
        .context("a metric was served without a key")?;
    ensure!(
        ![SECRET, WRONG_KEY, WRONG_SECRET]
            .iter()
            .any(|canary| told.contains(canary)),
        "a canary is in what the HPA is told"
    );
    ensure!(
        scaled.counts() == [2],
        "replicas moved without a right key: {:?}",
        scaled.counts()
    );

    stage.apply(keys("strict-keys", KEY, SECRET)).await?;
    let corrected = Instant::now();
    scaled
        .condition_within("Ready", "True", "ScaledObjectReady", LOOKED_UP)
        .await?;
    scaled.turned(corrected, LOOKED_UP, |count| count == 3).await?;
    ensure!(
        scaled.counts() == [2, 3],
        "replicas went another way: {:?}",
        scaled.counts()
    );
    Ok(())
}

fn object(name: &str, queue: &str, endpoint: &str, authentication: &str) -> Value {
    scaled_object(
        name,
        json!({
            "scaleTargetRef": {"name": name}, "pollingInterval": 1, "cooldownPeriod": 2, "maxReplicaCount": 4,
            "triggers": [{
                "type": "aws-sqs-queue", "authenticationRef": {"name": authentication},
                "metadata": {"queueURL": queue, "queueLength": "1", "awsRegion": REGION, "awsEndpoint": endpoint},
            }],
        }),
    )
}

fn keys(name: &str, key: &str, secret: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"key": key, "secret": secret}})
}

fn authentication(name: &str) -> Value {
    json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": name},
        "spec": {"secretTargetRef": [
            {"parameter": "awsAccessKeyID", "name": name, "key": "key"},
            {"parameter": "awsSecretAccessKey", "name": name, "key": "secret"},
        ]},
    })
}
