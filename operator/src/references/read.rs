//! Reading what is referred to, and what of it is kept.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use dormouse_kubernetes::slim::Revision;
use dormouse_kubernetes::{CallError, Calls, Priority, Reference};
use dormouse_scalers::Sensitive;
use dormouse_translate::parameters::pod_spec_of;
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Container, PodSpec, Secret, ServiceAccount};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

/// What of an object is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// The values of a Secret; those that are not UTF-8 are left out.
    Secret(BTreeMap<String, Sensitive>),
    /// The values of a ConfigMap.
    ConfigMap(BTreeMap<String, String>),
    /// The annotations of a ServiceAccount.
    Annotations(BTreeMap<String, String>),
    /// Of the pod template of any other kind, if it has one, the ServiceAccount and the containers' environment.
    Template(Option<Box<PodSpec>>),
}

/// What reading an object gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// There is none of that name.
    Absent,
    /// It may not be read.
    Unreadable,
    /// It is there.
    Present {
        /// Its [`Revision::mark`].
        mark: String,
        /// What is kept of it.
        content: Arc<Content>,
    },
}

impl Found {
    /// The revision, where there is one.
    #[must_use]
    pub fn mark(&self) -> Option<&String> {
        match self {
            Self::Present { mark, .. } => Some(mark),
            Self::Absent | Self::Unreadable => None,
        }
    }

    /// The content, where there is one.
    #[must_use]
    pub fn content(&self) -> Option<Arc<Content>> {
        match self {
            Self::Present { content, .. } => Some(content.clone()),
            Self::Absent | Self::Unreadable => None,
        }
    }
}

/// Reads one object.
pub(super) fn read(
    client: Client,
    calls: Calls,
    reference: Reference,
) -> BoxFuture<'static, Result<Found, CallError>> {
    let resource = reference.resource.clone();
    async move {
        let place = Place {
            client,
            calls,
            reference,
        };
        match (resource.group.as_str(), resource.plural.as_str()) {
            ("", "secrets") => {
                let values = |secret: Secret| {
                    let values = secret.data.unwrap_or_default().into_iter();
                    let text = values.filter_map(|(key, value)| {
                        Some((key, Sensitive::new(String::from_utf8(value.0).ok()?)))
                    });
                    Content::Secret(text.collect())
                };
                place.get("read a Secret", values).await
            }
            ("", "configmaps") => {
                let values = |map: ConfigMap| Content::ConfigMap(map.data.unwrap_or_default());
                place.get("read a ConfigMap", values).await
            }
            ("", "serviceaccounts") => {
                let annotations = |account: ServiceAccount| {
                    Content::Annotations(account.metadata.annotations.unwrap_or_default())
                };
                place.get("read a ServiceAccount", annotations).await
            }
            _ => place.template().await,
        }
    }
    .boxed()
}

struct Place {
    client: Client,
    calls: Calls,
    reference: Reference,
}

impl Place {
    async fn get<K>(self, call: &'static str, content: impl FnOnce(K) -> Content) -> Result<Found, CallError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let key = &self.reference.key;
        let api: Api<K> = Api::namespaced(self.client.clone(), &key.namespace);
        let answer = self
            .calls
            .unary(Priority::Normal, call, api.get_opt(&key.name))
            .await;
        found(answer, content)
    }

    async fn template(self) -> Result<Found, CallError> {
        let key = &self.reference.key;
        let resource: &ApiResource = &self.reference.resource;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, resource);
        let answer = self
            .calls
            .unary(Priority::Normal, "read a scale target", api.get_opt(&key.name))
            .await;
        found(answer, |object: DynamicObject| {
            let spec = object.data.get("spec");
            let pod = spec.and_then(|spec| pod_spec_of(&serde_json::json!({ "spec": spec })));
            Content::Template(pod.map(|pod| Box::new(slim(pod))))
        })
    }
}

/// Not there, and not to be read, are both answers: the operator's rights are part of what the user set up. Everything else
/// means that nobody knows.
fn found<K: Resource>(
    answer: Result<Option<K>, CallError>,
    content: impl FnOnce(K) -> Content,
) -> Result<Found, CallError> {
    match answer {
        Ok(Some(object)) => Ok(Found::Present {
            mark: Revision::mark(object.meta()),
            content: Arc::new(content(object)),
        }),
        Ok(None) | Err(CallError::NotFound { .. }) => Ok(Found::Absent),
        Err(CallError::Forbidden { .. }) => Ok(Found::Unreadable),
        Err(error) => Err(error),
    }
}

/// What the environment is made of and what `cpu` and `memory` triggers need: a pod template may be large, and most changes of
/// it do not concern any trigger.
fn slim(pod: PodSpec) -> PodSpec {
    let containers = pod.containers.into_iter().map(|container| Container {
        name: container.name,
        env: container.env,
        env_from: container.env_from,
        resources: container.resources,
        ..Container::default()
    });
    PodSpec {
        service_account_name: pod.service_account_name,
        containers: containers.collect(),
        ..PodSpec::default()
    }
}
