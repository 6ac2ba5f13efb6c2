//! The operator goes away, is installed again, and what holds is what the annotations say now: whatever they said before,
//! and whatever the operator that went knew. In between, nothing that it left behind stands in anybody's way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::scaled::condition;
use dormouse_tests::stage::{podless, scaled_object};
use dormouse_tests::upstream::Answer;
use dormouse_tests::{Stage, Upstream, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::{Value, json};

/// A first sync of the HPA controller, its 10 s before it scales down, and what a busy machine adds.
const SETTLES: Duration = Duration::from_secs(90);
/// Several ticks and the cooldown.
const STAYS: Duration = Duration::from_secs(6);
/// What the source asks for.
const ASKED: i32 = 2;

/// What somebody may have written on an object.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Brake {
    None,
    Paused,
    Held,
    ScaleIn,
    ScaleOut,
    Nonsense,
}

use Brake::{Held, None as Free, Nonsense, Paused, ScaleIn, ScaleOut};

const BRAKES: [Brake; 6] = [Free, Paused, Held, ScaleIn, ScaleOut, Nonsense];

impl Brake {
    /// The annotations, null for those that this brake is not.
    fn annotations(self) -> Value {
        let when = |brake: Self, value: &str| (self == brake).then(|| value.to_owned());
        let replicas = when(Held, "3").or_else(|| when(Nonsense, "a few"));
        json!({
            "autoscaling.keda.sh/paused": when(Paused, "true"),
            "autoscaling.keda.sh/paused-replicas": replicas,
            "autoscaling.keda.sh/paused-scale-in": when(ScaleIn, "true"),
            "autoscaling.keda.sh/paused-scale-out": when(ScaleOut, "true"),
        })
    }

    /// Where replicas come to rest that were `from`, while the source asks for [`ASKED`].
    fn rests_at(self, from: i32) -> i32 {
        match self {
            Free => ASKED,
            Paused | Nonsense => from,
            Held => 3,
            ScaleIn => from.max(ASKED),
            ScaleOut => from.min(ASKED),
        }
    }

    /// The direction that its HPA does not go, or `None` where there is no HPA.
    fn hpa(self) -> Option<[bool; 2]> {
        match self {
            Paused | Held | Nonsense => None,
            Free => Some([false, false]),
            ScaleIn => Some([true, false]),
            ScaleOut => Some([false, true]),
        }
    }
}

/// What is to be seen of one object.
#[derive(Debug, PartialEq)]
struct State {
    replicas: i32,
    hpa: Option<[bool; 2]>,
    paused: bool,
    paused_count: Option<i64>,
    ready: bool,
}

impl State {
    fn expected(brake: Brake, from: i32) -> Self {
        Self {
            replicas: brake.rests_at(from),
            hpa: brake.hpa(),
            paused: brake != Free,
            paused_count: (brake == Held).then_some(3),
            ready: brake != Nonsense,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn annotations_alone_say_what_holds_after_an_uninstall_and_an_install() -> Result<()> {
    let stage = Stage::set("restart").await?;
    let upstream = Upstream::start(Answer::value(f64::from(ASKED) * 5.0)).await?;
    for before in BRAKES {
        for after in BRAKES {
            let name = name(before, after);
            stage.apply(podless(&name, 0)).await?;
            let mut object = object(&name, &upstream);
            object["metadata"]["annotations"] = without_nulls(before.annotations());
            stage.apply(object).await?;
        }
    }
    let authentication = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": "keys"},
        "spec": {"podIdentity": {"provider": "none"}},
    });
    stage.apply(authentication).await?;
    stage.apply(podless("leaves", 0)).await?;
    stage.apply(object("leaves", &upstream)).await?;
    settle(&stage, "at first", |before, _| State::expected(before, 0)).await?;

    let uninstalled = Instant::now();
    stage.installation.uninstall(&stage.cluster).await?;
    eprintln!("uninstalled in {:?}", uninstalled.elapsed());
    let outcome = without_operator(&stage).await;
    // The next test file expects the installation, whatever became of this one.
    stage.installation.install(&stage.cluster).await?;
    outcome?;

    let from = |before: Brake| before.rests_at(0);
    settle(&stage, "afterwards", |before, after| {
        State::expected(after, from(before))
    })
    .await?;
    tokio::time::sleep(STAYS).await;
    settle(&stage, "to stay", |before, after| {
        State::expected(after, from(before))
    })
    .await
}

/// Objects are there and free of finalizers, can be deleted, and get other annotations.
async fn without_operator(stage: &Stage) -> Result<()> {
    for kind in ["scaledobjects", "triggerauthentications"] {
        let held = stage
            .namespace
            .kubectl(&["get", kind, "--output=jsonpath={.items[*].metadata.finalizers}"])
            .await?;
        ensure!(held.trim().is_empty(), "{kind} are still held: {held}");
    }
    let objects = stage.scaled_objects().list(&ListParams::default()).await?.items;
    ensure!(
        objects.len() == BRAKES.len() * BRAKES.len() + 1,
        "{} objects are left",
        objects.len()
    );
    stage.unscale("leaves").await?;
    until("an object can be deleted", Duration::from_secs(5), async || {
        let left = stage.scaled_objects().get_opt("leaves").await?;
        ensure!(left.is_none(), "it is still there");
        Ok(())
    })
    .await?;
    for before in BRAKES {
        for after in BRAKES {
            stage.annotate(&name(before, after), after.annotations()).await?;
        }
    }
    Ok(())
}

fn name(before: Brake, after: Brake) -> String {
    format!("{before:?}-then-{after:?}").to_lowercase()
}

fn object(name: &str, upstream: &Upstream) -> Value {
    let spec = json!({
        "scaleTargetRef": {"name": name}, "pollingInterval": 1, "cooldownPeriod": 1, "maxReplicaCount": 4,
        "triggers": [{
            "type": "metrics-api",
            "metadata": {"url": upstream.url("/depth"), "valueLocation": "value", "targetValue": "5"},
        }],
    });
    scaled_object(name, spec)
}

fn without_nulls(annotations: Value) -> Value {
    let pairs = annotations.as_object().cloned().unwrap_or_default();
    Value::Object(pairs.into_iter().filter(|(_, value)| !value.is_null()).collect())
}

/// Waits until every object is in the state that `expected` says of what it said before and says after.
async fn settle(stage: &Stage, when: &str, expected: impl Fn(Brake, Brake) -> State) -> Result<()> {
    until(
        &format!("every object is as its annotations say {when}"),
        SETTLES,
        async || {
            let seen = look(stage).await?;
            let mut wrong = Vec::new();
            for before in BRAKES {
                for after in BRAKES {
                    let (name, wanted) = (name(before, after), expected(before, after));
                    let found = seen.get(&name).with_context(|| format!("{name} is not there"))?;
                    if *found != wanted {
                        wrong.push(format!("{name}: {found:?} instead of {wanted:?}"));
                    }
                }
            }
            ensure!(
                wrong.is_empty(),
                "{} of 36 are not: {}",
                wrong.len(),
                wrong.join("; ")
            );
            Ok(())
        },
    )
    .await
}

async fn look(stage: &Stage) -> Result<BTreeMap<String, State>> {
    let all = ListParams::default();
    let deployments = stage.namespace.api::<Deployment>().list(&all).await?;
    let hpas = stage
        .namespace
        .api::<HorizontalPodAutoscaler>()
        .list(&all)
        .await?;
    let objects = stage.scaled_objects().list(&all).await?;
    let mut seen = BTreeMap::new();
    for object in objects {
        let name = object.name_any();
        let status = &object.data["status"];
        let holds = |type_: &str| condition(status, type_).is_some_and(|found| found["status"] == "True");
        let deployment = deployments
            .iter()
            .find(|deployment| deployment.name_any() == name);
        let hpa = hpas
            .iter()
            .find(|hpa| hpa.name_any() == format!("keda-hpa-{name}"));
        let hpa = hpa.map(serde_json::to_value).transpose()?;
        let state = State {
            replicas: deployment
                .and_then(|deployment| deployment.spec.as_ref()?.replicas)
                .unwrap_or(-1),
            hpa: hpa.map(|hpa| {
                ["scaleDown", "scaleUp"]
                    .map(|direction| hpa["spec"]["behavior"][direction]["selectPolicy"] == "Disabled")
            }),
            paused: holds("Paused"),
            paused_count: status["pausedReplicaCount"].as_i64(),
            ready: holds("Ready"),
        };
        seen.insert(name, state);
    }
    Ok(seen)
}
