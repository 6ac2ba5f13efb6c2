//! Two operators and two interceptors, one of which is killed while an application starts.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use dormouse_tests::http_echo::sleeps;
use dormouse_tests::{Operators, Visitor};
use http::StatusCode;
use rand::Rng as _;
use tokio::task::JoinSet;

use crate::{ALONE, Sleeper};

/// How long the application takes to listen.
const START: u64 = 1500;
/// The next leader may only act when the lease has run out.
const LEASE: Duration = Duration::from_secs(15);
/// For the wake itself, on a busy machine.
const WAKE: Duration = Duration::from_secs(20);

/// Where an interceptor listens.
const PORT: u16 = 8080;
/// How long a client waits for an answer where an interceptor is killed.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_the_request_is_answered() -> Result<()> {
    let _alone = ALONE.lock().await;
    let sleeper = Sleeper::new("http-who", |echo| echo.variable("START_MS", START)).await?;
    let operators = Operators::of(&sleeper.cluster, &sleeper.installation);
    let interceptors = Operators::interceptors_of(&sleeper.cluster, &sleeper.installation);
    for victim in [
        "an interceptor",
        "the other interceptor",
        "the following operator",
        "the leader",
    ] {
        operators.are_ready(2, Duration::from_secs(60)).await?;
        interceptors.are_ready(2, Duration::from_secs(60)).await?;
        sleeps(&sleeper.namespace, Duration::from_secs(60)).await?;
        let (crew, pod) = match victim {
            "the leader" => (&operators, operators.leader().await?),
            "the following operator" => {
                let leader = operators.leader().await?;
                (&operators, other(&operators, &leader).await?)
            }
            _ => (&interceptors, other(&interceptors, "").await?),
        };
        let began = Instant::now();
        let mut requests = JoinSet::new();
        for interceptor in interceptors.pods().await? {
            let is_victim = interceptor.metadata.name.as_deref() == Some(&*pod);
            let address = interceptor.status.and_then(|status| status.pod_ip);
            let address = address.context("an interceptor without an address")?.parse()?;
            let direct = Visitor::at(SocketAddr::new(address, PORT), sleeper.visitor.host());
            for _ in 0..4 {
                // Of a pod that is gone a client may hear nothing at all: then it asks again after a while.
                let direct = direct
                    .clone()
                    .within(if is_victim { PATIENCE } else { LEASE + WAKE });
                let anybody = is_victim.then(|| sleeper.visitor.clone().within(PATIENCE));
                requests.spawn(insist(direct, anybody, LEASE + WAKE));
            }
        }
        let moment = rand::rng().random_range(5..START);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        crew.replace(&pod).await?;
        let mut again = 0;
        while let Some(request) = requests.join_next().await {
            again += request?.with_context(|| format!("{victim} was killed after {moment} ms"))?;
        }
        let took = began.elapsed();
        eprintln!("{victim} was killed after {moment} ms: answered after {took:?}, asked {again} times more");
    }
    Ok(())
}

async fn other(crew: &Operators, than: &str) -> Result<String> {
    let pods = crew.pods().await?.into_iter().filter_map(|pod| pod.metadata.name);
    let mut others = pods.filter(|name| name != than);
    others.next().context("there is no other pod")
}

/// Asks one interceptor; where that is the one that is killed, as a client does who was cut off: once more, by the Service,
/// which goes on naming it for a moment. Says how often it was asked again.
async fn insist(direct: Visitor, anybody: Option<Visitor>, deadline: Duration) -> Result<u32> {
    let began = Instant::now();
    let (mut visitor, mut again) = (&direct, 0);
    loop {
        let error = match visitor.ask("/").await {
            Ok((StatusCode::OK, _)) => return Ok(again),
            // An answer that says no is none that a client would ask again for.
            Ok((status, body)) => bail!("{status}: {body}"),
            Err(error) => error,
        };
        visitor = match &anybody {
            Some(anybody) if began.elapsed() < deadline => anybody,
            Some(_) => return Err(error),
            None => return Err(error.context("of an interceptor that nobody killed")),
        };
        eprintln!("asking again after {:?}: {error:#}", began.elapsed());
        again += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
