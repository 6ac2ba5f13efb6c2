//! Sources that hang, stall, flood, lie and answer nonsense, beside 200 that do nothing of the kind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::fleet::{METRIC, Member};
use dormouse_tests::sources::Mood;
use dormouse_tests::{Fleet, Operators, Sources, Stage};

const SECOND: Duration = Duration::from_secs(1);
const HEALTHY: usize = 200;
const INTERVAL: u64 = 5;
const WATCHED: Duration = Duration::from_secs(30);
/// The most that the ticks of healthy objects may begin late as a rule. The worst of thousands is the machine's affair here,
/// and the engine's in its own tests, where time stands still; but it never comes near the deadline of a read.
const LATE: f64 = 0.1;
const WORST: f64 = 1.0;
const LATENESS: &str = "keda_internal_scale_loop_latency_seconds{";

pub(crate) async fn beside_two_hundred(stage: &Stage) -> Result<()> {
    let operators = Operators::of(&stage.cluster, &stage.installation);
    let sources = Sources::start().await?;
    let fleet = Fleet::new(stage, &sources);
    let bad = bad_moods();
    for (name, mood) in &bad {
        sources.is(name, mood.clone());
    }
    let healthy: Vec<_> = (0..HEALTHY).map(|index| format!("healthy-{index}")).collect();
    let unwell: Vec<_> = bad.keys().map(|name| (*name).to_owned()).collect();
    let names = [healthy.clone(), unwell.clone()].concat();
    let members: Vec<_> = names.iter().map(|name| Member::new(name, INTERVAL)).collect();
    fleet.add(&members).await?;
    fleet.are("Ready", "True", &healthy, 60 * SECOND).await?;
    fleet.are("Ready", "False", &unwell, 30 * SECOND).await?;
    let replicas = fleet.replicas(&names);

    let mut lateness: Vec<f64> = Vec::new();
    let began = Instant::now();
    let woken = &healthy[HEALTHY / 2];
    fleet.turn(std::slice::from_ref(woken), &Mood::Value(1.0));
    while began.elapsed() < WATCHED {
        let pages = operators.metrics().await?;
        lateness.extend(pages.values().flat_map(|page| late(page, stage.namespace.name())));
        tokio::time::sleep(SECOND).await;
    }
    lateness.sort_by(f64::total_cmp);
    let worst = *lateness.last().context("no lateness was measured")?;
    let median = lateness[lateness.len() / 2];
    eprintln!(
        "{} looks at lateness: median {median} s, worst {worst} s",
        lateness.len()
    );
    ensure!(
        median <= LATE,
        "as a rule, a healthy object's tick began {median} s late"
    );
    ensure!(worst <= WORST, "a healthy object's tick began {worst} s late");
    let woke = replicas[woken]
        .first(
            "a healthy one wakes",
            began,
            Duration::from_secs(INTERVAL) + 3 * SECOND,
            |count| *count == 1,
        )
        .await?;
    eprintln!("awake {:?} after its source was active", woke.at - began);
    for name in &unwell {
        let counts: Vec<_> = replicas[name]
            .changes()
            .iter()
            .map(|change| change.value)
            .collect();
        ensure!(counts == [0], "{name} was scaled on nothing: {counts:?}");
        let served = stage.metric(name, METRIC).await;
        ensure!(
            served.is_err(),
            "{name} has a metric that nobody knows: {served:?}"
        );
    }
    Ok(())
}

/// Every kind of answer that gives no number.
fn bad_moods() -> BTreeMap<&'static str, Mood> {
    let says = |body: &str| Mood::Says(body.to_owned());
    BTreeMap::from([
        ("hangs", Mood::Hangs),
        ("stalls", Mood::Stalls),
        ("floods", Mood::Floods),
        ("fails", Mood::Status(500, "no".to_owned())),
        ("late", Mood::Slow(50.0, 20 * SECOND)),
        ("empty", says("")),
        ("markup", says("<html>}{")),
        ("nothing", says("{\"value\":null}")),
        ("not-a-number", says("{\"value\":NaN}")),
        ("nan-text", says("{\"value\":\"NaN\"}")),
        ("infinite", says("{\"value\":1e999}")),
        ("minus-infinite", says("{\"value\":-1e999}")),
        (
            "nested",
            Mood::Says(format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000))),
        ),
        ("objects", Mood::Says("{\"value\":".repeat(100_000))),
    ])
}

/// How late the last tick of each healthy object was, by one pod's page.
fn late(page: &str, namespace: &str) -> Vec<f64> {
    let own = format!("namespace=\"{namespace}\"");
    let lines = page.lines().filter(|line| {
        line.starts_with(LATENESS) && line.contains(&own) && line.contains("resource=\"healthy-")
    });
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect()
}
