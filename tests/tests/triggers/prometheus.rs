//! `prometheus` against a real Prometheus that scrapes a scripted exporter.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dormouse_tests::prometheus::PrometheusServer;
use dormouse_tests::stage::{all, podless};
use dormouse_tests::upstream::Answer;
use dormouse_tests::{Scaled, Stage, Upstream, logs};
use serde_json::{Value, json};

const LATEST: Duration = Duration::from_secs(60);

/// An exporter's page on which two shops have this many orders waiting between them.
fn waiting(orders: &str) -> Answer {
    Answer::status(
        200,
        format!("orders_waiting{{shop=\"a\"}} {orders}\norders_waiting{{shop=\"b\"}} 0\n"),
    )
}

fn spec(target: &str, server: &str, query: &str, ignore_null_values: bool) -> Value {
    json!({
        "scaleTargetRef": {"name": target}, "pollingInterval": 1, "cooldownPeriod": 2, "maxReplicaCount": 5,
        "triggers": [{"type": "prometheus", "metadata": {
            "serverAddress": server, "query": query, "threshold": "2",
            "ignoreNullValues": ignore_null_values.to_string(),
        }}],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_wakes_scales_and_rests_its_target() -> Result<()> {
    let stage = Stage::set("prometheus").await?;
    let exporter = Upstream::start(waiting("0")).await?;
    let server = PrometheusServer::scraping(&exporter).await?;
    let url = server.url();
    let (scaling, failing) = tokio::join!(
        follows_the_orders(&stage, &exporter, &url),
        all(odd_queries().map(|odd| (odd.name.to_owned(), fails(&stage, &url, odd)))),
    );
    scaling.and(failing)?;
    tokio::try_join!(below_zero(&stage, &url), beyond_every_integer(&stage, &url))?;
    logs::assert_nothing_denied(&stage.cluster, &stage.installation).await
}

async fn follows_the_orders(stage: &Stage, exporter: &Upstream, server: &str) -> Result<()> {
    let scaled = Scaled::watch(stage, "shop");
    stage.apply(podless("shop", 0)).await?;
    stage
        .scale("shop", spec("shop", server, "sum(orders_waiting)", true))
        .await?;
    scaled.is_ready().await?;
    let ordered = Instant::now();
    exporter.answer(waiting("7"));
    // Woken, and then ceil(7 / 2) by the HPA.
    scaled.has(4, LATEST).await?;
    ensure!(
        scaled.counts_since(ordered).starts_with(&[0, 1]),
        "not woken to 1 first: {:?}",
        scaled.counts_since(ordered)
    );
    let value = stage.metric_value("shop", "s0-prometheus").await?;
    ensure!(value == "7", "the HPA is told {value}");
    exporter.answer(waiting("0"));
    scaled.has(0, LATEST).await
}

/// A query whose result is no number, and the sentence about it.
struct Odd {
    name: &'static str,
    query: &'static str,
    sentence: &'static str,
}

fn odd_queries() -> [Odd; 5] {
    [
        Odd {
            name: "several",
            query: "orders_waiting",
            sentence: "prometheus query orders_waiting returned multiple elements",
        },
        Odd {
            name: "nothing",
            query: "orders_lost",
            sentence: "prometheus metrics 'prometheus' target may be lost, the result is empty",
        },
        Odd {
            name: "not-a-number",
            query: "vector(0) / 0",
            sentence: "prometheus query returns NaN",
        },
        Odd {
            name: "infinite",
            query: "vector(1) / 0",
            sentence: "prometheus query returns +Inf",
        },
        Odd {
            name: "no-query",
            query: "sum(",
            sentence: "prometheus query api returned error. status: 400",
        },
    ]
}

/// What is no number moves no replica unless it was asked to count as 0.
async fn fails(stage: &Stage, server: &str, odd: Odd) -> Result<()> {
    let scaled = Scaled::watch(stage, odd.name);
    stage.apply(podless(odd.name, 2)).await?;
    stage
        .scale(odd.name, spec(odd.name, server, odd.query, false))
        .await?;
    scaled.condition_is("Ready", "False", "TriggerError").await?;
    scaled.event("KEDAScalerFailed", odd.sentence, 1).await?;
    let told = stage.metric(odd.name, "s0-prometheus").await;
    ensure!(told.is_err(), "the HPA is told {told:?}");
    ensure!(scaled.counts() == [2], "replicas moved: {:?}", scaled.counts());
    if matches!(odd.name, "nothing" | "not-a-number" | "infinite") {
        stage
            .scale(odd.name, spec(odd.name, server, odd.query, true))
            .await?;
        scaled.has(0, LATEST).await?;
    }
    Ok(())
}

/// Less than nothing is nothing: what ran goes to sleep, and the HPA is told 0.
async fn below_zero(stage: &Stage, server: &str) -> Result<()> {
    let (name, query) = ("below-zero", "vector(-3)");
    let scaled = Scaled::watch(stage, name);
    stage.apply(podless(name, 2)).await?;
    stage.scale(name, spec(name, server, query, false)).await?;
    scaled.is_ready().await?;
    let value = stage.metric_value(name, "s0-prometheus").await?;
    ensure!(value == "0", "the HPA is told {value}");
    scaled.has(0, LATEST).await
}

/// 2^63 is one more than a metric can say: the HPA is told the most it can, and asks for the most there may be.
async fn beyond_every_integer(stage: &Stage, server: &str) -> Result<()> {
    let (name, query) = ("beyond", "vector(9223372036854775808)");
    let scaled = Scaled::watch(stage, name);
    stage.apply(podless(name, 0)).await?;
    stage.scale(name, spec(name, server, query, false)).await?;
    scaled.has(5, LATEST).await?;
    let value = stage.metric_value(name, "s0-prometheus").await?;
    ensure!(value == format!("{}m", i64::MAX), "the HPA is told {value}");
    Ok(())
}
