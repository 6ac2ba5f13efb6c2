//! Where a test about ScaledObjects plays: the standard installation, a namespace, and what users do and see there.

use std::future::Future;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::ApiResource;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::install::Installation;
use crate::manifest;
use crate::namespace::Namespace;

/// A namespace beside the standard installation.
pub struct Stage {
    /// The cluster.
    pub cluster: Cluster,
    /// The operator.
    pub installation: Installation,
    /// A namespace of the test's own.
    pub namespace: Namespace,
}

/// One Event, as people read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenEvent {
    /// Normal or Warning.
    pub type_: String,
    /// Its reason.
    pub reason: String,
    /// What was done.
    pub action: String,
    /// Its sentence.
    pub note: String,
    /// How many times it happened.
    pub count: i32,
}

impl Stage {
    /// Makes sure of the installation and creates a namespace whose name begins with `subject`.
    ///
    /// # Errors
    /// When the cluster, the chart or the namespace fails.
    pub async fn set(subject: &str) -> Result<Self> {
        let cluster = Cluster::connect().await?;
        let installation = Installation::shared(&cluster).await?;
        Self::beside(&cluster, installation, subject).await
    }

    /// Installs `installation` and creates a namespace.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn with(installation: Installation, subject: &str) -> Result<Self> {
        let cluster = Cluster::connect().await?;
        installation.install(&cluster).await?;
        Self::beside(&cluster, installation, subject).await
    }

    /// Creates a namespace beside an installation that is there.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn beside(cluster: &Cluster, installation: Installation, subject: &str) -> Result<Self> {
        Ok(Self {
            cluster: cluster.clone(),
            installation,
            namespace: Namespace::create(cluster, subject).await?,
        })
    }

    /// Applies one object here, as its only owner: what an earlier call set and this one does not is taken away.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn apply(&self, object: Value) -> Result<()> {
        manifest::apply_value(&self.cluster, self.namespace.name(), object).await
    }

    /// Applies a ScaledObject with this `spec` here.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn scale(&self, name: &str, spec: Value) -> Result<()> {
        self.apply(scaled_object(name, spec)).await
    }

    /// Any resource of this namespace, decoded by nobody.
    #[must_use]
    pub fn dynamic(&self, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.cluster.client(), self.namespace.name(), resource)
    }

    /// The ScaledObjects of this namespace, decoded by nobody.
    #[must_use]
    pub fn scaled_objects(&self) -> Api<DynamicObject> {
        self.dynamic(&scaled_objects())
    }

    /// Sets or, with `null`, removes annotations of a ScaledObject.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn annotate(&self, name: &str, annotations: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        let patched = self
            .scaled_objects()
            .patch(name, &PatchParams::default(), &patch)
            .await;
        patched
            .map(drop)
            .with_context(|| format!("annotating ScaledObject {name}"))
    }

    /// Deletes a ScaledObject; waits for nothing.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn unscale(&self, name: &str) -> Result<()> {
        let deleted = self.scaled_objects().delete(name, &DeleteParams::default()).await;
        deleted
            .map(drop)
            .with_context(|| format!("deleting ScaledObject {name}"))
    }

    /// The Events about the object `name`, oldest first.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn events(&self, name: &str) -> Result<Vec<SeenEvent>> {
        let api: Api<Event> = self.namespace.api();
        let params = ListParams::default().fields(&format!("regarding.name={name}"));
        let mut found = api.list(&params).await.context("listing Events")?.items;
        found.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
        let text = |text: Option<String>| text.unwrap_or_default();
        let seen = |event: Event| SeenEvent {
            type_: text(event.type_),
            reason: text(event.reason),
            action: text(event.action),
            note: text(event.note),
            count: event.series.map_or(1, |series| series.count),
        };
        Ok(found.into_iter().map(seen).collect())
    }

    /// How often a Warning or other Event of this reason whose note contains `part` happened.
    ///
    /// # Errors
    /// As [`events`](Self::events).
    pub async fn count_events(&self, name: &str, reason: &str, part: &str) -> Result<i32> {
        let all = self.events(name).await?;
        let matching = all
            .iter()
            .filter(|event| event.reason == reason && event.note.contains(part));
        Ok(matching.map(|event| event.count).sum())
    }

    /// What `kubectl get --raw` prints for an external metric, or the sentence of the error.
    pub async fn metric(&self, scaled_object: &str, metric: &str) -> Result<Value, String> {
        self.metric_selected(
            metric,
            &format!("?labelSelector=scaledobject.keda.sh%2Fname%3D{scaled_object}"),
        )
        .await
    }

    /// The same with a query of one's own.
    pub async fn metric_selected(&self, metric: &str, query: &str) -> Result<Value, String> {
        let namespace = self.namespace.name();
        let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}{query}");
        let request = http::Request::get(path)
            .body(Vec::new())
            .map_err(|error| error.to_string())?;
        match self.cluster.client().request::<Value>(request).await {
            Ok(answer) => Ok(answer),
            Err(kube::Error::Api(status)) => Err(status.message.clone()),
            Err(other) => Err(format!("no answer: {other}")),
        }
    }

    /// The number that an external metric has now, such as `15` or `1500m`.
    ///
    /// # Errors
    /// The error that the HPA would get.
    pub async fn metric_value(&self, scaled_object: &str, metric: &str) -> Result<String> {
        let answer = self
            .metric(scaled_object, metric)
            .await
            .map_err(|sentence| anyhow!(sentence))?;
        let value = answer.pointer("/items/0/value").and_then(Value::as_str);
        value
            .map(str::to_owned)
            .with_context(|| format!("an answer without a value: {answer}"))
    }

    /// The operator's Prometheus page.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn metrics_page(&self) -> Result<String> {
        let path = format!(
            "/api/v1/namespaces/{}/services/{}:metrics/proxy/metrics",
            self.installation.namespace(),
            self.installation.name()
        );
        self.cluster.kubectl(&["get", "--raw", &path]).await
    }
}

/// ScaledObjects as the API server knows them.
#[must_use]
pub fn scaled_objects() -> ApiResource {
    ApiResource::erase::<dormouse_api::ScaledObject>(&())
}

/// A ScaledObject with this `spec`.
#[must_use]
pub fn scaled_object(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name}, "spec": spec})
}

/// A Deployment without any pods, whatever its replicas: nothing but its /scale is of interest.
#[must_use]
pub fn podless(name: &str, replicas: u32) -> Value {
    let mut object = workload("Deployment", name, replicas);
    object["spec"]["paused"] = json!(true);
    object
}

/// A Deployment or StatefulSet whose pods exist but are never given to a node.
#[must_use]
pub fn gated(kind: &str, name: &str, replicas: u32) -> Value {
    let mut object = workload(kind, name, replicas);
    object["spec"]["template"]["spec"]["schedulingGates"] = json!([{"name": "dormouse.dev/never"}]);
    object
}

/// A Deployment or StatefulSet whose pods run and do nothing.
#[must_use]
pub fn workload(kind: &str, name: &str, replicas: u32) -> Value {
    let labels = json!({"app": name});
    let container = json!({
        "name": "app", "image": "localhost/pause:dev", "imagePullPolicy": "Never",
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    let pod = json!({
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    });
    json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    })
}

/// Runs all of `cases` at the same time and lets each come to its end.
///
/// # Errors
/// When any fails: each of them by its name, with what went wrong.
pub async fn all<F: Future<Output = Result<()>>>(cases: impl IntoIterator<Item = (String, F)>) -> Result<()> {
    let named = cases
        .into_iter()
        .map(|(name, case)| async move { (name, case.await) });
    let ended = futures::future::join_all(named).await;
    let count = ended.len();
    let failed: Vec<String> = ended
        .into_iter()
        .filter_map(|(name, outcome)| outcome.err().map(|error| format!("{name}: {error:#}")))
        .collect();
    if !failed.is_empty() {
        bail!("{} of {count} cases failed:\n{}", failed.len(), failed.join("\n"));
    }
    Ok(())
}

/// Deletes one object by name when it goes: what is not in the test's namespace would stay otherwise.
pub struct Leftover {
    kubectl: PathBuf,
    arguments: Vec<String>,
}

impl Leftover {
    /// `kind` and `name` as kubectl takes them; `namespace` is ignored where the kind has none.
    #[must_use]
    pub fn new(cluster: &Cluster, kind: &str, name: &str, namespace: &str) -> Self {
        let arguments = ["delete", kind, name, "--namespace", namespace];
        let rest = ["--wait=false", "--ignore-not-found", "--request-timeout=5s"];
        Self {
            kubectl: cluster.kubectl_path().to_owned(),
            arguments: arguments.into_iter().chain(rest).map(str::to_owned).collect(),
        }
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        // As for a namespace: the test's runtime may be gone already.
        let _ = Command::new(&self.kubectl)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}
