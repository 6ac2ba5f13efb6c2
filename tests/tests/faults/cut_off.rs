//! A minute in which every packet between the operator and the API server is lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dormouse_tests::fleet::{METRIC, Member};
use dormouse_tests::operators::Usage;
use dormouse_tests::sources::Mood;
use dormouse_tests::{BlackHole, Fleet, Operators, Sources, Stage, until};

const SECOND: Duration = Duration::from_secs(1);
const CUT: Duration = Duration::from_secs(60);
const INTERVAL: u64 = 2;
/// From the moment that packets flow again to every loop's first tick.
const BACK: Duration = Duration::from_secs(10);
/// What the test's own eyes add on a busy machine.
const SEEN_LATE: Duration = Duration::from_secs(2);
/// What a process may hold more than before: a connection per watch that overlaps with its predecessor.
const MORE_DESCRIPTORS: u64 = 16;
const MORE_MEMORY_KIB: u64 = 12 << 10;
/// Who no longer leads keeps idle connections to sources for a minute and a half.
const LET_GO: Duration = Duration::from_secs(120);

pub(crate) async fn and_all_go_on(stage: &Stage) -> Result<()> {
    let operators = Operators::of(&stage.cluster, &stage.installation);
    let sources = Sources::start().await?;
    let fleet = Fleet::new(stage, &sources);
    let of = |kind: &str| (0..10).map(|index| format!("{kind}-{index}")).collect::<Vec<_>>();
    let (awake, asleep, woken) = (of("awake"), of("asleep"), of("woken"));
    let names = [awake.clone(), asleep.clone(), woken.clone()].concat();
    fleet.turn(&awake, &Mood::Value(10.0));
    let members: Vec<_> = names.iter().map(|name| Member::new(name, INTERVAL)).collect();
    fleet.add(&members).await?;
    fleet.are("Ready", "True", &names, 60 * SECOND).await?;
    let replicas = fleet.replicas(&names);
    for name in &awake {
        replicas[name]
            .reaches(&format!("{name} has 2"), 60 * SECOND, |count| *count == 2)
            .await?;
    }
    operators.are_ready(2, 60 * SECOND).await?;
    tokio::time::sleep(5 * SECOND).await;
    let (before, restarts) = (operators.usage().await?, operators.restarts().await?);
    ensure!(before.len() == 2, "two processes were to be found: {before:?}");
    let settled: BTreeMap<_, _> = replicas
        .iter()
        .map(|(name, seen)| (name, seen.changes().len()))
        .collect();

    let hole = BlackHole::around(&operators.addresses().await?).await?;
    let cut = Instant::now();
    tokio::time::sleep(CUT / 2).await;
    fleet.turn(&woken, &Mood::Value(5.0));
    tokio::time::sleep((cut + CUT).saturating_duration_since(Instant::now())).await;
    for (name, seen) in &replicas {
        ensure!(
            seen.changes().len() == settled[name],
            "{name} was scaled by somebody who was cut off: {:?}",
            seen.changes()
        );
    }
    ensure!(
        operators.restarts().await? == restarts,
        "a process that only lost the API server was restarted"
    );
    drop(hole);
    let back = Instant::now();
    let late = fleet.are_read(&names, back, BACK).await?;
    eprintln!("first reads came up to {:?} after the cut", late.iter().max());
    for name in &woken {
        replicas[name]
            .first(
                &format!("{name} wakes"),
                back,
                BACK + Duration::from_secs(INTERVAL) + SEEN_LATE,
                |count| *count >= 1,
            )
            .await?;
    }
    until("metrics are served again", 15 * SECOND, async || {
        for name in &awake {
            stage.metric(name, METRIC).await.map_err(anyhow::Error::msg)?;
        }
        Ok(())
    })
    .await?;
    fleet.are("Ready", "True", &names, 30 * SECOND).await?;
    for name in awake.iter().chain(&asleep) {
        ensure!(
            replicas[name].changes().len() == settled[name],
            "{name} moved though nothing changed for it: {:?}",
            replicas[name].changes()
        );
    }
    nothing_leaked(&operators, &before).await
}

async fn nothing_leaked(operators: &Operators, before: &BTreeMap<String, Usage>) -> Result<()> {
    until("both processes hold what they held before", LET_GO, async || {
        let now = operators.usage().await?;
        ensure!(now.keys().eq(before.keys()), "other pods: {now:?}");
        // Either may lead now, and it is the leader that has connections to sources: both together are compared.
        let more = |of: fn(&Usage) -> u64| {
            let sum = |all: &BTreeMap<String, Usage>| all.values().map(of).sum::<u64>();
            sum(&now).saturating_sub(sum(before))
        };
        ensure!(
            more(|usage| usage.descriptors as u64) <= MORE_DESCRIPTORS
                && more(|usage| usage.threads as u64) <= 4
                && more(|usage| usage.resident) <= 2 * MORE_MEMORY_KIB,
            "they held {before:?} and hold {now:?}"
        );
        eprintln!("held before {before:?}, after {now:?}");
        Ok(())
    })
    .await
}
