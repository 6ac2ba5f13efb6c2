//! `cpu` and `memory`: metrics that the HPA reads itself. Nothing here is polled.

use std::collections::BTreeMap;

use dormouse_core::{PodResource, Quantity, ResourceMetric, ResourceTarget};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::connect::TriggerParams;
use crate::error::ConfigError;
use crate::metadata::{self, Metadata};

/// The `scaler` label of both types.
pub const LABEL: &str = "cpuMemoryScaler";

/// Scales on the CPU or memory that the target's pods use. The HPA reads it itself, from the cluster's metrics server.
///
/// ```yaml
/// minReplicaCount: 1
/// triggers:
///   - type: cpu
///     metricType: Utilization
///     metadata:
///       value: "60"
/// ```
///
/// - Metric name: none of its own; the HPA gets a `Resource` metric `cpu` or `memory`, or a `ContainerResource` metric
///   with `containerName`.
/// - `metricType` has no default: `Utilization` holds the use against what the containers request, in percent;
///   `AverageValue` holds the average over the pods against a quantity (`500m`, `256Mi`).
/// - Pods at zero use nothing, so these triggers cannot wake a target: an object with no other trigger needs a
///   `minReplicaCount` of at least 1 and is always active, and beside other triggers they do not count for activity.
/// - Every container of the target (or the one named) must request or limit the resource, unless a LimitRange of the
///   namespace gives a default.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct CpuMemoryMetadata {
    /// The goal: a percentage with `Utilization`, a quantity with `AverageValue`.
    value: String,
    /// Only this container is measured.
    container_name: Option<String>,
    /// No longer accepted: use the trigger's `metricType`.
    #[serde(rename = "type")]
    metric_type: Option<String>,
}

macro_rules! resource {
    ($name:ident, $context:literal) => {
        #[derive(Deserialize, JsonSchema)]
        #[serde(transparent)]
        struct $name(CpuMemoryMetadata);

        impl Metadata for $name {
            const CONTEXT: &'static str = $context;
            const PARSING: &'static str = $context;
        }
    };
}

resource!(Cpu, "error parsing cpu metadata");
resource!(Memory, "error parsing memory metadata");

/// The resource of a trigger type, if it is one of these two.
#[must_use]
pub fn resource_of(trigger_type: &str) -> Option<PodResource> {
    match trigger_type {
        "cpu" => Some(PodResource::Cpu),
        "memory" => Some(PodResource::Memory),
        _ => None,
    }
}

/// The metric of a `cpu` or `memory` trigger.
///
/// # Errors
/// Everything that is wrong with its metadata or `metricType`.
pub fn resource_metric(
    resource: PodResource,
    metric_type: Option<&str>,
    metadata: &BTreeMap<String, String>,
) -> Result<ResourceMetric, ConfigError> {
    let params = TriggerParams {
        trigger_type: resource.name().to_owned(),
        metadata: metadata.clone(),
        ..TriggerParams::default()
    };
    let (context, metadata) = match resource {
        PodResource::Cpu => (Cpu::CONTEXT, metadata::parse::<Cpu>(&params)?.0),
        PodResource::Memory => (Memory::CONTEXT, metadata::parse::<Memory>(&params)?.0),
    };
    let error = |message: String| ConfigError::Metadata { context, message };
    if metadata.metric_type.is_some() {
        return Err(error(format!(
            "scaler {} info: the 'type' setting was removed in v2.18: use 'metricType' instead",
            resource.name()
        )));
    }
    Ok(ResourceMetric {
        resource,
        container: metadata.container_name,
        target: target(metric_type.unwrap_or_default(), &metadata.value).map_err(error)?,
    })
}

fn target(metric_type: &str, value: &str) -> Result<ResourceTarget, String> {
    match metric_type {
        "Utilization" => value
            .parse()
            .ok()
            .filter(|percent: &i32| *percent > 0)
            .map(ResourceTarget::Utilization)
            .ok_or_else(|| {
                format!("parameter \"value\" is {value:?}: a whole percentage above 0 is accepted")
            }),
        "AverageValue" => Quantity::parse(value)
            .ok()
            .filter(|quantity| quantity.as_f64() > 0.0)
            .map(ResourceTarget::AverageValue)
            .ok_or_else(|| {
                format!(
                    "parameter \"value\" is {value:?}: a quantity above 0, such as 500m or 256Mi, is accepted"
                )
            }),
        other => Err(format!(
            "unknown metric type: {other}, allowed values are 'Utilization' or 'AverageValue'"
        )),
    }
}

/// Keys of the metadata that neither type knows.
pub(crate) fn unmatched(params: &TriggerParams) -> Vec<String> {
    metadata::unmatched::<Cpu>(params)
}

/// The manual page of both.
pub(crate) fn page(trigger_type: &str) -> String {
    let page = metadata::page::<Cpu>(trigger_type);
    match trigger_type {
        "memory" => page
            .replace("type: cpu", "type: memory")
            .replace("metricType: Utilization", "metricType: AverageValue")
            .replace("value: \"60\"", "value: 256Mi"),
        _ => page,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(
        resource: PodResource,
        metric_type: Option<&str>,
        metadata: &[(&str, &str)],
    ) -> Result<ResourceMetric, String> {
        let metadata = metadata
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        resource_metric(resource, metric_type, &metadata).map_err(|error| error.to_string())
    }

    #[test]
    fn both_kinds_of_target() {
        assert_eq!(
            metric(PodResource::Cpu, Some("Utilization"), &[("value", "60")]),
            Ok(ResourceMetric {
                resource: PodResource::Cpu,
                container: None,
                target: ResourceTarget::Utilization(60),
            })
        );
        let value = [("value", "256Mi"), ("containerName", "app")];
        assert_eq!(
            metric(PodResource::Memory, Some("AverageValue"), &value),
            Ok(ResourceMetric {
                resource: PodResource::Memory,
                container: Some("app".into()),
                target: ResourceTarget::AverageValue(Quantity::parse("268435456").unwrap()),
            })
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let allowed = "allowed values are 'Utilization' or 'AverageValue'";
        for (metric_type, metadata, expected) in [
            (None, &[("value", "60")][..], allowed),
            (
                Some("Value"),
                &[("value", "60")],
                "unknown metric type: Value, allowed values are",
            ),
            (Some("Utilization"), &[], "missing required parameter \"value\""),
            (
                Some("Utilization"),
                &[("value", "60%")],
                "\"60%\": a whole percentage above 0",
            ),
            (
                Some("Utilization"),
                &[("value", "0")],
                "\"0\": a whole percentage above 0",
            ),
            (
                Some("AverageValue"),
                &[("value", "lots")],
                "\"lots\": a quantity above 0",
            ),
            (
                Some("AverageValue"),
                &[("value", "-1")],
                "\"-1\": a quantity above 0",
            ),
            (
                Some("Utilization"),
                &[("value", "60"), ("type", "Utilization")],
                "the 'type' setting was removed in v2.18: use 'metricType' instead",
            ),
        ] {
            let fault = metric(PodResource::Cpu, metric_type, metadata).unwrap_err();
            assert!(fault.starts_with("error parsing cpu metadata: "), "{fault}");
            assert!(fault.contains(expected), "{metadata:?}: {fault}");
        }
    }

    #[test]
    fn the_page_of_memory_is_about_memory() {
        let page = page("memory");
        assert!(
            page.starts_with("# memory\n") && page.contains("type: memory"),
            "{page}"
        );
        assert!(!page.contains("- type: cpu"), "{page}");
    }
}
