//! Sources that fail in every way a network offers, and come back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::scaled::condition;
use dormouse_tests::stage::{gated, scaled_object};
use dormouse_tests::upstream::Answer;
use dormouse_tests::{Scaled, Stage, Upstream, logs};
use serde_json::{Value, json};

/// In every answer that is no good.
pub(crate) const CANARY: &str = "CANARY-BODY-5d1f0e";
/// What the sources are asked with.
pub(crate) const TOKEN: &str = "CANARY-TOKEN-91c2ab";
/// In the URL itself.
pub(crate) const URL_SECRET: &str = "CANARY-URL-0b77d4";

/// Replicas that the good answer asks for, and those that the better one does.
const BEFORE: i64 = 3;
const AFTER: i64 = 4;
const MAX: i64 = 5;
/// Longer than the cooldown, and than the HPA waits before it scales down.
const HELD: Duration = Duration::from_secs(20);

/// One way to fail.
pub(crate) struct Mode {
    pub(crate) name: &'static str,
    source: Source,
    failure: Answer,
    /// What the Event says of it.
    sentence: &'static str,
    /// How long one read of it takes at most.
    read: Duration,
}

#[derive(Clone, Copy)]
enum Source {
    Sqs,
    MetricsApi,
}

impl Source {
    fn trigger(self, upstream: &Upstream) -> Value {
        match self {
            Self::Sqs => json!({
                "type": "aws-sqs-queue", "authenticationRef": {"name": "keys"},
                "metadata": {
                    "queueURL": upstream.url("/000000000000/orders"), "queueLength": "5", "awsRegion": "us-east-1",
                    "awsEndpoint": upstream.url(""),
                },
            }),
            Self::MetricsApi => json!({
                "type": "metrics-api", "authenticationRef": {"name": "keys"},
                "metadata": {
                    "url": upstream.url(&format!("/depth?key={URL_SECRET}")), "valueLocation": "value", "targetValue": "5",
                    "authMode": "bearer",
                },
            }),
        }
    }

    fn metric(self) -> &'static str {
        match self {
            Self::Sqs => "s0-aws-sqs-orders",
            Self::MetricsApi => "s0-metric-api-value",
        }
    }

    fn answer(self, messages: u32) -> Answer {
        match self {
            Self::MetricsApi => Answer::value(f64::from(messages)),
            Self::Sqs => Answer::status(
                200,
                json!({"Attributes": {
                    "ApproximateNumberOfMessages": messages.to_string(), "ApproximateNumberOfMessagesNotVisible": "0",
                }})
                .to_string(),
            ),
        }
    }
}

/// Every mode.
pub(crate) fn modes() -> Vec<Mode> {
    let quick = Duration::from_secs(3);
    let sqs = |name, failure, sentence| Mode {
        name,
        source: Source::Sqs,
        failure,
        sentence,
        read: quick,
    };
    let api = |name, failure, sentence| Mode {
        name,
        source: Source::MetricsApi,
        failure,
        sentence,
        read: quick,
    };
    let fault =
        |status, kind: &str| Answer::status(status, json!({"__type": kind, "message": CANARY}).to_string());
    let slow = |source: Source| source.answer(0).after(Duration::from_secs(20));
    let (whole, markup) = (format!("{{\"{CANARY}\":1}}"), format!("<html>{CANARY}}}{{"));
    vec![
        sqs(
            "sqs-missing",
            fault(400, "com.amazonaws.sqs#QueueDoesNotExist"),
            "error reading SQS queue \"orders\"",
        ),
        sqs(
            "sqs-forbidden",
            fault(403, "com.amazonaws.sqs#AccessDeniedException"),
            "error reading SQS queue \"orders\"",
        ),
        sqs(
            "sqs-garbage",
            Answer::status(200, markup.clone()),
            "error reading SQS queue \"orders\"",
        ),
        sqs(
            "sqs-partial",
            Answer::status(200, "{\"Attributes\":{}}"),
            "metric ApproximateNumberOfMessages not found in SQS queue attributes",
        ),
        sqs(
            "sqs-broken",
            fault(500, "InternalFailure"),
            "error reading SQS queue \"orders\"",
        ),
        Mode {
            read: Duration::from_secs(15),
            ..sqs("sqs-slow", slow(Source::Sqs), "no answer within 15 s")
        },
        api(
            "api-broken",
            Answer::status(500, CANARY),
            "error requesting metrics endpoint: /depth: api returned 500",
        ),
        api(
            "api-forbidden",
            Answer::status(403, CANARY),
            "error requesting metrics endpoint: /depth: api returned 403",
        ),
        api(
            "api-garbage",
            Answer::status(200, markup),
            "error requesting metrics endpoint: ",
        ),
        api(
            "api-other",
            Answer::status(200, whole),
            "error requesting metrics endpoint: ",
        ),
        api(
            "api-text",
            Answer::status(200, format!("{{\"value\":\"{CANARY}\"}}")),
            "error requesting metrics endpoint: ",
        ),
        api(
            "api-infinite",
            Answer::status(200, "{\"value\":1e999}"),
            "the source answered with a value that is not a finite number",
        ),
        api(
            "api-huge",
            Answer::status(200, CANARY.repeat(100_000)),
            "the answer is longer than 1 MiB",
        ),
        api("api-slow", slow(Source::MetricsApi), "no answer within 3 s"),
    ]
}

/// Three replicas' worth of work; then no answer for longer than every cooldown; then work for four; then none.
pub(crate) async fn fails_and_comes_back(stage: &Stage, mode: Mode) -> Result<()> {
    let Mode {
        name,
        source,
        failure,
        sentence,
        read,
    } = mode;
    let upstream = Upstream::start(source.answer(15)).await?;
    let scaled = Scaled::watch(stage, name);
    stage.apply(authentication()).await?;
    stage.apply(keys()).await?;
    stage.apply(gated("Deployment", name, 0)).await?;
    let spec = json!({
        "scaleTargetRef": {"name": name}, "pollingInterval": 1, "cooldownPeriod": 2, "maxReplicaCount": MAX,
        "triggers": [source.trigger(&upstream)],
    });
    stage.apply(scaled_object(name, spec)).await?;
    scaled.is_ready().await?;
    scaled.has(BEFORE, Duration::from_secs(60)).await?;

    let since = Instant::now();
    upstream.answer(failure);
    scaled
        .condition_within("Ready", "False", "TriggerError", read + Duration::from_secs(15))
        .await?;
    let told_at = scaled.statuses().len();
    scaled.event("KEDAScalerFailed", sentence, 1).await?;
    let told = stage
        .metric(name, source.metric())
        .await
        .err()
        .context("a metric was served that nobody knows")?;
    ensure!(told.contains(source.metric()), "the HPA is told {told:?}");
    for canary in [CANARY, TOKEN, URL_SECRET] {
        ensure!(!told.contains(canary), "a canary is in what the HPA is told");
    }
    tokio::time::sleep((since + HELD).saturating_duration_since(Instant::now())).await;
    let meanwhile = scaled.counts_since(since);
    ensure!(
        meanwhile == [BEFORE],
        "replicas moved while the source failed: {meanwhile:?}"
    );
    let ready = |status: &Value| condition(status, "Ready").is_some_and(|ready| ready["status"] == "True");
    let later = scaled.statuses().split_off(told_at);
    let hidden = later.into_iter().find(|change| ready(&change.value));
    ensure!(
        hidden.is_none(),
        "it was Ready=True while the source failed: {hidden:#?}"
    );

    let back = Instant::now();
    upstream.answer(source.answer(20));
    scaled
        .condition_within(
            "Ready",
            "True",
            "ScaledObjectReady",
            read + Duration::from_secs(15),
        )
        .await?;
    scaled
        .turned(back, Duration::from_secs(40), |count| count == AFTER)
        .await?;
    ensure!(
        scaled.counts_since(back).is_sorted(),
        "replicas fell: {:?}",
        scaled.counts_since(back)
    );
    upstream.answer(source.answer(0));
    scaled.has(0, Duration::from_secs(60)).await?;
    let all = scaled.counts();
    ensure!(
        all.iter().all(|count| (0..=MAX).contains(count)),
        "replicas left 0..={MAX}: {all:?}"
    );
    let repeated = stage.count_events(name, "KEDAScalerFailed", "").await?;
    ensure!(
        repeated <= 2,
        "{repeated} Warnings about one outage: {:#?}",
        stage.events(name).await?
    );
    Ok(())
}

/// The manifest itself holds the URL; nothing that was made of it may repeat what a query could carry.
pub(crate) async fn the_url_is_told_without_its_query(stage: &Stage) -> Result<()> {
    let told = logs::of_operator(&stage.cluster, &stage.installation).await?;
    ensure!(
        !told.contains(URL_SECRET),
        "the query of a URL is in the operator's logs"
    );
    let namespace = &stage.namespace;
    for what in ["events.events.k8s.io", "horizontalpodautoscalers"] {
        let text = namespace.kubectl(&["get", what, "--output", "yaml"]).await?;
        ensure!(!text.contains(URL_SECRET), "the query of a URL is in {what}");
    }
    let statuses = namespace
        .kubectl(&["get", "so", "--output", "jsonpath={.items[*].status}"])
        .await?;
    ensure!(
        statuses.contains("s0-metric-api-value") && !statuses.contains(URL_SECRET),
        "the query of a URL is in a status"
    );
    ensure!(
        !stage.metrics_page().await?.contains(URL_SECRET),
        "the query of a URL is in the metrics"
    );
    Ok(())
}

fn authentication() -> Value {
    let parameter = |parameter: &str, key: &str| json!({"parameter": parameter, "name": "keys", "key": key});
    json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": "keys"},
        "spec": {"secretTargetRef": [
            parameter("awsAccessKeyID", "token"), parameter("awsSecretAccessKey", "token"), parameter("bearerToken", "token"),
        ]},
    })
}

fn keys() -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"token": TOKEN}})
}
