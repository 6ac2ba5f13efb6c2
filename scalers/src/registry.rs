//! Every trigger type, one line each.

use std::sync::Arc;

use crate::connect::{Connect, TriggerParams};
use crate::error::ConfigError;
use crate::metadata;
use crate::scaler::{Scaler, Trigger};
use crate::{
    aws_sqs_queue, cpu_memory, cron, external_push, kubernetes_workload, metrics_api, prometheus, redis,
    redis_streams,
};

/// All trigger types, sorted by name.
pub static REGISTRY: &[Registration] = &[
    Registration::of::<aws_sqs_queue::AwsSqsQueue>(),
    Registration::of::<cron::Cron>(),
    Registration {
        trigger_type: "external",
        label: "externalScaler",
        connect: |cx| external_push::connect(cx, "externalScaler"),
        ..EXTERNAL_PUSH
    },
    EXTERNAL_PUSH,
    Registration::of::<kubernetes_workload::KubernetesWorkload>(),
    Registration::of::<metrics_api::MetricsApi>(),
    Registration::of::<prometheus::Prometheus>(),
    Registration::of::<redis::RedisList<redis::RedisMetadata>>(),
    Registration::of::<redis::RedisList<redis::RedisClusterMetadata>>(),
    Registration::of::<redis_streams::RedisStreams<redis_streams::RedisClusterStreamsMetadata>>(),
    Registration::of::<redis::RedisList<redis::RedisSentinelMetadata>>(),
    Registration::of::<redis_streams::RedisStreams<redis_streams::RedisSentinelStreamsMetadata>>(),
    Registration::of::<redis_streams::RedisStreams<redis_streams::RedisStreamsMetadata>>(),
];

/// An external scaler is given all metadata of its trigger: no key is unknown.
const EXTERNAL_PUSH: Registration = Registration {
    trigger_type: "external-push",
    label: "externalPushScaler",
    connect: |cx| external_push::connect(cx, "externalPushScaler"),
    unmatched: |_| Vec::new(),
    page: metadata::page::<external_push::ExternalMetadata>,
};

/// A trigger type and how it is built.
pub struct Registration {
    /// The `type` in a manifest.
    pub trigger_type: &'static str,
    /// KEDA's `scaler` label of a trigger without a name.
    pub label: &'static str,
    connect: fn(&Connect) -> Result<Arc<dyn Trigger>, ConfigError>,
    unmatched: fn(&TriggerParams) -> Vec<String>,
    page: fn(&str) -> String,
}

impl Registration {
    const fn of<S: Scaler>() -> Self {
        Self {
            trigger_type: S::TYPE,
            label: S::LABEL,
            connect: |cx| {
                Ok(Arc::new(S::connect(
                    metadata::parse::<S::Metadata>(&cx.params)?,
                    cx,
                )?))
            },
            unmatched: metadata::unmatched::<S::Metadata>,
            page: metadata::page::<S::Metadata>,
        }
    }
}

/// The registration of a trigger type.
#[must_use]
pub fn find(trigger_type: &str) -> Option<&'static Registration> {
    let index = REGISTRY
        .binary_search_by(|entry| entry.trigger_type.cmp(trigger_type))
        .ok()?;
    Some(&REGISTRY[index])
}

/// Builds the trigger that `cx` describes, without any I/O.
///
/// # Errors
/// An unknown type, or everything that is wrong with its parameters.
pub fn connect(cx: &Connect) -> Result<Arc<dyn Trigger>, ConfigError> {
    let trigger_type = &cx.params.trigger_type;
    let entry = find(trigger_type).ok_or_else(|| ConfigError::UnknownType(trigger_type.clone()))?;
    (entry.connect)(cx)
}

/// Keys of the metadata that the trigger's type does not know; empty for an unknown type.
#[must_use]
pub fn unmatched(params: &TriggerParams) -> Vec<String> {
    find(&params.trigger_type)
        .map(|entry| (entry.unmatched)(params))
        .or_else(|| cpu_memory::resource_of(&params.trigger_type).map(|_| cpu_memory::unmatched(params)))
        .unwrap_or_default()
}

/// The manual pages: file name and Markdown, one per trigger type.
#[must_use]
pub fn manual() -> Vec<(String, String)> {
    let polled = REGISTRY
        .iter()
        .map(|entry| (entry.trigger_type, (entry.page)(entry.trigger_type)));
    let measured = ["cpu", "memory"].map(|name| (name, cpu_memory::page(name)));
    polled
        .chain(measured)
        .map(|(name, page)| (format!("{name}.md"), page))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of the crate that hold no trigger type that is polled.
    const FRAMEWORK: &[&str] = &[
        "aws",
        "backpressure",
        "clients",
        "connect",
        "cpu_memory",
        "demand_source",
        "error",
        "http_auth",
        "http_read",
        "lib",
        "metadata",
        "pushed",
        "redis_client",
        "registry",
        "scaler",
        "sensitive",
        "testing",
        "traffic",
    ];

    #[test]
    fn types_are_sorted_and_unique() {
        assert!(REGISTRY.is_sorted_by(|a, b| a.trigger_type < b.trigger_type));
        let mut labels: Vec<_> = REGISTRY.iter().map(|entry| entry.label).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(
            labels,
            [
                "awsSqsQueueScaler",
                "cronScaler",
                "externalPushScaler",
                "externalScaler",
                "kubernetesWorkloadScaler",
                "metricsAPIScaler",
                "prometheusScaler",
                "redisScaler",
                "redisStreamsScaler"
            ]
        );
    }

    /// Types that share the file of another one.
    const IN_FAMILIES: &[&str] = &[
        "external",
        "redis-cluster",
        "redis-cluster-streams",
        "redis-sentinel",
        "redis-sentinel-streams",
    ];

    #[test]
    fn every_scaler_file_is_listed() {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        let mut files: Vec<String> = std::fs::read_dir(source)
            .unwrap()
            .filter_map(|entry| {
                entry
                    .unwrap()
                    .file_name()
                    .to_str()?
                    .strip_suffix(".rs")
                    .map(str::to_owned)
            })
            .filter(|name| !FRAMEWORK.contains(&name.as_str()))
            .map(|name| name.replace('_', "-"))
            .collect();
        files.sort();
        let types: Vec<_> = REGISTRY
            .iter()
            .map(|entry| entry.trigger_type)
            .filter(|name| !IN_FAMILIES.contains(name))
            .collect();
        assert_eq!(files, types);
    }

    #[test]
    fn each_page_shows_an_example_and_explains_each_parameter() {
        for (file, page) in manual() {
            assert!(page.contains("```yaml\n"), "{file} has no example");
            assert!(page.contains("etric name"), "{file} does not name its metric");
            for row in page.lines().filter(|line| line.starts_with("| `")) {
                assert!(!row.ends_with("|  |"), "{file}: {row}");
            }
        }
    }
}
