//! The chart's rights are enough and not one too many: whichever of them is taken away, the operator asks for it and is
//! refused. Every other test of the suite fails on such a refusal by its own subject, or by `logs::assert_nothing_denied`.
//!
//! ```text
//! a few operators, each with a share of the rights ──> one right gone ──> a tour of what users do ──> the API server's
//! audit log shows exactly that right being refused ──> the right given back
//! ```

#[path = "rbac/audit.rs"]
mod audit;
#[path = "rbac/lane.rs"]
mod lane;
#[path = "rbac/permission.rs"]
mod permission;
#[path = "rbac/tour.rs"]
mod tour;

use std::time::Duration;

use anyhow::{Result, ensure};
use dormouse_tests::stage::all;
use dormouse_tests::upstream::Answer;
use dormouse_tests::{Cluster, Installation, Upstream};

use crate::lane::Lane;

/// Operators that are tried side by side.
const LANES: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_right_can_be_taken_away() -> Result<()> {
    let cluster = Cluster::connect().await?;
    // It brings the CRDs. And it watches every namespace, and would do the work of the operators that lack a right.
    Installation::shared(&cluster).await?.uninstall(&cluster).await?;
    let upstream = Upstream::start(Answer::value(10.0)).await?;
    let mut lanes = Vec::new();
    for number in 0..LANES {
        lanes.push(Lane::open(&cluster, number).await?);
    }
    let mut shares: Vec<Vec<_>> = vec![Vec::new(); LANES];
    let mut count = 0;
    let mut rights = lanes[0].rights().await?;
    for right in lanes[1].rights().await? {
        if right.lane().is_some() && !rights.contains(&right) {
            rights.push(right);
        }
    }
    for right in rights.iter().filter(|right| !right.is_for_older_servers(&rights)) {
        shares[right.lane().unwrap_or(count % LANES)].push(right.clone());
        count += 1;
    }
    ensure!(count > 40, "only {count} rights were found in the chart's roles");
    let tries = lanes
        .iter()
        .zip(shares)
        .map(|(lane, share)| (lane.name().to_owned(), lane.try_without_each(share, &upstream)));
    all(tries).await?;
    for lane in &lanes {
        lane.close(Duration::from_secs(30)).await?;
    }
    Ok(())
}
