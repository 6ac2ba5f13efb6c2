//! Triggers `cpu` and `memory`: what the HPA measures itself, and whether it can.

use dormouse_api::ScaledObject;
use dormouse_core::{PodResource, ResourceMetric};
use dormouse_scalers::{ConfigError, resource_metric, resource_of};
use k8s_openapi::api::core::v1::{Container, LimitRange, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::Refusal;

type Amounts = std::collections::BTreeMap<String, Quantity>;

/// The resource metrics of an object, in the order of the manifest.
///
/// # Errors
/// What is wrong with the first trigger that cannot be used.
pub fn resources(object: &ScaledObject) -> Result<Vec<ResourceMetric>, ConfigError> {
    let measured = object
        .spec
        .triggers
        .iter()
        .filter_map(|trigger| Some((resource_of(&trigger.type_)?, trigger)));
    measured
        .map(|(resource, trigger)| {
            resource_metric(resource, trigger.metric_type.as_deref(), &trigger.metadata)
        })
        .collect()
}

/// The containers that must request what is measured, and neither request nor limit it: resource and container.
#[must_use]
pub fn without_request<'a>(pod: &'a PodSpec, metrics: &[ResourceMetric]) -> Vec<(PodResource, &'a str)> {
    let of = |metric: &ResourceMetric| {
        let (resource, named) = (metric.resource, metric.container.clone());
        pod.containers
            .iter()
            .filter(move |container| named.as_ref().is_none_or(|named| *named == container.name))
            .filter(move |container| !asks_for(container, resource))
            .map(move |container| (resource, container.name.as_str()))
            .collect::<Vec<_>>()
    };
    metrics.iter().flat_map(of).collect()
}

/// Of `lacking`, the first for which no LimitRange of the namespace fills in a default.
///
/// # Errors
/// The sentence of KEDA's webhook.
pub fn check_requests(lacking: &[(PodResource, &str)], limits: &[LimitRange]) -> Result<(), Refusal> {
    let uncovered = lacking
        .iter()
        .find(|(resource, _)| !has_default(limits, *resource));
    uncovered.map_or(Ok(()), |(resource, container)| {
        let resource = resource.name();
        Err(Refusal::new(format!(
            "the scaledobject has a {resource} trigger but the container {container} doesn't have the {resource} request \
             defined"
        )))
    })
}

fn asks_for(container: &Container, resource: PodResource) -> bool {
    let Some(all) = &container.resources else {
        return false;
    };
    is_set(all.requests.as_ref(), resource) || is_set(all.limits.as_ref(), resource)
}

fn has_default(limits: &[LimitRange], resource: PodResource) -> bool {
    let items = limits
        .iter()
        .filter_map(|range| range.spec.as_ref())
        .flat_map(|spec| &spec.limits);
    items.filter(|item| item.type_ == "Container").any(|item| {
        is_set(item.default.as_ref(), resource) || is_set(item.default_request.as_ref(), resource)
    })
}

fn is_set(amounts: Option<&Amounts>, resource: PodResource) -> bool {
    amounts
        .and_then(|amounts| amounts.get(resource.name()))
        .and_then(|amount| dormouse_core::Quantity::parse(&amount.0).ok())
        .is_some_and(|amount| amount.as_f64() > 0.0)
}

#[cfg(test)]
mod tests {
    use dormouse_core::ResourceTarget;
    use serde_json::json;

    use super::*;

    fn metric(resource: PodResource, container: Option<&str>) -> ResourceMetric {
        ResourceMetric {
            resource,
            container: container.map(str::to_owned),
            target: ResourceTarget::Utilization(50),
        }
    }

    fn pod() -> PodSpec {
        serde_json::from_value(json!({"containers": [
            {"name": "app", "resources": {"requests": {"cpu": "100m", "memory": "0"}}},
            {"name": "side", "resources": {"limits": {"memory": "64Mi"}}},
            {"name": "bare"},
        ]}))
        .unwrap()
    }

    fn range(kind: &str, field: &str, resource: &str) -> LimitRange {
        serde_json::from_value(json!({"spec": {"limits": [{"type": kind, field: {resource: "10m"}}]}}))
            .unwrap()
    }

    #[test]
    fn containers_that_ask_for_nothing() {
        let pod = pod();
        let (cpu, memory) = (PodResource::Cpu, PodResource::Memory);
        for (metrics, expected) in [
            (vec![metric(cpu, None)], vec![(cpu, "side"), (cpu, "bare")]),
            (
                vec![metric(memory, None)],
                vec![(memory, "app"), (memory, "bare")],
            ),
            (
                vec![metric(cpu, Some("app")), metric(memory, Some("side"))],
                vec![],
            ),
            // It may be added to the pod at its admission.
            (vec![metric(cpu, Some("injected"))], vec![]),
        ] {
            assert_eq!(without_request(&pod, &metrics), expected, "{metrics:?}");
        }
    }

    #[test]
    fn a_default_of_the_namespace_will_do() {
        let lacking = [(PodResource::Cpu, "side")];
        for (limits, accepted) in [
            (vec![], false),
            (vec![range("Container", "default", "cpu")], true),
            (vec![range("Container", "defaultRequest", "cpu")], true),
            (vec![range("Container", "default", "memory")], false),
            (vec![range("Pod", "default", "cpu")], false),
            (vec![range("Container", "max", "cpu")], false),
        ] {
            assert_eq!(check_requests(&lacking, &limits).is_ok(), accepted, "{limits:?}");
        }
        assert_eq!(
            check_requests(&lacking, &[]).unwrap_err().message,
            "the scaledobject has a cpu trigger but the container side doesn't have the cpu request defined"
        );
    }
}
