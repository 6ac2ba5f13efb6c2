//! The data plane on the metrics page: the add-on's three families, and ours about cold starts.

use std::fmt;
use std::sync::Arc;

use dormouse_core::routes::RouteKey;
use dormouse_proxy::{AccessLog, Demand, Histogram, Proxy, RequestStats};
use dormouse_runtime::Metrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Shows what the data plane counts, asked at each scrape.
pub(crate) struct PlaneMetrics {
    proxy: Arc<Proxy>,
    demand: Demand,
    log: Option<AccessLog>,
}

impl fmt::Debug for PlaneMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlaneMetrics").finish_non_exhaustive()
    }
}

impl PlaneMetrics {
    /// Has the page show them.
    pub(crate) fn register(proxy: &Arc<Proxy>, log: Option<AccessLog>, metrics: &Metrics) {
        let this = Self {
            proxy: Arc::clone(proxy),
            demand: proxy.demand(),
            log,
        };
        metrics.register(|registry| registry.register_collector(Box::new(this)));
    }
}

impl Collector for PlaneMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.proxy.stats();
        requests(&mut encoder, &stats)?;
        loads(&mut encoder, &self.demand)?;
        cold_starts(&mut encoder, &stats)?;
        if let Some(log) = &self.log {
            let name = "dormouse_interceptor_access_log_lost_lines";
            let help = "Lines of the access log that nobody took in time";
            let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(log.lost()).encode(family)?;
        }
        Ok(())
    }
}

fn requests(encoder: &mut DescriptorEncoder<'_>, stats: &RequestStats) -> fmt::Result {
    let labels = |requests: &dormouse_proxy::Requests| {
        let [name, namespace] = labels_of(requests.route.as_ref());
        let status = requests.status.to_string();
        [
            ("code", status),
            ("method", requests.method.to_owned()),
            name,
            namespace,
        ]
    };
    let help = "Requests that were answered, or whose client left (code 499)";
    let mut family =
        encoder.encode_descriptor("interceptor_request_count", help, None, MetricType::Counter)?;
    for requests in &stats.requests {
        let count = ConstCounter::new(requests.took.count());
        count.encode(family.encode_family(&labels(requests))?)?;
    }
    let name = "interceptor_request_duration_seconds";
    let help = "How long requests took, to the end of their response";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for requests in &stats.requests {
        histogram(&mut family, &labels(requests), &requests.took)?;
    }
    Ok(())
}

/// What each route has to do, of routes that were ever used.
fn loads(encoder: &mut DescriptorEncoder<'_>, demand: &Demand) -> fmt::Result {
    let loads = demand.snapshot();
    let used = loads.iter().filter(|load| load.started > 0);
    let name = "interceptor_request_concurrency";
    let help = "Requests that wait or are being served";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for load in used.clone() {
        let count = i64::from(load.pending) + i64::from(load.in_flight);
        ConstGauge::new(count).encode(family.encode_family(&labels_of(Some(&load.route)))?)?;
    }
    let name = "dormouse_interceptor_pending_requests";
    let help = "Requests that wait for an endpoint";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for load in used {
        let pending = ConstGauge::new(i64::from(load.pending));
        pending.encode(family.encode_family(&labels_of(Some(&load.route)))?)?;
    }
    Ok(())
}

fn cold_starts(encoder: &mut DescriptorEncoder<'_>, stats: &RequestStats) -> fmt::Result {
    let name = "dormouse_interceptor_hold_duration_seconds";
    let help = "How long requests waited for an endpoint, of those that had to, by how the wait ended";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for holds in &stats.holds {
        let [name, namespace] = labels_of(Some(&holds.route));
        let labels = [("end", holds.end.name().to_owned()), name, namespace];
        histogram(&mut family, &labels, &holds.took)?;
    }
    let name = "dormouse_interceptor_ready_to_first_byte_seconds";
    let help =
        "From the moment that an endpoint which requests waited for was found serving to its first answer";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for first in &stats.first_bytes {
        histogram(&mut family, &labels_of(Some(&first.route)), &first.took)?;
    }
    Ok(())
}

fn histogram(
    family: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    histogram: &Histogram,
) -> fmt::Result {
    let buckets: Vec<(f64, u64)> = histogram.buckets().collect();
    let sum = histogram.sum().as_secs_f64();
    family
        .encode_family(labels)?
        .encode_histogram::<NoLabelSet>(sum, histogram.count(), &buckets, None)
}

/// Both empty for requests of no route, as the add-on has it.
fn labels_of(route: Option<&RouteKey>) -> [(&'static str, String); 2] {
    let name = route.map(|route| route.name.to_string());
    let namespace = route.map(|route| route.namespace.to_string());
    [
        ("route_name", name.unwrap_or_default()),
        ("route_namespace", namespace.unwrap_or_default()),
    ]
}
