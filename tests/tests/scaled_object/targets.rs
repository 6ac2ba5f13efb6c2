//! Anything with a /scale subresource, and what is left of an object when it goes.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::scaled::SOON;
use dormouse_tests::stage::{Leftover, gated, podless};
use dormouse_tests::{Cluster, Scaled, Stage, Timeline, until};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::play::{HPA_ACTS, METRIC, Play};

pub(crate) async fn a_stateful_set(stage: &Stage) -> Result<()> {
    stage.apply(gated("StatefulSet", "ordered", 0)).await?;
    let api = stage.dynamic(&ApiResource::erase::<StatefulSet>(&()));
    let play = Play::on(stage, Scaled::watch_target(stage, "ordered", api, "ordered"), 2).await?;
    play.begin(|spec| spec["scaleTargetRef"]["kind"] = json!("StatefulSet"))
        .await?;
    play.scaled.has(2, HPA_ACTS).await?;
    let status = play.scaled.status();
    ensure!(status["scaleTargetKind"] == "apps/v1.StatefulSet", "{status:#}");
    play.scaled
        .event("KEDAScaleTargetActivated", "Scaled apps/v1.StatefulSet", 1)
        .await?;
    play.asks_for(0);
    play.scaled.has(0, HPA_ACTS).await
}

/// A kind that the operator cannot know, that came after it, and that keeps its count elsewhere than at `spec.replicas`.
pub(crate) async fn a_custom_resource(stage: &Stage) -> Result<()> {
    let kind = FleetKind::create(&stage.cluster).await?;
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(FleetKind::GROUP, "v1", "Fleet"), "fleets");
    let api = stage.dynamic(&resource);
    let fleet = json!({"apiVersion": "test.dormouse.dev/v1", "kind": "Fleet", "metadata": {"name": "fleet"}, "spec": {"size": 0}});
    until("the new kind is served", SOON, async || {
        stage.apply(fleet.clone()).await
    })
    .await?;
    let status = Patch::Merge(json!({"status": {"size": 0, "selector": "app=fleet"}}));
    api.patch_status("fleet", &PatchParams::default(), &status)
        .await?;
    let size = Timeline::of(api.clone(), "fleet", |fleet: &DynamicObject| {
        fleet.data["spec"]["size"].as_i64()
    });
    // Only a watch that has begun shows the first step.
    size.reaches("the fleet is seen at rest", SOON, |size| *size == Some(0))
        .await?;

    let play = Play::on(stage, Scaled::watch_target(stage, "fleet", api, "fleet"), 3).await?;
    play.begin(|spec| {
        spec["scaleTargetRef"] =
            json!({"name": "fleet", "kind": "Fleet", "apiVersion": "test.dormouse.dev/v1"});
    })
    .await?;
    size.reaches("the fleet grows to 3", HPA_ACTS, |size| *size == Some(3))
        .await?;
    let status = play.scaled.status();
    ensure!(
        status["scaleTargetKind"] == "test.dormouse.dev/v1.Fleet",
        "{status:#}"
    );
    ensure!(status["scaleTargetGVKR"]["resource"] == "fleets", "{status:#}");
    play.asks_for(0);
    size.reaches("the fleet rests", HPA_ACTS, |size| *size == Some(0))
        .await?;
    let seen: Vec<_> = size.changes().iter().filter_map(|change| change.value).collect();
    ensure!(
        seen.starts_with(&[0, 1, 3]) && seen.iter().all(|size| (0..=4).contains(size)),
        "{seen:?}"
    );
    drop(kind);
    Ok(())
}

/// The target is deleted under a running object, and comes back.
pub(crate) async fn one_that_goes_and_comes_back(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "coming", 0, 2).await?;
    play.begin(|_| {}).await?;
    play.scaled.has(2, HPA_ACTS).await?;
    let api: Api<Deployment> = stage.namespace.api();
    api.delete("coming", &DeleteParams::default()).await?;
    let message = play
        .scaled
        .condition_is("Ready", "False", "ErrorGettingCurrentReplicas")
        .await?;
    ensure!(
        message.contains("deployments.apps \"coming\" not found"),
        "{message}"
    );
    stage.apply(podless("coming", 0)).await?;
    let back = Instant::now();
    play.scaled.is_ready().await?;
    play.scaled
        .turned(back, HPA_ACTS, |count| count == 2)
        .await
        .map(drop)
}

/// With `restoreToOriginalReplicaCount`: the replicas it had, no HPA, no finalizer, no metric, one Event.
pub(crate) async fn replicas_are_given_back_at_the_end(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "restored", 3, 0).await?;
    play.begin(|spec| spec["advanced"] = json!({"restoreToOriginalReplicaCount": true}))
        .await?;
    play.scaled.has(0, SOON).await?;
    let status = play.scaled.status();
    ensure!(status["originalReplicaCount"] == 3, "{status:#}");
    let object = stage.scaled_objects().get("restored").await?;
    ensure!(
        object.metadata.finalizers == Some(vec!["finalizer.keda.sh".to_owned()]),
        "{:?}",
        object.metadata.finalizers
    );
    let series = format!(
        "namespace=\"{}\",scaledObject=\"restored\"",
        stage.namespace.name()
    );
    ensure!(
        stage.metrics_page().await?.contains(&series),
        "the metrics page does not know it"
    );

    stage.unscale("restored").await?;
    play.scaled.has(3, SOON).await?;
    until(
        "the object is gone, with its HPA and its metric",
        SOON,
        async || {
            ensure!(
                stage.scaled_objects().get_opt("restored").await?.is_none(),
                "it is still there"
            );
            ensure!(play.hpa().await?.is_none(), "its HPA is still there");
            let told = stage
                .metric("restored", METRIC)
                .await
                .err()
                .context("its metric is still served")?;
            ensure!(
                told.contains("ScaledObject.keda.sh \"restored\" not found"),
                "{told}"
            );
            ensure!(
                !stage.metrics_page().await?.contains(&series),
                "its series are still there"
            );
            Ok(())
        },
    )
    .await?;
    play.scaled
        .event("ScaledObjectDeleted", "ScaledObject was deleted", 1)
        .await?;
    let all = stage.events("restored").await?;
    let deleted = all.iter().find(|event| event.reason == "ScaledObjectDeleted");
    ensure!(
        deleted.is_some_and(|event| event.type_ == "Warning"),
        "{deleted:?}"
    );
    ensure!(play.scaled.counts() == [3, 0, 3], "{:?}", play.scaled.counts());
    Ok(())
}

pub(crate) async fn replicas_stay_at_the_end_unless_asked_for(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "left", 3, 2).await?;
    play.begin(|_| {}).await?;
    play.scaled.has(2, HPA_ACTS).await?;
    stage.unscale("left").await?;
    until("the object is gone, with its HPA", SOON, async || {
        ensure!(
            stage.scaled_objects().get_opt("left").await?.is_none(),
            "it is still there"
        );
        ensure!(play.hpa().await?.is_none(), "its HPA is still there");
        Ok(())
    })
    .await?;
    play.scaled.event("ScaledObjectDeleted", "", 1).await?;
    ensure!(play.scaled.counts() == [3, 2], "{:?}", play.scaled.counts());
    Ok(())
}

/// A custom kind with a /scale; it goes with this value.
struct FleetKind {
    _leftover: Leftover,
}

impl FleetKind {
    const GROUP: &str = "test.dormouse.dev";
    const CRD: &str = "fleets.test.dormouse.dev";

    async fn create(cluster: &Cluster) -> Result<Self> {
        let whole = json!({"type": "integer", "format": "int32"});
        let schema: Value = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"size": whole}},
            "status": {"type": "object", "properties": {"size": whole, "selector": {"type": "string"}}},
        }});
        let crd = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": Self::CRD},
            "spec": {
                "group": Self::GROUP, "scope": "Namespaced",
                "names": {"kind": "Fleet", "plural": "fleets", "singular": "fleet", "listKind": "FleetList"},
                "versions": [{
                    "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}, "scale": {
                        "specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size",
                        "labelSelectorPath": ".status.selector",
                    }},
                }],
            },
        });
        let api: Api<CustomResourceDefinition> = Api::all(cluster.client());
        let params = PatchParams::apply("dormouse-tests").force();
        api.patch(Self::CRD, &params, &Patch::Apply(&crd))
            .await
            .context("making the kind Fleet")?;
        Ok(Self {
            _leftover: Leftover::new(cluster, "crd", Self::CRD, "default"),
        })
    }
}
