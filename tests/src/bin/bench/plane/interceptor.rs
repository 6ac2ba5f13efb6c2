//! The interceptor as a process of its own, with an API server that the bench has made up.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::api::ApiServer;
use super::port;
use crate::process::Process;

/// With the routes of a large cluster.
const READY: Duration = Duration::from_secs(120);

/// A running interceptor; it ends with this value.
pub(crate) struct Interceptor {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    client: reqwest::Client,
    _dir: TempDir,
}

impl Interceptor {
    /// Starts `program` and waits until it is ready.
    pub(crate) async fn start(program: &Path, threads: usize, api: &ApiServer) -> Result<Self> {
        let dir = tempfile::tempdir().context("unable to create a directory for the interceptor")?;
        let kubeconfig = dir.path().join("kubeconfig");
        std::fs::write(&kubeconfig, api.kubeconfig()).context("unable to write a kubeconfig")?;
        let (proxy, admin, metrics) = (port()?, port()?, port()?);
        let child = Command::new(program)
            .args(["interceptor", "--bind", "127.0.0.1", "--zap-log-level", "error"])
            .args(["--data-threads", &threads.to_string()])
            .args(["--proxy-port", &proxy.to_string()])
            .args(["--admin-port", &admin.to_string()])
            .args(["--metrics-port", &metrics.to_string()])
            // Nobody is there: what is held is told to no operator.
            .args(["--operators", "127.0.0.1:9"])
            .env("KUBECONFIG", &kubeconfig)
            .env_remove("KUBERNETES_SERVICE_HOST")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let interceptor = Self {
            child,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, proxy)),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, admin)),
            client: reqwest::Client::builder()
                .no_proxy()
                .build()
                .context("no HTTP client")?,
            _dir: dir,
        };
        interceptor.until_ready().await?;
        Ok(interceptor)
    }

    async fn until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + READY;
        loop {
            let answer = self
                .client
                .get(format!("http://{}/readyz", self.admin))
                .send()
                .await;
            let what = match answer {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => answer.text().await.unwrap_or_default(),
                Err(error) => error.to_string(),
            };
            anyhow::ensure!(Instant::now() < deadline, "the interceptor is not ready: {what}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Requests that it holds or passes on now.
    pub(crate) async fn concurrency(&self) -> Result<u64> {
        let page = self
            .client
            .get(format!("http://{}/queue", self.admin))
            .send()
            .await?;
        let routes: serde_json::Map<String, serde_json::Value> = page.json().await?;
        let counts = routes.values().filter_map(|route| route["Concurrency"].as_u64());
        Ok(counts.sum())
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process.
    pub(crate) fn process(&self) -> Result<Process> {
        self.child.id().map(Process).context("the interceptor has ended")
    }
}
