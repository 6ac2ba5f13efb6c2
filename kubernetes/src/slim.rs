//! Objects as far as Dormouse reads them: what is watched is kept, so what is not read is dropped while decoding.

use std::borrow::Cow;

use k8s_openapi::{
    NamespaceResourceScope,
    api::autoscaling::v2::{
        HorizontalPodAutoscaler as FullHpa, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Resource,
    core::{ApiResource, DynamicResourceScope},
};
use serde::{Deserialize, Deserializer};

/// A horizontal pod autoscaler: its spec whole, because a drift anywhere in it has to be noticed; of its status what tells
/// whether it works.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct HorizontalPodAutoscaler {
    /// Name, labels, annotations, owners; without managed fields.
    #[serde(default, deserialize_with = "lean")]
    pub metadata: ObjectMeta,
    /// What is asked of it.
    #[serde(default)]
    pub spec: HorizontalPodAutoscalerSpec,
    /// How it fares.
    #[serde(default)]
    pub status: HorizontalPodAutoscalerStatus,
}

/// The part of an autoscaler's status that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HorizontalPodAutoscalerStatus {
    /// `AbleToScale`, `ScalingActive` and `ScalingLimited`.
    #[serde(default, deserialize_with = "or_default")]
    pub conditions: Vec<HorizontalPodAutoscalerCondition>,
    /// The replicas it last saw.
    #[serde(default, deserialize_with = "or_default")]
    pub current_replicas: i32,
    /// The replicas it last wished for.
    #[serde(default, deserialize_with = "or_default")]
    pub desired_replicas: i32,
}

impl Resource for HorizontalPodAutoscaler {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        FullHpa::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        FullHpa::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        FullHpa::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        FullHpa::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// That an object of some kind exists, and in which revision: of all else only metadata is transferred and nothing kept.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Revision {
    /// Name, namespace, uid, resourceVersion and generation.
    #[serde(default, deserialize_with = "bare")]
    pub metadata: ObjectMeta,
}

impl Revision {
    /// Another text whenever what users write into an object with this metadata may have changed. Kinds that count their
    /// generations change it with the spec alone, so that the status they report does not.
    #[must_use]
    pub fn mark(metadata: &ObjectMeta) -> String {
        let uid = metadata.uid.as_deref().unwrap_or_default();
        match metadata.generation {
            Some(generation) => format!("{uid} generation {generation}"),
            None => format!(
                "{uid} {}",
                metadata.resource_version.as_deref().unwrap_or_default()
            ),
        }
    }
}

impl Resource for Revision {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn metadata_api() -> bool {
        true
    }
}

fn bare<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let metadata = ObjectMeta::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        resource_version: metadata.resource_version,
        generation: metadata.generation,
        ..ObjectMeta::default()
    })
}

/// Decodes metadata without the two parts that can outweigh the object and that nothing here reads: the managed fields and
/// kubectl's copy of the last applied form. For the `metadata` of any watched type.
///
/// # Errors
/// When it is not object metadata.
pub fn lean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let mut metadata = ObjectMeta::deserialize(deserializer)?;
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    Ok(metadata)
}

/// Reads null as the default: the API server writes an empty list so.
///
/// # Errors
/// When what is there is of another type.
pub fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_autoscaler_keeps_its_spec_and_conditions_and_loses_the_rest() {
        let hpa: HorizontalPodAutoscaler = serde_json::from_value(serde_json::json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {
                "name": "keda-hpa-full", "namespace": "cap", "labels": {"scaledobject.keda.sh/name": "full"},
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "kept": "yes"},
                "managedFields": [{"manager": "keda", "operation": "Update"}],
            },
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "work"},
                "minReplicas": 1, "maxReplicas": 8,
            },
            "status": {
                "conditions": [{"type": "ScalingActive", "status": "True"}],
                "currentMetrics": [{"type": "External"}], "currentReplicas": 2, "desiredReplicas": 3,
            },
        }))
        .unwrap();
        assert_eq!(hpa.metadata.managed_fields, None);
        assert_eq!(
            hpa.metadata
                .annotations
                .as_ref()
                .unwrap()
                .keys()
                .collect::<Vec<_>>(),
            ["kept"]
        );
        assert_eq!(
            (hpa.spec.scale_target_ref.name.as_str(), hpa.spec.max_replicas),
            ("work", 8)
        );
        assert_eq!(hpa.status.conditions[0].type_, "ScalingActive");
        assert_eq!((hpa.status.current_replicas, hpa.status.desired_replicas), (2, 3));
    }

    #[test]
    fn an_autoscaler_nobody_has_looked_at_yet_is_read_too() {
        let hpa: HorizontalPodAutoscaler = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "new"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "work"}, "maxReplicas": 8},
            "status": {"conditions": null, "currentMetrics": null, "desiredReplicas": 0},
        }))
        .unwrap();
        assert!(hpa.status.conditions.is_empty());
    }
}
