//! One account of a server is told to come back later; its objects obey, and those of other accounts do not notice.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dormouse_tests::fleet::Member;
use dormouse_tests::sources::Mood;
use dormouse_tests::{Fleet, Sources, Stage};
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);
const OBJECTS: usize = 20;
const INTERVAL: u64 = 1;
const WAIT: Duration = Duration::from_secs(20);
/// What was under way when the server first asked for patience.
const UNDER_WAY: Duration = Duration::from_millis(500);

pub(crate) async fn per_account(stage: &Stage) -> Result<()> {
    let sources = Sources::start().await?;
    let fleet = Fleet::new(stage, &sources);
    let of = |account: &'static str| {
        (0..OBJECTS)
            .map(move |index| format!("{account}-{index}"))
            .collect::<Vec<_>>()
    };
    let (busy, other) = (of("busy"), of("other"));
    for account in ["busy", "other"] {
        stage
            .apply(json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": account},
                "stringData": {"token": format!("token-of-{account}")},
            }))
            .await?;
        stage
            .apply(json!({
                "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": account},
                "spec": {"secretTargetRef": [{"parameter": "token", "name": account, "key": "token"}]},
            }))
            .await?;
    }
    let member = |name: &String| Member {
        authentication: name.split('-').next().map(str::to_owned),
        ..Member::new(name, INTERVAL)
    };
    let members: Vec<_> = busy.iter().chain(&other).map(member).collect();
    fleet.add(&members).await?;
    fleet
        .are(
            "Ready",
            "True",
            &[busy.clone(), other.clone()].concat(),
            60 * SECOND,
        )
        .await?;

    let first_of = |names: &[String], since: Instant| {
        names
            .iter()
            .filter_map(|name| sources.first_since(name, since))
            .min()
    };
    fleet.turn(&busy, &Mood::Throttles(WAIT));
    let throttled = Instant::now();
    tokio::time::sleep(2 * SECOND).await;
    let first = first_of(&busy, throttled);
    let Some(first) = first else {
        anyhow::bail!("nobody of the busy account was there to be told");
    };
    fleet.turn(&busy, &Mood::Value(1.0));
    let before = first_of(&busy, first + UNDER_WAY);
    tokio::time::sleep((first + WAIT).saturating_duration_since(Instant::now())).await;
    let again = before.or(first_of(&busy, first + UNDER_WAY));
    if let Some(again) = again {
        ensure!(
            again >= first + WAIT - SECOND,
            "the busy account was called again {:?} after it was told to wait {WAIT:?}",
            again - first
        );
    }
    let in_vain = busy
        .iter()
        .flat_map(|name| sources.asked(name))
        .filter(|asked| asked.status == 429)
        .count();
    eprintln!("{in_vain} calls of {OBJECTS} objects were told to wait");
    for name in &other {
        let asked = sources.asked(name);
        let times: Vec<_> = asked
            .iter()
            .map(|asked| asked.at)
            .filter(|at| *at >= throttled)
            .collect();
        let longest = times
            .windows(2)
            .map(|two| two[1] - two[0])
            .max()
            .unwrap_or_default();
        ensure!(
            longest < Duration::from_secs(3 * INTERVAL) && times.len() > 10,
            "{name}, of another account, was read {} times with a gap of {longest:?}",
            times.len()
        );
    }
    fleet.are("Active", "True", &busy, 15 * SECOND).await
}
