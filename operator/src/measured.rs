//! What the HPA measures on a target's pods itself, and whether it can.

use dormouse_api::GroupVersionKindResource;
use dormouse_core::ResourceMetric;
use dormouse_engine::ObjectKey;
use dormouse_kubernetes::{CallError, Priority};
use dormouse_translate::Objects as _;
use dormouse_translate::resources::{check_requests, without_request};
use k8s_openapi::api::core::v1::LimitRange;
use kube::Api;
use kube::api::ListParams;

use crate::context::Context;
use crate::objects::ClusterObjects;
use crate::reconcile::CheckFailure;

/// LimitRanges looked at, at most.
const MOST_LIMIT_RANGES: u32 = 50;

/// Checks that each container asks for what is measured, or gets it by a default of its namespace. Of kinds other than
/// Deployments and StatefulSets nothing is known.
///
/// # Errors
/// A container does not; or the API server did not answer.
pub async fn check(
    cx: &Context,
    key: &ObjectKey,
    objects: &ClusterObjects<'_>,
    gvkr: &GroupVersionKindResource,
    measured: &[ResourceMetric],
) -> Result<(), CheckFailure> {
    let has_template = gvkr.group == "apps" && matches!(gvkr.kind.as_str(), "Deployment" | "StatefulSet");
    if measured.is_empty() || !has_template {
        return Ok(());
    }
    let prefix = "ScaledObject doesn't have correct triggers specification";
    let transient = |error: &dyn std::fmt::Display| CheckFailure {
        transient: true,
        ..CheckFailure::new(prefix, error)
    };
    let pod = objects.pod_spec().await.map_err(|error| transient(&error))?;
    let lacking = pod
        .as_ref()
        .map(|pod| without_request(pod, measured))
        .unwrap_or_default();
    if lacking.is_empty() {
        return Ok(());
    }
    let api: Api<LimitRange> = Api::namespaced(cx.client.clone(), &key.namespace);
    let params = ListParams::default().limit(MOST_LIMIT_RANGES);
    let listed = api.list(&params);
    let limits = match cx.calls.unary(Priority::Normal, "list LimitRanges", listed).await {
        Ok(limits) => limits.items,
        // Without the right to look, only the containers themselves count.
        Err(CallError::Forbidden { .. }) => Vec::new(),
        Err(error) => return Err(transient(&error)),
    };
    check_requests(&lacking, &limits).map_err(|refusal| CheckFailure::new(prefix, refusal))
}

/// `status.resourceMetricNames`: KEDA names the resources of whole pods there, and not those of single containers.
#[must_use]
pub fn names(measured: &[ResourceMetric]) -> Vec<String> {
    let whole = measured.iter().filter(|metric| metric.container.is_none());
    whole.map(|metric| metric.resource.name().to_owned()).collect()
}
