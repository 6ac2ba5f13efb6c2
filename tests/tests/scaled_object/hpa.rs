//! The HPA of a ScaledObject: put right, renamed, taken over, let go.

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::scaled::SOON;
use dormouse_tests::{Stage, until};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::play::{HPA_ACTS, METRIC, Play};

pub(crate) async fn deleted_or_edited_by_hand(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "by-hand", 0, 2).await?;
    play.begin(|_| {}).await?;
    let api: Api<HorizontalPodAutoscaler> = stage.namespace.api();
    let name = "keda-hpa-by-hand";
    let first = live(stage, name).await?;
    api.delete(name, &DeleteParams::default()).await?;
    until("the HPA is made again", SOON, async || {
        let now = live(stage, name).await?;
        ensure!(
            now["metadata"]["uid"] != first["metadata"]["uid"],
            "the old one is still there"
        );
        Ok(())
    })
    .await?;

    let edit = Patch::Merge(json!({
        "metadata": {
            "labels": {"scaledobject.keda.sh/name": null, "theirs": "stays"}, "annotations": {"theirs": "stays, too"},
        },
        "spec": {"maxReplicas": 99, "minReplicas": 3, "metrics": [], "behavior": {"scaleDown": {"selectPolicy": "Disabled"}}},
    }));
    api.patch(name, &PatchParams::default(), &edit).await?;
    until("the HPA is put right", SOON, async || {
        let now = live(stage, name).await?;
        ensure!(now["spec"] == first["spec"], "{:#}", now["spec"]);
        ensure!(
            now["metadata"]["labels"]["scaledobject.keda.sh/name"] == "by-hand",
            "{:#}",
            now["metadata"]["labels"]
        );
        ensure!(
            now["metadata"]["labels"]["theirs"] == "stays",
            "what others added is theirs"
        );
        ensure!(
            now["metadata"]["annotations"]["theirs"] == "stays, too",
            "what others added is theirs"
        );
        Ok(())
    })
    .await?;
    play.scaled.has(2, HPA_ACTS).await?;
    ensure!(play.scaled.counts() == [0, 1, 2], "{:?}", play.scaled.counts());
    Ok(())
}

pub(crate) async fn renamed(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "renamed", 0, 2).await?;
    play.begin(|_| {}).await?;
    live(stage, "keda-hpa-renamed").await?;
    stage
        .apply(play.object(|spec| named(spec, "another-name")))
        .await?;
    until("the HPA has its new name alone", SOON, async || {
        let now = live(stage, "another-name").await?;
        ensure!(
            now["spec"]["metrics"][0]["external"]["metric"]["name"] == METRIC,
            "{now:#}"
        );
        ensure!(play.hpa().await?.is_none(), "the old one is still there");
        Ok(())
    })
    .await?;
    play.scaled
        .status_is("status.hpaName", SOON, |status| {
            status["hpaName"] == "another-name"
        })
        .await?;
    play.scaled.has(2, HPA_ACTS).await
}

/// All labels and annotations but the excluded; a behavior that is taken away is gone.
pub(crate) async fn labels_and_behavior(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "labels", 0, 0).await?;
    let with = |behavior: bool| {
        let mut object = play.object(|spec| {
            if behavior {
                spec["advanced"] = json!({"horizontalPodAutoscalerConfig": {
                    "behavior": {"scaleDown": {"stabilizationWindowSeconds": 77}},
                }});
            }
        });
        object["metadata"]["labels"] = json!({"team": "a", "internal": "b", "cost-center": "c"});
        object["metadata"]["annotations"] =
            json!({"note": "n", "scaledobject.keda.sh/hpa-excluded-labels": "internal,other"});
        object
    };
    stage.apply(with(true)).await?;
    play.scaled.is_ready().await?;
    let made = live(stage, "keda-hpa-labels").await?;
    let labels = &made["metadata"]["labels"];
    ensure!(
        labels["team"] == "a" && labels["cost-center"] == "c",
        "{labels:#}"
    );
    ensure!(
        labels.get("internal").is_none(),
        "the excluded label was copied: {labels:#}"
    );
    ensure!(
        made["metadata"]["annotations"]["note"] == "n",
        "{:#}",
        made["metadata"]["annotations"]
    );
    ensure!(
        made["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 77,
        "{:#}",
        made["spec"]
    );
    stage.apply(with(false)).await?;
    until("the behavior is gone", SOON, async || {
        let now = live(stage, "keda-hpa-labels").await?;
        ensure!(
            now["spec"].get("behavior").is_none(),
            "{:#}",
            now["spec"]["behavior"]
        );
        Ok(())
    })
    .await
}

/// Handed over by annotation and name: the same HPA, with our spec and our owner reference.
pub(crate) async fn taken_over_when_asked_to(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "taken", 2, 2).await?;
    stage.apply(foreign("legacy", "taken")).await?;
    let before = live(stage, "legacy").await?;
    let transfer = |name: Option<&str>| {
        let mut object = play.object(|spec| {
            if let Some(name) = name {
                named(spec, name);
            }
        });
        object["metadata"]["annotations"] = json!({"scaledobject.keda.sh/transfer-hpa-ownership": "true"});
        object
    };
    stage.apply(transfer(None)).await?;
    let sentence = "the existing hpa 'legacy' for workload 'taken' of type 'apps/v1.Deployment' must be specified by name in \
                    advanced settings to enable ownership transfer";
    play.scaled.is_refused(sentence).await?;
    ensure!(
        live(stage, "legacy").await?["spec"] == before["spec"],
        "a foreign HPA was touched"
    );
    stage.apply(transfer(Some("legacy"))).await?;
    play.scaled.is_ready().await?;
    let now = live(stage, "legacy").await?;
    ensure!(
        now["metadata"]["uid"] == before["metadata"]["uid"],
        "it was not taken over but made anew"
    );
    ensure!(
        now["metadata"]["ownerReferences"][0]["name"] == "taken",
        "{:#}",
        now["metadata"]
    );
    ensure!(
        now["spec"]["maxReplicas"] == 4 && now["spec"]["metrics"][0]["external"]["metric"]["name"] == METRIC,
        "{now:#}"
    );
    play.scaled.condition_is("HPAActive", "True", "HPAActive").await?;
    ensure!(play.scaled.counts() == [2], "{:?}", play.scaled.counts());
    Ok(())
}

/// `validations.keda.sh/hpa-ownership: "false"` on a foreign HPA: it is not in the way, and is not touched.
pub(crate) async fn one_that_does_not_count_is_left_alone(stage: &Stage) -> Result<()> {
    let play = Play::prepare(stage, "beside", 2, 2).await?;
    let mut other = foreign("beside-it", "beside");
    other["metadata"]["annotations"] = json!({"validations.keda.sh/hpa-ownership": "false"});
    stage.apply(other).await?;
    let before = live(stage, "beside-it").await?;
    play.begin(|_| {}).await?;
    let now = live(stage, "beside-it").await?;
    ensure!(
        now["spec"] == before["spec"] && now["metadata"].get("ownerReferences").is_none(),
        "{now:#}"
    );
    play.hpa().await?.context("it has no HPA of its own").map(drop)
}

fn named(spec: &mut Value, name: &str) {
    spec["advanced"] = json!({"horizontalPodAutoscalerConfig": {"name": name}});
}

async fn live(stage: &Stage, name: &str) -> Result<Value> {
    let api: Api<HorizontalPodAutoscaler> = stage.namespace.api();
    Ok(serde_json::to_value(
        api.get(name)
            .await
            .with_context(|| format!("reading HPA {name}"))?,
    )?)
}

fn foreign(name: &str, target: &str) -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name},
        "spec": {
            "minReplicas": 2, "maxReplicas": 2,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
        },
    })
}
