//! Many at once: the pods that they need are there in one step, and stay while they are needed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::http_echo::{self, sleeps};
use dormouse_tests::{ClientPod, Cluster, HttpEcho, Installation, Load, Namespace};
use http::{Method, StatusCode};
use tokio::task::JoinSet;

const REQUESTS: usize = 500;
const TARGET: u32 = 50;
/// What they need: 500 / 50.
const PODS: i32 = 10;
/// How long the second burst goes on, in seconds, unless DORMOUSE_BURST_SECONDS says otherwise. The test cluster's HPA looks
/// every 5 s and remembers for 10.
const SECONDS: u64 = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_gets_all_its_pods_at_once_and_the_next_one_keeps_them() -> Result<()> {
    let seconds = match std::env::var("DORMOUSE_BURST_SECONDS") {
        Ok(text) => text.parse().context("DORMOUSE_BURST_SECONDS is no number")?,
        Err(_) => SECONDS,
    };
    let cluster = Cluster::connect().await?;
    let installation = Installation::shared(&cluster).await?;
    let namespace = Namespace::create(&cluster, "http-burst").await?;
    let echo = HttpEcho::new(format!("{}.example.org", namespace.name()))
        .variable("START_MS", 2500)
        .target(TARGET)
        .most(30);
    echo.asleep(&cluster, &namespace).await?;
    let visitor = ClientPod::start(&namespace)
        .await?
        .visitor(&cluster, &installation, echo.host())
        .await?;
    let wanted = http_echo::wanted(&namespace);

    let began = Instant::now();
    let mut burst = JoinSet::new();
    for _ in 0..REQUESTS {
        let visitor = visitor.clone();
        burst.spawn(async move {
            let (status, body) = visitor.ask("/burst?delay=200").await?;
            ensure!(status == StatusCode::OK, "{status}: {body}");
            anyhow::Ok(Instant::now())
        });
    }
    let mut answers = Vec::new();
    while let Some(answer) = burst.join_next().await {
        answers.push(answer?.context("of the burst")?);
    }
    let first = answers.iter().min().copied().unwrap_or(began);
    let last = answers.iter().max().copied().unwrap_or(began);
    let all = wanted
        .first("all pods are wanted", began, Duration::from_secs(1), |count| {
            *count >= PODS
        })
        .await?;
    eprintln!(
        "{PODS} pods were wanted after {:?}; the answers came after {:?} to {:?}",
        all.at - began,
        first - began,
        last - began
    );
    ensure!(
        all.at < first,
        "the first answer came before all pods were wanted"
    );
    let most = wanted.changes().iter().map(|change| change.value).max();
    ensure!(
        most == Some(PODS),
        "at most {most:?} pods were wanted, for {REQUESTS} requests of {TARGET} per pod"
    );

    sleeps(&namespace, Duration::from_secs(60)).await?;
    let began = Instant::now();
    let load = Load::start(
        &visitor,
        REQUESTS,
        &Method::GET,
        "/load?delay=1500",
        Duration::ZERO,
    );
    wanted
        .first(
            "all pods are wanted again",
            began,
            Duration::from_secs(10),
            |count| *count >= PODS,
        )
        .await?;
    let full = Instant::now();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let under_load = Instant::now();
    let tally = load.stop().await?;
    eprintln!("under load: {tally:?}");
    tally.is_whole(REQUESTS as u64)?;
    let changes = wanted.changes();
    let taken = changes
        .iter()
        .find(|change| change.at > full && change.at < under_load && change.value < PODS);
    ensure!(taken.is_none(), "under load, pods were taken away: {changes:?}");
    Ok(())
}
