//! A real Prometheus server on the node's address.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::sqs::free_address;
use crate::upstream::Upstream;
use crate::wait::until;

/// A running server; it ends with this value.
pub struct PrometheusServer {
    address: SocketAddr,
    _child: Child,
    _directory: TempDir,
}

impl PrometheusServer {
    /// Starts Debian's Prometheus, which scrapes `exporter` every second, and waits until it answers.
    ///
    /// # Errors
    /// When it is not installed, or does not answer within 60 s.
    pub async fn scraping(exporter: &Upstream) -> Result<Self> {
        let address = free_address().await?;
        let directory = tempfile::tempdir().context("making a directory for Prometheus")?;
        let configuration = directory.path().join("prometheus.yml");
        let target = exporter.url("");
        let target = target.trim_start_matches("http://");
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs:\n- {{job_name: shop, static_configs: [{{targets: [\"{target}\"]}}]}}\n"
        );
        tokio::fs::write(&configuration, text)
            .await
            .context("writing Prometheus' configuration")?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("unable to start prometheus; `cargo xtask test` installs it")?;
        let this = Self {
            address,
            _child: child,
            _directory: directory,
        };
        let ready = format!("{}/-/ready", this.url());
        until("Prometheus is ready", Duration::from_secs(60), async || {
            let answer = reqwest::get(&ready).await.map_err(|error| anyhow!(error))?;
            ensure!(answer.status().is_success(), "it says {}", answer.status());
            Ok(())
        })
        .await?;
        Ok(this)
    }

    /// Its URL, as `serverAddress` takes it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
