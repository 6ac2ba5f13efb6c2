//! What the use of a resource asks for, with pods that are not ready or not measured.
//!
//! ```text
//! deleted or failed           ──> left out
//! pending, or CPU not to be    ──> unready: nothing is known of it, it counts as idle when scaling up
//!   trusted yet
//! not in the metrics          ──> missing: full when scaling down, idle when scaling up
//! else                        ──> counted
//! ```
//!
//! What is assumed for unready and missing pods can only weaken a change: where it would turn its direction, nothing
//! changes.

use std::collections::{BTreeMap, BTreeSet};

use super::observation::{Pod, PodPhase, PodUsage};
use super::proposal::{Context, HpaMetricValue, Proposal, whole};
use super::spec::ResourceTarget;
use crate::Quantity;

/// The metric as conditions and Events call it.
pub(super) fn title(resource: &str, container: Option<&str>, target: &ResourceTarget) -> String {
    match (target, container) {
        (ResourceTarget::Utilization(_), None) => {
            format!("{resource} resource utilization (percentage of request)")
        }
        (ResourceTarget::Utilization(_), Some(_)) => {
            format!("{resource} container resource utilization (percentage of request)")
        }
        (ResourceTarget::AverageValue(_), _) => format!("{resource} resource"),
    }
}

/// The beginning of what is said when there is no count.
pub(super) fn failure(resource: &str, target: &ResourceTarget) -> String {
    let what = match target {
        ResourceTarget::Utilization(_) => "utilization",
        ResourceTarget::AverageValue(_) => "usage",
    };
    format!("failed to get {resource} {what}: ")
}

/// Thousandths of the resource by pod.
type Milli<'a> = BTreeMap<&'a str, i64>;

pub(super) fn propose(
    resource: &str,
    container: Option<&str>,
    target: ResourceTarget,
    usage: &BTreeMap<String, PodUsage>,
    context: &Context<'_>,
) -> Result<Proposal, String> {
    let pods = &context.observation.pods;
    if pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".into());
    }
    let mut measured = measured(resource, container, usage);
    let groups = Groups::of(resource, pods, &measured, usage, context);
    measured.retain(|pod, _| !groups.left_out.contains(pod) && !groups.unready.contains(pod));
    if measured.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".into());
    }
    let goal = match target {
        ResourceTarget::Utilization(percent) => Goal::Utilization {
            percent: i64::from(percent).max(1),
            requests: requests(resource, container, pods)?,
        },
        ResourceTarget::AverageValue(average) => Goal::Average(average.milli_rounded_up()),
    };
    let seen = goal.compare(&measured)?;
    Ok(Proposal {
        replicas: groups.replicas(measured, &goal, seen.ratio, context)?,
        value: seen.value,
    })
}

/// What the metrics source says of each pod; pods of which some wanted container lacks the resource are not measured.
fn measured<'a>(resource: &str, container: Option<&str>, usage: &'a BTreeMap<String, PodUsage>) -> Milli<'a> {
    let of = |used: &BTreeMap<String, Quantity>| used.get(resource).map(Quantity::milli_rounded_up);
    let of_pod = |usage: &PodUsage| match container {
        None if usage.containers.is_empty() => None,
        None => usage.containers.values().map(of).sum(),
        Some(container) => usage.containers.get(container).and_then(of),
    };
    let measured = usage
        .iter()
        .filter_map(|(pod, usage)| Some((pod.as_str(), of_pod(usage)?)));
    measured.collect()
}

/// What each pod requests. One that requests nothing makes the utilization of all unknown.
fn requests<'a>(resource: &str, container: Option<&str>, pods: &'a [Pod]) -> Result<Milli<'a>, String> {
    let of_pod = |pod: &'a Pod| {
        let mut chosen = pod
            .requests
            .iter()
            .filter(|(name, _)| container.is_none_or(|wanted| wanted == name))
            .peekable();
        if let (Some(container), None) = (container, chosen.peek()) {
            return Err(format!("container {container} not found in Pod {}", pod.name));
        }
        let each = chosen.map(|(name, requests)| {
            let request = requests.get(resource).map(Quantity::milli_rounded_up);
            request.ok_or_else(|| {
                format!(
                    "missing request for {resource} in container {name} of Pod {}",
                    pod.name
                )
            })
        });
        Ok((pod.name.as_str(), each.sum::<Result<i64, String>>()?))
    };
    pods.iter().map(of_pod).collect()
}

enum Goal<'a> {
    Utilization { percent: i64, requests: Milli<'a> },
    Average(i64),
}

/// How the measured use compares with the goal.
struct Seen {
    ratio: f64,
    value: HpaMetricValue,
}

impl Goal<'_> {
    fn compare(&self, measured: &Milli<'_>) -> Result<Seen, String> {
        match self {
            Self::Average(target) => {
                let total: i128 = measured.values().map(|milli| i128::from(*milli)).sum();
                let average = narrow(total / measured.len().max(1) as i128);
                Ok(Seen {
                    ratio: average as f64 / *target as f64,
                    value: HpaMetricValue::AverageValue(Quantity::from_milli(average)),
                })
            }
            Self::Utilization { percent, requests } => {
                let known: Vec<(i128, i128)> = measured
                    .iter()
                    .filter_map(|(pod, milli)| Some((i128::from(*milli), i128::from(*requests.get(pod)?))))
                    .collect();
                let total: i128 = known.iter().map(|(milli, _)| milli).sum();
                let requested: i128 = known.iter().map(|(_, request)| request).sum();
                if requested == 0 {
                    return Err("no metrics returned matched known pods".into());
                }
                // Whole percents: what is cut off here decides at the edges of the tolerance.
                let utilization = narrow(total * 100 / requested);
                Ok(Seen {
                    ratio: utilization as f64 / *percent as f64,
                    value: HpaMetricValue::Utilization {
                        percent: utilization,
                        average: Quantity::from_milli(narrow(total / known.len().max(1) as i128)),
                    },
                })
            }
        }
    }

    /// What a pod without metrics is taken to use when the others ask for fewer.
    fn full(&self, pod: &str) -> i64 {
        match self {
            Self::Average(target) => *target,
            Self::Utilization { percent, requests } => {
                let request = i128::from(requests.get(pod).copied().unwrap_or_default());
                narrow(request * i128::from((*percent).max(100)) / 100)
            }
        }
    }
}

fn narrow(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// The pods by how far their metrics are to be trusted.
#[derive(Default)]
struct Groups<'a> {
    counted: usize,
    unready: BTreeSet<&'a str>,
    missing: BTreeSet<&'a str>,
    left_out: BTreeSet<&'a str>,
}

impl<'a> Groups<'a> {
    fn of(
        resource: &str,
        pods: &'a [Pod],
        measured: &Milli<'_>,
        usage: &BTreeMap<String, PodUsage>,
        context: &Context<'_>,
    ) -> Self {
        let mut groups = Self::default();
        for pod in pods {
            let name = pod.name.as_str();
            if pod.deleting || pod.phase == PodPhase::Failed {
                groups.left_out.insert(name);
            } else if pod.phase == PodPhase::Pending {
                groups.unready.insert(name);
            } else if !measured.contains_key(name) {
                groups.missing.insert(name);
            } else if resource == "cpu" && usage.get(name).is_some_and(|usage| warms_up(pod, usage, context))
            {
                groups.unready.insert(name);
            } else {
                groups.counted += 1;
            }
        }
        groups
    }

    /// The count of replicas, at first from what was measured alone, then with what is assumed of the other pods.
    fn replicas(
        &self,
        mut measured: Milli<'a>,
        goal: &Goal<'_>,
        ratio: f64,
        context: &Context<'_>,
    ) -> Result<i64, String> {
        let current = i64::from(context.scale.wanted);
        let unready_matter = ratio > 1.0 && !self.unready.is_empty();
        if !unready_matter && self.missing.is_empty() {
            return Ok(if context.tolerances.cover(ratio) {
                current
            } else {
                whole(ratio * self.counted as f64)
            });
        }
        for pod in &self.missing {
            if ratio < 1.0 {
                measured.insert(pod, goal.full(pod));
            } else if ratio > 1.0 {
                measured.insert(pod, 0);
            }
        }
        if unready_matter {
            measured.extend(self.unready.iter().map(|pod| (*pod, 0)));
        }
        let assumed = goal.compare(&measured)?.ratio;
        let turned = (ratio < 1.0 && assumed > 1.0) || (ratio > 1.0 && assumed < 1.0);
        if turned || context.tolerances.cover(assumed) {
            return Ok(current);
        }
        let replicas = whole(assumed * measured.len() as f64);
        let turned = (assumed < 1.0 && replicas > current) || (assumed > 1.0 && replicas < current);
        Ok(if turned { current } else { replicas })
    }
}

/// Whether a pod's CPU still shows its start rather than its load.
fn warms_up(pod: &Pod, usage: &PodUsage, context: &Context<'_>) -> bool {
    let (Some(ready), Some(started)) = (pod.ready, pod.started) else {
        return true;
    };
    let after = |time: jiff::Timestamp, duration| time.checked_add(duration).unwrap_or(jiff::Timestamp::MAX);
    let settings = context.settings;
    let is_unready = ready.status == Some(false);
    if after(started, settings.cpu_initialization_period) > context.now {
        is_unready || usage.taken < after(ready.since, usage.window)
    } else {
        is_unready && after(started, settings.initial_readiness_delay) > ready.since
    }
}
