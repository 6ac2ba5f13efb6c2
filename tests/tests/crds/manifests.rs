//! The custom resource definitions, as a user installs them.

use std::fs::{self, File};
use std::path::Path;
use std::{env, io};

use anyhow::{Context as _, Result};
use dormouse_api::crd;
use dormouse_tests::{Cluster, until};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::conditions::{is_crd_established, is_deleted};
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt as _};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::DEADLINE;

/// The manifests of the repository, applied. Those that were not there before go when this goes.
pub(crate) struct Manifests {
    crds: Api<CustomResourceDefinition>,
    added: Vec<String>,
    /// Keeps other test programs from installing the chart, which brings the same manifests, in between.
    _lock: File,
}

impl Manifests {
    pub(crate) async fn apply(cluster: &Cluster) -> Result<Self> {
        let lock = Path::new(&env::var_os("KUBECONFIG").context("KUBECONFIG is not set")?)
            .with_extension("install.lock");
        let lock = tokio::task::spawn_blocking(move || -> io::Result<File> {
            let file = File::create(lock)?;
            file.lock()?;
            Ok(file)
        });
        let mut this = Self {
            crds: Api::all(cluster.client()),
            added: vec![],
            _lock: lock.await??,
        };
        let apply = PatchParams::apply("dormouse-tests").force();
        for manifest in crd::all() {
            let path = cluster
                .repository()
                .join("deploy/crds")
                .join(crd::file_name(&manifest));
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let manifest: CustomResourceDefinition = serde_saphyr::from_str(&text)?;
            let name = manifest.name_any();
            let before = timeout(DEADLINE, this.crds.get_opt(&name)).await??;
            timeout(DEADLINE, this.crds.patch(&name, &apply, &Patch::Apply(&manifest))).await??;
            if before.is_none() {
                this.added.push(name.clone());
            }
            timeout(
                DEADLINE,
                await_condition(this.crds.clone(), &name, is_crd_established()),
            )
            .await??;
            // Right after a group has come back, its requests are not routed yet.
            let list = format!(
                "/apis/{}/{}/{}?limit=1",
                manifest.spec.group, manifest.spec.versions[0].name, manifest.spec.names.plural
            );
            until("the kind is served", DEADLINE, async || {
                Ok(cluster
                    .client()
                    .request_text(http::Request::get(&list).body(vec![])?)
                    .await?)
            })
            .await?;
        }
        Ok(this)
    }

    async fn remove(&self) -> Result<()> {
        for name in &self.added {
            let gone = timeout(DEADLINE, self.crds.delete(name, &DeleteParams::default())).await??;
            if let Some(deleted) = gone.left() {
                let uid = deleted.uid().unwrap_or_default();
                timeout(
                    DEADLINE,
                    await_condition(self.crds.clone(), name, is_deleted(&uid)),
                )
                .await??;
            }
        }
        Ok(())
    }
}

impl Drop for Manifests {
    fn drop(&mut self) {
        let removed = tokio::task::block_in_place(|| Handle::current().block_on(self.remove()));
        if let Err(error) = removed {
            eprintln!("the custom resource definitions stay: {error:#}");
        }
    }
}
