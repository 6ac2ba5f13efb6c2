//! The operator's Prometheus metrics: KEDA's, under the names, labels and help texts that dashboards and alerts know, and
//! our own.
//!
//! Series of a ScaledObject live as long as this process leads and the object, its trigger and the trigger's name exist:
//! what a follower or an ex-leader knows is old, and two replicas that tell the same would be counted twice.

mod own;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dormouse_engine::{ObjectKey, TriggerRead};
use dormouse_runtime::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use own::Own;
pub use own::QueueDepths;

type Labels = Vec<(&'static str, String)>;
type Decimal = Gauge<f64, AtomicU64>;
type Seconds = Family<Labels, Histogram, Buckets>;

/// The label of cpu and memory triggers, which the HPA reads itself.
const RESOURCE_SCALER: &str = "cpuMemoryScaler";
const SCALED_OBJECT: &str = "scaledobject";

/// The bounds of a histogram.
#[derive(Clone, Copy, Debug)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// KEDA's bounds for HTTP requests; our own durations of reads have the same.
const REQUEST_SECONDS: Buckets = Buckets(&[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);

/// All families of the operator.
#[derive(Debug)]
pub struct OperatorMetrics {
    scaler_value: Family<Labels, Decimal>,
    scaler_latency: Family<Labels, Decimal>,
    scaler_active: Family<Labels, Gauge>,
    scaler_errors: Family<Labels, Counter>,
    object_errors: Family<Labels, Counter>,
    object_paused: Family<Labels, Gauge>,
    empty_answers: Family<Labels, Counter>,
    loop_latency: Family<Labels, Decimal>,
    quarantines: Family<Labels, Counter>,
    triggers: Family<Labels, Gauge>,
    resources: Family<Labels, Gauge>,
    http_requests: Family<Labels, Counter>,
    http_seconds: Seconds,
    own: Own,
    high_cardinality: bool,
    series: Mutex<HashMap<ObjectKey, Series>>,
    registered: Mutex<HashMap<(&'static str, String), Labels>>,
}

/// The series that one object has, so that they can go with it.
#[derive(Debug, Default)]
struct Series {
    /// By metric name: one trigger's labels.
    triggers: HashMap<String, Labels>,
    http: HashSet<Labels>,
    http_seconds: HashSet<Labels>,
    empty: HashSet<Labels>,
}

/// A cpu or memory trigger of an object: read by the HPA, and active as long as it is there.
#[derive(Clone, Copy, Debug)]
pub struct ResourceTrigger<'a> {
    /// Position in `spec.triggers`.
    pub index: usize,
    /// The user's name for it.
    pub name: Option<&'a str>,
    /// `cpu` or `memory`.
    pub resource: &'a str,
}

impl OperatorMetrics {
    /// Registers all families. With `high_cardinality` the durations of HTTP requests are told apart by trigger.
    #[must_use]
    pub fn register(metrics: &Metrics, version: &str, high_cardinality: bool) -> Self {
        let families = Self {
            scaler_value: Family::default(),
            scaler_latency: Family::default(),
            scaler_active: Family::default(),
            scaler_errors: Family::default(),
            object_errors: Family::default(),
            object_paused: Family::default(),
            empty_answers: Family::default(),
            loop_latency: Family::default(),
            quarantines: Family::default(),
            triggers: Family::default(),
            resources: Family::default(),
            http_requests: Family::default(),
            http_seconds: Family::new_with_constructor(REQUEST_SECONDS),
            own: Own::register(metrics),
            high_cardinality,
            series: Mutex::default(),
            registered: Mutex::default(),
        };
        families.register_kedas(metrics);
        let help = "Internal failures that stopped the loop of a ScaledObject for a while";
        let quarantines = families.quarantines.clone();
        metrics
            .register(|registry| registry.register("dormouse_scaled_object_quarantines", help, quarantines));
        let build = Family::<Labels, Gauge>::default();
        let text = |key, value: &str| (key, value.to_owned());
        build
            .get_or_create(&vec![
                text("version", version),
                text(
                    "git_commit",
                    option_env!("DORMOUSE_GIT_COMMIT").unwrap_or_default(),
                ),
                // There is no Go in here; the label stays, because queries group by it.
                text("goversion", ""),
                text("goos", std::env::consts::OS),
                text("goarch", go_arch()),
            ])
            .set(1);
        let help = "Info metric, with static information about KEDA build like: version, git commit and Golang runtime info";
        metrics.register(|registry| registry.register("keda_build_info", help, build));
        families
    }

    fn register_kedas(&self, metrics: &Metrics) {
        metrics.register(|registry| {
            registry.register("keda_scaler_metrics_value", "The current value for each scaler's metric that would be used by the HPA in computing the target average", self.scaler_value.clone());
            registry.register("keda_scaler_metrics_latency_seconds", "The latency of retrieving current metric from each scaler, in seconds", self.scaler_latency.clone());
            registry.register("keda_scaler_active", "Indicates whether a scaler is active (1), or not (0)", self.scaler_active.clone());
            registry.register("keda_scaler_detail_errors", "The total number of errors encountered for each scaler", self.scaler_errors.clone());
            registry.register("keda_scaled_object_errors", "The number of errors that have occurred for each ScaledObject", self.object_errors.clone());
            registry.register("keda_scaled_object_paused", "Indicates whether a ScaledObject is paused (1), or not (0)", self.object_paused.clone());
            registry.register("keda_scaler_empty_upstream_responses", "Answers of sources that held no value, by what the trigger makes of them", self.empty_answers.clone());
            registry.register("keda_internal_scale_loop_latency_seconds", "Total deviation (in seconds) between the expected execution time and the actual execution time for the scaling loop", self.loop_latency.clone());
            registry.register("keda_trigger_registered_total", "Total number of triggers per trigger type registered", self.triggers.clone());
            registry.register("keda_resource_registered_total", "Total number of KEDA custom resources per namespace for each custom resource type (CRD) registered", self.resources.clone());
            registry.register("keda_scaler_http_requests", "Total number of outbound HTTP requests issued during scaler metric collection", self.http_requests.clone());
            registry.register("keda_scaler_http_request_duration_seconds", "Duration in seconds of outbound HTTP requests issued during scaler metric collection", self.http_seconds.clone());
        });
    }

    /// A source was read, by the process that leads or by another one (`leads`).
    pub fn read(&self, key: &ObjectKey, read: &TriggerRead<'_>, leads: bool) {
        if !read.shared {
            self.own.read(read);
        }
        if !leads {
            return;
        }
        let labels = trigger_labels(key, read.metric_name, read.label, read.index);
        let mut all = lock(&self.series);
        let series = all.entry(key.clone()).or_default();
        let before = series
            .triggers
            .insert(read.metric_name.to_owned(), labels.clone());
        // The trigger has another name or another place now.
        if let Some(before) = before.filter(|before| *before != labels) {
            self.remove_trigger(&before);
        }
        self.scaler_latency
            .get_or_create(&labels)
            .set(read.took.as_secs_f64());
        let errors = self.scaler_errors.get_or_create_owned(&labels);
        match read.outcome {
            Ok(reading) => {
                self.scaler_value.get_or_create(&labels).set(reading.value());
                self.scaler_active
                    .get_or_create(&labels)
                    .set(i64::from(reading.active));
            }
            Err(_) => {
                errors.inc();
                self.object_error(key);
            }
        }
        self.http(key, read, series);
        if let Some(ignored) = read.traffic.empty_answer() {
            let labels: Labels = vec![
                ("namespace", key.namespace.clone()),
                ("scaledResource", key.name.clone()),
                ("triggerName", read.name.unwrap_or_default().to_owned()),
                ("metricName", read.metric_name.to_owned()),
                ("resourceType", SCALED_OBJECT.to_owned()),
                ("ignoreNullValues", ignored.to_string()),
            ];
            self.empty_answers.get_or_create(&labels).inc();
            series.empty.insert(labels);
        }
    }

    fn http(&self, key: &ObjectKey, read: &TriggerRead<'_>, series: &mut Series) {
        for exchange in read.traffic.exchanges() {
            let status = exchange
                .status
                .map_or_else(|| "error".to_owned(), |status| status.to_string());
            let labels: Labels = vec![
                ("namespace", key.namespace.clone()),
                ("scaled_resource", key.name.clone()),
                ("scaler", read.trigger_type.to_owned()),
                ("trigger_name", read.name.unwrap_or_default().to_owned()),
                ("metric_name", read.metric_name.to_owned()),
                ("status_code", status.clone()),
            ];
            self.http_requests.get_or_create(&labels).inc();
            let took = exchange.took.as_secs_f64();
            if self.high_cardinality {
                self.http_seconds.get_or_create(&labels).observe(took);
                series.http_seconds.insert(labels.clone());
            } else {
                let labels = vec![("scaler", read.trigger_type.to_owned()), ("status_code", status)];
                self.http_seconds.get_or_create(&labels).observe(took);
            }
            series.http.insert(labels);
        }
    }

    /// Something went wrong with an object.
    pub fn object_error(&self, key: &ObjectKey) {
        self.object_errors.get_or_create(&object_labels(key)).inc();
    }

    /// An object was quarantined.
    pub fn quarantined(&self, key: &ObjectKey) {
        self.quarantines.get_or_create(&object_labels(key)).inc();
    }

    /// An object was checked.
    pub fn checked(&self, key: &ObjectKey, paused: bool) {
        let labels = object_labels(key);
        self.object_paused.get_or_create(&labels).set(i64::from(paused));
        // Errors are there from the start, so that an alert on their rate has a zero to start from.
        drop(self.object_errors.get_or_create(&labels));
    }

    /// An object has these metrics, and these triggers that the HPA reads itself; series of any others go.
    pub fn has_triggers(&self, key: &ObjectKey, metrics: &[String], resources: &[ResourceTrigger<'_>]) {
        let mut all = lock(&self.series);
        let series = all.entry(key.clone()).or_default();
        let known = |metric: &str| {
            metrics.iter().any(|name| name == metric)
                || resources.iter().any(|trigger| trigger.resource == metric)
        };
        series.triggers.retain(|metric, labels| {
            let stays = known(metric);
            if !stays {
                self.remove_trigger(labels);
            }
            stays
        });
        let stays = |labels: &Labels| {
            let of_metric =
                |(key, value): &(&str, String)| matches!(*key, "metric_name" | "metricName") && known(value);
            labels.iter().any(of_metric)
        };
        retain(&mut series.http, &self.http_requests, stays);
        retain(&mut series.http_seconds, &self.http_seconds, stays);
        retain(&mut series.empty, &self.empty_answers, stays);
        for trigger in resources {
            let label = trigger.name.unwrap_or(RESOURCE_SCALER);
            let labels = trigger_labels(key, trigger.resource, label, trigger.index);
            self.scaler_active.get_or_create(&labels).set(1);
            let before = series
                .triggers
                .insert(trigger.resource.to_owned(), labels.clone());
            if let Some(before) = before.filter(|before| *before != labels) {
                self.remove_trigger(&before);
            }
        }
    }

    /// A polling tick began this late.
    pub fn tick(&self, key: &ObjectKey, late_by: Duration) {
        self.own.tick(late_by);
        self.loop_latency
            .get_or_create(&loop_labels(key))
            .set(late_by.as_secs_f64());
    }

    /// A decision took this long to compute.
    pub fn decision_made(&self, took: Duration) {
        self.own.decision(took);
    }

    /// A target was woken so long after the demand for it had begun.
    pub fn woke(&self, after: Duration) {
        self.own.woke(after);
    }

    /// An object exists, with triggers of these types.
    pub fn registered(&self, kind: &'static str, namespace: &str, name: &str, triggers: &[&str]) {
        self.unregister(kind, namespace, name);
        let mut registered = lock(&self.registered);
        let count = |family: &Family<Labels, Gauge>, labels: Labels| family.get_or_create(&labels).inc();
        count(&self.resources, resource_labels(kind, namespace));
        let types: Labels = triggers
            .iter()
            .map(|type_| ("type", (*type_).to_owned()))
            .collect();
        for label in &types {
            count(&self.triggers, vec![label.clone()]);
        }
        registered.insert((kind, format!("{namespace}/{name}")), types);
    }

    /// An object is gone.
    pub fn unregister(&self, kind: &'static str, namespace: &str, name: &str) {
        let mut registered = lock(&self.registered);
        let Some(types) = registered.remove(&(kind, format!("{namespace}/{name}"))) else {
            return;
        };
        let uncount = |family: &Family<Labels, Gauge>, labels: Labels| {
            // At zero a series leaves, as the registry of a namespace without objects would grow for ever otherwise.
            let left = family.get_or_create(&labels).dec() - 1;
            if left <= 0 {
                family.remove(&labels);
            }
        };
        uncount(&self.resources, resource_labels(kind, namespace));
        for label in types {
            uncount(&self.triggers, vec![label]);
        }
    }

    /// Drops all series of an object.
    pub fn forget(&self, key: &ObjectKey) {
        self.has_triggers(key, &[], &[]);
        lock(&self.series).remove(key);
        let labels = object_labels(key);
        self.object_errors.remove(&labels);
        self.object_paused.remove(&labels);
        self.quarantines.remove(&labels);
        self.loop_latency.remove(&loop_labels(key));
    }

    /// Drops the series of all objects: another process leads from here on, and tells them.
    pub fn forget_all(&self) {
        lock(&self.series).clear();
        lock(&self.registered).clear();
        self.scaler_value.clear();
        self.scaler_latency.clear();
        self.scaler_active.clear();
        self.scaler_errors.clear();
        self.object_errors.clear();
        self.object_paused.clear();
        self.empty_answers.clear();
        self.loop_latency.clear();
        self.quarantines.clear();
        self.triggers.clear();
        self.resources.clear();
        self.http_requests.clear();
        self.http_seconds.clear();
    }

    fn remove_trigger(&self, labels: &Labels) {
        self.scaler_value.remove(labels);
        self.scaler_latency.remove(labels);
        self.scaler_active.remove(labels);
        self.scaler_errors.remove(labels);
    }
}

fn retain<M, C>(known: &mut HashSet<Labels>, family: &Family<Labels, M, C>, stays: impl Fn(&Labels) -> bool)
where
    C: MetricConstructor<M>,
{
    known.retain(|labels| {
        let stays = stays(labels);
        if !stays {
            family.remove(labels);
        }
        stays
    });
}

/// The architecture as Go names it.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn trigger_labels(key: &ObjectKey, metric: &str, label: &str, index: usize) -> Labels {
    vec![
        ("namespace", key.namespace.clone()),
        ("metric", metric.to_owned()),
        ("scaledObject", key.name.clone()),
        ("scaler", label.to_owned()),
        ("triggerIndex", index.to_string()),
        ("type", SCALED_OBJECT.to_owned()),
    ]
}

fn object_labels(key: &ObjectKey) -> Labels {
    vec![
        ("namespace", key.namespace.clone()),
        ("scaledObject", key.name.clone()),
    ]
}

fn loop_labels(key: &ObjectKey) -> Labels {
    vec![
        ("namespace", key.namespace.clone()),
        ("type", SCALED_OBJECT.to_owned()),
        ("resource", key.name.clone()),
    ]
}

fn resource_labels(kind: &str, namespace: &str) -> Labels {
    let namespace = if namespace.is_empty() {
        "default"
    } else {
        namespace
    };
    vec![("type", kind.to_owned()), ("namespace", namespace.to_owned())]
}

/// A poisoned lock only means that another holder panicked; the sets in it stay sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
