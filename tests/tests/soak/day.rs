//! A day in minutes: whatever can go wrong does, and what must hold is watched from outside.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use dormouse_tests::fleet::METRIC;
use dormouse_tests::invariants::{Observed, Violation, settled};
use dormouse_tests::operators::Usage;
use dormouse_tests::{Fleet, MetricReads, Operators, Sources, Stage, Timeline, logs, until};
use tokio_util::task::AbortOnDropHandle;

use crate::driver::Driver;
use crate::world::{AUTHENTICATED, CANARY, TOKEN, World, authenticated};

const SECOND: Duration = Duration::from_secs(1);
const PLAIN: usize = 12;
/// What a process of so few objects may ever hold.
const MOST: Usage = Usage {
    resident: 100 << 10,
    descriptors: 300,
    threads: 40,
};
/// From the end of all faults until all is well.
const WELL: Duration = Duration::from_secs(60);

pub(crate) async fn passes(stage: &Stage, watched: Duration, seed: u64) -> Result<()> {
    eprintln!("the seed is {seed}");
    let outcome = a_day(stage, watched, seed).await;
    eprintln!("the seed was {seed}");
    outcome.map_err(|error| error.context(format!("with seed {seed}")))
}

async fn a_day(stage: &Stage, watched: Duration, seed: u64) -> Result<()> {
    let plain = (0..PLAIN).map(|index| format!("plain-{index}"));
    let names: Vec<_> = plain.chain((0..AUTHENTICATED).map(authenticated)).collect();
    let sources = Sources::start().await?.apart(&names).await?;
    let members = names.iter().map(|name| Driver::member(name)).collect();
    let mut world = World::create(stage, &sources, members).await?;
    let fleet = Fleet::new(stage, &sources);
    fleet.are("Ready", "True", &names, 60 * SECOND).await?;
    let replicas = fleet.replicas(&names);
    for (name, seen) in &replicas {
        seen.reaches(&format!("{name} is seen"), 10 * SECOND, |_| true)
            .await?;
    }
    let reads = MetricReads::start(&stage.cluster, stage.namespace.name(), &names, METRIC, SECOND);
    let gauge = Gauge::start(&world.operators);
    let mut driver = Driver::new(seed, names.clone());
    while world.began().elapsed() < watched {
        driver.step(&mut world).await?;
    }
    driver.heal(&mut world).await?;
    let end = Instant::now();
    if let Err(error) = all_is_well(&world, &fleet, &replicas).await {
        world.violations.push(Violation::now(format_args!("{error:#}")));
    }
    world.read_logs().await;
    let canaries = [CANARY, TOKEN];
    for checked in [
        logs::assert_no_canary(
            &stage.cluster,
            &stage.installation,
            stage.namespace.name(),
            &canaries,
        )
        .await,
        logs::assert_nothing_denied(&stage.cluster, &stage.installation).await,
    ] {
        if let Err(error) = checked {
            world.violations.push(Violation::now(format_args!("{error:#}")));
        }
    }
    judge(world, &replicas, &reads, &gauge, end)
}

/// Once nothing is wrong any more: every object is in order, and has what its source asks for.
async fn all_is_well(
    world: &World<'_>,
    fleet: &Fleet<'_>,
    replicas: &BTreeMap<String, Timeline<i64>>,
) -> Result<()> {
    world.operators.are_ready(2, WELL).await?;
    fleet.are("Ready", "True", &world.names(), WELL).await?;
    until("every object has what it asks for", WELL, async || {
        for (name, life) in &world.lives {
            let (Some(Some(member)), Some(mood)) = (life.specs.now(), life.moods.now()) else {
                continue;
            };
            let wanted = member.wanted(mood.number().unwrap_or_default());
            let has = replicas[name].now();
            if has != Some(wanted) {
                let patience = settled(member.interval);
                bail!("{name} has {has:?} instead of {wanted}, which takes {patience:?} at most");
            }
        }
        Ok(())
    })
    .await
}

fn judge(
    world: World<'_>,
    replicas: &BTreeMap<String, Timeline<i64>>,
    reads: &MetricReads,
    gauge: &Gauge,
    end: Instant,
) -> Result<()> {
    let began = world.began();
    let mut violations = world.refusals();
    violations.extend(gauge.violations());
    let (outages, sources) = (world.outages, world.sources);
    let (mut changes, mut asked) = (0, 0);
    for (name, life) in world.lives {
        let observed = Observed {
            replicas: replicas[&name].changes(),
            asked: sources.asked(&name),
            reads: reads.of(&name),
            specs: life.specs,
            moods: life.moods,
            paused: life.paused,
            name,
        };
        changes += observed.replicas.len();
        asked += sources.count(&observed.name);
        violations.extend(observed.violations(&outages, end));
    }
    violations.extend(world.violations);
    violations.sort_by_key(|violation| violation.at);
    eprintln!(
        "{} outages, {changes} changes of replicas, {asked} reads of sources, {} reads of metrics ({} failed), at most {:?}",
        outages.len(),
        reads.count(),
        reads.failed().len(),
        gauge.most(),
    );
    let lines: Vec<_> = violations
        .iter()
        .map(|violation| {
            let at = violation.at.saturating_duration_since(began).as_secs_f64();
            format!("{at:7.1} s  {}", violation.what)
        })
        .collect();
    if !lines.is_empty() {
        bail!("{} violations:\n{}", lines.len(), lines.join("\n"));
    }
    eprintln!("0 violations");
    Ok(())
}

/// Looks at what the operator's processes hold, every few seconds.
struct Gauge {
    found: Arc<Mutex<(Usage, Vec<Violation>)>>,
    _task: AbortOnDropHandle<()>,
}

impl Gauge {
    fn start(operators: &Operators) -> Self {
        let found = Arc::<Mutex<(Usage, Vec<Violation>)>>::default();
        let (noted, operators) = (found.clone(), operators.clone());
        let task = tokio::spawn(async move {
            loop {
                for (pod, usage) in operators.usage().await.unwrap_or_default() {
                    let mut found = noted.lock().unwrap_or_else(PoisonError::into_inner);
                    let most = &mut found.0;
                    most.resident = most.resident.max(usage.resident);
                    most.descriptors = most.descriptors.max(usage.descriptors);
                    most.threads = most.threads.max(usage.threads);
                    let too_much = usage.resident > MOST.resident
                        || usage.descriptors > MOST.descriptors
                        || usage.threads > MOST.threads;
                    if too_much && found.1.len() < 10 {
                        found
                            .1
                            .push(Violation::now(format_args!("{pod} holds {usage:?}")));
                    }
                }
                tokio::time::sleep(3 * SECOND).await;
            }
        });
        Self {
            found,
            _task: AbortOnDropHandle::new(task),
        }
    }

    fn most(&self) -> Usage {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn violations(&self) -> Vec<Violation> {
        self.found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .1
            .clone()
    }
}
