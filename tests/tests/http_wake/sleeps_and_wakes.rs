//! Clients of every protocol come at random moments, also in those in which the application falls asleep: not one of their
//! requests fails.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use dormouse_tests::audit::AuditLog;
use dormouse_tests::http_echo;
use dormouse_tests::stage::all;
use dormouse_tests::{ClientPod, Cluster, HttpEcho, Installation, Namespace, Way};
use futures::future::try_join_all;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};

/// Applications side by side, each with a start of its own.
const STARTS: [u64; 3] = [0, 300, 0];
/// Wakes of all applications, unless DORMOUSE_WAKES says otherwise.
const WAKES: usize = 12;
/// For one wake and the sleep before it.
const PACE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_every_protocol_come_at_any_moment_and_none_is_turned_away() -> Result<()> {
    let wakes = match std::env::var("DORMOUSE_WAKES") {
        Ok(text) => text.parse().context("DORMOUSE_WAKES is no number")?,
        Err(_) => WAKES,
    };
    let cluster = Cluster::connect().await?;
    let installation = Installation::shared(&cluster).await?;
    let share = wakes.div_ceil(STARTS.len());
    let lanes = STARTS.iter().enumerate().map(|(number, start)| {
        let (cluster, installation) = (&cluster, &installation);
        (
            format!("application {number}"),
            lane(cluster, installation, number, *start, share),
        )
    });
    all(lanes.collect::<Vec<_>>()).await
}

async fn lane(
    cluster: &Cluster,
    installation: &Installation,
    number: usize,
    start: u64,
    wakes: usize,
) -> Result<()> {
    let namespace = Namespace::create(cluster, &format!("http-wakes-{number}")).await?;
    let echo = HttpEcho::new(format!("{}.example.org", namespace.name()))
        .variable("START_MS", start)
        // One of them stops at once, as most applications do.
        .variable("LINGER_MS", if number == 2 { 0 } else { 1000 })
        .change(
            "Deployment",
            "/spec/template/spec/terminationGracePeriodSeconds",
            json!(5),
        );
    echo.asleep(cluster, &namespace).await?;
    let visitor = ClientPod::start(&namespace)
        .await?
        .visitor(cluster, installation, echo.host())
        .await?;
    let wanted = http_echo::wanted(&namespace);
    let woken = || {
        let changes = wanted.changes();
        let edges = changes
            .windows(2)
            .filter(|pair| pair[0].value == 0 && pair[1].value > 0);
        edges.count()
    };
    let (audit, began) = (AuditLog::from_now()?, Instant::now());
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut slowest = Duration::ZERO;
    // In turn, each protocol is the first to come until it was held: all of them together, by all applications.
    let mut turns = Way::ALL
        .iter()
        .copied()
        .cycle()
        .skip(number * Way::ALL.len() / STARTS.len());
    let mut first = turns.next().ok_or_else(|| anyhow!("a cycle ended"))?;
    let (mut held_first, share_of_ways) = (0, Way::ALL.len().div_ceil(STARTS.len()));
    while woken() < wakes || held_first < share_of_ways {
        ensure!(
            began.elapsed() < PACE * u32::try_from(wakes.max(share_of_ways))?,
            "only {} wakes in {:?}, and {held_first} protocols that were held",
            woken(),
            began.elapsed()
        );
        let mut ways = vec![first];
        let more = rand::rng().random_range(0..4);
        ways.extend((0..more).filter_map(|_| Way::ALL.choose(&mut rand::rng()).copied()));
        let visits = ways.iter().enumerate().map(|(index, way)| {
            let later = rand::rng().random_range(0..=if index == 0 { 0 } else { 900 });
            let visitor = &visitor;
            async move {
                tokio::time::sleep(Duration::from_millis(later)).await;
                Ok::<_, anyhow::Error>((*way, visitor.visit(*way).await?))
            }
        });
        let visits = try_join_all(visits).await?;
        if visits.first().is_some_and(|(_, visit)| visit.cold == Some(true)) {
            held_first += 1;
            first = turns.next().ok_or_else(|| anyhow!("a cycle ended"))?;
        }
        for (way, visit) in visits {
            let (all, cold) = counts.entry(way.to_string()).or_default();
            *all += 1;
            *cold += usize::from(visit.cold == Some(true));
            slowest = slowest.max(visit.took);
        }
        // It falls asleep somewhere in there: a route counts as active for 3 s, and then come the cooldown and a tick.
        let pause = rand::rng().random_range(2500..6500);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    let (sent, refused) = wakes_sent(&audit, namespace.name())?;
    ensure!(
        sent >= woken() && refused * 4 <= woken(),
        "{refused} of {sent} writes that should wake it were refused, for {} wakes",
        woken()
    );
    eprintln!(
        "application {number}: {} wakes in {:?}, no failure, {refused} of {sent} writes for them refused, the slowest answer after {slowest:?}; (requests, held): {counts:?}",
        woken(),
        began.elapsed()
    );
    Ok(())
}

/// The writes by which the operator gave the application replicas, and how many of them the API server refused: each of those
/// costs a cold start its round trip and more. One now and then meets a change of somebody else's.
fn wakes_sent(audit: &AuditLog, namespace: &str) -> Result<(usize, usize)> {
    let wakes = audit.events(|event| {
        let object = &event["objectRef"];
        let replicas = [
            "/requestObject/spec/replicas",
            // Of a patch that is a list of operations.
            "/requestObject/1/value",
        ];
        let replicas = replicas.iter().find_map(|at| event.pointer(at)?.as_u64());
        object["namespace"] == namespace && object["subresource"] == "scale" && replicas > Some(0)
    })?;
    let refused = |event: &&Value| event["responseStatus"]["code"].as_u64() >= Some(400);
    Ok((wakes.len(), wakes.iter().filter(refused).count()))
}
