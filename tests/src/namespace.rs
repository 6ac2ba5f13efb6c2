//! A namespace per test.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Namespace as KubeNamespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};

use crate::cluster::Cluster;
use crate::manifest;
use crate::wait::until;

/// A namespace that is deleted when this value goes, however the test ended.
pub struct Namespace {
    cluster: Cluster,
    name: String,
}

impl Namespace {
    /// Creates a namespace whose name begins with `subject`. Its pods must meet the restricted pod security standard.
    ///
    /// # Errors
    /// When the API server refuses, or the namespace gets no ServiceAccount within 30 s.
    pub async fn create(cluster: &Cluster, subject: &str) -> Result<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("{subject}-{:06x}", (since.as_micros() as u64) & 0xff_ffff);
        let labels = BTreeMap::from([
            (
                "pod-security.kubernetes.io/enforce".to_owned(),
                "restricted".to_owned(),
            ),
            ("dormouse.dev/test".to_owned(), subject.to_owned()),
        ]);
        let object = KubeNamespace {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            ..KubeNamespace::default()
        };
        let api = Api::<KubeNamespace>::all(cluster.client());
        api.create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("creating namespace {name}"))?;
        let this = Self {
            cluster: cluster.clone(),
            name,
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), &this.name);
        until(
            "the namespace's default ServiceAccount",
            Duration::from_secs(30),
            async || Ok(accounts.get("default").await?),
        )
        .await?;
        Ok(this)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The objects of a kind in this namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.cluster.client(), &self.name)
    }

    /// Applies every document of `yaml` here.
    ///
    /// # Errors
    /// As [`manifest::apply`].
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        manifest::apply(&self.cluster, &self.name, yaml).await
    }

    /// Runs kubectl in this namespace.
    ///
    /// # Errors
    /// As [`Cluster::kubectl`].
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["--namespace", self.name.as_str()];
        all.extend_from_slice(arguments);
        self.cluster.kubectl(&all).await
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Drop cannot await, and the test's runtime may be gone already: hence a child process, and no waiting for the end.
        let _ = Command::new(self.cluster.kubectl_path())
            .args([
                "delete",
                "namespace",
                &self.name,
                "--wait=false",
                "--ignore-not-found",
                "--request-timeout=5s",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}
