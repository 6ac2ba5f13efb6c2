//! The example that users copy (`deploy/examples/http-echo`), with the values of one test put in.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::manifest;
use crate::namespace::Namespace;
use crate::timeline::Timeline;
use crate::wait::until;

/// The name that all the example's objects have.
pub const NAME: &str = "http-echo";

const CONTAINER: &str = "/spec/template/spec/containers/0";

/// What a user would change in the example before applying it.
#[derive(Clone, Debug)]
pub struct HttpEcho {
    host: String,
    variables: Vec<(String, String)>,
    changes: Vec<(&'static str, String, Value)>,
}

impl HttpEcho {
    /// The example under this host, asleep a second after its last request, and with pods that stop at once: what a test
    /// waits for most.
    #[must_use]
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            variables: Vec::new(),
            changes: Vec::new(),
        }
        .change("ScaledObject", "/spec/pollingInterval", json!(1))
        .change("ScaledObject", "/spec/cooldownPeriod", json!(1))
        .change(
            "Deployment",
            &format!("{CONTAINER}/image"),
            json!("localhost/http-echo:dev"),
        )
        .change(
            "Deployment",
            &format!("{CONTAINER}/imagePullPolicy"),
            json!("Never"),
        )
        // Dozens of them have room on one small machine.
        .change(
            "Deployment",
            &format!("{CONTAINER}/resources/requests/cpu"),
            json!("1m"),
        )
    }

    /// With an environment variable of the application.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.push((name.to_owned(), value.to_string()));
        self
    }

    /// With `value` at `pointer` (RFC 6901) of the object of this kind.
    #[must_use]
    pub fn change(mut self, kind: &'static str, pointer: &str, value: Value) -> Self {
        self.changes.push((kind, pointer.to_owned(), value));
        self
    }

    /// With so many requests at a time per pod.
    #[must_use]
    pub fn target(self, requests: u32) -> Self {
        let target = json!({"concurrency": {"targetValue": requests}});
        self.change("InterceptorRoute", "/spec/scalingMetric", target)
    }

    /// With so many pods at most.
    #[must_use]
    pub fn most(self, pods: u32) -> Self {
        self.change("ScaledObject", "/spec/maxReplicaCount", json!(pods))
    }

    /// The host of its requests.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Applies the example to `namespace`.
    ///
    /// # Errors
    /// When the example no longer has the shape this knows, or the API server refuses it.
    pub async fn apply(&self, cluster: &Cluster, namespace: &Namespace) -> Result<()> {
        for object in self.objects(cluster).await? {
            manifest::apply_value(cluster, namespace.name(), object).await?;
        }
        Ok(())
    }

    /// Applies it, and waits until it is asleep.
    ///
    /// # Errors
    /// As [`ready`](Self::ready), and when it is not asleep after half a minute.
    pub async fn asleep(&self, cluster: &Cluster, namespace: &Namespace) -> Result<()> {
        self.ready(cluster, namespace).await?;
        sleeps(namespace, Duration::from_secs(30)).await
    }

    /// Applies it, and waits until its ScaledObject is in order.
    ///
    /// # Errors
    /// As [`apply`](Self::apply), and when it is not after 20 s.
    pub async fn ready(&self, cluster: &Cluster, namespace: &Namespace) -> Result<()> {
        self.apply(cluster, namespace).await?;
        let ready = [
            "wait",
            "scaledobject",
            NAME,
            "--for=condition=Ready",
            "--timeout=20s",
        ];
        let waited = namespace.kubectl(&ready).await;
        waited.map(drop).context("the ScaledObject is not in order")
    }

    async fn objects(&self, cluster: &Cluster) -> Result<Vec<Value>> {
        let mut objects = manifest::kustomized(cluster, "deploy/examples/http-echo").await?;
        for object in &mut objects {
            self.fill(object)
                .with_context(|| format!("filling in the example's {}", object["kind"]))?;
        }
        Ok(objects)
    }

    fn fill(&self, object: &mut Value) -> Result<()> {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        if kind == "InterceptorRoute" {
            put(object, "/spec/rules/0/hosts", json!([self.host]))?;
        }
        if kind == "Deployment" {
            let variables = object
                .pointer_mut(&format!("{CONTAINER}/env"))
                .and_then(Value::as_array_mut);
            let variables = variables.context("the container has no environment")?;
            for (name, value) in &self.variables {
                variables.retain(|variable| variable["name"] != **name);
                variables.push(json!({"name": name, "value": value}));
            }
        }
        for (_, pointer, value) in self.changes.iter().filter(|(of, _, _)| *of == kind) {
            put(object, pointer, value.clone())?;
        }
        Ok(())
    }
}

/// Waits until the example has no pod any more, not even one that is on its way out.
///
/// # Errors
/// When `deadline` passes first.
pub async fn sleeps(namespace: &Namespace, deadline: Duration) -> Result<()> {
    until("the application sleeps", deadline, async || {
        let wanted = replicas(namespace).await?;
        ensure!(wanted == 0, "{wanted} pods are wanted");
        let pods = ["get", "pods", "--selector=app=http-echo", "--output=name"];
        let pods = namespace.kubectl(&pods).await?;
        ensure!(
            pods.trim().is_empty(),
            "there are {}",
            pods.trim().replace('\n', ", ")
        );
        Ok(())
    })
    .await
}

/// How many pods of the example are wanted, and when that changed.
#[must_use]
pub fn wanted(namespace: &Namespace) -> Timeline<i32> {
    Timeline::of(namespace.api::<Deployment>(), NAME, |object| {
        object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    })
}

/// How many pods of the example are wanted.
///
/// # Errors
/// When the API server does not say.
pub async fn replicas(namespace: &Namespace) -> Result<i32> {
    let deployment = namespace.api::<Deployment>().get(NAME).await?;
    Ok(deployment.spec.and_then(|spec| spec.replicas).unwrap_or_default())
}

fn put(object: &mut Value, pointer: &str, value: Value) -> Result<()> {
    let (parent, key) = pointer
        .rsplit_once('/')
        .context("a pointer begins with a slash")?;
    let parent = object
        .pointer_mut(parent)
        .ok_or_else(|| anyhow!("there is nothing at {parent}"))?;
    match parent {
        Value::Array(items) => {
            let item = key.parse().ok().and_then(|index: usize| items.get_mut(index));
            *item.ok_or_else(|| anyhow!("there is nothing at {pointer}"))? = value;
        }
        parent => parent[key] = value,
    }
    Ok(())
}
