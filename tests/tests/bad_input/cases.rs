//! One wrong object from its creation to its repair.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::stage::{podless, scaled_object};
use dormouse_tests::upstream::Answer;
use dormouse_tests::{Scaled, Stage, Upstream, until};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::{Value, json};

/// Replicas of every target, before and after: what the good source asks for, too.
pub(crate) const REPLICAS: u32 = 2;
/// The operator tries again by itself within this time, whatever it was.
const RETRIED: Duration = Duration::from_secs(45);

/// What a right object looks like.
#[derive(Clone)]
pub(crate) struct Good {
    url: String,
}

impl Good {
    /// Objects that read `upstream`, which should answer 10.
    pub(crate) fn new(upstream: &Upstream) -> Self {
        Self {
            url: upstream.url("/depth"),
        }
    }

    /// A trigger that asks for two replicas.
    pub(crate) fn trigger(&self) -> Value {
        json!({"type": "metrics-api", "metadata": {"url": self.url, "valueLocation": "value", "targetValue": "5"}})
    }

    /// A right spec for the target `name`.
    pub(crate) fn spec(&self, name: &str) -> Value {
        json!({
            "scaleTargetRef": {"name": name}, "pollingInterval": 1, "cooldownPeriod": 2, "maxReplicaCount": 4,
            "triggers": [self.trigger()],
        })
    }

    /// The right object `name`.
    pub(crate) fn object(&self, name: &str) -> Value {
        scaled_object(name, self.spec(name))
    }
}

/// How a wrong thing is put right.
pub(crate) enum Repair {
    /// These are applied.
    Apply(Vec<Value>),
    /// This is deleted: kind and name, as kubectl takes them.
    Delete(&'static str, String),
}

/// One wrong object.
pub(crate) struct Wrong {
    pub(crate) name: String,
    /// What else must be there, applied first.
    pub(crate) besides: Vec<Value>,
    /// The ScaledObject.
    pub(crate) object: Value,
    /// What its Ready condition must say: the field, what is wrong, what is accepted.
    pub(crate) sentence: String,
    /// A further Warning: reason and note.
    pub(crate) warning: Option<(&'static str, String)>,
    pub(crate) repair: Repair,
}

impl Wrong {
    /// The good object `name`, spoiled; put right again by applying it unspoiled.
    pub(crate) fn spoiled(
        good: &Good,
        name: &str,
        sentence: impl Into<String>,
        spoil: impl FnOnce(&mut Value),
    ) -> Self {
        let mut object = good.object(name);
        spoil(&mut object);
        Self {
            name: name.to_owned(),
            besides: Vec::new(),
            object,
            sentence: sentence.into(),
            warning: None,
            repair: Repair::Apply(vec![good.object(name)]),
        }
    }

    /// The same with another Warning besides.
    pub(crate) fn warned(mut self, reason: &'static str, note: impl Into<String>) -> Self {
        self.warning = Some((reason, note.into()));
        self
    }

    /// The same with further objects.
    pub(crate) fn besides(mut self, objects: impl IntoIterator<Item = Value>) -> Self {
        self.besides.extend(objects);
        self
    }

    /// The same with another way to put it right.
    pub(crate) fn repaired_by(mut self, repair: Repair) -> Self {
        self.repair = repair;
        self
    }
}

/// Ready=False with the sentence, one Warning, no HPA, no replica changed; then put right, and it scales.
pub(crate) async fn refused_until_put_right(stage: &Stage, wrong: Wrong) -> Result<()> {
    let name = wrong.name.as_str();
    let scaled = Scaled::watch(stage, name);
    stage.apply(podless(name, REPLICAS)).await?;
    for object in wrong.besides {
        stage.apply(object).await?;
    }
    stage.apply(wrong.object).await?;
    let message = scaled.is_refused(&wrong.sentence).await?;
    // A note holds 1,024 bytes.
    let note: String = message.chars().take(900).collect();
    scaled.event("ScaledObjectCheckFailed", &note, 1).await?;
    if let Some((reason, note)) = &wrong.warning {
        scaled.event(reason, note, 1).await?;
    }
    let hpas = stage.namespace.api::<HorizontalPodAutoscaler>();
    let hpa = hpas.get_opt(&format!("keda-hpa-{name}")).await?;
    let ours = |hpa: &HorizontalPodAutoscaler| {
        hpa.metadata
            .owner_references
            .iter()
            .flatten()
            .any(|owner| owner.name == name)
    };
    ensure!(!hpa.as_ref().is_some_and(ours), "an HPA was made all the same");

    match wrong.repair {
        Repair::Apply(objects) => {
            for object in objects {
                stage.apply(object).await?;
            }
        }
        Repair::Delete(kind, object) => stage
            .namespace
            .kubectl(&["delete", kind, &object])
            .await
            .map(drop)?,
    }
    scaled
        .condition_within("Ready", "True", "ScaledObjectReady", RETRIED)
        .await?;
    scaled.condition_is("Active", "True", "ScalerActive").await?;
    scaled
        .event("ScaledObjectReady", "ScaledObject is ready for scaling", 1)
        .await?;
    // Said once, however often it was looked at meanwhile.
    scaled.event("ScaledObjectCheckFailed", &note, 1).await?;
    let counts = scaled.counts();
    ensure!(
        counts.iter().all(|count| *count == i64::from(REPLICAS)),
        "replicas moved: {counts:?}"
    );
    Ok(())
}

/// An object that ran goes on as before while its newest version is wrong, and says so.
pub(crate) async fn edited_badly(stage: &Stage) -> Result<()> {
    let upstream = Upstream::start(Answer::value(0.0)).await?;
    let good = Good::new(&upstream);
    let scaled = Scaled::watch(stage, "edited");
    stage.apply(podless("edited", 0)).await?;
    stage.apply(good.object("edited")).await?;
    scaled.is_ready().await?;
    let mut typo = good.object("edited");
    typo["spec"]["triggers"][0]["metadata"]["targetValue"] = json!("five");
    stage.apply(typo).await?;
    scaled
        .is_refused("unable to set param \"targetValue\" value \"five\": expected a number")
        .await?;

    let asked = Instant::now();
    upstream.answer(Answer::value(10.0));
    scaled
        .turned(asked, Duration::from_secs(10), |count| count > 0)
        .await
        .context("the old version still wakes")?;
    let value = until(
        "the old version still feeds the HPA",
        Duration::from_secs(10),
        async || {
            let value = stage.metric_value("edited", "s0-metric-api-value").await?;
            ensure!(value == "10", "the metric is {value}");
            Ok(value)
        },
    );
    value.await?;
    scaled.has(2, Duration::from_secs(40)).await?;
    scaled
        .is_refused("expected a number")
        .await
        .context("a tick of the old version must not hide the mistake")?;
    stage.apply(good.object("edited")).await?;
    scaled.is_ready().await?;
    upstream.answer(Answer::value(0.0));
    scaled.has(0, Duration::from_secs(60)).await
}
