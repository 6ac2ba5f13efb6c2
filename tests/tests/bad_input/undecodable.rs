//! An object that got past a CRD without a schema, as an old or foreign CRD would let it.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::stage::podless;
use dormouse_tests::upstream::Answer;
use dormouse_tests::{Cluster, Scaled, Stage, Upstream, until};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::cases::{Good, REPLICAS};
use crate::neighbour::Neighbour;

const CRD: &str = "scaledobjects.keda.sh";
const FIELD: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/pollingInterval";

/// While this lives, `spec.pollingInterval` may be anything.
struct Loosened {
    strict: Value,
}

impl Loosened {
    async fn crd(cluster: &Cluster) -> Result<Self> {
        let api: Api<CustomResourceDefinition> = Api::all(cluster.client());
        let all = serde_json::to_value(api.get(CRD).await?)?;
        let strict = all
            .pointer(FIELD)
            .context("the CRD has no pollingInterval")?
            .clone();
        ensure!(
            strict["type"] == "integer",
            "somebody loosened the CRD before: {strict}"
        );
        let this = Self { strict };
        replace(&api, json!({"x-kubernetes-preserve-unknown-fields": true})).await?;
        Ok(this)
    }

    async fn restore(self, cluster: &Cluster) -> Result<()> {
        replace(&Api::all(cluster.client()), self.strict.clone()).await
    }
}

impl Drop for Loosened {
    fn drop(&mut self) {
        // Also after a test that failed: the next one needs the CRD as it was. After `restore` this changes nothing.
        let Ok(kubectl) = std::env::var("DORMOUSE_KUBECTL") else {
            return;
        };
        let patch = json!([{"op": "replace", "path": FIELD, "value": self.strict}]).to_string();
        let _ = Command::new(kubectl)
            .args([
                "patch",
                "crd",
                CRD,
                "--type=json",
                "--request-timeout=5s",
                "-p",
                &patch,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

async fn replace(api: &Api<CustomResourceDefinition>, schema: Value) -> Result<()> {
    let operations = serde_json::from_value(json!([{"op": "replace", "path": FIELD, "value": schema}]))?;
    let patch = Patch::<()>::Json(operations);
    api.patch(CRD, &PatchParams::default(), &patch)
        .await
        .map(drop)
        .context("changing the CRD")
}

/// The odd object is told what is wrong with it; the neighbour, and one that comes later, work; then it is put right.
pub(crate) async fn told_so_and_nobody_else_harmed(stage: &Stage, neighbour: &Neighbour<'_>) -> Result<()> {
    let upstream = Upstream::start(Answer::value(10.0)).await?;
    let good = Good::new(&upstream);
    let odd = Scaled::watch(stage, "odd");
    stage.apply(podless("odd", REPLICAS)).await?;
    let loosened = Loosened::crd(&stage.cluster).await?;
    let mut object = good.object("odd");
    object["spec"]["pollingInterval"] = json!({"every": "now and then"});
    until(
        "the API server takes the odd object",
        Duration::from_secs(30),
        async || stage.apply(object.clone()).await,
    )
    .await?;
    let message = odd
        .is_refused("ScaledObject doesn't have a correct specification: ")
        .await?;
    ensure!(
        message.contains("pollingInterval"),
        "the message does not name the field: {message}"
    );
    odd.event(
        "ScaledObjectCheckFailed",
        "ScaledObject doesn't have a correct specification",
        1,
    )
    .await?;
    let_go_when_deleted(stage, &good).await?;
    loosened.restore(&stage.cluster).await?;

    let later = Scaled::watch(stage, "later");
    stage.apply(podless("later", 0)).await?;
    stage.apply(good.object("later")).await?;
    later.is_ready().await?;
    later.has(i64::from(REPLICAS), Duration::from_secs(40)).await?;
    let before = neighbour.reads();
    until(
        "the neighbour is still read",
        Duration::from_secs(10),
        async || {
            ensure!(
                neighbour.reads() >= before + 3,
                "{} reads",
                neighbour.reads() - before
            );
            Ok(())
        },
    )
    .await?;
    neighbour.was_not_disturbed()?;
    odd.event(
        "ScaledObjectCheckFailed",
        "ScaledObject doesn't have a correct specification",
        1,
    )
    .await?;
    ensure!(
        odd.counts() == [i64::from(REPLICAS)],
        "the odd object's replicas moved: {:?}",
        odd.counts()
    );

    // Server-side apply cannot merge into a value of the wrong type; an edit can replace it.
    let edit = Patch::Merge(json!({"spec": {"pollingInterval": 1}}));
    let api = stage.scaled_objects();
    api.patch("odd", &PatchParams::default(), &edit).await?;
    odd.is_ready().await?;
    odd.condition_is("Active", "True", "ScalerActive").await.map(drop)
}

/// One that was in order, got our finalizer, and was then made unreadable, does not hang for ever when it is deleted.
async fn let_go_when_deleted(stage: &Stage, good: &Good) -> Result<()> {
    let leaving = Scaled::watch(stage, "leaving");
    stage.apply(podless("leaving", 0)).await?;
    stage.apply(good.object("leaving")).await?;
    leaving.is_ready().await?;
    let edit = Patch::Merge(json!({"spec": {"pollingInterval": {"every": "now and then"}}}));
    let api = stage.scaled_objects();
    let edited = api.patch("leaving", &PatchParams::default(), &edit).await?;
    ensure!(
        edited
            .metadata
            .finalizers
            .is_some_and(|finalizers| !finalizers.is_empty()),
        "it had no finalizer to begin with"
    );
    leaving
        .is_refused("ScaledObject doesn't have a correct specification: ")
        .await?;
    stage.unscale("leaving").await?;
    until("it is gone", Duration::from_secs(10), async || {
        ensure!(api.get_opt("leaving").await?.is_none(), "it is still there");
        Ok(())
    })
    .await
}
