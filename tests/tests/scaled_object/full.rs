//! One object with everything, beside what KEDA makes of the same manifest on the same version of Kubernetes.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::manifest::documents;
use dormouse_tests::stage::gated;
use dormouse_tests::upstream::Answer;
use dormouse_tests::{Scaled, Stage, Upstream, logs, until};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::{Value, json};

const MANIFESTS: &str = include_str!("full.yaml");
const TOKEN: &str = "CANARY-BEARER-3f9a60";
/// The cron trigger rests for a minute of each day.
const PAST_MIDNIGHT_IN_TOKYO: Duration = Duration::from_secs(90);

/// Only then does the API server let an HPA block its owner's deletion. It looks for new kinds every 30 s.
const UNTIL_KIND_IS_KNOWN: Duration = Duration::from_secs(45);

/// Where a value differs from KEDA's on purpose: pointer, ours, why.
fn differences() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        (
            "/metadata/labels/app.kubernetes.io~1version",
            json!(env!("CARGO_PKG_VERSION")),
            "it is the operator's own version",
        ),
        (
            "/status/lastActiveTime",
            Value::Null,
            "a moment; ours is when activity began, KEDA's the last poll",
        ),
    ]
}

pub(crate) async fn looks_as_kedas_do(stage: &Stage) -> Result<()> {
    let upstream = Upstream::start(Answer::status(200, "{\"v\":15}")).await?;
    let found = documents(&MANIFESTS.replace("UPSTREAM", &upstream.url("")))?;
    let [object, hpa, status] =
        <[Value; 3]>::try_from(found).map_err(|_| anyhow::anyhow!("three documents"))?;
    stage.apply(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"token": TOKEN},
    }))
    .await?;
    stage
        .apply(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": "ta"},
            "spec": {"secretTargetRef": [{"parameter": "bearerToken", "name": "keys", "key": "token"}]},
        }))
        .await?;
    stage.apply(gated("Deployment", "app", 1)).await?;
    let scaled = Scaled::watch(stage, "full");
    stage.apply(object).await?;
    until("the status is as KEDA's", PAST_MIDNIGHT_IN_TOKYO, async || {
        same(&json!({"status": scaled.status()}), &status)
    })
    .await?;
    until("the HPA is as KEDA's", UNTIL_KIND_IS_KNOWN, async || {
        let live: HorizontalPodAutoscaler = stage.namespace.api().get("keda-hpa-full").await?;
        same(&without_moments(serde_json::to_value(live)?), &hpa)
    })
    .await?;
    let live = stage.scaled_objects().get("full").await?;
    ensure!(
        live.metadata.finalizers == Some(vec!["finalizer.keda.sh".to_owned()]),
        "{:?}",
        live.metadata.finalizers
    );
    ensure!(
        live.metadata.labels.unwrap_or_default()["scaledobject.keda.sh/name"] == "full",
        "no label"
    );

    columns(stage).await?;
    events(&scaled).await?;
    external_metrics(stage).await?;
    prometheus(stage).await?;
    let with_token = |path: &str| {
        let seen = upstream.seen().into_iter().filter(|seen| seen.target == path);
        seen.map(|seen| {
            seen.headers
                .get("authorization")
                .is_some_and(|value| *value == format!("Bearer {TOKEN}"))
        })
        .collect()
    };
    let (a, b): (BTreeSet<bool>, BTreeSet<bool>) = (with_token("/a"), with_token("/b"));
    ensure!(
        a == BTreeSet::from([true]) && b == BTreeSet::from([false]),
        "the token went to /a {a:?}, to /b {b:?}"
    );
    logs::assert_no_canary(
        &stage.cluster,
        &stage.installation,
        stage.namespace.name(),
        &[TOKEN],
    )
    .await
}

/// Compares field by field; the differences on purpose must be differences.
fn same(ours: &Value, keda: &Value) -> Result<()> {
    let (mut ours, mut keda) = (ours.clone(), keda.clone());
    for (pointer, expected, why) in differences() {
        let (Some(a), Some(b)) = (ours.pointer_mut(pointer), keda.pointer_mut(pointer)) else {
            continue;
        };
        ensure!(
            expected.is_null() || *a == expected,
            "{pointer} is {a}, not {expected} ({why})"
        );
        (*a, *b) = (Value::Null, Value::Null);
    }
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    leaves("", &ours, &mut mine);
    leaves("", &keda, &mut theirs);
    let missing: Vec<_> = theirs.iter().filter(|leaf| !mine.contains(leaf)).collect();
    let extra: Vec<_> = mine.iter().filter(|leaf| !theirs.contains(leaf)).collect();
    ensure!(
        missing.is_empty() && extra.is_empty(),
        "only KEDA has {missing:#?}, only we have {extra:#?}"
    );
    Ok(())
}

/// Every value that is no object and no list, with the way to it.
fn leaves(path: &str, value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(all) => all
            .iter()
            .for_each(|(key, value)| leaves(&format!("{path}/{key}"), value, into)),
        Value::Array(all) => {
            all.iter()
                .enumerate()
                .for_each(|(index, value)| leaves(&format!("{path}/{index}"), value, into));
        }
        leaf => into.push(format!("{path} = {leaf}")),
    }
}

/// What differs from one run to the next, and the part that is the HPA controller's own.
fn without_moments(mut hpa: Value) -> Value {
    for key in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "managedFields",
        "namespace",
        "generation",
    ] {
        hpa["metadata"]
            .as_object_mut()
            .map(|metadata| metadata.remove(key));
    }
    hpa["metadata"]["ownerReferences"][0]
        .as_object_mut()
        .map(|owner| owner.remove("uid"));
    hpa.as_object_mut().map(|hpa| hpa.remove("status"));
    hpa["apiVersion"] = json!("autoscaling/v2");
    hpa["kind"] = json!("HorizontalPodAutoscaler");
    hpa
}

async fn columns(stage: &Stage) -> Result<()> {
    let listed = stage.namespace.kubectl(&["get", "so"]).await?;
    let lines: Vec<Vec<&str>> = listed
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let head = "NAME SCALETARGETKIND SCALETARGETNAME MIN MAX READY ACTIVE FALLBACK PAUSED TRIGGERS AUTHENTICATIONS AGE";
    ensure!(lines[0] == head.split(' ').collect::<Vec<_>>(), "{listed}");
    let row = "full apps/v1.Deployment app 0 3 True True False False metrics-api,cron ta";
    ensure!(lines[1][..11] == row.split(' ').collect::<Vec<_>>(), "{listed}");
    Ok(())
}

async fn events(scaled: &Scaled<'_>) -> Result<()> {
    for (reason, note, times) in [
        ("KEDAScalersStarted", "Scaler metrics-api is built", 2),
        ("KEDAScalersStarted", "Scaler cron is built", 1),
        ("KEDAScalersStarted", "Started scalers watch", 1),
        ("ScaledObjectReady", "ScaledObject is ready for scaling", 1),
    ] {
        scaled.event(reason, note, times).await?;
    }
    Ok(())
}

async fn external_metrics(stage: &Stage) -> Result<()> {
    for (metric, value) in [
        ("s0-metric-api-v", "15"),
        ("s1-metric-api-v", "15"),
        ("s2-cron-Asia-Tokyo-00xxx-5923xxx", "2"),
    ] {
        let mut answer = stage
            .metric("full", metric)
            .await
            .map_err(|sentence| anyhow::anyhow!(sentence))?;
        let time = answer
            .pointer_mut("/items/0/timestamp")
            .context("no timestamp")?
            .take();
        let time = time.as_str().unwrap_or_default();
        ensure!(
            time.len() == 20 && time.ends_with('Z'),
            "seconds are enough for a metric's time: {time:?}"
        );
        let expected = json!({
            "kind": "ExternalMetricValueList", "apiVersion": "external.metrics.k8s.io/v1beta1", "metadata": {},
            "items": [{"metricName": metric, "metricLabels": null, "timestamp": null, "value": value}],
        });
        ensure!(answer == expected, "{answer:#}");
    }
    let full = "?labelSelector=scaledobject.keda.sh%2Fname%3Dfull";
    let other = "?labelSelector=scaledobject.keda.sh%2Fname%3Dother";
    for (metric, query, sentence) in [
        ("s0-metric-api-v", "", "scaledObject name is not specified"),
        (
            "s9-nope",
            full,
            "rpc error: code = Unknown desc = error when getting metric values no matching metrics found for s9-nope",
        ),
        (
            "s0-metric-api-v",
            other,
            "rpc error: code = Unknown desc = error when getting metric values error getting scalers ScaledObject.keda.sh \
             \"other\" not found",
        ),
    ] {
        let told = stage
            .metric_selected(metric, query)
            .await
            .err()
            .context("a number for a question without one")?;
        let told = told
            .strip_prefix("rpc error: code = Unknown desc = ")
            .unwrap_or(&told);
        // There is no rpc here; the rest of the sentence is what people search for.
        let sentence = sentence
            .strip_prefix("rpc error: code = Unknown desc = ")
            .unwrap_or(sentence);
        ensure!(told == sentence, "{metric}{query}: {told:?}");
    }
    Ok(())
}

/// Every series that KEDA has for such an object: name, labels, and the value where it does not move.
async fn prometheus(stage: &Stage) -> Result<()> {
    let page = stage.metrics_page().await?;
    let namespace = stage.namespace.name();
    let triggers = [
        ("s0-metric-api-v", "first", "0", "15"),
        ("s1-metric-api-v", "metricsAPIScaler", "1", "15"),
        ("s2-cron-Asia-Tokyo-00xxx-5923xxx", "cronScaler", "2", "2"),
    ];
    let mut expected = vec![
        (
            series(
                "keda_scaled_object_errors_total",
                &[("namespace", namespace), ("scaledObject", "full")],
            ),
            Some("0"),
        ),
        (
            series(
                "keda_scaled_object_paused",
                &[("namespace", namespace), ("scaledObject", "full")],
            ),
            Some("0"),
        ),
        (
            series(
                "keda_internal_scale_loop_latency_seconds",
                &[
                    ("namespace", namespace),
                    ("resource", "full"),
                    ("type", "scaledobject"),
                ],
            ),
            None,
        ),
    ];
    for type_ in ["scaled_object", "trigger_authentication"] {
        let labels = [("namespace", namespace), ("type", type_)];
        expected.push((series("keda_resource_registered_total", &labels), Some("1")));
    }
    for type_ in ["metrics-api", "cron"] {
        expected.push((series("keda_trigger_registered_total", &[("type", type_)]), None));
    }
    for (metric, scaler, index, value) in triggers {
        for (family, value) in [
            ("keda_scaler_active", Some("1")),
            ("keda_scaler_detail_errors_total", Some("0")),
            ("keda_scaler_metrics_latency_seconds", None),
            ("keda_scaler_metrics_value", Some(value)),
        ] {
            let labels = [
                ("metric", metric),
                ("namespace", namespace),
                ("scaledObject", "full"),
                ("scaler", scaler),
                ("triggerIndex", index),
                ("type", "scaledobject"),
            ];
            expected.push((series(family, &labels), value));
        }
    }
    let lines: Vec<(String, &str)> = page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(parse)
        .collect();
    for (wanted, value) in expected {
        let found = lines.iter().find(|(series, _)| *series == wanted);
        let found = found.with_context(|| format!("{wanted} is not among\n{page}"))?.1;
        let number: f64 = found.parse().with_context(|| format!("{wanted} {found}"))?;
        let right = value.is_none_or(|value| value.parse() == Ok(number));
        ensure!(right, "{wanted} is {found}, not {value:?}");
    }
    let build = lines
        .iter()
        .find(|(series, _)| series.starts_with("keda_build_info{"))
        .context("no keda_build_info")?;
    for label in ["git_commit=", "goarch=", "goos=", "goversion=", "version="] {
        ensure!(build.0.contains(label), "{} has no {label}", build.0);
    }
    for (family, kind) in [
        ("keda_scaler_metrics_value", "gauge"),
        ("keda_scaler_detail_errors_total", "counter"),
    ] {
        ensure!(
            page.contains(&format!("# TYPE {family} {kind}\n")),
            "{family} is no {kind}"
        );
    }
    Ok(())
}

/// A series with its labels in alphabetical order.
fn series(name: &str, labels: &[(&str, &str)]) -> String {
    let mut labels: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}=\"{value}\""))
        .collect();
    labels.sort();
    format!("{name}{{{}}}", labels.join(","))
}

/// A line of the page as series and value; none of our label values has a comma in it.
fn parse(line: &str) -> Option<(String, &str)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let mut labels: Vec<&str> = labels.trim_end_matches('}').split(',').collect();
    labels.sort_unstable();
    Some((format!("{name}{{{}}}", labels.join(",")), value))
}
