//! What Dormouse tells of itself beyond KEDA's metrics. All label values are from closed sets: trigger types that are built
//! in, classes of failures, names of queues.

use std::fmt;
use std::time::Duration;

use dormouse_engine::TriggerRead;
use dormouse_runtime::Metrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;

use super::{Buckets, Labels, REQUEST_SECONDS, Seconds};

/// From a microsecond to ten milliseconds: a decision is arithmetic.
const DECISION_SECONDS: Buckets = Buckets(&[
    0.000_001,
    0.000_002_5,
    0.000_005,
    0.000_01,
    0.000_025,
    0.000_05,
    0.000_1,
    0.001,
    0.01,
]);
/// From a millisecond, which is a timer's own precision, to half a minute.
const LATENESS_SECONDS: Buckets = Buckets(&[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0]);
/// From a millisecond to a second: somebody waits.
const WAKE_SECONDS: Buckets = Buckets(&[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0]);

#[derive(Debug)]
pub(super) struct Own {
    reads: Family<Labels, Counter>,
    read_seconds: Seconds,
    decision_seconds: Histogram,
    lateness_seconds: Histogram,
    wake_seconds: Histogram,
}

impl Own {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let own = Self {
            reads: Family::default(),
            read_seconds: Family::new_with_constructor(REQUEST_SECONDS),
            decision_seconds: DECISION_SECONDS.new_metric(),
            lateness_seconds: LATENESS_SECONDS.new_metric(),
            wake_seconds: WAKE_SECONDS.new_metric(),
        };
        metrics.register(|registry| {
            registry.register(
                "dormouse_source_reads",
                "Reads of sources by trigger type, and how they ended",
                own.reads.clone(),
            );
            registry.register(
                "dormouse_source_read_duration_seconds",
                "How long reads of sources took, by trigger type",
                own.read_seconds.clone(),
            );
            registry.register(
                "dormouse_decision_duration_seconds",
                "How long decisions took to compute",
                own.decision_seconds.clone(),
            );
            registry.register(
                "dormouse_tick_lateness_seconds",
                "How late polling ticks began",
                own.lateness_seconds.clone(),
            );
            registry.register(
                "dormouse_wake_to_scale_seconds",
                "From the first report of HTTP demand for a sleeping target to the answer to the change of its replicas",
                own.wake_seconds.clone(),
            );
        });
        own
    }

    pub(super) fn read(&self, read: &TriggerRead<'_>) {
        let trigger_type = ("trigger_type", read.trigger_type.to_owned());
        let outcome = read.outcome.err().map_or("ok", |failure| failure.category);
        self.reads
            .get_or_create(&vec![trigger_type.clone(), ("outcome", outcome.to_owned())])
            .inc();
        self.read_seconds
            .get_or_create(&vec![trigger_type])
            .observe(read.took.as_secs_f64());
    }

    pub(super) fn decision(&self, took: Duration) {
        self.decision_seconds.observe(took.as_secs_f64());
    }

    pub(super) fn woke(&self, after: Duration) {
        self.wake_seconds.observe(after.as_secs_f64());
    }

    pub(super) fn tick(&self, late_by: Duration) {
        self.lateness_seconds.observe(late_by.as_secs_f64());
    }
}

type Depth = Box<dyn Fn() -> usize + Send + Sync>;

/// How much waits in each queue, asked at each scrape.
#[derive(Default)]
pub struct QueueDepths(Vec<(&'static str, Depth)>);

impl QueueDepths {
    /// With one more queue.
    #[must_use]
    pub fn with(mut self, queue: &'static str, depth: impl Fn() -> usize + Send + Sync + 'static) -> Self {
        self.0.push((queue, Box::new(depth)));
        self
    }

    /// Shows them as `dormouse_queue_depth{queue}`.
    pub fn register(self, metrics: &Metrics) {
        metrics.register(|registry| registry.register_collector(Box::new(self)));
    }
}

impl fmt::Debug for QueueDepths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(queue, _)| queue))
            .finish()
    }
}

impl Collector for QueueDepths {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "What waits or is under way in each queue of work";
        let mut family = encoder.encode_descriptor("dormouse_queue_depth", help, None, MetricType::Gauge)?;
        for (queue, depth) in &self.0 {
            let value = i64::try_from(depth()).unwrap_or(i64::MAX);
            let labels = [("queue", *queue)];
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
