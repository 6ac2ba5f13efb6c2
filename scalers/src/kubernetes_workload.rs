//! `kubernetes-workload`: how many pods of the namespace have certain labels.

mod selector;

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::clients::Fingerprint;
use crate::connect::{Connect, CountPods, CountedBy};
use crate::error::{ConfigError, ReadError};
use crate::metadata::Metadata;
use crate::scaler::{MetricSpec, Observed, Question, Scaler, Target};

/// Scales on the number of pods in the ScaledObject's namespace that have certain labels: a workload that follows
/// another one.
///
/// ```yaml
/// triggers:
///   - type: kubernetes-workload
///     metadata:
///       podSelector: app=frontend, tier in (web, api)
///       value: "2"
/// ```
///
/// - Metric name: `workload-<namespace>`.
/// - Value: pods that the selector matches and whose phase is neither `Succeeded` nor `Failed`; pods that still wait for
///   a node count. With `groupByNode`, the nodes that such pods are on.
/// - `podSelector` is a label selector as kubectl takes it: `key=value`, `key!=value`, `key in (a, b)`,
///   `key notin (a, b)`, `key`, `!key`, `key>1`, `key<9`, joined by commas.
/// - The operator needs to `list` pods in the namespace. It reads no more of them than names and nodes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WorkloadMetadata {
    /// Which pods are counted.
    pod_selector: String,
    /// Pods, or nodes, for each replica. Must be given and be greater than 0.
    #[serde(default)]
    value: f64,
    /// The trigger is active above this number.
    #[serde(default)]
    activation_value: f64,
    /// Whether nodes are counted instead of pods.
    #[serde(default)]
    group_by_node: bool,
}

impl Metadata for WorkloadMetadata {
    const CONTEXT: &'static str = "error parsing kubernetes workload metadata";
    const PARSING: &'static str = "error parsing kubernetes workload metadata";

    fn validate(&self) -> Result<(), String> {
        if self.value.is_nan() || self.value <= 0.0 {
            return Err("value must be a float greater than 0".to_owned());
        }
        selector::check(&self.pod_selector).map_err(|fault| format!("error parsing pod selector: {fault}"))
    }
}

/// See [`WorkloadMetadata`].
pub(crate) struct KubernetesWorkload {
    pods: Arc<dyn CountPods>,
    namespace: String,
    selector: String,
    counted: CountedBy,
    target: f64,
    activation: f64,
    deadline: Duration,
}

impl Scaler for KubernetesWorkload {
    const TYPE: &'static str = "kubernetes-workload";
    const LABEL: &'static str = "kubernetesWorkloadScaler";
    type Metadata = WorkloadMetadata;

    fn connect(metadata: WorkloadMetadata, cx: &Connect) -> Result<Self, ConfigError> {
        let pods = cx.pods.clone().ok_or_else(|| ConfigError::Metadata {
            context: WorkloadMetadata::CONTEXT,
            message: "kubernetes-workload needs a Kubernetes cluster".to_owned(),
        })?;
        Ok(Self {
            pods,
            namespace: cx.namespace.clone(),
            selector: metadata.pod_selector,
            counted: if metadata.group_by_node {
                CountedBy::Node
            } else {
                CountedBy::Pod
            },
            target: metadata.value,
            activation: metadata.activation_value,
            deadline: cx.default_deadline,
        })
    }

    fn metric(&self) -> MetricSpec {
        MetricSpec {
            base_name: format!("workload-{}", self.namespace),
            target: Target::Decimal(self.target),
        }
    }

    fn deadline(&self) -> Duration {
        self.deadline
    }

    fn question(&self) -> Option<Question> {
        let counted = format!("{:?}", self.counted);
        Some(Question {
            fingerprint: Fingerprint::of(&[&self.namespace, &self.selector, &counted]),
            activation: self.activation,
        })
    }

    async fn read(&self) -> Result<Observed, ReadError> {
        let count = self
            .pods
            .count(&self.namespace, &self.selector, self.counted)
            .await?;
        Ok(Observed::above(f64::from(count), self.activation))
    }
}

#[cfg(test)]
mod tests;
