//! Demand in requests per second instead of requests at a time.

use std::time::Duration;

use anyhow::{Result, ensure};
use dormouse_tests::http_echo::{self, sleeps};
use dormouse_tests::{ClientPod, Cluster, HttpEcho, Installation, Load, Namespace};
use http::Method;
use serde_json::json;

/// Clients, each with some ten requests in a second.
const CLIENTS: usize = 4;
/// So many of those per second are for one pod.
const TARGET: u32 = 8;
/// How long the clients go on once the pods are there.
const MORE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_wakes_one_pod_and_then_scales_to_what_it_comes_to() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let installation = Installation::shared(&cluster).await?;
    let namespace = Namespace::create(&cluster, "http-rate").await?;
    let rate = json!({"requestRate": {"targetValue": TARGET, "window": "10s", "granularity": "1s"}});
    let echo = HttpEcho::new(format!("{}.example.org", namespace.name()))
        .change("InterceptorRoute", "/spec/scalingMetric", rate)
        .most(5);
    echo.asleep(&cluster, &namespace).await?;
    let visitor = ClientPod::start(&namespace)
        .await?
        .visitor(&cluster, &installation, echo.host())
        .await?;
    let wanted = http_echo::wanted(&namespace);
    wanted
        .reaches("its sleep is seen", Duration::from_secs(10), |count| *count == 0)
        .await?;
    let load = Load::start(
        &visitor,
        CLIENTS,
        &Method::GET,
        "/?delay=1",
        Duration::from_millis(100),
    );
    // 4 clients x 10 / 8, less what each takes for its answers.
    wanted
        .reaches("the rate has its pods", Duration::from_secs(60), |count| {
            *count >= 3
        })
        .await?;
    // The pods may come within two seconds: the requests below need more than that.
    tokio::time::sleep(MORE).await;
    let tally = load.stop().await?;
    eprintln!("{tally:?}; {:?}", wanted.changes());
    tally.is_whole(100)?;
    let counts: Vec<i32> = wanted.changes().iter().map(|change| change.value).collect();
    ensure!(
        counts.starts_with(&[0, 1]),
        "held requests say nothing of a rate, and one pod is enough for the first: {counts:?}"
    );
    sleeps(&namespace, Duration::from_secs(60)).await
}
