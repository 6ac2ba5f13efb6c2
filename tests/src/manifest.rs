//! Manifests as text, applied as `kubectl apply --server-side` would.

use anyhow::{Context as _, Result, anyhow};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{self, Scope};
use serde_json::Value;

use crate::cluster::Cluster;

/// The documents of a YAML text, the empty ones left out.
///
/// # Errors
/// When it is not YAML.
pub fn documents(yaml: &str) -> Result<Vec<Value>> {
    let found: Vec<Value> = serde_saphyr::from_multiple(yaml).context("the manifest is not YAML")?;
    Ok(found.into_iter().filter(|document| !document.is_null()).collect())
}

/// The documents of a kustomization, as `kubectl apply --kustomize` would apply them: of a folder of the repository.
///
/// # Errors
/// When kubectl cannot put it together.
pub async fn kustomized(cluster: &Cluster, folder: &str) -> Result<Vec<Value>> {
    let folder = cluster.repository().join(folder);
    let folder = folder.to_str().context("the repository's path is not UTF-8")?;
    documents(&cluster.kubectl(&["kustomize", folder]).await?)
}

/// Applies every document of `yaml`; namespaced objects land in `namespace`, whatever they say.
///
/// # Errors
/// When a document is not a Kubernetes object, its kind is unknown, or the API server refuses it.
pub async fn apply(cluster: &Cluster, namespace: &str, yaml: &str) -> Result<()> {
    for document in documents(yaml)? {
        apply_value(cluster, namespace, document).await?;
    }
    Ok(())
}

/// Applies one object.
///
/// # Errors
/// As [`apply`].
pub async fn apply_value(cluster: &Cluster, namespace: &str, value: Value) -> Result<()> {
    let object: DynamicObject =
        serde_json::from_value(value).context("a document is not a Kubernetes object")?;
    let types = object
        .types
        .clone()
        .ok_or_else(|| anyhow!("a document has no apiVersion and kind"))?;
    let name = object
        .metadata
        .name
        .clone()
        .ok_or_else(|| anyhow!("a {} has no name", types.kind))?;
    let kind = GroupVersionKind::try_from(&types).with_context(|| format!("{} {name}", types.kind))?;
    let (resource, capabilities) = discovery::pinned_kind(&cluster.client(), &kind)
        .await
        .with_context(|| format!("the cluster has no kind {} {}", types.api_version, types.kind))?;
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Cluster => Api::all_with(cluster.client(), &resource),
        Scope::Namespaced => Api::namespaced_with(cluster.client(), namespace, &resource),
    };
    let parameters = PatchParams::apply("dormouse-tests").force();
    api.patch(&name, &parameters, &Patch::Apply(&object))
        .await
        .with_context(|| format!("applying {} {name}", types.kind))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_documents_and_comments_are_skipped() {
        let found = documents("# a note\n---\nkind: A\n---\n---\nkind: B\n").unwrap();
        let kinds: Vec<_> = found
            .iter()
            .map(|document| document["kind"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["A", "B"]);
    }
}
