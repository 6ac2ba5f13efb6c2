//! What the loss of a leader costs: how long until the next one decides, and which reads fail meanwhile.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::{Operators, until};
use tokio::time::Instant;

use crate::objects::{Field, Item, Tally};
use crate::reads::Probe;

/// How a leader goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Its process is killed.
    Killed,
    /// Its pod is deleted: it is told to stop, and may give up its lease.
    Stopped,
}

/// What a loss cost.
pub(crate) struct Cost {
    /// Until another replica held the lease.
    pub(crate) lease: Duration,
    /// Until that one's first decision took effect.
    pub(crate) first_decision: Duration,
    /// Until it had decided for all objects that had something to decide.
    pub(crate) all_decisions: Option<Duration>,
    pub(crate) failed_reads: usize,
    pub(crate) last_failed: Option<Duration>,
    pub(crate) reason: Option<String>,
}

const TAKE_OVER: Duration = Duration::from_secs(40);
const DECISIONS: Duration = Duration::from_secs(60);
/// Reads go on for so long after the last decision.
const AFTERMATH: Duration = Duration::from_secs(5);

/// Loses the leader. Of the active objects, `fallen` have their target set to 0 at that moment, which only a new leader
/// can put right.
pub(crate) async fn lose(
    loss: Loss,
    operators: &Operators,
    field: &Field,
    awake: &Tally,
    fallen: &[Item],
    probe: &Probe,
) -> Result<Cost> {
    let lost = operators.leader().await?;
    let at = Instant::now();
    match loss {
        Loss::Killed => {
            operators.kill(&lost).await?;
            field.put_to_sleep(fallen).await?;
        }
        Loss::Stopped => {
            field.put_to_sleep(fallen).await?;
            operators.stop(&lost).await?;
        }
    }
    // What is decided after the last look that still showed the old leader, the new one decided.
    let mut held = at;
    until("another replica leads", TAKE_OVER, async || {
        let looked = Instant::now();
        let now = operators.leader().await?;
        if now == lost {
            held = looked;
        }
        ensure!(now != lost, "{lost} still holds the lease");
        Ok(())
    })
    .await?;
    let led = Instant::now();
    // The one that was told to stop may put some right in its last moments.
    let decided = || {
        let since = awake.since();
        let mut times: Vec<Instant> = fallen
            .iter()
            .filter_map(|item| since.get(&item.name).copied())
            .collect();
        times.sort_unstable();
        times
    };
    let first = until("the first decision of the next leader", DECISIONS, async || {
        decided()
            .into_iter()
            .find(|time| *time >= held)
            .context("none of the fallen targets was put right")
    })
    .await?;
    let all = until("the last decision", DECISIONS, async || {
        let times = decided();
        ensure!(times.len() == fallen.len(), "{} of {}", times.len(), fallen.len());
        times.last().copied().context("no decisions")
    })
    .await;
    tokio::time::sleep(AFTERMATH).await;
    let (failed_reads, last_failed, reason) = probe.failed_since(at);
    Ok(Cost {
        lease: led - at,
        first_decision: first - at,
        all_decisions: all.ok().map(|all| all - at),
        failed_reads,
        last_failed,
        reason,
    })
}
