//! From an endpoint that can serve to the first byte of its first answer, as the interceptor counts it.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use dormouse_tests::{Cluster, Installation, exposition};

use crate::figures::Figures;
use crate::plane::percentile;

const NAME: &str = "dormouse_interceptor_ready_to_first_byte_seconds";

/// Counts by upper bound in microseconds; the largest is of all.
pub(crate) type Buckets = BTreeMap<u64, f64>;

/// What the interceptor counted so far, over the routes of one namespace.
pub(crate) async fn so_far(cluster: &Cluster, installation: &Installation, routes: &str) -> Result<Buckets> {
    let namespace = installation.namespace();
    let selector = "--selector=app.kubernetes.io/component=interceptor";
    let pod = [
        "-n",
        namespace,
        "get",
        "pods",
        selector,
        "--output=jsonpath={.items[0].metadata.name}",
    ];
    let pod = cluster.kubectl(&pod).await?;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:2223/proxy/metrics");
    let page = cluster.kubectl(&["get", "--raw", &path]).await?;
    let families = exposition::parse(&page).map_err(|error| anyhow!("the metrics page: {error}"))?;
    let mut buckets = Buckets::new();
    let samples = families.get(NAME).map_or(&[][..], |family| &family.samples);
    let of_routes = samples.iter().filter(|sample| {
        sample
            .labels
            .get("route_namespace")
            .is_some_and(|namespace| namespace == routes)
    });
    for sample in of_routes.filter(|sample| sample.name.ends_with("_bucket")) {
        let bound = sample
            .labels
            .get("le")
            .and_then(|bound| bound.parse::<f64>().ok());
        let bound = bound.filter(|bound| bound.is_finite());
        let micros = bound.map_or(u64::MAX, |bound| (bound * 1e6).round() as u64);
        *buckets.entry(micros).or_default() += sample.value;
    }
    Ok(buckets)
}

/// The bounds that 50% and 99% of them kept, and what requests straight to a pod took that it answered first, in milliseconds.
pub(crate) fn add(counts: &Buckets, mut straight: Vec<f64>, figures: &mut Figures) {
    let all = counts.values().last().copied().unwrap_or_default();
    let kept = |share: f64| {
        counts
            .iter()
            .find(|(_, count)| **count >= share * all)
            .map(|(bound, _)| *bound)
    };
    let millis = |bound: u64| (bound < u64::MAX).then_some(bound as f64 / 1000.0);
    let note = format!("the bound of a histogram with {all} first answers");
    let value = |share| {
        if all > 0.0 {
            kept(share).and_then(millis)
        } else {
            None
        }
    };
    figures.add("ready_to_first_byte_p50", value(0.5), "ms", None, note.clone());
    figures.add("ready_to_first_byte_p99", value(0.99), "ms", 5.0, note);
    straight.sort_by(f64::total_cmp);
    for (name, share) in [
        ("ready_to_first_byte_floor_p50", 0.5),
        ("ready_to_first_byte_floor_p99", 0.99),
    ] {
        let note = format!("a pod's first answer, asked straight, {} of them", straight.len());
        figures.add(name, percentile(&straight, share), "ms", None, note);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_that_nearly_all_kept_is_told() {
        let counts = Buckets::from([(1_000, 50.0), (5_000, 100.0), (u64::MAX, 100.0)]);
        let mut figures = Figures::default();
        add(&counts, vec![1.0], &mut figures);
        let json: serde_json::Value = serde_json::from_str(&figures.json().unwrap()).unwrap();
        assert_eq!((&json[0]["value"], &json[1]["value"]), (&1.0.into(), &5.0.into()));
    }
}
