//! The HPA arithmetic of `dormouse_core::hpa` beside the real HPA controller, over more than a hundred situations side
//! by side.
//!
//! ```text
//! Situation ─┬─> objects of the API server ──> HPA controller ──> audit log: what each sync read and wrote
//!            └─> HpaSpec, pods ──> evaluate(what the sync read) ── equal? ──> what the sync wrote
//! ```
//!
//! Each sync of each HPA is replayed: the replicas set, the status's counts, metric values and conditions with reason
//! and message must be those that the controller wrote, however late or early its syncs came.

#[path = "hpa_agrees/audit.rs"]
mod audit;
#[path = "hpa_agrees/behavior.rs"]
mod behavior;
#[path = "hpa_agrees/control_plane.rs"]
mod control_plane;
#[path = "hpa_agrees/external.rs"]
mod external;
#[path = "hpa_agrees/replay.rs"]
mod replay;
#[path = "hpa_agrees/resource.rs"]
mod resource;
#[path = "hpa_agrees/situation.rs"]
mod situation;
#[path = "hpa_agrees/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dormouse_core::hpa::HpaSettings;
use futures::future::join_all;

use crate::control_plane::ControlPlane;
use crate::situation::Situation;
use crate::world::World;

/// Flags that make the controller's own windows short enough to see their ends.
const SETTINGS: HpaSettings = HpaSettings {
    tolerance: 0.1,
    downscale_stabilization: Duration::from_secs(8),
    cpu_initialization_period: Duration::from_secs(25),
    initial_readiness_delay: Duration::from_secs(10),
    scale_to_zero: true,
};
/// For some syncs after the last step of a script.
const AFTERWARDS: Duration = Duration::from_secs(4);
const FEWEST_SYNCS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_arithmetic_is_that_of_the_real_controller() -> Result<()> {
    let situations: Vec<Situation> = [external::all(), behavior::all(), resource::all()]
        .into_iter()
        .flatten()
        .collect();
    let names: BTreeSet<_> = situations.iter().map(|situation| situation.name).collect();
    ensure!(names.len() == situations.len(), "two situations have one name");
    ensure!(situations.len() >= 40, "only {} situations", situations.len());

    let seconds = |name: &str, duration: Duration| {
        format!("--horizontal-pod-autoscaler-{name}={}s", duration.as_secs())
    };
    let control_plane = ControlPlane::start(&[
        seconds("sync-period", Duration::from_secs(1)),
        seconds("downscale-stabilization", SETTINGS.downscale_stabilization),
        seconds("cpu-initialization-period", SETTINGS.cpu_initialization_period),
        seconds("initial-readiness-delay", SETTINGS.initial_readiness_delay),
        format!("--horizontal-pod-autoscaler-tolerance={}", SETTINGS.tolerance),
    ])
    .await?;
    let world = World::new(control_plane.client());
    let played = join_all(situations.iter().map(|situation| async {
        let pods = world.play(situation).await;
        tokio::time::sleep(AFTERWARDS).await;
        pods
    }))
    .await;
    drop(world);
    let log = control_plane.finish().await?;

    let syncs = audit::syncs(&log)?;
    let mut faults = Vec::new();
    let (mut all, mut shifted, mut cut) = (0, 0, 0);
    for (situation, pods) in situations.iter().zip(played) {
        let outcome = pods.and_then(|pods| {
            let syncs = syncs.get(situation.name).context("the controller never looked")?;
            let account = replay::replay(situation, &SETTINGS, &pods, syncs)?;
            all += account.syncs;
            shifted += account.shifted;
            cut += usize::from(account.is_cut);
            check(situation, &account)
        });
        if let Err(error) = outcome {
            faults.push(format!("{}: {error:#}", situation.name));
        }
    }
    eprintln!(
        "{} situations, {all} syncs, {shifted} of them at the very end of a window; {cut} situations cut short by a lost write",
        situations.len()
    );
    ensure!(
        faults.is_empty(),
        "{} situations differ:\n{}",
        faults.len(),
        faults.join("\n")
    );
    ensure!(
        shifted * 20 <= all,
        "{shifted} of {all} syncs agree only within the clock's slack"
    );
    ensure!(
        cut * 10 <= situations.len(),
        "{cut} of {} situations were cut short by a lost write",
        situations.len()
    );
    Ok(())
}

/// Whether the situation was what its name says.
fn check(situation: &Situation, account: &replay::Account) -> Result<()> {
    ensure!(account.syncs >= FEWEST_SYNCS, "only {} syncs", account.syncs);
    ensure!(
        account.replicas == situation.replicas,
        "the replicas were {:?} instead of {:?}",
        account.replicas,
        situation.replicas
    );
    for reason in &situation.reasons {
        ensure!(
            account.reasons.contains(reason.as_str()),
            "no condition was {}; there were {:?}",
            reason.as_str(),
            account.reasons
        );
    }
    Ok(())
}
