//! The cluster under test, and the tools that reach it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use kube::Client;

use crate::command;

/// The node's address: reachable from pods and from the test alike.
pub const NODE_ADDRESS: &str = "10.10.0.1";
/// The longest kubectl may take where no deadline is given.
pub const KUBECTL_DEADLINE: Duration = Duration::from_secs(30);

/// Handle on the real cluster. Cheap to clone, but bound to the runtime it was made on.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    paths: Arc<Paths>,
}

struct Paths {
    kubectl: PathBuf,
    helm: PathBuf,
    chart: PathBuf,
    repository: PathBuf,
}

impl Cluster {
    /// Connects to the cluster that the environment names.
    ///
    /// # Errors
    /// When a variable that `cargo xtask` sets is missing, or the API server does not answer.
    pub async fn connect() -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        path("KUBECONFIG")?;
        let paths = Paths {
            kubectl: path("DORMOUSE_KUBECTL")?,
            helm: path("DORMOUSE_HELM")?,
            chart: path("DORMOUSE_CHART")?,
            repository: path("DORMOUSE_REPO")?,
        };
        let client = Client::try_default()
            .await
            .context("unable to make a client of KUBECONFIG")?;
        let version = tokio::time::timeout(Duration::from_secs(10), client.apiserver_version()).await;
        version
            .map_err(|_| anyhow!("no answer within 10 s"))
            .and_then(|answer| Ok(answer?))
            .context("the cluster's API server cannot be reached; is the test running inside its network?")?;
        Ok(Self {
            client,
            paths: Arc::new(paths),
        })
    }

    /// A client with the rights of the cluster's administrator.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The root of the work tree.
    #[must_use]
    pub fn repository(&self) -> &Path {
        &self.paths.repository
    }

    /// The chart that is installed.
    #[must_use]
    pub fn chart(&self) -> &Path {
        &self.paths.chart
    }

    /// Runs kubectl and answers what it printed.
    ///
    /// # Errors
    /// As [`command::run`].
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_within(arguments, KUBECTL_DEADLINE).await
    }

    /// Runs kubectl, which may take until `deadline`, and answers what it printed.
    ///
    /// # Errors
    /// As [`command::run`].
    pub async fn kubectl_within(&self, arguments: &[&str], deadline: Duration) -> Result<String> {
        command::run(&self.paths.kubectl, arguments, None, deadline).await
    }

    /// Runs helm and answers what it printed.
    ///
    /// # Errors
    /// As [`command::run`].
    pub async fn helm<A: Into<OsString>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        deadline: Duration,
    ) -> Result<String> {
        command::run(
            &self.paths.helm,
            arguments.into_iter().map(Into::into),
            None,
            deadline,
        )
        .await
    }

    pub(crate) fn kubectl_path(&self) -> &Path {
        &self.paths.kubectl
    }
}

/// A path from the environment.
pub(crate) fn path(variable: &str) -> Result<PathBuf> {
    env::var_os(variable).map(PathBuf::from).ok_or_else(|| {
        anyhow!("{variable} is not set; run this through `cargo xtask test`, `cargo xtask demo` or `cargo xtask bench`")
    })
}
