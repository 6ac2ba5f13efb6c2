//! The operator, installed by its chart as a user would.

use std::fs::{File, Metadata};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::cluster::{Cluster, path};
use crate::manifest;
use crate::wait::until;

/// Names of the standard installation, as the documentation gives them.
const NAMESPACE: &str = "keda";
const NAME: &str = "keda-operator";

const HELM_DEADLINE: Duration = Duration::from_secs(150);

/// One release of the chart.
#[derive(Clone, Debug)]
pub struct Installation {
    namespace: String,
    name: String,
    values: Vec<String>,
    whole_cluster: bool,
}

impl Installation {
    /// The one that every test shares: namespace `keda`, all namespaces watched, debug logs.
    #[must_use]
    pub fn standard() -> Self {
        Self {
            namespace: NAMESPACE.into(),
            name: NAME.into(),
            values: Vec::new(),
            whole_cluster: true,
        }
    }

    /// A further one that lives in `namespace`, watches nothing else, and serves no metrics to the HPA: an APIService
    /// has one owner per cluster. The standard one must not watch that namespace at the same time.
    #[must_use]
    pub fn within(namespace: &str) -> Self {
        let name = format!("operator-{namespace}");
        let values = vec![
            "metricsServer.enabled=false".to_owned(),
            "crds.install=false".to_owned(),
            "interceptor.enabled=false".to_owned(),
            format!("watchNamespace={namespace}"),
            format!("serviceAccount.operator.name={name}"),
        ];
        Self {
            namespace: namespace.into(),
            name,
            values,
            whole_cluster: false,
        }
    }

    /// With one more value, written as helm's `--set` takes it.
    #[must_use]
    pub fn set(mut self, value: impl Into<String>) -> Self {
        self.values.push(value.into());
        self
    }

    /// With this many operator pods.
    #[must_use]
    pub fn replicas(self, count: u32) -> Self {
        self.set(format!("operator.replicaCount={count}"))
    }

    /// Where its pods are.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name of its Deployment, its Service and its pods' `app` label.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Installs it, or upgrades to it, and waits until it is ready.
    ///
    /// # Errors
    /// When the chart is refused or the operator is not ready in time; with its pods and the end of its logs.
    pub async fn install(&self, cluster: &Cluster) -> Result<()> {
        let lock = path("KUBECONFIG")?.with_extension("install.lock");
        let held = tokio::task::spawn_blocking(move || lock_file(lock)).await??;
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": &self.namespace, "labels": labels},
        });
        manifest::apply_value(cluster, &self.namespace, namespace).await?;
        if let Err(error) = self.upgrade(cluster).await {
            return Err(error.context(self.account(cluster).await));
        }
        drop(held);
        Ok(())
    }

    /// Installs the standard installation, once per test process; whoever comes second waits for the first.
    ///
    /// # Errors
    /// As [`install`](Self::install).
    pub async fn shared(cluster: &Cluster) -> Result<Self> {
        static INSTALLED: OnceCell<()> = OnceCell::const_new();
        let this = Self::standard();
        INSTALLED.get_or_try_init(|| this.install(cluster)).await?;
        Ok(this)
    }

    /// Removes it. Its CRDs and their objects stay.
    ///
    /// # Errors
    /// When helm fails.
    pub async fn uninstall(&self, cluster: &Cluster) -> Result<()> {
        let arguments = [
            "uninstall",
            &self.name,
            "--namespace",
            &self.namespace,
            "--ignore-not-found",
            "--wait",
        ];
        cluster.helm(arguments, HELM_DEADLINE).await.map(drop)
    }

    /// Makes sure that it is removed when the answer goes, however the test ends.
    #[must_use]
    pub fn guard(&self) -> UninstallGuard {
        UninstallGuard {
            installation: self.clone(),
        }
    }

    async fn upgrade(&self, cluster: &Cluster) -> Result<()> {
        let values = [
            "image.keda.registry=localhost".to_owned(),
            "image.keda.repository=dormouse".to_owned(),
            "image.keda.tag=dev".to_owned(),
            "image.pullPolicy=Never".to_owned(),
            "logging.operator.level=debug".to_owned(),
            "resources.operator.requests.cpu=50m".to_owned(),
            "logging.interceptor.level=debug".to_owned(),
            "interceptor.replicas.min=1".to_owned(),
            "resources.interceptor.requests.cpu=50m".to_owned(),
            format!("podAnnotations.interceptor.dormouse\\.dev/build={}", build()),
            format!("operator.name={}", self.name),
            format!("podAnnotations.keda.dormouse\\.dev/build={}", build()),
        ];
        let chart = cluster.chart().as_os_str().to_owned();
        // Another field manager may have scaled the Deployment or applied the CRDs; this states what should be.
        let mut arguments = vec!["upgrade".into(), self.name.clone().into(), chart];
        arguments.extend(
            [
                "--install",
                "--take-ownership",
                "--force-conflicts",
                "--wait",
                "--timeout",
                "120s",
            ]
            .map(Into::into),
        );
        arguments.extend(["--namespace".into(), self.namespace.clone().into()]);
        for value in values.iter().chain(&self.values) {
            arguments.extend(["--set".into(), value.into()]);
        }
        cluster.helm(arguments, HELM_DEADLINE).await?;
        let rollout = format!("deployment/{}", self.name);
        cluster
            .kubectl(&[
                "--namespace",
                &self.namespace,
                "rollout",
                "status",
                &rollout,
                "--timeout=25s",
            ])
            .await?;
        if self.whole_cluster {
            until(
                "the metrics API is available",
                Duration::from_secs(60),
                async || {
                    cluster
                        .kubectl(&["get", "--raw", "/apis/external.metrics.k8s.io/v1beta1"])
                        .await
                },
            )
            .await?;
        }
        Ok(())
    }

    async fn account(&self, cluster: &Cluster) -> String {
        let selector = format!("app={}", self.name);
        let common = ["--namespace", &self.namespace, "--selector", &selector];
        let mut text = format!("the operator in namespace {} is not ready", self.namespace);
        for what in [
            &["get", "pods", "--output", "wide"][..],
            &["logs", "--tail=30", "--prefix"][..],
        ] {
            let said = cluster.kubectl(&[what, &common[..]].concat()).await;
            text.push('\n');
            text.push_str(said.unwrap_or_else(|error| format!("{error:#}")).trim());
        }
        text
    }
}

/// Removes an installation when it goes.
pub struct UninstallGuard {
    installation: Installation,
}

impl Drop for UninstallGuard {
    fn drop(&mut self) {
        let Ok(helm) = path("DORMOUSE_HELM") else { return };
        let _ = Command::new(helm)
            .args([
                "uninstall",
                &self.installation.name,
                "--namespace",
                &self.installation.namespace,
            ])
            .args(["--ignore-not-found", "--timeout", "30s"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// Changes with the operator's program, so that a newly built image under the same tag is rolled out. The program lies
/// beside this one, wherever cargo builds.
fn build() -> String {
    let stamp = || {
        let own = std::env::current_exe().ok()?;
        let data = own
            .ancestors()
            .find_map(|dir| dir.join("dormouse").metadata().ok().filter(Metadata::is_file))?;
        let changed = data.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(format!("b{}-{}", data.len(), changed.as_millis()))
    };
    stamp().unwrap_or_else(|| "unknown".to_owned())
}

/// Two test programs must not run helm on one release at the same time.
fn lock_file(path: PathBuf) -> Result<File> {
    let file = File::create(&path).with_context(|| format!("unable to create {}", path.display()))?;
    file.lock()
        .with_context(|| format!("unable to lock {}", path.display()))?;
    Ok(file)
}
