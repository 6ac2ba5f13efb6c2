//! The objects that are scaled, and the ScaledObjects on them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dormouse_tests::{Cluster, Namespace, manifest, until};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::source::{Group, Source};

/// Writes of the bench itself under way at once.
const WRITERS: usize = 24;
const GROUP: &str = "bench.dormouse.dev";
/// Of how many objects one uses cached metrics.
const CACHED_OF: usize = 10;

/// What all objects' triggers wait for per replica; the source says as much, so that one replica is enough.
pub(crate) const TARGET_VALUE: u64 = 5;

/// One ScaledObject and its target, which have the same name.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) group: Group,
}

/// `count` objects of which a tenth uses cached metrics.
pub(crate) fn items(count: usize) -> Vec<Item> {
    (0..count)
        .map(|number| Item {
            name: format!("object-{number:05}"),
            group: if number % CACHED_OF == CACHED_OF - 1 {
                Group::Cached
            } else {
                Group::Plain
            },
        })
        .collect()
}

fn sleepers() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, "v1", "Sleeper"), "sleepers")
}

/// ScaledObjects, as a resource.
pub(crate) fn scaled_objects() -> ApiResource {
    ApiResource::erase::<dormouse_api::ScaledObject>(&())
}

/// How a ScaledObject names an item's target.
pub(crate) fn target_ref(item: &Item) -> Value {
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": "Sleeper", "name": item.name})
}

fn hpas() -> ApiResource {
    ApiResource::erase::<k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler>(&())
}

/// Teaches the cluster a resource that has replicas and no pods.
pub(crate) async fn define(cluster: &Cluster) -> Result<()> {
    let object = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let version = json!({
        "name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": object, "status": object}}},
        "subresources": {"scale": {
            "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }},
    });
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("sleepers.{GROUP}")},
        "spec": {
            "group": GROUP, "scope": "Namespaced", "versions": [version],
            "names": {"kind": "Sleeper", "singular": "sleeper", "plural": "sleepers"},
        },
    });
    manifest::apply_value(cluster, "", definition).await?;
    let api: Api<DynamicObject> = Api::all_with(cluster.client(), &sleepers());
    until(
        "the cluster serves the bench's resource",
        Duration::from_secs(30),
        async || Ok(api.list(&kube::api::ListParams::default().limit(1)).await?),
    )
    .await
    .map(drop)
}

/// Takes the resource away again, and all of its objects with it.
pub(crate) async fn undefine(cluster: &Cluster) -> Result<()> {
    let arguments = ["delete", "customresourcedefinition", &format!("sleepers.{GROUP}")];
    let options = ["--ignore-not-found", "--wait=false"];
    cluster
        .kubectl(&[&arguments[..], &options[..]].concat())
        .await
        .map(drop)
}

/// A namespace full of objects.
pub(crate) struct Field {
    cluster: Cluster,
    pub(crate) namespace: Namespace,
}

impl Field {
    pub(crate) async fn new(cluster: &Cluster) -> Result<Self> {
        Ok(Self {
            cluster: cluster.clone(),
            namespace: Namespace::create(cluster, "bench").await?,
        })
    }

    fn api(&self, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.cluster.client(), self.namespace.name(), resource)
    }

    /// Creates one object, waits until it is in order and takes it away again. Right after the CRDs came, the API server
    /// does not know them everywhere: its check of owner references looks for new kinds every half minute or so, and
    /// refuses every HPA until then. An installation is measured here, not the first seconds of a cluster.
    pub(crate) async fn go_ahead(&self, source: &Source) -> Result<()> {
        let ahead = [Item {
            name: "ahead".to_owned(),
            group: Group::Plain,
        }];
        let ready = self.ready();
        self.create_targets(&ahead).await?;
        self.create_scaled_objects(&ahead, source).await?;
        ready
            .reach("one ScaledObject is Ready", 1, Duration::from_secs(90))
            .await?;
        for resource in [scaled_objects(), sleepers()] {
            let params = DeleteParams::default();
            self.api(&resource).delete(&ahead[0].name, &params).await?;
        }
        until("it is gone", Duration::from_secs(30), async || {
            let left = self.api(&scaled_objects()).get_opt(&ahead[0].name).await?;
            ensure!(left.is_none(), "it is still there");
            Ok(())
        })
        .await
    }

    /// Creates the targets, all asleep.
    pub(crate) async fn create_targets(&self, items: &[Item]) -> Result<()> {
        let target = |item: &Item| {
            json!({
                "apiVersion": format!("{GROUP}/v1"), "kind": "Sleeper", "metadata": {"name": item.name},
                "spec": {"replicas": 0}, "status": {"replicas": 1, "selector": format!("app={}", item.name)},
            })
        };
        self.create(&sleepers(), items, target).await
    }

    /// Creates the ScaledObjects, polled every 30 s; returns as soon as the last one is.
    pub(crate) async fn create_scaled_objects(&self, items: &[Item], source: &Source) -> Result<()> {
        let scaled = |item: &Item| {
            json!({
                "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": item.name},
                "spec": {
                    "scaleTargetRef": target_ref(item),
                    "pollingInterval": 30, "cooldownPeriod": 3600, "maxReplicaCount": 10,
                    "triggers": [{
                        "type": "metrics-api", "useCachedMetrics": item.group == Group::Cached,
                        "metadata": {
                            "url": source.url(item.group, &item.name), "valueLocation": "value",
                            "targetValue": TARGET_VALUE.to_string(),
                        },
                    }],
                },
            })
        };
        self.create(&scaled_objects(), items, scaled).await
    }

    /// Creates an object of this kind for each item; returns as soon as the last one is.
    pub(crate) async fn create(
        &self,
        resource: &ApiResource,
        items: &[Item],
        manifest: impl Fn(&Item) -> Value,
    ) -> Result<()> {
        let (api, params) = (self.api(resource), PostParams::default());
        let create = |value: Value| {
            let (api, params) = (api.clone(), params.clone());
            async move {
                let object: DynamicObject = serde_json::from_value(value).context("making an object")?;
                api.create(&params, &object)
                    .await
                    .context("creating an object")
                    .map(drop)
            }
        };
        stream::iter(items.iter().map(|item| create(manifest(item))))
            .buffer_unordered(WRITERS)
            .try_collect()
            .await
    }

    /// Has the ScaledObjects polled every so many seconds from now on.
    pub(crate) async fn set_interval(&self, items: &[Item], seconds: u32) -> Result<()> {
        let api = self.api(&scaled_objects());
        let (params, patch) = (
            PatchParams::default(),
            Patch::Merge(json!({"spec": {"pollingInterval": seconds}})),
        );
        let set = async |item: &Item| api.patch(&item.name, &params, &patch).await.map(drop);
        stream::iter(items.iter().map(set))
            .buffer_unordered(WRITERS)
            .try_collect()
            .await
            .context("changing a polling interval")
    }

    /// Scales targets to 0 behind the operator's back: a decision is due for each of them.
    pub(crate) async fn put_to_sleep(&self, items: &[Item]) -> Result<()> {
        let api = self.api(&sleepers());
        let (params, patch) = (
            PatchParams::default(),
            Patch::Merge(json!({"spec": {"replicas": 0}})),
        );
        let set = async |item: &Item| api.patch(&item.name, &params, &patch).await.map(drop);
        stream::iter(items.iter().map(set))
            .buffer_unordered(WRITERS)
            .try_collect()
            .await
            .context("scaling a target to 0")
    }

    /// Wakes a target by hand.
    pub(crate) async fn wake(&self, item: &Item) -> Result<()> {
        let (params, patch) = (
            PatchParams::default(),
            Patch::Merge(json!({"spec": {"replicas": 1}})),
        );
        let api = self.api(&sleepers());
        let patched = api.patch_scale(&item.name, &params, &patch).await;
        patched.map(drop).context("waking a target by hand")
    }

    /// Follows which ScaledObjects are ready and name their HPA.
    pub(crate) fn ready(&self) -> Tally {
        Tally::follow(self.api(&scaled_objects()), |object| {
            says(object, "Ready", "True") && object.data["status"]["hpaName"].is_string()
        })
    }

    /// Follows which HPAs exist.
    pub(crate) fn hpas(&self) -> Tally {
        Tally::follow(self.api(&hpas()), |_| true)
    }

    /// Follows of which HPAs the HPA controller says that they scale, or that they do not.
    pub(crate) fn scaling(&self, scales: bool) -> Tally {
        let wanted = if scales { "True" } else { "False" };
        Tally::follow(self.api(&hpas()), move |object| {
            says(object, "ScalingActive", wanted)
        })
    }

    /// Follows which targets have replicas.
    pub(crate) fn awake(&self) -> Tally {
        Tally::follow(self.api(&sleepers()), |object| {
            object.data["spec"]["replicas"]
                .as_u64()
                .is_some_and(|count| count > 0)
        })
    }

    /// Removes all objects, the operator's finalizers included, waiting for at most `limit`.
    pub(crate) async fn clear(self, limit: Duration) -> Result<()> {
        let seconds = format!("--timeout={}s", limit.as_secs());
        let arguments = [
            "delete",
            "namespace",
            self.namespace.name(),
            "--wait=false",
            "--ignore-not-found",
        ];
        self.cluster.kubectl(&arguments).await?;
        let gone = [
            "wait",
            "--for=delete",
            "namespace",
            self.namespace.name(),
            &seconds,
        ];
        let kubectl = self.cluster.kubectl_within(&gone, limit + Duration::from_secs(5));
        kubectl.await.map(drop)
    }
}

/// Whether the object's condition of this type has this status.
fn says(object: &DynamicObject, type_: &str, status: &str) -> bool {
    let conditions = object.data["status"]["conditions"].as_array();
    let wanted = |condition: &Value| condition["type"] == type_ && condition["status"] == status;
    conditions.is_some_and(|conditions| conditions.iter().any(wanted))
}

type Since = HashMap<String, Instant>;

/// Follows by a watch for which objects of one kind something holds, and since when.
pub(crate) struct Tally {
    since: Arc<Mutex<Since>>,
    changed: Arc<Notify>,
    _follow: AbortOnDropHandle<()>,
}

impl Tally {
    /// Follows for which objects of `api` this holds.
    pub(crate) fn follow(
        api: Api<DynamicObject>,
        holds: impl Fn(&DynamicObject) -> bool + Send + 'static,
    ) -> Self {
        let (since, changed) = (Arc::<Mutex<Since>>::default(), Arc::new(Notify::new()));
        let (noted, told) = (since.clone(), changed.clone());
        let stream = watcher::watcher(api, watcher::Config::default()).default_backoff();
        let follow = tokio::spawn(async move {
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
                let mut since = noted.lock().unwrap_or_else(PoisonError::into_inner);
                let (object, holds) = match event {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => {
                        let holds = holds(&object);
                        (object, holds)
                    }
                    Ok(Event::Delete(object)) => (object, false),
                    Ok(Event::Init | Event::InitDone) | Err(_) => continue,
                };
                let name = object.metadata.name.unwrap_or_default();
                if holds {
                    since.entry(name).or_insert_with(Instant::now);
                } else {
                    since.remove(&name);
                }
                told.notify_waiters();
            }
        });
        Self {
            since,
            changed,
            _follow: AbortOnDropHandle::new(follow),
        }
    }

    /// For how many it holds now.
    pub(crate) fn count(&self) -> usize {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// When it began to hold, by object.
    pub(crate) fn since(&self) -> Since {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it holds for `count` objects.
    pub(crate) async fn reach(&self, what: &str, count: usize, limit: Duration) -> Result<()> {
        let enough = async {
            loop {
                let changed = self.changed.notified();
                if self.count() >= count {
                    return;
                }
                changed.await;
            }
        };
        if timeout(limit, enough).await.is_err() {
            bail!("{what}: {} of {count} after {limit:?}", self.count());
        }
        Ok(())
    }
}
