//! Tells interceptors how the pods may be probed that requests wait for.
//!
//! ```text
//! PodsWanted ──> one task for each pod that is new: GET pod ──> probe_spec ──> ProbeSpecs
//!                          └─ not started yet, and that matters: again, soon
//! ```
//!
//! Pods are read only while they are wanted. Interceptors face the internet and have no right to read pods; they learn of none
//! in a namespace without a route. Most pods of a cold start are told before anybody asks: see [`super::scouts`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dormouse_core::demand::RouteKey;
use dormouse_kubernetes::{CallError, Calls, Change, Namespaces, Priority, Watch};
use dormouse_wire::demand as wire;
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::messages;
use super::probe_spec::{self, Told};
use super::sessions::Outbox;

/// Pods of which one interceptor is told at once; the others it leaves to the kubelet.
const MOST_PODS: usize = 1000;
/// Pods read at once, for all interceptors.
const READS: usize = 16;
/// Routes whose pods are followed at once, for all interceptors.
const FOLLOWS: usize = 128;
/// Pods of one target that are looked at for what keeps them from starting.
const MOST_LISTED: u32 = 50;
/// How soon a pod is looked at again, at first and at last.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How long it may take an interceptor to make something of what it was told ahead, before it is told once more: it may not
/// have kept it.
const TOLD_AHEAD: Duration = Duration::from_secs(1);
/// How long the interceptor may take to take a message in.
const SEND: Duration = Duration::from_secs(3);

/// Reads pods.
pub trait ReadPods: Send + Sync {
    /// The pod of that name, if it is there.
    fn pod<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Option<Pod>, CallError>>;

    /// The pods with these labels, or a good part of them.
    fn pods<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Pod>, CallError>>;

    /// Tells how each of the pods with these labels may be probed, now and whenever that may have changed, and when one is
    /// gone. Never ends.
    fn follow(&self, namespace: &str, selector: &str, tell: Tell) -> BoxFuture<'static, ()>;
}

/// Is told how a pod may be probed.
pub type Tell = Box<dyn Fn(&Told) + Send + Sync>;
/// Says what selects the pods of a route, where that is known.
pub type Selector = Arc<dyn Fn(&RouteKey) -> Option<Selection> + Send + Sync>;

/// What selects pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// A Service of their namespace.
    pub service: String,
    /// Its selector, as the API takes it.
    pub labels: String,
}

/// Asks the API server.
pub struct ClusterPods {
    /// Its client.
    pub client: Client,
    /// One for watches that come and go, each of which takes a connection with it.
    pub watches: Client,
    /// Its bounded calls.
    pub calls: Calls,
}

impl ReadPods for ClusterPods {
    fn pod<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Option<Pod>, CallError>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        async move {
            let read = api.get_opt(name);
            self.calls
                // Somebody waits for this pod.
                .unary(Priority::Wake, "read a pod that requests wait for", read)
                .await
        }
        .boxed()
    }

    fn pods<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Pod>, CallError>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = ListParams::default().labels(selector).limit(MOST_LISTED);
        async move {
            let list = api.list(&params);
            let listed = self
                .calls
                .unary(Priority::Normal, "list pods that requests wait for", list);
            Ok(listed.await?.items)
        }
        .boxed()
    }

    fn follow(&self, namespace: &str, selector: &str, tell: Tell) -> BoxFuture<'static, ()> {
        let scope = Namespaces::These(vec![namespace.to_owned()]);
        let watch = Watch::<Pod, Told>::reduced(&self.watches, &scope).labels(selector);
        let watch = watch.on_change(move |_, change| match change {
            Change::Applied(told) => tell(told),
            Change::Deleted(told) => tell(&told.gone()),
        });
        let (_, follow) = watch.start();
        follow.boxed()
    }
}

/// Reads pods for all sessions. Cheap to clone.
#[derive(Clone)]
pub(super) struct PodBooth {
    pods: Arc<dyn ReadPods>,
    selector: Selector,
    reads: Arc<Semaphore>,
    follows: Arc<Semaphore>,
}

impl PodBooth {
    pub(super) fn new(pods: Arc<dyn ReadPods>, selector: Selector) -> Self {
        Self {
            pods,
            selector,
            reads: Arc::new(Semaphore::new(READS)),
            follows: Arc::new(Semaphore::new(FOLLOWS)),
        }
    }

    /// What selects the pods of a route, where that is known.
    pub(super) fn selection(&self, route: &RouteKey) -> Option<Selection> {
        (self.selector)(route)
    }

    /// Tells of the pods of a route, which have these labels, until it is dropped. `None` where too many are followed.
    pub(super) fn follow(
        &self,
        route: &RouteKey,
        labels: &str,
        tell: Tell,
    ) -> Option<BoxFuture<'static, ()>> {
        let permit = Arc::clone(&self.follows).try_acquire_owned().ok()?;
        let follow = self.pods.follow(&route.namespace, labels, tell);
        Some(follow.map(move |()| drop(permit)).boxed())
    }

    /// The pod, if it is still the one that is meant.
    async fn read(&self, name: &wire::Pod) -> Result<Option<Pod>, CallError> {
        let _permit = self.reads.acquire().await;
        let pod = self.pods.pod(&name.namespace, &name.name).await?;
        Ok(pod.filter(|pod| pod.metadata.uid.as_ref() == Some(&name.uid)))
    }

    /// Tells of one pod, after this time, until there is no more to tell.
    async fn tell(self, name: wire::Pod, after: Duration, outbox: Outbox) {
        sleep(after).await;
        let mut wait = AGAIN.0;
        let mut before = None;
        loop {
            match self.read(&name).await {
                Ok(None) => return,
                Ok(Some(pod)) => {
                    let Told { probe, complete, .. } = probe_spec::of(name.clone(), &pod);
                    if before.as_ref() != Some(&probe) {
                        let message = messages::probe_spec(&probe);
                        if !matches!(timeout(SEND, outbox.send(Ok(message))).await, Ok(Ok(()))) {
                            return;
                        }
                        before = Some(probe);
                    }
                    if complete {
                        return;
                    }
                }
                Err(error) => {
                    debug!(namespace = name.namespace, pod = name.name, %error, "a pod that requests wait for cannot be read");
                }
            }
            sleep(wait).await;
            wait = (wait * 2).min(AGAIN.1);
        }
    }
}

/// What one interceptor wants to know.
#[derive(Default)]
pub(super) struct Wanted {
    telling: HashMap<(String, String, String), AbortOnDropHandle<()>>,
}

impl Wanted {
    /// Takes in which pods are wanted from now on; those of other namespaces than `serves` says are passed over. One of which
    /// `has_told` says that it was told already is told again only where it is still wanted a while later.
    pub(super) fn replace(
        &mut self,
        wanted: wire::PodsWanted,
        booth: &PodBooth,
        outbox: &Outbox,
        serves: impl Fn(&str) -> bool,
        has_told: impl Fn(&wire::Pod) -> bool,
    ) {
        let mut before = std::mem::take(&mut self.telling);
        let mut served: HashMap<String, bool> = HashMap::new();
        for pod in wanted.pods.into_iter().take(MOST_PODS) {
            let namespace = pod.namespace.clone();
            if !*served.entry(namespace).or_insert_with_key(|name| serves(name)) {
                continue;
            }
            let key = (pod.namespace.clone(), pod.name.clone(), pod.uid.clone());
            let telling = before.remove(&key).unwrap_or_else(|| {
                let after = if has_told(&pod) {
                    TOLD_AHEAD
                } else {
                    Duration::ZERO
                };
                AbortOnDropHandle::new(tokio::spawn(booth.clone().tell(pod, after, outbox.clone())))
            });
            self.telling.insert(key, telling);
        }
    }
}
