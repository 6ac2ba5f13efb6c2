//! The platform's own floor: a patch of `/scale` by hand, and a request straight to the pod as soon as it takes one.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::http_echo;
use dormouse_tests::{Cluster, Namespace};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::cold::{example, listened_at};

const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries to reach the pod.
const APART: Duration = Duration::from_millis(1);
const PORT: u16 = 8080;

/// What the platform took by itself, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FloorSample {
    /// From the patch to the pod's first answer.
    pub(crate) total: f64,
    /// The patch of `/scale`, until the API server had answered.
    pub(crate) patch: f64,
    /// From the application's listening to the pod's first answer.
    pub(crate) listening_to_answer: f64,
    /// The request that the pod answered first: from connecting to its first bytes.
    pub(crate) first_byte: f64,
}

impl FloorSample {
    /// Nearly what [`Sample::ours`](super::cold::Sample::ours) counts, of a start that is nobody's: its first part ends with the
    /// answer to the patch, and not when a watch sees what it did.
    pub(crate) fn of_the_same_parts(&self) -> f64 {
        self.patch + self.listening_to_answer
    }
}

/// A Deployment that nobody scales but the bench.
pub(crate) struct Floor<'a> {
    namespace: &'a Namespace,
}

/// The example without a ScaledObject.
pub(crate) async fn floor<'a>(cluster: &Cluster, namespace: &'a Namespace, late: u64) -> Result<Floor<'a>> {
    example(namespace, late).asleep(cluster, namespace).await?;
    namespace
        .kubectl(&["delete", "scaledobject,interceptorroute", http_echo::NAME])
        .await?;
    let floor = Floor { namespace };
    floor.scale(0).await?;
    Ok(floor)
}

impl Floor<'_> {
    /// One start by hand; then the way back to none.
    pub(crate) async fn sample(&self) -> Result<FloorSample> {
        http_echo::sleeps(self.namespace, PATIENCE).await?;
        let millis = |began: Instant| began.elapsed().as_secs_f64() * 1000.0;
        let began = Instant::now();
        let pod = self.pod();
        self.scale(1).await?;
        let patch = millis(began);
        let pod = timeout(PATIENCE, pod).await.context("the pod has no address")??;
        let answered = async {
            loop {
                let tried = Instant::now();
                if request(SocketAddr::new(pod, PORT)).await.is_ok() {
                    return millis(tried);
                }
                sleep(APART).await;
            }
        };
        let first_byte = timeout(PATIENCE, answered)
            .await
            .context("the pod does not answer")?;
        let (total, answered_at) = (millis(began), Timestamp::now());
        let listened_at = listened_at(self.namespace).await?;
        self.scale(0).await?;
        Ok(FloorSample {
            total,
            patch,
            listening_to_answer: answered_at.duration_since(listened_at).as_secs_f64() * 1000.0,
            first_byte,
        })
    }

    async fn scale(&self, replicas: u32) -> Result<()> {
        let api: Api<Deployment> = self.namespace.api();
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let patched = api
            .patch_scale(http_echo::NAME, &PatchParams::default(), &patch)
            .await;
        patched.context("patching /scale").map(drop)
    }

    /// The address of the pod, as soon as it has one.
    async fn pod(&self) -> Result<IpAddr> {
        let pods = watcher::watcher(self.namespace.api::<Pod>(), watcher::Config::default());
        let mut pods = std::pin::pin!(pods.default_backoff().applied_objects());
        while let Some(pod) = pods.next().await {
            let address = pod.ok().and_then(|pod| pod.status?.pod_ip);
            if let Some(address) = address {
                return address
                    .parse()
                    .with_context(|| format!("{address:?} is no address"));
            }
        }
        anyhow::bail!("the watch of pods ended")
    }
}

async fn request(pod: SocketAddr) -> Result<()> {
    let mut stream = timeout(Duration::from_millis(200), TcpStream::connect(pod)).await??;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: floor\r\nConnection: close\r\n\r\n")
        .await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    ensure!(head.ends_with(b"200"), "{}", String::from_utf8_lossy(&head));
    Ok(())
}
