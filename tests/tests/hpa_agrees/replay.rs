//! Replays what the controller saw with `dormouse_core::hpa`, and compares what both made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use dormouse_core::Quantity;
use dormouse_core::hpa::{
    HpaCondition, HpaEvaluation, HpaHistory, HpaMetric, HpaMetricValue, HpaObservation, HpaReading,
    HpaSettings, Pod, PodUsage, evaluate,
};
use jiff::Timestamp;
use serde_json::Value;

use crate::audit::{Sync, count, time};
use crate::situation::{Situation, quantity};

/// How far what the controller took for now may be from what the audit log lets one think: it looks at the clock
/// several times in a sync, and remembers these times for later ones.
const SLACK: Duration = Duration::from_millis(100);

/// What came of a situation.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) syncs: usize,
    /// Syncs so close to the end of some window that the clock had to be shifted within the slack.
    pub(crate) shifted: usize,
    /// Whether the rest was not compared, because something that the controller wrote was refused.
    pub(crate) is_cut: bool,
    /// The replicas wanted one after the other.
    pub(crate) replicas: Vec<u32>,
    pub(crate) reasons: BTreeSet<String>,
}

/// The status of an HPA, as far as the arithmetic makes it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Status {
    current: u32,
    desired: u32,
    /// The kind of each metric and its values, empty for one that failed.
    metrics: Vec<(String, BTreeMap<String, Option<Quantity>>)>,
    conditions: BTreeMap<String, (String, String, String)>,
}

/// Replays the syncs of a situation.
///
/// # Errors
/// At the first sync of which the arithmetic makes something else than the controller did, with what both saw.
pub(crate) fn replay(
    situation: &Situation,
    settings: &HpaSettings,
    pods: &[Pod],
    syncs: &[Sync],
) -> Result<Account> {
    let mut account = Account::default();
    let mut history = HpaHistory::default();
    let mut before = Status::default();
    for (index, sync) in syncs.iter().enumerate() {
        account.is_cut |= sync.is_lost;
        if account.is_cut {
            let status = sync.status.as_ref().map(written);
            account.see(sync, &status.unwrap_or_default());
            continue;
        }
        let observation = HpaObservation {
            scale: sync.scale.clone(),
            readings: readings(situation, sync)?,
            pods: pods.to_vec(),
        };
        let real = match &sync.status {
            Some(status) => written(status),
            None => before.clone(),
        };
        let has_failed = sync.scale.is_err() || observation.readings.iter().any(Result::is_err);
        if let Ok(scale) = &sync.scale {
            history.begin(scale.wanted, sync.began);
        }
        let mut first = None;
        let mut agreed = None;
        for (turn, now) in moments(sync)?.into_iter().enumerate() {
            let mut history = history.clone();
            let evaluation = evaluate(&situation.spec, settings, &observation, &mut history, now);
            let set = evaluation.rescale.as_ref().map(|rescale| rescale.to);
            if let (Some(rescale), Some((_, at))) = (&evaluation.rescale, sync.set) {
                history.rescaled(&situation.spec, settings, rescale, at);
            }
            let ours = predicted(situation, sync, &evaluation, &history, &before);
            if is_same(&ours, &real, has_failed) && set == sync.set.map(|(to, _)| to) {
                account.shifted += usize::from(turn > 2);
                agreed = Some(history);
                break;
            }
            first.get_or_insert((ours, set));
        }
        history = agreed.ok_or_else(|| {
            anyhow!(
                "{}: sync {index} of {}\n  saw  {observation:?}\n  with {history:?}\n  real {real:?}\n       set {:?}\n  ours {first:?}",
                situation.name,
                syncs.len(),
                sync.set
            )
        })?;
        account.see(sync, &real);
        before = real;
    }
    Ok(account)
}

impl Account {
    fn see(&mut self, sync: &Sync, status: &Status) {
        self.syncs += 1;
        let wanted = sync.scale.iter().map(|scale| scale.wanted);
        for replicas in wanted.chain(sync.set.map(|(to, _)| to)) {
            if self.replicas.last() != Some(&replicas) {
                self.replicas.push(replicas);
            }
        }
        let reasons = status.conditions.values().map(|(_, reason, _)| reason.clone());
        self.reasons.extend(reasons);
    }
}

/// When the sync may have looked at the clock, the likeliest first.
fn moments(sync: &Sync) -> Result<[Timestamp; 5]> {
    let latest = match sync.wrote {
        Some(wrote) => wrote,
        None => sync.read.checked_add(Duration::from_millis(10))?,
    };
    Ok([
        sync.read.checked_add(Duration::from_micros(500))?,
        sync.read,
        latest,
        sync.read.checked_sub(SLACK)?,
        latest.checked_add(SLACK)?,
    ])
}

/// What the controller made of the lists of metrics. It asks for one list for each metric, in the order of the spec.
fn readings(situation: &Situation, sync: &Sync) -> Result<Vec<Result<HpaReading, String>>> {
    let metrics = &situation.spec.metrics;
    ensure!(
        sync.lists.is_empty() || sync.lists.len() == metrics.len(),
        "{}: {} lists for {} metrics",
        situation.name,
        sync.lists.len(),
        metrics.len()
    );
    metrics
        .iter()
        .zip(&sync.lists)
        .map(|(metric, list)| match list {
            Ok(list) => reading(metric, list),
            Err(error) => Ok(Err(error.clone())),
        })
        .collect()
}

fn reading(metric: &HpaMetric, list: &Value) -> Result<Result<HpaReading, String>> {
    let items = list["items"].as_array().context("a list has no items")?;
    if items.is_empty() {
        return Ok(Err("no metrics returned".into()));
    }
    match metric {
        HpaMetric::External { .. } => {
            let values = items.iter().map(|item| parse(&item["value"]));
            Ok(Ok(HpaReading::Series(values.collect::<Result<_>>()?)))
        }
        HpaMetric::Resource { .. } => {
            let pods = items.iter().map(|item| {
                let name = item["metadata"]["name"]
                    .as_str()
                    .context("metrics of a nameless pod")?;
                Ok((name.to_owned(), usage(item)?))
            });
            Ok(Ok(HpaReading::Pods(pods.collect::<Result<_>>()?)))
        }
    }
}

fn usage(item: &Value) -> Result<PodUsage> {
    let mut containers = BTreeMap::new();
    for container in item["containers"].as_array().context("no containers")? {
        let name = container["name"].as_str().context("a nameless container")?;
        let used = container["usage"].as_object().context("no usage")?;
        let used = used.iter().map(|(name, value)| Ok((name.clone(), parse(value)?)));
        containers.insert(name.to_owned(), used.collect::<Result<_>>()?);
    }
    Ok(PodUsage {
        taken: time(&item["timestamp"])?,
        window: Duration::from_secs(30),
        containers,
    })
}

fn parse(value: &Value) -> Result<Quantity> {
    Ok(quantity(value.as_str().context("a quantity is no text")?))
}

/// The status that follows from an evaluation.
fn predicted(
    situation: &Situation,
    sync: &Sync,
    evaluation: &HpaEvaluation,
    history: &HpaHistory,
    before: &Status,
) -> Status {
    let mut status = before.clone();
    if let Ok(scale) = &sync.scale {
        status.current = scale.wanted;
        status.desired = evaluation.desired.unwrap_or(before.desired);
        let shown = situation.spec.metrics.iter().zip(&evaluation.values);
        status.metrics = shown
            .map(|(metric, value)| shown_value(metric, *value, scale.running))
            .collect();
    }
    let conditions = history.conditions();
    let named = [
        ("AbleToScale", &conditions.able_to_scale),
        ("ScalingActive", &conditions.scaling_active),
        ("ScalingLimited", &conditions.scaling_limited),
        ("ScaledToZero", &conditions.scaled_to_zero),
    ];
    let set = named
        .into_iter()
        .filter_map(|(name, condition)| Some((name, condition.as_ref()?)));
    status.conditions = set
        .map(|(name, condition)| (name.to_owned(), flat(condition)))
        .collect();
    status
}

fn flat(condition: &HpaCondition) -> (String, String, String) {
    let status = if condition.status { "True" } else { "False" };
    (
        status.to_owned(),
        condition.reason.as_str().to_owned(),
        condition.message.clone(),
    )
}

fn shown_value(
    metric: &HpaMetric,
    value: Option<HpaMetricValue>,
    running: u32,
) -> (String, BTreeMap<String, Option<Quantity>>) {
    let Some(value) = value else {
        return (String::new(), BTreeMap::new());
    };
    let values = match value {
        HpaMetricValue::Value(value) => vec![("value", Some(value))],
        HpaMetricValue::AverageValue(_) if running == 0 => vec![("averageValue", None)],
        HpaMetricValue::AverageValue(average) => vec![("averageValue", Some(average))],
        HpaMetricValue::Utilization { percent, average } => vec![
            ("averageUtilization", Some(Quantity::from_milli(percent * 1000))),
            ("averageValue", Some(average)),
        ],
    };
    let kind = match metric {
        HpaMetric::External { .. } => "External",
        HpaMetric::Resource { container: None, .. } => "Resource",
        HpaMetric::Resource { .. } => "ContainerResource",
    };
    let values = values.into_iter().map(|(name, value)| (name.to_owned(), value));
    (kind.to_owned(), values.collect())
}

/// The values of a metric in a status. What the controller makes of an average over no replica is not compared: it
/// divides by zero and shows what the processor makes of that.
fn written_value(metric: &Value) -> (String, BTreeMap<String, Option<Quantity>>) {
    let kind = metric["type"].as_str().unwrap_or_default();
    let Some(first) = kind.get(..1) else {
        return (String::new(), BTreeMap::new());
    };
    let field = first.to_lowercase() + &kind[1..];
    let current = metric[field]["current"].as_object().into_iter().flatten();
    let values = current.map(|(name, value)| {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), ToOwned::to_owned);
        let is_over_none = text == "-9223372036854775808m";
        (name.clone(), (!is_over_none).then(|| quantity(&text)))
    });
    (kind.to_owned(), values.collect())
}

/// The status that the controller wrote.
fn written(status: &Value) -> Status {
    let empty = Vec::new();
    let metrics = status["currentMetrics"].as_array().unwrap_or(&empty).iter();
    let conditions = status["conditions"].as_array().unwrap_or(&empty).iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Status {
        current: count(&status["currentReplicas"]),
        desired: count(&status["desiredReplicas"]),
        metrics: metrics.map(written_value).collect(),
        conditions: conditions
            .map(|c| {
                let values = (text(&c["status"]), text(&c["reason"]), text(&c["message"]));
                (text(&c["type"]), values)
            })
            .collect(),
    }
}

/// Equal, but for the words of errors that come from outside the arithmetic.
fn is_same(ours: &Status, real: &Status, has_failed: bool) -> bool {
    let conditions = |status: &Status| -> BTreeMap<String, (String, String, String)> {
        let mut conditions = status.conditions.clone();
        for (_, reason, message) in conditions.values_mut() {
            if has_failed && reason.starts_with("Failed") {
                let kept = message.find(": ").map_or(message.len(), |at| at + 2);
                message.truncate(kept);
            }
        }
        conditions
    };
    (ours.current, ours.desired, &ours.metrics) == (real.current, real.desired, &real.metrics)
        && conditions(ours) == conditions(real)
}
