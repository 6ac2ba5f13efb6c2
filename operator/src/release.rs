//! `dormouse release`: before an uninstall, stops the operator and takes its finalizer off every object, so that what stays
//! in the cluster can be deleted later without anybody having to come back for it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use dormouse_api::{ClusterTriggerAuthentication, ScaledObject, TriggerAuthentication, labels};
use dormouse_kubernetes::{CallError, Cluster, Namespaces, Priority};
use dormouse_runtime::telemetry::{self, LogOptions};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tracing::info;

/// How long the operator's pods may take to end; a pod's own grace period is 10 s.
const STOP_DEADLINE: Duration = Duration::from_secs(60);
/// How often one object is tried: each failure means that somebody else wrote it in between, or that the API server was
/// busy.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);
/// Objects in one answer.
const PAGE: u32 = 250;

/// `dormouse release`
#[derive(Args, Clone, Debug)]
pub struct ReleaseArgs {
    /// The operator's Deployment, which is scaled to 0 first: an operator that runs would put its finalizers back.
    #[arg(long, default_value = "keda-operator")]
    pub deployment: String,
    /// Namespace of that Deployment.
    #[arg(long, env = "POD_NAMESPACE", default_value = "keda")]
    pub namespace: String,
    /// Namespaces whose objects are released, separated by commas; empty for all.
    #[arg(long, env = "WATCH_NAMESPACE", default_value = "")]
    pub watch_namespace: Namespaces,
    /// Kubeconfig file, outside of a cluster.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
}

/// Stops the operator and releases its objects.
///
/// # Errors
/// The operator does not stop, or an object could not be released. What was released stays so: it can be run again.
pub async fn release(args: ReleaseArgs) -> anyhow::Result<()> {
    telemetry::init(LogOptions::default())?;
    let config = dormouse_kubernetes::client::config(args.kubeconfig.as_deref()).await?;
    let cluster = Cluster::new(config)?;
    stop(&cluster, &args).await?;
    let namespaced = [
        ApiResource::erase::<ScaledObject>(&()),
        ApiResource::erase::<TriggerAuthentication>(&()),
    ];
    let mut released = 0;
    for kind in namespaced {
        match &args.watch_namespace {
            Namespaces::All => released += of_kind(&cluster, &kind, None).await?,
            Namespaces::These(names) => {
                for name in names {
                    released += of_kind(&cluster, &kind, Some(name)).await?;
                }
            }
        }
    }
    // Those of the whole cluster belong to whoever watches it.
    if args.watch_namespace == Namespaces::All {
        let kind = ApiResource::erase::<ClusterTriggerAuthentication>(&());
        released += of_kind(&cluster, &kind, None).await?;
    }
    info!(released, "finalizers removed");
    Ok(())
}

async fn stop(cluster: &Cluster, args: &ReleaseArgs) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &args.namespace);
    let patch = Patch::Merge(json!({"spec": {"replicas": 0}}));
    let params = PatchParams::default();
    let scale = deployments.patch_scale(&args.deployment, &params, &patch);
    match cluster
        .calls
        .unary(Priority::Normal, "stop the operator", scale)
        .await
    {
        Ok(_) | Err(CallError::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &args.namespace);
    let params = ListParams::default().labels(&format!("app={}", args.deployment));
    let deadline = Instant::now() + STOP_DEADLINE;
    loop {
        let list = pods.list_metadata(&params);
        let left = cluster
            .calls
            .unary(Priority::Normal, "look for the operator's pods", list)
            .await?
            .items;
        if left.is_empty() {
            info!(deployment = args.deployment, "the operator has stopped");
            return Ok(());
        }
        if Instant::now() >= deadline {
            let names: Vec<String> = left.iter().map(ResourceExt::name_any).collect();
            bail!("these pods of the operator have not ended: {}", names.join(", "));
        }
        sleep(PAUSE).await;
    }
}

/// An API of one kind in one namespace, or in all of them.
fn api_of(cluster: &Cluster, kind: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, kind),
        None => Api::all_with(cluster.client.clone(), kind),
    }
}

/// Releases every object of a kind. How many there were.
async fn of_kind(cluster: &Cluster, kind: &ApiResource, namespace: Option<&str>) -> anyhow::Result<usize> {
    let api = api_of(cluster, kind, namespace);
    let mut released = 0;
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let list = api.list_metadata(&params);
        let page = match cluster
            .calls
            .unary(Priority::Normal, "list what carries a finalizer", list)
            .await
        {
            Ok(page) => page,
            // Without the CRD there is nothing to release.
            Err(CallError::NotFound { .. }) => return Ok(released),
            Err(error) => return Err(error.into()),
        };
        for object in page.items {
            released += usize::from(release_one(cluster, kind, &object.metadata).await?);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(released),
        }
    }
}

/// Takes our finalizer off one object. Whether it had it.
async fn release_one(cluster: &Cluster, kind: &ApiResource, listed: &ObjectMeta) -> anyhow::Result<bool> {
    let name = listed.name.clone().unwrap_or_default();
    let api = api_of(cluster, kind, listed.namespace.as_deref());
    let mut seen = listed.clone();
    for attempt in 1.. {
        let finalizers = seen.finalizers.unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == labels::FINALIZER) {
            return Ok(attempt > 1);
        }
        let rest: Vec<_> = finalizers
            .iter()
            .filter(|finalizer| *finalizer != labels::FINALIZER)
            .collect();
        let patch = json!({"metadata": {"resourceVersion": seen.resource_version, "finalizers": rest}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        let call = api.patch_metadata(&name, &params, &patch);
        let error = match cluster
            .calls
            .unary(Priority::Normal, "remove a finalizer", call)
            .await
        {
            Ok(_) => return Ok(true),
            Err(CallError::NotFound { .. }) => return Ok(false),
            Err(error) => error,
        };
        if attempt >= ATTEMPTS || !error.is_transient() {
            let place = listed.namespace.as_deref().unwrap_or_default();
            return Err(error).with_context(|| format!("{} {place}/{name}", kind.kind));
        }
        sleep(PAUSE).await;
        let field = ListParams::default().fields(&format!("metadata.name={name}"));
        let look = api.list_metadata(&field);
        let now = cluster
            .calls
            .unary(Priority::Normal, "look at an object again", look)
            .await?;
        match now.items.into_iter().next() {
            Some(object) => seen = object.metadata,
            None => return Ok(false),
        }
    }
    Ok(false)
}
