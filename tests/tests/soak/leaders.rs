//! Leaders that die again and again.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dormouse_tests::fleet::{METRIC, Member};
use dormouse_tests::invariants::HPA_SYNC;
use dormouse_tests::sources::Mood;
use dormouse_tests::{Fleet, MetricReads, Operators, Sources, Stage, until};

const SECOND: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_secs(20);

/// No HPA is without a good read for two of its syncs, and no replica moves.
pub(crate) async fn are_killed(stage: &Stage, watched: Duration) -> Result<()> {
    let operators = Operators::of(&stage.cluster, &stage.installation);
    let sources = Sources::start().await?;
    let fleet = Fleet::new(stage, &sources);
    let names: Vec<_> = (0..6).map(|index| format!("steady-{index}")).collect();
    fleet.turn(&names, &Mood::Value(10.0));
    fleet
        .add(&names.iter().map(|name| Member::new(name, 2)).collect::<Vec<_>>())
        .await?;
    let replicas = fleet.replicas(&names);
    for name in &names {
        replicas[name]
            .reaches(&format!("{name} has 2"), 60 * SECOND, |count| *count == 2)
            .await?;
    }
    let settled: Vec<_> = names.iter().map(|name| replicas[name].changes().len()).collect();
    operators.are_ready(2, 60 * SECOND).await?;
    tokio::time::sleep(3 * SECOND).await;

    let reads = MetricReads::start(&stage.cluster, stage.namespace.name(), &names, METRIC, SECOND / 2);
    let (began, mut killed) = (Instant::now(), 0_u32);
    while began.elapsed() < watched {
        let next = began + killed * EVERY;
        tokio::time::sleep(next.saturating_duration_since(Instant::now())).await;
        let leader = until("somebody leads", 30 * SECOND, async || operators.leader().await).await?;
        operators.replace(&leader).await?;
        killed += 1;
    }
    tokio::time::sleep(EVERY).await;
    let gaps = reads.longest_gaps();
    let worst = gaps.values().max().copied().unwrap_or_default();
    eprintln!(
        "{killed} leaders were killed; {} of {} reads failed, the longest gap was {worst:?}",
        reads.failed().len(),
        reads.count()
    );
    for read in reads.failed() {
        eprintln!(
            "{:.1} s: failed after {:?}: {}",
            (read.began - began).as_secs_f64(),
            read.ended - read.began,
            read.failure
                .unwrap_or_default()
                .chars()
                .take(200)
                .collect::<String>()
        );
    }
    ensure!(
        worst <= 2 * HPA_SYNC,
        "an HPA was without a good read for {worst:?}: {gaps:?}"
    );
    for (name, settled) in names.iter().zip(settled) {
        let changes = replicas[name].changes();
        ensure!(changes.len() == settled, "{name} moved: {changes:?}");
    }
    Ok(())
}
