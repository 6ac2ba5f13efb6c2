//! A workload with a source of its own that a case turns up and down.

use std::time::Duration;

use anyhow::Result;
use dormouse_tests::scaled::SOON;
use dormouse_tests::stage::{podless, scaled_object};
use dormouse_tests::upstream::Answer;
use dormouse_tests::{Scaled, Stage, Upstream};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::{Value, json};

/// One replica carries this much; [`Play::asks_for`] multiplies by it.
pub(crate) const TARGET: u32 = 5;
/// The metric of every play.
pub(crate) const METRIC: &str = "s0-metric-api-value";
/// For the HPA controller's next sync, and what follows from it.
pub(crate) const HPA_ACTS: Duration = Duration::from_secs(40);
/// Cooldown of every play that sets none of its own.
pub(crate) const COOLDOWN: Duration = Duration::from_secs(2);

/// A ScaledObject, its Deployment of the same name, and the source it reads.
pub(crate) struct Play<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) scaled: Scaled<'a>,
    pub(crate) upstream: Upstream,
    name: String,
}

impl<'a> Play<'a> {
    /// A podless Deployment with this many replicas, and a source that asks for `asked`. Nothing scales it yet.
    pub(crate) async fn prepare(stage: &'a Stage, name: &str, replicas: u32, asked: u32) -> Result<Self> {
        stage.apply(podless(name, replicas)).await?;
        let scaled = Scaled::watch(stage, name);
        // On a busy machine the watch may begin late, and would miss what it was at first.
        scaled.has(replicas.into(), SOON).await?;
        Self::on(stage, scaled, asked).await
    }

    /// The same on a target that is there already.
    pub(crate) async fn on(stage: &'a Stage, scaled: Scaled<'a>, asked: u32) -> Result<Self> {
        let upstream = Upstream::start(asking_for(asked)).await?;
        let name = scaled.name().to_owned();
        Ok(Self {
            stage,
            scaled,
            upstream,
            name,
        })
    }

    /// What [`spec`](Self::spec) is made of, changed by `change`, as an object.
    pub(crate) fn object(&self, change: impl FnOnce(&mut Value)) -> Value {
        let mut spec = json!({
            "scaleTargetRef": {"name": self.name}, "pollingInterval": 1, "cooldownPeriod": COOLDOWN.as_secs(),
            "maxReplicaCount": 4,
            "triggers": [{
                "type": "metrics-api",
                "metadata": {"url": self.upstream.url("/depth"), "valueLocation": "value", "targetValue": TARGET.to_string()},
            }],
        });
        change(&mut spec);
        scaled_object(&self.name, spec)
    }

    /// Applies the ScaledObject with `change` made to its spec, and waits until it is in order.
    pub(crate) async fn begin(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        self.stage.apply(self.object(change)).await?;
        self.scaled.is_ready().await
    }

    /// From now on the source asks for this many replicas.
    pub(crate) fn asks_for(&self, replicas: u32) {
        self.upstream.answer(asking_for(replicas));
    }

    /// From now on the source fails.
    pub(crate) fn fails(&self) {
        self.upstream.answer(Answer::status(500, ""));
    }

    /// Its HPA under the usual name.
    pub(crate) async fn hpa(&self) -> Result<Option<HorizontalPodAutoscaler>> {
        Ok(self
            .stage
            .namespace
            .api()
            .get_opt(&format!("keda-hpa-{}", self.name))
            .await?)
    }
}

fn asking_for(replicas: u32) -> Answer {
    Answer::value(f64::from(replicas * TARGET))
}
