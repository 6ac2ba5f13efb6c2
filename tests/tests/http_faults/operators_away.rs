//! No operator, or no API server: what is awake is served as ever, and what is held waits until somebody can wake it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dormouse_tests::http_echo::sleeps;
use dormouse_tests::{BlackHole, Load, Operators, Way};
use http::Method;
use serde_json::json;
use tokio::time::timeout;

use crate::{ALONE, Sleeper};

const AWAY: Duration = Duration::from_secs(5);
/// How long the API server is away.
const CUT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_held_while_there_is_no_operator() -> Result<()> {
    let _alone = ALONE.lock().await;
    let sleeper = Sleeper::new("http-no-operator", |echo| echo).await?;
    let operators = Operators::of(&sleeper.cluster, &sleeper.installation);
    let scale = async |count: u32| {
        let count = format!("--replicas={count}");
        let deployment = format!("deployment/{}", sleeper.installation.name());
        let arguments = [
            "--namespace",
            sleeper.installation.namespace(),
            "scale",
            &deployment,
            &count,
        ];
        sleeper.cluster.kubectl(&arguments).await.map(drop)
    };
    scale(0).await?;
    operators.are_ready(0, Duration::from_secs(30)).await?;
    let visitor = sleeper.visitor.clone();
    let mut request = tokio::spawn(async move { visitor.visit(Way::Get).await });
    if let Ok(ended) = timeout(AWAY, &mut request).await {
        bail!("it ended although nobody could wake it: {ended:?}");
    }
    scale(2).await?;
    let visit = request.await?.context("the request that was held")?;
    ensure!(visit.took >= AWAY, "answered after {:?}", visit.took);
    operators.are_ready(2, Duration::from_secs(60)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_routes_go_on_without_the_api_server() -> Result<()> {
    let _alone = ALONE.lock().await;
    let sleeper = Sleeper::new("http-no-api", |echo| {
        // While it is away nothing is put to sleep, but the one that is awake has to stay so in the end as well.
        echo.change("ScaledObject", "/spec/cooldownPeriod", json!(20))
    })
    .await?;
    sleeper.visitor.visit(Way::Get).await?;
    let operators = Operators::of(&sleeper.cluster, &sleeper.installation);
    let interceptors = Operators::interceptors_of(&sleeper.cluster, &sleeper.installation);
    let doors = interceptors.addresses().await?;
    // Each has heard of the pod: a wake that the API server's end interrupts is another matter.
    for door in &doors {
        sleeper
            .visitor_at(door)?
            .visit(Way::Get)
            .await
            .context("before the API server goes")?;
    }
    let ready = [
        "wait",
        "deployment/http-echo",
        "--for=jsonpath={.status.readyReplicas}=1",
        "--timeout=30s",
    ];
    sleeper.namespace.kubectl(&ready).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let addresses = [operators.addresses().await?, doors].concat();
    let hole = BlackHole::around(&addresses).await?;
    let load = Load::start(
        &sleeper.visitor,
        2,
        &Method::GET,
        "/?delay=5",
        Duration::from_millis(20),
    );
    tokio::time::sleep(CUT).await;
    for way in Way::ALL {
        sleeper
            .visitor
            .visit(way)
            .await
            .context("without the API server")?;
    }
    drop(hole);
    let tally = load.stop().await?;
    eprintln!("without the API server for {CUT:?}: {tally:?}");
    tally.is_whole(200)?;
    let restarts = interceptors.restarts().await?;
    ensure!(
        restarts.values().all(|count| *count == 0),
        "restarted: {restarts:?}"
    );
    sleeps(&sleeper.namespace, Duration::from_secs(90)).await
}
