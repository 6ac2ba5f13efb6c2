//! The steps of the bench, in the order in which an installation lives through them.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::operators::{is_ready, process};
use dormouse_tests::{Cluster, Installation, Operators, until};
use jiff::Timestamp;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::failover::{Loss, lose};
use crate::figures::Figures;
use crate::load::{Outcome, steady};
use crate::objects::{self, Field, Item, TARGET_VALUE, Tally};
use crate::process::{Process, Usage, usage};
use crate::reads::{Caller, Direct, Probe, floor, path, through};
use crate::source::{Group, Source};
use crate::{Arguments, audit};

const SECOND: Duration = Duration::from_secs(1);
/// Nothing is measured for so long after a change of all objects, for the HPA controller to come to rest.
const SETTLE: Duration = Duration::from_secs(40);
/// Over which steady figures are taken: whole polling intervals.
const STEADY: Duration = Duration::from_secs(60);
const POLLING: u32 = 30;
const HPA_SYNC: Duration = Duration::from_secs(15);
/// How long the operator may take to take in that all objects changed.
const DIGESTED: Duration = Duration::from_secs(300);
/// How long the HPA controller may take to look at every HPA.
const REACHED: Duration = Duration::from_secs(900);
const QUICK_POLLING: u32 = 5;
const RATE: u32 = 1000;
const LOAD: Duration = Duration::from_secs(15);
const WARM_UP: Duration = Duration::from_secs(2);
const SLOW_SOURCE: Duration = Duration::from_millis(40);
/// Objects whose targets fall when a leader is lost.
const FALLEN: usize = 20;

struct Bench<'a> {
    cluster: &'a Cluster,
    pair: Installation,
    operators: Operators,
    field: &'a Field,
    source: Source,
    items: Vec<Item>,
    arguments: &'a Arguments,
    figures: &'a mut Figures,
}

/// The two replicas.
struct Pair {
    leader: Process,
    follower: Process,
    leader_address: std::net::IpAddr,
    follower_address: std::net::IpAddr,
}

/// Goes through all steps.
pub(crate) async fn all(cluster: &Cluster, arguments: &Arguments, figures: &mut Figures) -> Result<()> {
    figures.add(
        "load",
        load_average(),
        "processes",
        None,
        "waiting for a processor before the start",
    );
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    figures.add(
        "processors",
        processors as f64,
        "",
        None,
        "shared by the cluster, the source and this bench",
    );
    objects::define(cluster).await?;
    let pair = Installation::standard()
        .replicas(2)
        .set("logging.operator.level=info")
        .set(format!(
            "podAnnotations.keda.dormouse\\.dev/build={}",
            arguments.build
        ));
    pair.install(cluster).await?;
    let field = Field::new(cluster).await?;
    let mut bench = Bench {
        cluster,
        operators: Operators::of(cluster, &pair),
        pair,
        field: &field,
        source: Source::start().await?,
        items: objects::items(arguments.objects as usize),
        arguments,
        figures,
    };
    let outcome = bench.run().await;
    if arguments.clear {
        say("removing all objects");
        let limit = Duration::from_secs(60 + u64::from(arguments.objects) / 20);
        field.clear(limit).await?;
        objects::undefine(cluster).await?;
        Installation::standard().install(cluster).await?;
    }
    outcome
}

impl Bench<'_> {
    async fn run(&mut self) -> Result<()> {
        let pair = self.pair().await?;
        self.field.go_ahead(&self.source).await?;
        self.memory("rss_empty", &pair, None)?;
        self.create(&pair).await?;
        self.asleep(&pair).await?;
        let awake = self.field.awake();
        self.activate(&pair, &awake).await?;
        self.active(&pair).await?;
        self.metric_reads(&pair).await?;
        let peak = pair.leader.peak()?;
        self.figures.add(
            self.named("rss", "peak"),
            peak,
            "MiB",
            None,
            "leader, since its start",
        );
        let descriptors = pair.leader.descriptors()? as f64;
        self.figures
            .add(self.named("fds", ""), descriptors, "descriptors", None, "leader");
        self.lose(Loss::Killed, "failover_kill", 16.0, &awake).await?;
        self.lose(Loss::Stopped, "failover_clean", 2.0, &awake).await
    }

    /// Waits until the objects are read about as often as their new interval says: the operator has taken in that all of
    /// them changed. Answers how long that took, or nothing if it gave up.
    async fn digested(&self) -> Option<Duration> {
        let began = Instant::now();
        while began.elapsed() < DIGESTED {
            let before = self.reads();
            sleep(HPA_SYNC).await;
            let read = (self.reads() - before) as f64;
            // While awake each is read once per sync; at the interval before, it was three times.
            if read <= 1.2 * self.items.len() as f64 {
                return Some(began.elapsed());
            }
        }
        None
    }

    /// Waits until the HPA controller has looked at every HPA: what it says of one changes the status of its object, which
    /// is no write of an installation at rest. Says how long that took.
    async fn reached(&self, scales: bool) -> String {
        say("waiting for the HPA controller to look at every HPA");
        let (began, scaling) = (Instant::now(), self.field.scaling(scales));
        match scaling.reach("HPAs looked at", self.items.len(), REACHED).await {
            Ok(()) => format!("all HPAs were looked at {:.0?} later", began.elapsed()),
            Err(error) => format!("{error:#}"),
        }
    }

    /// `kind_COUNT_rest`.
    fn named(&self, kind: &str, rest: &str) -> String {
        let underscore = if rest.is_empty() { "" } else { "_" };
        format!("{kind}_{}{underscore}{rest}", self.items.len())
    }

    /// The goals are those of 1,000 objects: for others a figure has none.
    fn goal(&self, value: f64) -> Option<f64> {
        (self.items.len() == 1000).then_some(value)
    }

    async fn pair(&self) -> Result<Pair> {
        let deadline = Duration::from_secs(90);
        until(
            "two replicas are ready, one of them leads",
            deadline,
            async || {
                let pods = self.operators.pods().await?;
                ensure!(
                    pods.len() == 2 && pods.iter().all(is_ready),
                    "{} pods",
                    pods.len()
                );
                let leader = self.operators.leader().await?;
                let mut found = Vec::new();
                for pod in &pods {
                    let name = pod.metadata.name.as_deref().unwrap_or_default();
                    let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
                    let address = address.context("a pod without an address")?.parse()?;
                    found.push((name != leader, Process(process(name)?), address));
                }
                found.sort_by_key(|(follows, ..)| *follows);
                let [
                    (false, leader, leader_address),
                    (true, follower, follower_address),
                ] = found[..]
                else {
                    anyhow::bail!("{leader} leads, and is not one of the pods");
                };
                Ok(Pair {
                    leader,
                    follower,
                    leader_address,
                    follower_address,
                })
            },
        )
        .await
    }

    fn memory(&mut self, name: &str, pair: &Pair, goal: Option<f64>) -> Result<()> {
        let (leader, follower) = (pair.leader.resident()?, pair.follower.resident()?);
        let note = format!(
            "the larger replica; leader {leader:.1}, follower {follower:.1}, sum {:.1}",
            leader + follower
        );
        self.figures.add(name, leader.max(follower), "MiB", goal, note);
        Ok(())
    }

    async fn create(&mut self, pair: &Pair) -> Result<()> {
        say("creating the targets");
        self.field.create_targets(&self.items).await?;
        let (ready, hpas) = (self.field.ready(), self.field.hpas());
        say("creating the ScaledObjects");
        self.record("create", pair);
        let (began, count) = (Instant::now(), self.items.len());
        self.field
            .create_scaled_objects(&self.items, &self.source)
            .await?;
        let created = Instant::now();
        let limit = Duration::from_secs(120 + count as u64 / 10);
        let all = async {
            ready.reach("ScaledObjects are Ready", count, limit).await?;
            hpas.reach("HPAs", count, limit).await
        };
        let outcome = all.await;
        let took = outcome.is_ok().then(|| created.elapsed().as_secs_f64());
        let note = format!(
            "from the last create; the creates took {:.1} s{}",
            (created - began).as_secs_f64(),
            outcome
                .as_ref()
                .err()
                .map_or(String::new(), |error| format!("; {error:#}"))
        );
        self.figures
            .add(format!("create_{count}_ready"), took, "s", self.goal(20.0), note);
        outcome
    }

    async fn asleep(&mut self, pair: &Pair) -> Result<()> {
        let reached = self.reached(false).await;
        say("asleep");
        sleep(SETTLE).await;
        let (reads, from) = (self.reads(), Timestamp::now());
        let used = usage(&[pair.leader, pair.follower], STEADY).await?;
        let note = format!(
            "both replicas; leader {:.3}, follower {:.3}; {:.0} reads/s; {reached}",
            used[0].busy,
            used[1].busy,
            per_second(self.reads() - reads)
        );
        self.figures.add(
            self.named("cpu", "asleep"),
            used.iter().map(|used| used.busy).sum::<f64>(),
            "cores",
            self.goal(0.05),
            note,
        );
        self.writes("asleep_writes_per_min", from)?;
        self.memory(&self.named("rss", "asleep"), pair, None)
    }

    async fn activate(&mut self, pair: &Pair, awake: &Tally) -> Result<()> {
        say("activating");
        self.field.set_interval(&self.items, QUICK_POLLING).await?;
        sleep(4 * QUICK_POLLING * SECOND).await;
        self.record("activate", pair);
        let before = self.reads();
        let used = usage(&[pair.leader], 2 * QUICK_POLLING * SECOND).await?;
        let note = format!(
            "leader; {:.0} reads/s",
            (self.reads() - before) as f64 / f64::from(2 * QUICK_POLLING)
        );
        self.figures.add(
            self.named("cpu", "asleep_at_5s"),
            used[0].busy,
            "cores",
            None,
            note,
        );
        let at = Instant::now();
        self.source.say(TARGET_VALUE);
        let outcome = awake
            .reach(
                "targets are scaled",
                self.items.len(),
                Duration::from_secs(60 + self.items.len() as u64 / 50),
            )
            .await;
        let mut took: Vec<f64> = awake
            .since()
            .values()
            .map(|since| (*since - at).as_secs_f64())
            .collect();
        took.sort_by(f64::total_cmp);
        // Those that were not scaled at all took longest.
        let kept =
            |share: f64| took.get(((self.items.len() as f64 * share).ceil() as usize).saturating_sub(1));
        let (median, p99) = (kept(0.5).copied(), kept(0.99).copied());
        let note = format!(
            "from the source's change to the target's; all at once; last {:.2}{}",
            took.last().copied().unwrap_or(f64::NAN),
            outcome
                .err()
                .map_or(String::new(), |error| format!("; {error:#}"))
        );
        self.figures.add("activation_p50", median, "s", None, "");
        self.figures.add("activation_p99", p99, "s", self.goal(6.0), note);
        self.field.set_interval(&self.items, POLLING).await
    }

    async fn active(&mut self, pair: &Pair) -> Result<()> {
        let digested = self.digested().await;
        let reached = self.reached(true).await;
        say("active, the HPA controller reading every 15 s");
        // Two syncs of the HPA controller more: it writes the status of each HPA that it now begins to read for.
        sleep(SETTLE + SETTLE / 2).await;
        self.record("active", pair);
        let groups = [Group::Plain, Group::Cached];
        let before = groups.map(|group| self.source.reads(group));
        let from = Timestamp::now();
        let used = usage(&[pair.leader, pair.follower], STEADY).await?;
        let after = groups.map(|group| self.source.reads(group));
        let digested = digested.map_or("not taken in".to_owned(), |took| format!("taken in {took:.0?}"));
        let note = format!(
            "both replicas; leader {:.3}, follower {:.3}; {digested} after the intervals were changed; {reached}",
            used[0].busy, used[1].busy
        );
        self.figures.add(
            self.named("cpu", "active"),
            used.iter().map(|used| used.busy).sum::<f64>(),
            "cores",
            self.goal(0.15),
            note,
        );
        self.writes("idle_writes_per_min", from)?;
        for (group, name, goal, note) in [
            (
                0,
                "source_reads_per_30s",
                2.0,
                "per active object, the HPA reading too",
            ),
            (
                1,
                "source_reads_per_30s_cached",
                1.0,
                "the same with useCachedMetrics",
            ),
        ] {
            let objects = self
                .items
                .iter()
                .filter(|item| item.group == groups[group])
                .count();
            let windows = STEADY.as_secs_f64() / 30.0;
            let reads = (after[group] - before[group]) as f64 / windows / objects as f64;
            // A window's edge may fall between two ticks of an object.
            let rounded = (reads * 50.0).round() / 50.0;
            self.figures.add(name, rounded, "reads", goal, note);
        }
        self.memory(&self.named("rss", ""), pair, self.goal(80.0))
    }

    async fn metric_reads(&mut self, pair: &Pair) -> Result<()> {
        say("reading metrics, the source taking 40 ms");
        let (bare, url) = (
            reqwest::Client::builder().no_proxy().build()?,
            self.source.floor(),
        );
        let bare = |_| floor(bare.clone(), url.clone());
        steady(RATE, WARM_UP, bare).await;
        let outcome = steady(RATE, LOAD, bare).await;
        self.latencies(
            "metric_get_floor",
            &outcome,
            None,
            "of a server in the bench itself",
        );
        self.source.delay(SLOW_SOURCE);
        let caller = Caller::new(self.cluster, &self.pair, &self.field.namespace).await?;
        let (leader, follower) = (caller.to(pair.leader_address)?, caller.to(pair.follower_address)?);
        let paths: Vec<String> = self
            .items
            .iter()
            .map(|item| path(self.field.namespace.name(), item))
            .collect();
        let pick = |number: usize| paths[number * 7919 % paths.len()].clone();
        self.record("metric-reads", pair);
        let both = [pair.leader, pair.follower];
        let directly = async |way: &Direct| {
            steady(RATE, WARM_UP, |number| way.clone().read(pick(number))).await;
            let used = usage(&both, LOAD);
            let load = steady(RATE, LOAD, |number| way.clone().read(pick(number)));
            tokio::join!(load, used)
        };
        let (to_leader, used) = directly(&leader).await;
        self.latencies("metric_get_direct", &to_leader, Some(5.0), &busy(&used?));
        let (to_follower, used) = directly(&follower).await;
        self.latencies("metric_get_follower", &to_follower, None, &busy(&used?));
        let client = self.cluster.client();
        let aggregated = |number: usize| through(client.clone(), pick(number));
        steady(RATE, WARM_UP, aggregated).await;
        let outcome = steady(RATE, LOAD, aggregated).await;
        self.latencies("metric_get", &outcome, None, "through the API server");
        self.source.delay(Duration::ZERO);
        Ok(())
    }

    fn latencies(&mut self, name: &str, outcome: &Outcome, goal: Option<f64>, note: &str) {
        let failures = outcome.failure.as_ref().map_or(String::new(), |reason| {
            format!("; {} failed: {reason}", outcome.failed)
        });
        let note = format!("{} answers at 1,000/s; {note}{failures}", outcome.answered());
        self.figures
            .add(format!("{name}_p50"), outcome.percentile(0.5), "ms", None, "");
        self.figures
            .add(format!("{name}_p99"), outcome.percentile(0.99), "ms", goal, note);
    }

    async fn lose(&mut self, loss: Loss, name: &str, goal: f64, awake: &Tally) -> Result<()> {
        say(match loss {
            Loss::Killed => "killing the leader",
            Loss::Stopped => "stopping the leader",
        });
        self.pair().await?;
        let apart = (self.items.len() / FALLEN).max(1);
        let fallen: Vec<Item> = self.items.iter().step_by(apart).take(FALLEN).cloned().collect();
        let read = self
            .items
            .iter()
            .filter(|item| fallen.iter().all(|other| other.name != item.name));
        let paths = read.map(|item| path(self.field.namespace.name(), item)).collect();
        let probe = Probe::start(self.cluster, paths);
        sleep(3 * SECOND).await;
        let cost = lose(loss, &self.operators, self.field, awake, &fallen, &probe).await?;
        let all = cost.all_decisions.map_or("not all".to_owned(), |all| {
            format!("all {:.2}", all.as_secs_f64())
        });
        let note = format!(
            "to the first decision; lease {:.2}, {all} {} objects that were due",
            cost.lease.as_secs_f64(),
            fallen.len()
        );
        self.figures
            .add(name, cost.first_decision.as_secs_f64(), "s", goal, note);
        let last = cost.last_failed.map_or(String::new(), |last| {
            format!("the last {:.1} s after the loss: ", last.as_secs_f64())
        });
        let goal = (loss == Loss::Stopped).then_some(0.0);
        self.figures.add(
            format!("{name}_failed_reads"),
            cost.failed_reads as f64,
            "of 20/s",
            goal,
            format!("{last}{}", cost.reason.unwrap_or_default()),
        );
        Ok(())
    }

    fn reads(&self) -> u64 {
        self.source.reads(Group::Plain) + self.source.reads(Group::Cached)
    }

    /// The writes of the minute since `from`.
    fn writes(&mut self, name: &str, from: Timestamp) -> Result<()> {
        let state =
            std::env::var_os("DORMOUSE_CLUSTER_STATE").context("DORMOUSE_CLUSTER_STATE is not set")?;
        let written = audit::writes(Path::new(&state), &self.pair, from, Timestamp::now())?;
        let minutes = from.duration_until(Timestamp::now()).as_secs_f64() / 60.0;
        let count = written.values().sum::<u64>() as f64;
        let note = written
            .iter()
            .map(|(what, count)| format!("{count} {what}"))
            .collect::<Vec<_>>();
        let note = format!("besides the lease {}", note.join(", "));
        self.figures
            .add(name, (count / minutes).round(), "writes", 0.0, note);
        Ok(())
    }

    /// Records the next half minute of the leader, where that was asked for.
    fn record(&self, step: &str, pair: &Pair) {
        let Some(dir) = &self.arguments.perf else { return };
        let file = dir.join(format!("{step}.data"));
        let spawned = Command::new("perf")
            .args([
                "record",
                "--quiet",
                "--freq=499",
                "--call-graph=dwarf,16384",
                "--output",
            ])
            .arg(file)
            .args(["--pid", &pair.leader.0.to_string(), "--", "sleep", "30"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        if let Err(error) = spawned {
            say(&format!("perf cannot be started: {error}"));
        }
    }
}

fn per_second(count: u64) -> f64 {
    count as f64 / STEADY.as_secs_f64()
}

fn busy(used: &[Usage]) -> String {
    let each = |used: &Usage| {
        format!(
            "{:.2} cores and {:.2} threads waiting for one",
            used.busy, used.waiting
        )
    };
    format!("leader {}, follower {}", each(&used[0]), each(&used[1]))
}

pub(crate) fn load_average() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

pub(crate) fn say(what: &str) {
    eprintln!("==> {what}");
}
