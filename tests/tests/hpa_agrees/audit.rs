//! What the HPA controller read and wrote, sync by sync, out of the API server's audit log.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use dormouse_core::hpa::Scale;
use jiff::Timestamp;
use serde_json::Value;

/// One sync of one HPA.
#[derive(Debug)]
pub(crate) struct Sync {
    /// The target's scale, as the controller got it.
    pub(crate) scale: Result<Scale, String>,
    /// When that was.
    pub(crate) began: Timestamp,
    /// What each list of metrics answered, in order.
    pub(crate) lists: Vec<Result<Value, String>>,
    /// When the last of these was answered: what the controller takes for now is later.
    pub(crate) read: Timestamp,
    /// When the controller first wrote something: what it took for now is earlier.
    pub(crate) wrote: Option<Timestamp>,
    /// The replicas that it set, and when that was done.
    pub(crate) set: Option<(u32, Timestamp)>,
    /// The status that it wrote.
    pub(crate) status: Option<Value>,
    /// Whether something that it wrote was refused, for the object had just been changed. What it believes from then on
    /// is not in the log.
    pub(crate) is_lost: bool,
}

/// The syncs of each namespace, in order. Each namespace has one HPA, and an HPA is synced by one worker at a time.
pub(crate) fn syncs(log: &str) -> Result<BTreeMap<String, Vec<Sync>>> {
    let mut events = Vec::new();
    for line in log.lines() {
        // The controller and the API server may have been ended in the middle of a line.
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        events.push((time(&event["requestReceivedTimestamp"])?, event));
    }
    events.sort_by_key(|(received, _)| *received);
    let mut syncs: BTreeMap<String, Vec<Sync>> = BTreeMap::new();
    for (received, event) in &events {
        let about = &event["objectRef"];
        // The test's own looks whether the metrics are served at all have none.
        let Some(namespace) = about["namespace"].as_str() else {
            continue;
        };
        let all = syncs.entry(namespace.to_owned()).or_default();
        let answered = time(&event["stageTimestamp"])?;
        let kind = (
            about["resource"].as_str().unwrap_or_default(),
            event["verb"].as_str().unwrap_or_default(),
        );
        if kind == ("targets", "get") {
            all.push(Sync {
                scale: answer(event).map(scale),
                began: answered,
                lists: Vec::new(),
                read: answered,
                wrote: None,
                set: None,
                status: None,
                is_lost: false,
            });
            continue;
        }
        let sync = all.last_mut().context("a sync begins with the scale")?;
        match kind {
            (_, "list") => {
                sync.lists.push(answer(event).cloned());
                sync.read = answered;
            }
            ("targets", "update") => {
                match answer(event) {
                    Ok(set) => sync.set = Some((count(&set["spec"]["replicas"]), answered)),
                    Err(_) => sync.is_lost = true,
                }
                sync.wrote.get_or_insert(*received);
            }
            ("horizontalpodautoscalers", "update") => {
                match answer(event) {
                    Ok(written) => sync.status = Some(written["status"].clone()),
                    Err(_) => sync.is_lost = true,
                }
                sync.wrote.get_or_insert(*received);
            }
            other => ensure!(false, "{namespace}: the audit log has {other:?}"),
        }
    }
    for all in syncs.values_mut() {
        // The controller was ended at any moment.
        all.pop();
    }
    Ok(syncs)
}

fn answer(event: &Value) -> Result<&Value, String> {
    let code = event["responseStatus"]["code"].as_u64().unwrap_or_default();
    if (200..300).contains(&code) {
        Ok(&event["responseObject"])
    } else {
        Err(format!("{code}: {}", event["responseStatus"]["message"]))
    }
}

fn scale(object: &Value) -> Scale {
    Scale {
        wanted: count(&object["spec"]["replicas"]),
        running: count(&object["status"]["replicas"]),
        has_selector: object["status"]["selector"]
            .as_str()
            .is_some_and(|s| !s.is_empty()),
    }
}

/// A count of replicas; 0 is left out in some objects.
pub(crate) fn count(value: &Value) -> u32 {
    value
        .as_u64()
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or_default()
}

pub(crate) fn time(value: &Value) -> Result<Timestamp> {
    let text = value.as_str().context("a time is missing")?;
    text.parse().with_context(|| format!("{text:?} is no time"))
}
