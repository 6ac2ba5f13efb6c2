//! The pods of an installation and their processes, seen from the machine they run on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams};

use crate::cluster::Cluster;
use crate::install::Installation;
use crate::wait::until;

const LEASE: &str = "operator.keda.sh";
const PROGRAM: &str = "dormouse";

/// The pods of one installation.
#[derive(Clone)]
pub struct Operators {
    cluster: Cluster,
    installation: Installation,
    app: String,
}

/// What a process holds of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, in KiB.
    pub resident: u64,
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
}

impl Operators {
    /// Those of `installation`.
    #[must_use]
    pub fn of(cluster: &Cluster, installation: &Installation) -> Self {
        Self {
            cluster: cluster.clone(),
            installation: installation.clone(),
            app: installation.name().to_owned(),
        }
    }

    /// The interceptors of `installation` instead.
    #[must_use]
    pub fn interceptors_of(cluster: &Cluster, installation: &Installation) -> Self {
        Self {
            app: "keda-add-ons-http-interceptor".to_owned(),
            ..Self::of(cluster, installation)
        }
    }

    /// The pods that are not on their way out.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let own = ListParams::default().labels(&format!("app={}", self.app));
        let all = self
            .api()
            .list(&own)
            .await
            .with_context(|| format!("listing the pods of {}", self.app))?;
        let stays = |pod: &Pod| pod.metadata.deletion_timestamp.is_none();
        Ok(all.items.into_iter().filter(stays).collect())
    }

    /// Their addresses.
    ///
    /// # Errors
    /// As [`pods`](Self::pods).
    pub async fn addresses(&self) -> Result<Vec<String>> {
        let of = |pod: Pod| pod.status?.pod_ip;
        Ok(self.pods().await?.into_iter().filter_map(of).collect())
    }

    /// Waits until this many are ready.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn are_ready(&self, count: usize, deadline: Duration) -> Result<()> {
        until(
            &format!("{count} pods of {} are ready", self.app),
            deadline,
            async || {
                let ready = self.pods().await?.iter().filter(|pod| is_ready(pod)).count();
                ensure!(ready == count, "{ready} are");
                Ok(())
            },
        )
        .await
    }

    /// How often containers of these pods were restarted, by pod.
    ///
    /// # Errors
    /// As [`pods`](Self::pods).
    pub async fn restarts(&self) -> Result<BTreeMap<String, i32>> {
        let of = |pod: Pod| {
            let name = pod.metadata.name.unwrap_or_default();
            let containers = pod.status.and_then(|status| status.container_statuses);
            (
                name,
                containers
                    .unwrap_or_default()
                    .iter()
                    .map(|one| one.restart_count)
                    .sum(),
            )
        };
        Ok(self.pods().await?.into_iter().map(of).collect())
    }

    /// The pod that holds the lease.
    ///
    /// # Errors
    /// When nobody does.
    pub async fn leader(&self) -> Result<String> {
        let api: Api<Lease> = Api::namespaced(self.cluster.client(), self.installation.namespace());
        let lease = api.get(LEASE).await.context("reading the lease")?;
        let holder = lease
            .spec
            .and_then(|spec| spec.holder_identity)
            .unwrap_or_default();
        let pod = holder.split('_').next().unwrap_or_default().to_owned();
        ensure!(!pod.is_empty(), "nobody holds the lease");
        Ok(pod)
    }

    /// SIGKILL, as a crash or the kernel's memory killer would: nothing is said goodbye to.
    ///
    /// # Errors
    /// When the pod has no process here.
    pub async fn kill(&self, pod: &str) -> Result<()> {
        let pid = process(pod)?.to_string();
        let status = tokio::process::Command::new("kill")
            .args(["-9", &pid])
            .status()
            .await?;
        ensure!(status.success(), "kill -9 {pid} failed");
        Ok(())
    }

    /// SIGKILL, and another pod at once: the kubelet would wait longer before each further start of the same one, which is
    /// no fault of the operator's.
    ///
    /// # Errors
    /// As [`kill`](Self::kill).
    pub async fn replace(&self, pod: &str) -> Result<()> {
        self.kill(pod).await?;
        let at_once = DeleteParams::default().grace_period(0);
        let deleted = self.api().delete(pod, &at_once).await;
        deleted.map(drop).with_context(|| format!("deleting pod {pod}"))
    }

    /// Tells a pod to stop, as a rollout would; waits for nothing.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn stop(&self, pod: &str) -> Result<()> {
        let deleted = self.api().delete(pod, &DeleteParams::default()).await;
        deleted.map(drop).with_context(|| format!("deleting pod {pod}"))
    }

    /// What each pod's process holds now; pods without a process are left out.
    ///
    /// # Errors
    /// As [`pods`](Self::pods).
    pub async fn usage(&self) -> Result<BTreeMap<String, Usage>> {
        let names = self.pods().await?.into_iter().filter_map(|pod| pod.metadata.name);
        Ok(names
            .filter_map(|name| {
                let usage = process(&name).and_then(usage).ok()?;
                Some((name, usage))
            })
            .collect())
    }

    /// The Prometheus pages of all pods that answer, by pod, asked from the node and not through the API server.
    ///
    /// # Errors
    /// As [`pods`](Self::pods).
    pub async fn metrics(&self) -> Result<BTreeMap<String, String>> {
        let mut pages = BTreeMap::new();
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .build()?;
        for pod in self.pods().await? {
            let name = pod.metadata.name.unwrap_or_default();
            let Some(address) = pod.status.and_then(|status| status.pod_ip) else {
                continue;
            };
            let url = format!("http://{address}:8080/metrics");
            if let Ok(answer) = client.get(url).send().await
                && let Ok(page) = answer.text().await
            {
                pages.insert(name, page);
            }
        }
        Ok(pages)
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client(), self.installation.namespace())
    }
}

/// Whether a pod's Ready condition holds.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let conditions = status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|one| one.type_ == "Ready" && one.status == "True")
}

/// The process of an operator's pod, on this machine.
///
/// # Errors
/// When none is found, or this machine's processes cannot be listed.
pub fn process(pod: &str) -> Result<u32> {
    let wanted = format!("POD_NAME={pod}");
    for entry in fs::read_dir("/proc").context("listing /proc")? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(pid) = name.and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let is_operator = fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == PROGRAM);
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        if is_operator && variables.any(|variable| variable == wanted.as_bytes()) {
            return Ok(pid);
        }
    }
    bail!("no process of pod {pod} was found")
}

fn usage(pid: u32) -> Result<Usage> {
    let process = Path::new("/proc").join(pid.to_string());
    let status = fs::read_to_string(process.join("status")).context("reading a process's status")?;
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.unwrap_or_default()
    };
    Ok(Usage {
        resident: field("VmRSS:"),
        descriptors: fs::read_dir(process.join("fd"))
            .context("listing descriptors")?
            .count(),
        threads: usize::try_from(field("Threads:")).unwrap_or_default(),
    })
}
