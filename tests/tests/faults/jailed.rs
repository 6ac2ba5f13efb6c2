//! An API server that turns every request of the operator away with 429 and `Retry-After`, by its own priority and fairness.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::fleet::Member;
use dormouse_tests::sources::Mood;
use dormouse_tests::stage::Leftover;
use dormouse_tests::{Cluster, Fleet, Operators, Sources, Stage, manifest};
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);
/// Longer than the lease, so that the leader has to give up, too.
const JAILED: Duration = Duration::from_secs(20);
const INTERVAL: u64 = 2;
const OF_EACH: usize = 5;
/// From the moment that requests are let in again to every loop's first tick.
const BACK: Duration = Duration::from_secs(10);
const SEEN_LATE: Duration = Duration::from_secs(2);
/// What two operators may ask in a second: who is told to wait for a second, and has this little to do, asks no more.
const ASKED_PER_SECOND: f64 = 30.0;

pub(crate) async fn and_obeys(stage: &Stage) -> Result<()> {
    let operators = Operators::of(&stage.cluster, &stage.installation);
    let sources = Sources::start().await?;
    let fleet = Fleet::new(stage, &sources);
    let of = |kind: &str| {
        (0..OF_EACH)
            .map(|index| format!("{kind}-{index}"))
            .collect::<Vec<_>>()
    };
    let (awake, asleep, woken) = (of("held"), of("dozing"), of("roused"));
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
    let restarts = operators.restarts().await?;

    let jail = Jail::for_the_operator(stage).await?;
    let jailed = Instant::now();
    tokio::time::sleep(JAILED / 2).await;
    fleet.turn(&woken, &Mood::Value(5.0));
    tokio::time::sleep((jailed + JAILED).saturating_duration_since(Instant::now())).await;
    let rejected = jail.rejected(&stage.cluster).await?;
    drop(jail);
    let back = Instant::now();
    let rate = rejected / JAILED.as_secs_f64();
    eprintln!("{rejected} requests were turned away in {JAILED:?}, {rate:.1} per second");
    ensure!(rejected > 0.0, "nobody was turned away: this test shows nothing");
    ensure!(
        rate <= ASKED_PER_SECOND,
        "{rate:.1} requests per second of those who were told to wait"
    );
    fleet.are_read(&names, back, BACK).await?;
    for name in &woken {
        let deadline = BACK + Duration::from_secs(INTERVAL) + SEEN_LATE;
        replicas[name]
            .first(&format!("{name} wakes"), jailed, deadline, |count| *count >= 1)
            .await?;
    }
    for name in awake.iter().chain(&asleep) {
        let moved: Vec<_> = replicas[name]
            .changes()
            .into_iter()
            .filter(|change| change.at > jailed)
            .collect();
        ensure!(
            moved.is_empty(),
            "{name} moved though nothing changed for it: {moved:?}"
        );
    }
    ensure!(
        operators.restarts().await? == restarts,
        "a process that was told to wait was restarted"
    );
    fleet.are("Ready", "True", &names, 30 * SECOND).await
}

/// A priority level without a single seat, for the operator's ServiceAccount; it goes with this value.
struct Jail {
    name: String,
    _schema: Leftover,
    _level: Leftover,
}

impl Jail {
    async fn for_the_operator(stage: &Stage) -> Result<Self> {
        let name = format!("jail-{}", stage.namespace.name());
        let limited = json!({
            "nominalConcurrencyShares": 0, "borrowingLimitPercent": 0, "lendablePercent": 0,
            "limitResponse": {"type": "Reject"},
        });
        let account = json!({"name": "keda-operator", "namespace": stage.installation.namespace()});
        let everything = json!({
            "resourceRules": [{
                "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"],
            }],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "subjects": [{"kind": "ServiceAccount", "serviceAccount": account}],
        });
        let api = "flowcontrol.apiserver.k8s.io/v1";
        let leftover = |kind| Leftover::new(&stage.cluster, kind, &name, stage.namespace.name());
        let jail = Self {
            _schema: leftover("flowschema"),
            _level: leftover("prioritylevelconfiguration"),
            name: name.clone(),
        };
        for object in [
            json!({
                "apiVersion": api, "kind": "PriorityLevelConfiguration", "metadata": {"name": name},
                "spec": {"type": "Limited", "limited": limited},
            }),
            json!({
                "apiVersion": api, "kind": "FlowSchema", "metadata": {"name": name},
                "spec": {
                    "matchingPrecedence": 1, "priorityLevelConfiguration": {"name": name}, "rules": [everything],
                },
            }),
        ] {
            manifest::apply_value(&stage.cluster, "", object).await?;
        }
        Ok(jail)
    }

    /// How many requests the API server has turned away so far.
    async fn rejected(&self, cluster: &Cluster) -> Result<f64> {
        let page = cluster.kubectl(&["get", "--raw", "/metrics"]).await?;
        let own = format!("flow_schema=\"{}\"", self.name);
        let counts = page
            .lines()
            .filter(|line| {
                line.starts_with("apiserver_flowcontrol_rejected_requests_total{") && line.contains(&own)
            })
            .map(|line| {
                let value = line.rsplit(' ').next().unwrap_or_default();
                value
                    .parse::<f64>()
                    .with_context(|| format!("{line} has no number"))
            });
        counts.sum()
    }
}
