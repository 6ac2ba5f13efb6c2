//! The Secret, read and written under a deadline and never over somebody else's change.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::time::timeout;

use super::material::Material;

pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// A call that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("unable to {what}: deadline of 5 s exceeded")]
    Deadline { what: String },
    #[error("unable to {what}: {source}")]
    Call {
        what: String,
        #[source]
        source: Box<kube::Error>,
    },
}

impl CallError {
    /// Whether somebody else was faster, so that the next look will show something new.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Call { source, .. } if matches!(&**source, kube::Error::Api(status) if status.code == 409))
    }
}

/// `call` under the deadline of all calls here; `what` completes "unable to ...".
pub(crate) async fn within_deadline<T>(
    what: impl FnOnce() -> String,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    match timeout(DEADLINE, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(CallError::Call {
            what: what(),
            source: Box::new(source),
        }),
        Err(_) => Err(CallError::Deadline { what: what() }),
    }
}

/// The Secret as it was read.
pub(crate) struct Stored {
    pub(crate) data: BTreeMap<String, ByteString>,
    /// Its resourceVersion, without which nothing is written over it.
    pub(crate) version: String,
}

/// Reads and writes one Secret.
pub(crate) struct SecretStore {
    api: Api<Secret>,
    namespace: String,
    name: String,
}

impl SecretStore {
    pub(crate) fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    pub(crate) async fn read(&self) -> Result<Option<Stored>, CallError> {
        let secret = within_deadline(|| self.what("read"), self.api.get_opt(&self.name)).await?;
        Ok(secret.map(|secret| Stored {
            version: secret.resource_version().unwrap_or_default(),
            data: secret.data.unwrap_or_default(),
        }))
    }

    /// Stores `material`, in place of what was read as `over` or as a new Secret.
    pub(crate) async fn write(&self, material: &Material, over: Option<&Stored>) -> Result<(), CallError> {
        let labels = json!({
            "app": "keda-operator",
            "app.kubernetes.io/name": "keda-operator",
            "app.kubernetes.io/part-of": "keda-operator",
        });
        if let Some(stored) = over {
            let patch = Patch::Merge(json!({
                "metadata": { "resourceVersion": stored.version, "labels": labels },
                "data": material.data(),
            }));
            let parameters = PatchParams::default();
            let call = self.api.patch(&self.name, &parameters, &patch);
            within_deadline(|| self.what("write"), call).await?;
        } else {
            let secret = Secret {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    labels: serde_json::from_value(labels).ok(),
                    ..ObjectMeta::default()
                },
                type_: Some("Opaque".to_owned()),
                data: Some(material.data()),
                ..Secret::default()
            };
            let parameters = PostParams::default();
            within_deadline(|| self.what("create"), self.api.create(&parameters, &secret)).await?;
        }
        Ok(())
    }

    fn what(&self, verb: &str) -> String {
        format!("{verb} Secret {}/{}", self.namespace, self.name)
    }
}
