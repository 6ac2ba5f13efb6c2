//! The objects of the situations, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dormouse_core::hpa::{
    Amount, ExternalTarget, HpaMetric, HpaSpec, Pod, PodPhase, PodReadiness, ResourceTarget, Rules,
    SelectPolicy,
};
use dormouse_tests::until;
use http::Method;
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::situation::{Do, PodPlan, Situation, quantity};

/// For each wait of a script.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(250);
const TARGETS: &str = "/apis/hpa.dormouse.dev/v1";

/// Makes the kinds of the targets and of the metrics, and waits until they are served.
pub(crate) async fn define(client: &Client) -> Result<()> {
    let scale = json!({"scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
                                 "labelSelectorPath": ".status.selector"}, "status": {}});
    define_kind(client, "hpa.dormouse.dev", "v1", "targets", "Target", scale).await?;
    define_kind(
        client,
        "external.metrics.k8s.io",
        "v1beta1",
        "queue",
        "ExternalMetricValue",
        json!({}),
    )
    .await?;
    define_kind(
        client,
        "metrics.k8s.io",
        "v1beta1",
        "pods",
        "PodMetrics",
        json!({}),
    )
    .await?;
    for path in [
        format!("{TARGETS}/targets"),
        "/apis/external.metrics.k8s.io/v1beta1/queue".into(),
        "/apis/metrics.k8s.io/v1beta1/pods".into(),
    ] {
        until("a kind of the test is served", PATIENCE, async || {
            call(client, Method::GET, &path, None).await
        })
        .await?;
    }
    Ok(())
}

async fn define_kind(
    client: &Client,
    group: &str,
    version: &str,
    plural: &str,
    kind: &str,
    subresources: Value,
) -> Result<()> {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}"),
                     "annotations": {"api-approved.kubernetes.io": "unapproved, stands in for an aggregated API"}},
        "spec": {"group": group, "scope": "Namespaced",
                 "names": {"plural": plural, "singular": plural, "kind": kind, "listKind": format!("{kind}List")},
                 "versions": [{"name": version, "served": true, "storage": true, "schema": schema,
                               "subresources": subresources}]},
    });
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    call(client, Method::POST, path, Some(&definition))
        .await
        .map(drop)
}

async fn call(client: &Client, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
    let kind = if method == Method::PATCH {
        "application/merge-patch+json"
    } else {
        "application/json"
    };
    let request = http::Request::builder()
        .method(&method)
        .uri(path)
        .header("content-type", kind)
        .body(body.map(|body| body.to_string().into_bytes()).unwrap_or_default())?;
    let answer = tokio::time::timeout(Duration::from_secs(30), client.request::<Value>(request)).await;
    answer
        .with_context(|| format!("{method} {path} was not answered"))?
        .with_context(|| format!("{method} {path}"))
}

/// Handle on the API server and on what was last seen there.
pub(crate) struct World {
    client: Client,
    seen: Arc<Mutex<Seen>>,
    _watch: AbortOnDropHandle<()>,
}

/// By situation.
#[derive(Default)]
struct Seen {
    wanted: BTreeMap<String, u32>,
    /// Since the situation was last changed.
    reasons: BTreeMap<String, BTreeSet<String>>,
    /// The targets whose running replicas are their wanted ones.
    following: BTreeSet<String>,
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(client: Client) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let watch = tokio::spawn({
            let (client, seen) = (client.clone(), seen.clone());
            async move {
                loop {
                    if let Err(error) = look(&client, &seen).await {
                        eprintln!("unable to look at the targets: {error:#}");
                    }
                    tokio::time::sleep(LOOK).await;
                }
            }
        });
        Self {
            client,
            seen,
            _watch: AbortOnDropHandle::new(watch),
        }
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        call(&self.client, method, path, Some(body)).await
    }

    /// Makes the objects of a situation, the HPA last, and plays its script. The answer is its pods as they are.
    pub(crate) async fn play(&self, situation: &Situation) -> Result<Vec<Pod>> {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": situation.name}});
        self.call(Method::POST, "/api/v1/namespaces", &namespace).await?;
        let mut pods = Vec::new();
        for (index, plan) in situation.pods.iter().enumerate() {
            pods.push(
                self.create_pod(situation.name, &format!("p{index}"), plan)
                    .await?,
            );
        }
        for series in &situation.series {
            self.set(situation, series.name, series.value).await?;
        }
        if situation.target.exists {
            self.create_target(situation).await?;
        }
        // The controller learns of pods by a watch; they are to be there when it looks for the first time.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let path = format!(
            "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
            situation.name
        );
        self.call(Method::POST, &path, &hpa(&situation.spec)).await?;
        for step in &situation.script {
            self.act(situation, step)
                .await
                .with_context(|| format!("{}: {step:?}", situation.name))?;
        }
        Ok(pods)
    }

    async fn act(&self, situation: &Situation, step: &Do) -> Result<()> {
        let name = situation.name;
        match step {
            Do::Set(series, value) => {
                lock(&self.seen).reasons.remove(name);
                self.set(situation, series, value).await
            }
            Do::Remove(series) => {
                lock(&self.seen).reasons.remove(name);
                let path = format!("{}/{series}", series_path(situation));
                call(&self.client, Method::DELETE, &path, None).await.map(drop)
            }
            Do::Want(replicas) => {
                lock(&self.seen).reasons.remove(name);
                let path = format!("{TARGETS}/namespaces/{name}/targets/target");
                let patch = json!({"spec": {"replicas": replicas}});
                self.call(Method::PATCH, &path, &patch).await.map(drop)
            }
            Do::Create => self.create_target(situation).await,
            Do::Seconds(seconds) => {
                tokio::time::sleep(Duration::from_secs(*seconds)).await;
                Ok(())
            }
            Do::Reaches(replicas) => {
                until("the target's wanted replicas", PATIENCE, async || {
                    let wanted = lock(&self.seen).wanted.get(name).copied();
                    ensure!(wanted == Some(*replicas), "they are {wanted:?}");
                    Ok(())
                })
                .await
            }
            Do::Says(reason) => {
                until("the HPA gives this reason", PATIENCE, async || {
                    let reasons = lock(&self.seen).reasons.get(name).cloned().unwrap_or_default();
                    ensure!(reasons.contains(reason.as_str()), "it gave {reasons:?}");
                    Ok(())
                })
                .await
            }
        }
    }

    async fn set(&self, situation: &Situation, series: &str, value: &str) -> Result<()> {
        let collection = series_path(situation);
        let mut object = json!({
            "apiVersion": "external.metrics.k8s.io/v1beta1", "kind": "ExternalMetricValue",
            "metadata": {"name": series, "labels": {"series": series}},
            "metricName": series, "metricLabels": {}, "timestamp": Timestamp::now().to_string(), "value": value,
        });
        let created = self.call(Method::POST, &collection, &object).await;
        if created.is_ok() {
            return Ok(());
        }
        // It is there already.
        object["metadata"] = json!({});
        let path = format!("{collection}/{series}");
        self.call(Method::PATCH, &path, &object).await.map(drop)
    }

    async fn create_target(&self, situation: &Situation) -> Result<()> {
        let target = &situation.target;
        let collection = format!("{TARGETS}/namespaces/{}/targets", situation.name);
        let object = json!({"apiVersion": "hpa.dormouse.dev/v1", "kind": "Target", "metadata": {"name": "target"},
                            "spec": {"replicas": target.wanted}});
        self.call(Method::POST, &collection, &object).await?;
        let selector = if target.has_selector { "app=it" } else { "" };
        let running = target.running.unwrap_or(target.wanted);
        let status = json!({"status": {"replicas": running, "selector": selector}});
        self.call(Method::PATCH, &format!("{collection}/target/status"), &status)
            .await?;
        if target.running.is_none() {
            lock(&self.seen).following.insert(situation.name.to_owned());
        }
        Ok(())
    }

    async fn create_pod(&self, namespace: &str, name: &str, plan: &PodPlan) -> Result<Pod> {
        let now = Timestamp::from_second(Timestamp::now().as_second()).context("the time")?;
        let ago = |age: Duration| now.checked_sub(age).context("a time of the test");
        let map = |pairs: &[(&str, &str)]| -> Value {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), json!(value)))
                .collect()
        };
        let containers: Vec<_> = plan
            .containers
            .iter()
            .map(|c| json!({"name": c.name, "image": "none", "resources": {"requests": map(&c.requests)}}))
            .collect();
        let collection = format!("/api/v1/namespaces/{namespace}/pods");
        let finalizers: &[&str] = if plan.deleting {
            &["dormouse.dev/test"]
        } else {
            &[]
        };
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "it"}, "finalizers": finalizers},
            "spec": {"containers": containers},
        });
        self.call(Method::POST, &collection, &object).await?;
        let started = plan.started.map(ago).transpose()?;
        let ready = plan
            .ready
            .map(|(status, age)| Ok::<_, anyhow::Error>((status, ago(age)?)))
            .transpose()?;
        let conditions: Vec<_> = ready
            .iter()
            .map(|(status, since)| json!({"type": "Ready", "status": status, "lastTransitionTime": since.to_string()}))
            .collect();
        let status = json!({"status": {"phase": plan.phase, "startTime": started.map(|t| t.to_string()),
                                       "conditions": conditions}});
        self.call(Method::PATCH, &format!("{collection}/{name}/status"), &status)
            .await?;
        if plan.deleting {
            call(
                &self.client,
                Method::DELETE,
                &format!("{collection}/{name}"),
                None,
            )
            .await?;
        }
        if let Some(age) = plan.measured {
            let used: Vec<_> = plan
                .containers
                .iter()
                .map(|c| json!({"name": c.name, "usage": map(&c.uses)}))
                .collect();
            let metrics = json!({
                "apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics",
                "metadata": {"name": name, "labels": {"app": "it"}},
                "timestamp": ago(age)?.to_string(), "window": "30s", "containers": used,
            });
            let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
            self.call(Method::POST, &path, &metrics).await?;
        }
        Ok(Pod {
            name: name.to_owned(),
            phase: match plan.phase {
                "Pending" => PodPhase::Pending,
                "Running" => PodPhase::Running,
                "Succeeded" => PodPhase::Succeeded,
                "Failed" => PodPhase::Failed,
                other => bail!("a pod of this test is {other}"),
            },
            deleting: plan.deleting,
            started,
            ready: ready.map(|(status, since)| PodReadiness {
                status: match status {
                    "True" => Some(true),
                    "False" => Some(false),
                    _ => None,
                },
                since,
            }),
            requests: plan
                .containers
                .iter()
                .map(|c| {
                    let requests = c.requests.iter().map(|(r, q)| ((*r).to_owned(), quantity(q)));
                    (c.name.to_owned(), requests.collect())
                })
                .collect(),
        })
    }
}

/// The collection of the external metric's series.
fn series_path(situation: &Situation) -> String {
    format!(
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/queue",
        situation.name
    )
}

/// Notes what targets and HPAs are like now, and lets the running replicas follow the wanted ones.
async fn look(client: &Client, seen: &Mutex<Seen>) -> Result<()> {
    let empty = Vec::new();
    let hpas = call(
        client,
        Method::GET,
        "/apis/autoscaling/v2/horizontalpodautoscalers",
        None,
    )
    .await?;
    for hpa in hpas["items"].as_array().unwrap_or(&empty) {
        let name = hpa["metadata"]["namespace"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let conditions = hpa["status"]["conditions"].as_array().unwrap_or(&empty);
        let reasons = conditions
            .iter()
            .filter_map(|c| c["reason"].as_str().map(str::to_owned));
        lock(seen).reasons.entry(name).or_default().extend(reasons);
    }
    let targets = call(client, Method::GET, &format!("{TARGETS}/targets"), None).await?;
    for target in targets["items"].as_array().unwrap_or(&empty) {
        let name = target["metadata"]["namespace"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let wanted = &target["spec"]["replicas"];
        let follows = {
            let mut seen = lock(seen);
            let count = wanted.as_u64().and_then(|count| u32::try_from(count).ok());
            seen.wanted.insert(name.clone(), count.unwrap_or_default());
            seen.following.contains(&name)
        };
        if follows && target["status"]["replicas"] != *wanted {
            let path = format!("{TARGETS}/namespaces/{name}/targets/target/status");
            let patch = json!({"status": {"replicas": wanted}});
            call(client, Method::PATCH, &path, Some(&patch)).await?;
        }
    }
    Ok(())
}

/// The HPA of a spec.
fn hpa(spec: &HpaSpec) -> Value {
    let behavior = spec.behavior.as_ref().map(
        |behavior| json!({"scaleUp": rules(&behavior.scale_up), "scaleDown": rules(&behavior.scale_down)}),
    );
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "hpa"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "hpa.dormouse.dev/v1", "kind": "Target", "name": "target"},
            "minReplicas": spec.min, "maxReplicas": spec.max,
            "metrics": spec.metrics.iter().map(metric).collect::<Vec<_>>(),
            "behavior": behavior,
        },
    })
}

fn metric(metric: &HpaMetric) -> Value {
    match metric {
        HpaMetric::External {
            name,
            match_labels,
            target,
        } => {
            let selector = match_labels.as_ref().map(|labels| json!({"matchLabels": labels}));
            let target = match target {
                ExternalTarget::AverageValue(q) => {
                    json!({"type": "AverageValue", "averageValue": q.to_string()})
                }
                ExternalTarget::Value(q) => json!({"type": "Value", "value": q.to_string()}),
            };
            json!({"type": "External", "external": {"metric": {"name": name, "selector": selector}, "target": target}})
        }
        HpaMetric::Resource {
            resource,
            container,
            target,
        } => {
            let target = match target {
                ResourceTarget::Utilization(percent) => {
                    json!({"type": "Utilization", "averageUtilization": percent})
                }
                ResourceTarget::AverageValue(q) => {
                    json!({"type": "AverageValue", "averageValue": q.to_string()})
                }
            };
            match container {
                None => json!({"type": "Resource", "resource": {"name": resource, "target": target}}),
                Some(container) => json!({"type": "ContainerResource", "containerResource": {
                    "name": resource, "container": container, "target": target}}),
            }
        }
    }
}

fn rules(rules: &Rules) -> Value {
    let policy = |policy: &dormouse_core::hpa::Policy| {
        let (kind, value) = match policy.amount {
            Amount::Pods(pods) => ("Pods", pods),
            Amount::Percent(percent) => ("Percent", percent),
        };
        json!({"type": kind, "value": value, "periodSeconds": policy.period.as_secs()})
    };
    let select = match rules.select {
        SelectPolicy::Max => "Max",
        SelectPolicy::Min => "Min",
        SelectPolicy::Disabled => "Disabled",
    };
    json!({
        "stabilizationWindowSeconds": rules.stabilization.map(|window| window.as_secs()),
        "selectPolicy": select,
        "policies": rules.policies.as_ref().map(|policies| policies.iter().map(policy).collect::<Vec<_>>()),
        "tolerance": rules.tolerance.map(|tolerance| tolerance.to_string()),
    })
}
