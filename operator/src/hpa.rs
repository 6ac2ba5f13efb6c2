//! The HorizontalPodAutoscaler of a ScaledObject: what it must be, and whether the one there is differs.

use std::collections::BTreeMap;

use dormouse_api::{GroupVersionKindResource, ScaledObject, labels};
use dormouse_core::{Pause, ResourceMetric, ResourceTarget, TargetKind};
use dormouse_engine::{AutoscalerMetric, AutoscalerSpec};
use dormouse_scalers::Target;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, CrossVersionObjectReference, ExternalMetricSource, HPAScalingPolicy,
    HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec,
    MetricIdentifier, MetricSpec, MetricTarget, ResourceMetricSource,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};

/// The longest value a label may have.
const LONGEST_LABEL: usize = 63;

/// The HPA that `object` must have.
#[must_use]
pub fn desired(
    object: &ScaledObject,
    target: &GroupVersionKindResource,
    spec: &AutoscalerSpec,
    version: &str,
) -> HorizontalPodAutoscaler {
    let name = object.spec.hpa_name(&object.name_any());
    let api_version = if target.group.is_empty() {
        target.version.clone()
    } else {
        format!("{}/{}", target.group, target.version)
    };
    HorizontalPodAutoscaler {
        metadata: ObjectMeta {
            labels: Some(hpa_labels(object, &name, version)),
            annotations: object.metadata.annotations.clone(),
            owner_references: object.controller_owner_ref(&()).map(|owner| {
                vec![OwnerReference {
                    block_owner_deletion: Some(true),
                    ..owner
                }]
            }),
            namespace: object.namespace(),
            name: Some(name),
            ..Default::default()
        },
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some(api_version),
                kind: target.kind.clone(),
                name: object.spec.scale_target_ref.name.clone(),
            },
            min_replicas: Some(to_i32(spec.replicas.hpa_min())),
            max_replicas: to_i32(spec.replicas.max()),
            behavior: behavior(object, spec.pause),
            metrics: Some(metrics(spec, &object.name_any())),
        }),
        status: None,
    }
}

fn to_i32(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The operator's own labels, and over them all of the object's that are not excluded.
fn hpa_labels(object: &ScaledObject, hpa_name: &str, version: &str) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = [
        (labels::APP_NAME, as_label(hpa_name)),
        (labels::APP_VERSION, version.to_owned()),
        (labels::APP_PART_OF, as_label(&object.name_any())),
        (labels::APP_MANAGED_BY, labels::MANAGED_BY.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let excluded = object
        .annotations()
        .get(labels::HPA_EXCLUDED_LABELS)
        .map(String::as_str)
        .unwrap_or_default();
    let is_excluded = |key: &str| excluded.split(',').any(|excluded| excluded == key);
    all.extend(
        object
            .labels()
            .iter()
            .filter(|(key, _)| !is_excluded(key))
            .map(|(k, v)| (k.clone(), v.clone())),
    );
    // The HPA's metrics select by this label, and a brand-new object may not carry it yet.
    all.insert(labels::SCALED_OBJECT_NAME.to_owned(), object.name_any());
    all
}

/// Cut to what a label may hold, ending in a letter or digit.
fn as_label(text: &str) -> String {
    let cut: String = text.chars().take(LONGEST_LABEL).collect();
    cut.trim_end_matches(|c: char| !c.is_ascii_alphanumeric())
        .to_owned()
}

fn behavior(object: &ScaledObject, pause: Pause) -> Option<HorizontalPodAutoscalerBehavior> {
    let mut behavior = object
        .spec
        .hpa_config()
        .and_then(|config| config.behavior.clone());
    let disable = |rules: &mut Option<HPAScalingRules>| {
        rules.get_or_insert_default().select_policy = Some("Disabled".to_owned());
    };
    if pause.blocks_scale_in() {
        disable(&mut behavior.get_or_insert_default().scale_down);
    }
    if pause.blocks_scale_out() {
        disable(&mut behavior.get_or_insert_default().scale_up);
    }
    behavior
}

/// As KEDA orders them: by the name of their type, and as in the manifest within each.
fn metrics(spec: &AutoscalerSpec, scaled_object: &str) -> Vec<MetricSpec> {
    let external = spec.metrics.iter().map(|metric| external(metric, scaled_object));
    let mut all: Vec<MetricSpec> = external.chain(spec.resources.iter().map(resource)).collect();
    all.sort_by(|left, right| left.type_.cmp(&right.type_));
    all
}

fn resource(metric: &ResourceMetric) -> MetricSpec {
    let name = metric.resource.name().to_owned();
    let target = match metric.target {
        ResourceTarget::Utilization(percent) => MetricTarget {
            type_: "Utilization".to_owned(),
            average_utilization: Some(percent),
            ..Default::default()
        },
        ResourceTarget::AverageValue(quantity) => MetricTarget {
            type_: "AverageValue".to_owned(),
            average_value: Some(Quantity(quantity.to_string())),
            ..Default::default()
        },
    };
    match metric.container.clone() {
        Some(container) => MetricSpec {
            type_: "ContainerResource".to_owned(),
            container_resource: Some(ContainerResourceMetricSource {
                container,
                name,
                target,
            }),
            ..Default::default()
        },
        None => MetricSpec {
            type_: "Resource".to_owned(),
            resource: Some(ResourceMetricSource { name, target }),
            ..Default::default()
        },
    }
}

fn external(metric: &AutoscalerMetric, scaled_object: &str) -> MetricSpec {
    let quantity = Quantity(target_quantity(metric.target));
    let (kind, average_value, value) = match metric.kind {
        TargetKind::AverageValue => ("AverageValue", Some(quantity), None),
        TargetKind::Value => ("Value", None, Some(quantity)),
    };
    MetricSpec {
        type_: "External".to_owned(),
        external: Some(ExternalMetricSource {
            metric: MetricIdentifier {
                name: metric.name.clone(),
                selector: Some(LabelSelector {
                    match_labels: Some(
                        [(labels::SCALED_OBJECT_NAME.to_owned(), scaled_object.to_owned())].into(),
                    ),
                    match_expressions: None,
                }),
            },
            target: MetricTarget {
                type_: kind.to_owned(),
                average_value,
                value,
                average_utilization: None,
            },
        }),
        ..Default::default()
    }
}

/// Whole targets as they are, others with three decimals, both as the API server writes them.
fn target_quantity(target: Target) -> String {
    let text = match target {
        Target::Whole(value) => value.to_string(),
        Target::Decimal(value) => format!("{value:.3}"),
    };
    dormouse_core::Quantity::parse(&text).map_or(text, |quantity| quantity.to_string())
}

/// Whether `live` lacks anything of `desired`: bounds, target, metrics, behavior, our label and annotation values, or the
/// owner. What the API server fills in by itself, and labels and annotations that others added, do not count.
#[must_use]
pub fn differs(live: &HorizontalPodAutoscaler, desired: &HorizontalPodAutoscaler) -> bool {
    let (Some(live_spec), Some(desired_spec)) = (&live.spec, &desired.spec) else {
        return true;
    };
    let covers = |live: Option<&BTreeMap<String, String>>, desired: Option<&BTreeMap<String, String>>| {
        desired
            .into_iter()
            .flatten()
            .all(|(key, value)| live.and_then(|live| live.get(key)) == Some(value))
    };
    live_spec.min_replicas != desired_spec.min_replicas
        || live_spec.max_replicas != desired_spec.max_replicas
        || live_spec.scale_target_ref != desired_spec.scale_target_ref
        || live_spec.metrics != desired_spec.metrics
        || !behavior_covers(live_spec.behavior.as_ref(), desired_spec.behavior.as_ref())
        || !covers(live.metadata.labels.as_ref(), desired.metadata.labels.as_ref())
        || !covers(
            live.metadata.annotations.as_ref(),
            desired.metadata.annotations.as_ref(),
        )
        || owner(live) != owner(desired)
}

/// `hpa` with an owner whose deletion does not wait for it.
#[must_use]
pub fn without_block(hpa: &HorizontalPodAutoscaler) -> HorizontalPodAutoscaler {
    let mut hpa = hpa.clone();
    for owner in hpa.metadata.owner_references.iter_mut().flatten() {
        owner.block_owner_deletion = None;
    }
    hpa
}

/// The uid of the controller, and whether its deletion waits for the HPA.
fn owner(hpa: &HorizontalPodAutoscaler) -> Option<(&str, bool)> {
    let mut owners = hpa.metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    Some((&owner.uid, owner.block_owner_deletion == Some(true)))
}

/// Compares with the defaults filled in that the API server writes into a behavior that is given. A behavior that was not
/// asked for must be gone, as the user may have just removed it.
fn behavior_covers(
    live: Option<&HorizontalPodAutoscalerBehavior>,
    desired: Option<&HorizontalPodAutoscalerBehavior>,
) -> bool {
    let filled = |behavior: &HorizontalPodAutoscalerBehavior| {
        (
            with_defaults(
                behavior.scale_up.as_ref(),
                Some(0),
                &[("Pods", 4), ("Percent", 100)],
            ),
            with_defaults(behavior.scale_down.as_ref(), None, &[("Percent", 100)]),
        )
    };
    live.map(filled) == desired.map(filled)
}

fn with_defaults(
    rules: Option<&HPAScalingRules>,
    window: Option<i32>,
    policies: &[(&str, i32)],
) -> HPAScalingRules {
    let mut rules = rules.cloned().unwrap_or_default();
    rules.select_policy.get_or_insert_with(|| "Max".to_owned());
    rules.stabilization_window_seconds = rules.stabilization_window_seconds.or(window);
    let default = |&(type_, value): &(&str, i32)| HPAScalingPolicy {
        type_: type_.to_owned(),
        value,
        period_seconds: 15,
    };
    rules
        .policies
        .get_or_insert_with(|| policies.iter().map(default).collect());
    rules
}

/// `live`, brought to `desired`: labels and annotations that others added stay.
#[must_use]
pub fn merged(live: &HorizontalPodAutoscaler, desired: &HorizontalPodAutoscaler) -> HorizontalPodAutoscaler {
    let mut merged = live.clone();
    let overlay = |live: &mut Option<BTreeMap<String, String>>,
                   desired: &Option<BTreeMap<String, String>>| {
        live.get_or_insert_default()
            .extend(desired.clone().unwrap_or_default());
    };
    overlay(&mut merged.metadata.labels, &desired.metadata.labels);
    overlay(&mut merged.metadata.annotations, &desired.metadata.annotations);
    merged.metadata.owner_references = desired.metadata.owner_references.clone();
    merged.spec = desired.spec.clone();
    merged
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dormouse_api::{Advanced, HorizontalPodAutoscalerConfig, ScaledObjectSpec};
    use dormouse_core::{PodResource, ReplicaRange};

    use super::*;

    fn object() -> ScaledObject {
        let mut object = ScaledObject::new("full", ScaledObjectSpec::default());
        object.spec.scale_target_ref.name = "app".into();
        object.metadata.uid = Some("u".into());
        object.metadata.labels = Some(
            [
                ("team".to_owned(), "a".to_owned()),
                ("secret".to_owned(), "b".to_owned()),
            ]
            .into(),
        );
        object.metadata.annotations =
            Some([(labels::HPA_EXCLUDED_LABELS.to_owned(), "secret,other".to_owned())].into());
        object
    }

    fn spec(pause: Pause) -> AutoscalerSpec {
        let metric = |name: &str, kind, target| AutoscalerMetric {
            name: name.into(),
            kind,
            target,
        };
        AutoscalerSpec {
            replicas: ReplicaRange::try_new(None, 3, None).unwrap(),
            pause,
            metrics: vec![
                metric("s0-a", TargetKind::AverageValue, Target::Whole(8)),
                metric("s1-b", TargetKind::Value, Target::Decimal(0.5)),
            ],
            resources: Vec::new(),
        }
    }

    fn gvkr() -> GroupVersionKindResource {
        GroupVersionKindResource {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            resource: "deployments".into(),
        }
    }

    #[test]
    fn looks_as_kedas_do() {
        let hpa = desired(&object(), &gvkr(), &spec(Pause::No), "0.1.0");
        assert_eq!(hpa.name_any(), "keda-hpa-full");
        let labels = hpa.labels();
        assert_eq!(labels["app.kubernetes.io/name"], "keda-hpa-full");
        assert_eq!(labels["scaledobject.keda.sh/name"], "full");
        assert_eq!(labels["team"], "a");
        assert!(!labels.contains_key("secret"));
        let spec = serde_json::to_value(hpa.spec).unwrap();
        assert_eq!(spec["minReplicas"], 1);
        assert_eq!(spec["scaleTargetRef"]["apiVersion"], "apps/v1");
        assert_eq!(
            spec["metrics"][0]["external"]["target"],
            serde_json::json!({"type": "AverageValue", "averageValue": "8"})
        );
        assert_eq!(
            spec["metrics"][1]["external"]["target"],
            serde_json::json!({"type": "Value", "value": "500m"})
        );
    }

    #[test]
    fn resource_metrics_stand_around_the_external_ones() {
        let measured = |resource, container: Option<&str>, target| ResourceMetric {
            resource,
            container: container.map(str::to_owned),
            target,
        };
        let mut wanted = spec(Pause::No);
        let half = dormouse_core::Quantity::parse("0.5").unwrap();
        wanted.resources = vec![
            measured(PodResource::Memory, None, ResourceTarget::Utilization(80)),
            measured(PodResource::Cpu, Some("app"), ResourceTarget::AverageValue(half)),
            measured(PodResource::Cpu, None, ResourceTarget::Utilization(60)),
        ];
        let hpa = desired(&object(), &gvkr(), &wanted, "1");
        let metrics = serde_json::to_value(hpa.spec.unwrap().metrics).unwrap();
        let types: Vec<_> = metrics
            .as_array()
            .unwrap()
            .iter()
            .map(|metric| metric["type"].as_str().unwrap())
            .collect();
        assert_eq!(
            types,
            [
                "ContainerResource",
                "External",
                "External",
                "Resource",
                "Resource"
            ]
        );
        assert_eq!(
            metrics[0]["containerResource"],
            serde_json::json!({
                "container": "app", "name": "cpu", "target": {"type": "AverageValue", "averageValue": "500m"},
            })
        );
        assert_eq!(
            metrics[3]["resource"],
            serde_json::json!({"name": "memory", "target": {"type": "Utilization", "averageUtilization": 80}})
        );
    }

    #[test]
    fn a_paused_direction_is_disabled_even_without_a_behavior() {
        let pause = Pause::Directions {
            scale_in: true,
            scale_out: false,
        };
        let behavior = desired(&object(), &gvkr(), &spec(pause), "1")
            .spec
            .unwrap()
            .behavior
            .unwrap();
        assert_eq!(
            behavior.scale_down.unwrap().select_policy.as_deref(),
            Some("Disabled")
        );
        assert!(behavior.scale_up.is_none());
    }

    #[test]
    fn only_what_was_asked_for_makes_a_difference() {
        let mut with_behavior = object();
        with_behavior.spec.advanced = Some(Advanced {
            horizontal_pod_autoscaler_config: Some(HorizontalPodAutoscalerConfig {
                name: None,
                behavior: Some(HorizontalPodAutoscalerBehavior {
                    scale_down: Some(HPAScalingRules {
                        stabilization_window_seconds: Some(Duration::from_secs(10).as_secs() as i32),
                        ..Default::default()
                    }),
                    scale_up: None,
                }),
            }),
            ..Default::default()
        });
        let wanted = desired(&with_behavior, &gvkr(), &spec(Pause::No), "1");
        let mut live = wanted.clone();
        // What the API server fills in.
        let behavior = live.spec.as_mut().unwrap().behavior.as_mut().unwrap();
        behavior.scale_up = Some(with_defaults(None, Some(0), &[("Pods", 4), ("Percent", 100)]));
        behavior.scale_down = Some(with_defaults(
            behavior.scale_down.as_ref(),
            None,
            &[("Percent", 100)],
        ));
        live.metadata
            .annotations
            .as_mut()
            .unwrap()
            .insert("someone".into(), "else".into());
        assert!(!differs(&live, &wanted));
        assert!(differs(&without_block(&live), &wanted), "the mark is to be added");

        let without = desired(&object(), &gvkr(), &spec(Pause::No), "1");
        assert!(differs(&live, &without), "a behavior that was taken away must go");
        assert_eq!(merged(&live, &without).annotations()["someone"], "else");
        assert!(!differs(&merged(&live, &without), &without));

        let mut other_bounds = spec(Pause::No);
        other_bounds.replicas = ReplicaRange::try_new(None, 4, None).unwrap();
        assert!(differs(
            &live,
            &desired(&with_behavior, &gvkr(), &other_bounds, "1")
        ));
    }
}
