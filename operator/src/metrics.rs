//! The operator's Prometheus metrics, under the names and labels that KEDA's dashboards and alerts use.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dormouse_engine::{ObjectKey, TriggerRead};
use dormouse_runtime::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

type Labels = Vec<(&'static str, String)>;
type Decimal = Gauge<f64, AtomicU64>;

/// All families of the operator. Series of an object disappear with it.
#[derive(Debug)]
pub struct OperatorMetrics {
    scaler_value: Family<Labels, Decimal>,
    scaler_latency: Family<Labels, Decimal>,
    scaler_active: Family<Labels, Gauge>,
    scaler_errors: Family<Labels, Counter>,
    object_errors: Family<Labels, Counter>,
    object_paused: Family<Labels, Gauge>,
    loop_latency: Family<Labels, Decimal>,
    quarantines: Family<Labels, Counter>,
    triggers: Family<Labels, Gauge>,
    resources: Family<Labels, Gauge>,
    series: Mutex<HashMap<ObjectKey, HashSet<Labels>>>,
    registered: Mutex<HashMap<(&'static str, String), Labels>>,
}

impl OperatorMetrics {
    /// Registers all families.
    #[must_use]
    pub fn register(metrics: &Metrics, version: &str) -> Self {
        let families = Self {
            scaler_value: Family::default(),
            scaler_latency: Family::default(),
            scaler_active: Family::default(),
            scaler_errors: Family::default(),
            object_errors: Family::default(),
            object_paused: Family::default(),
            loop_latency: Family::default(),
            quarantines: Family::default(),
            triggers: Family::default(),
            resources: Family::default(),
            series: Mutex::default(),
            registered: Mutex::default(),
        };
        let build = Family::<Labels, Gauge>::default();
        build
            .get_or_create(&vec![
                ("version", version.to_owned()),
                ("git_commit", String::new()),
                ("goversion", String::new()),
                ("goos", std::env::consts::OS.to_owned()),
                ("goarch", std::env::consts::ARCH.to_owned()),
            ])
            .set(1);
        metrics.register(|registry| {
            registry.register("keda_build_info", "Version of the running operator", build);
            let f = &families;
            registry.register(
                "keda_scaler_metrics_value",
                "The last value read from each trigger",
                f.scaler_value.clone(),
            );
            registry.register(
                "keda_scaler_metrics_latency_seconds",
                "How long the last read of each trigger took",
                f.scaler_latency.clone(),
            );
            registry.register(
                "keda_scaler_active",
                "Whether each trigger asks for replicas (1) or not (0)",
                f.scaler_active.clone(),
            );
            registry.register(
                "keda_scaler_detail_errors",
                "Failed reads of each trigger",
                f.scaler_errors.clone(),
            );
            registry.register(
                "keda_scaled_object_errors",
                "Failed checks and failed reads of each ScaledObject",
                f.object_errors.clone(),
            );
            registry.register(
                "keda_scaled_object_paused",
                "Whether each ScaledObject is paused (1) or not (0)",
                f.object_paused.clone(),
            );
            registry.register(
                "keda_internal_scale_loop_latency_seconds",
                "How late the last polling tick of each ScaledObject began",
                f.loop_latency.clone(),
            );
            registry.register(
                "dormouse_scaled_object_quarantines",
                "How often each ScaledObject was quarantined after an internal failure",
                f.quarantines.clone(),
            );
            registry.register(
                "keda_trigger_registered_total",
                "Triggers in use, by type",
                f.triggers.clone(),
            );
            registry.register(
                "keda_resource_registered_total",
                "Custom resources in use, by type and namespace",
                f.resources.clone(),
            );
        });
        families
    }

    /// A source was read.
    pub fn read(&self, key: &ObjectKey, read: &TriggerRead<'_>) {
        let labels: Labels = vec![
            ("namespace", key.namespace.clone()),
            ("metric", read.metric_name.to_owned()),
            ("scaledObject", key.name.clone()),
            ("scaler", read.label.to_owned()),
            ("triggerIndex", read.index.to_string()),
            ("type", "scaledobject".to_owned()),
        ];
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
        lock(&self.series).entry(key.clone()).or_default().insert(labels);
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

    /// A polling tick began this late.
    pub fn tick(&self, key: &ObjectKey, late_by: Duration) {
        self.loop_latency
            .get_or_create(&loop_labels(key))
            .set(late_by.as_secs_f64());
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

    /// Drops the series of an object's triggers: they were rebuilt, or the object is gone.
    pub fn forget_triggers(&self, key: &ObjectKey) {
        for labels in lock(&self.series).remove(key).into_iter().flatten() {
            self.scaler_value.remove(&labels);
            self.scaler_latency.remove(&labels);
            self.scaler_active.remove(&labels);
            self.scaler_errors.remove(&labels);
        }
    }

    /// Drops all series of an object.
    pub fn forget(&self, key: &ObjectKey) {
        self.forget_triggers(key);
        let labels = object_labels(key);
        self.object_errors.remove(&labels);
        self.object_paused.remove(&labels);
        self.quarantines.remove(&labels);
        self.loop_latency.remove(&loop_labels(key));
    }
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
        ("type", "scaledobject".to_owned()),
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
mod tests {
    use dormouse_core::{ReadFailure, Reading};
    use dormouse_runtime::metrics::Format;
    use jiff::Timestamp;

    use super::*;

    fn read<'a>(outcome: Result<&'a Reading, &'a ReadFailure>) -> TriggerRead<'a> {
        TriggerRead {
            index: 0,
            label: "first",
            trigger_type: "metrics-api",
            metric_name: "s0-metric-api-v",
            outcome,
            took: Duration::from_millis(2),
            shared: false,
        }
    }

    #[test]
    fn series_have_kedas_names_and_leave_with_their_object() {
        let page = Metrics::new();
        let metrics = OperatorMetrics::register(&page, "0.1.0");
        let key = ObjectKey::new("cap", "full");
        let reading = Reading::new(15.0, true, Timestamp::UNIX_EPOCH).unwrap();
        let failure = ReadFailure {
            category: "timeout",
            message: "x".into(),
        };
        metrics.checked(&key, false);
        metrics.quarantined(&key);
        metrics.read(&key, &read(Ok(&reading)));
        metrics.read(&key, &read(Err(&failure)));
        metrics.registered(
            "scaled_object",
            "cap",
            "full",
            &["metrics-api", "cron", "metrics-api"],
        );
        metrics.registered("scaled_object", "cap", "full", &["metrics-api", "cron"]);
        let text = page.encode(Format::Classic);
        for expected in [
            "keda_scaler_metrics_value{namespace=\"cap\",metric=\"s0-metric-api-v\",scaledObject=\"full\",scaler=\"first\",triggerIndex=\"0\",type=\"scaledobject\"} 15",
            "scaler=\"first\",triggerIndex=\"0\",type=\"scaledobject\"} 1\n",
            "keda_scaled_object_errors_total{namespace=\"cap\",scaledObject=\"full\"} 1",
            "keda_scaled_object_paused{namespace=\"cap\",scaledObject=\"full\"} 0",
            "keda_resource_registered_total{type=\"scaled_object\",namespace=\"cap\"} 1",
            "keda_trigger_registered_total{type=\"metrics-api\"} 1",
            "# TYPE keda_scaler_detail_errors_total counter",
            "dormouse_scaled_object_quarantines_total{namespace=\"cap\",scaledObject=\"full\"} 1",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        metrics.forget(&key);
        metrics.unregister("scaled_object", "cap", "full");
        let text = page.encode(Format::Classic);
        assert!(!text.contains("cap"), "{text}");
    }
}
