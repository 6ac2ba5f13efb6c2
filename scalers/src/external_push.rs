//! `external-push` and `external`: the demand for HTTP routes, which interceptors report to this process.

mod own_addresses;

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::demand::{Demand, RouteKey, Totals};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::connect::Connect;
use crate::demand_source::{DemandSource, RouteScaling};
use crate::error::{ConfigError, ReadError, ReadErrorKind};
use crate::metadata::{self, Metadata};
use crate::pushed::{Hold, Pushed, Told};
use crate::scaler::{MetricSpec, Observed, Target, Trigger};

pub use own_addresses::OwnAddresses;

/// A request that came and went so short a time ago still counts as activity: one that is answered at once, by a placeholder
/// for instance, wakes its target too.
const RECENT: Duration = Duration::from_secs(3);

/// Scales on the HTTP requests that interceptors hold for an InterceptorRoute, from the first one on: it wakes the target the
/// moment it arrives, straight to as many replicas as the held requests need.
///
/// ```yaml
/// triggers:
///   - type: external-push
///     metadata:
///       scalerAddress: keda-add-ons-http-external-scaler.keda:9090
///       interceptorRoute: shop
/// ```
///
/// - Metric names: `http_<route>_concurrency` and `http_<route>_rate`, one for each metric of the InterceptorRoute's
///   `scalingMetric`.
/// - Values: requests that are held, waiting or being served; requests per second over the route's window, and never
///   less than what is held. The targets are the route's.
/// - Active while a request is held, or the rate is above 0. The cooldown runs from the end of the last request.
/// - The route is in the ScaledObject's namespace.
/// - Nothing is put to sleep before every interceptor holds what comes and has nothing under way.
/// - Scalers that others run, at any other `scalerAddress`, cannot be used yet.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExternalMetadata {
    /// Address of the scaler: the Service of the interceptors' scaler, by any of its names in the cluster, or one of the
    /// operator's `--external-scaler-aliases`.
    scaler_address: String,
    /// Name of the InterceptorRoute. Must be given.
    interceptor_route: Option<String>,
}

impl Metadata for ExternalMetadata {
    const CONTEXT: &'static str = "error parsing external scaler metadata";
    const PARSING: &'static str = "error parsing external scaler metadata";
}

/// Which of a route's numbers a metric is.
#[derive(Clone, Copy, PartialEq)]
enum Measure {
    Concurrency,
    Rate,
}

/// One metric of one route.
#[derive(Clone)]
struct RouteMetric {
    label: &'static str,
    source: Arc<dyn DemandSource>,
    route: RouteKey,
    scaling: RouteScaling,
    measure: Measure,
    target: u32,
    deadline: Duration,
}

/// Builds the trigger for the first of the route's metrics; the other one is beside it.
pub(crate) fn connect(cx: &Connect, label: &'static str) -> Result<Arc<dyn Trigger>, ConfigError> {
    let error = |message: String| ConfigError::Metadata {
        context: ExternalMetadata::CONTEXT,
        message,
    };
    let metadata: ExternalMetadata = metadata::parse(&cx.params)?;
    let address = metadata.scaler_address;
    let Some(source) = cx.demand.clone().filter(|source| source.is_ours(&address)) else {
        return Err(error(format!(
            "scalerAddress {address:?} is not that of the HTTP interceptors' scaler, and external scalers that others run are not supported yet"
        )));
    };
    let Some(name) = metadata.interceptor_route else {
        return Err(error(
            "missing required parameter \"interceptorRoute\" in [triggerMetadata]".to_owned(),
        ));
    };
    let route = RouteKey::new(cx.namespace.as_str(), name);
    let scaling = source
        .scaling(&route)
        .ok_or_else(|| error(format!("there is no InterceptorRoute {route}")))?;
    let metric = RouteMetric {
        label,
        source,
        scaling,
        measure: Measure::Concurrency,
        target: 0,
        deadline: cx.default_deadline,
        route: route.clone(),
    };
    match metric
        .measuring(Measure::Concurrency)
        .or_else(|| metric.measuring(Measure::Rate))
    {
        Some(first) => Ok(Arc::new(first)),
        None => Err(error(format!("InterceptorRoute {route} has no scalingMetric"))),
    }
}

/// The triggers of a route, one for each metric that its InterceptorRoute asks for; `None` if there is none of that name.
#[must_use]
pub fn route_triggers(source: Arc<dyn DemandSource>, route: &RouteKey) -> Option<Vec<Arc<dyn Trigger>>> {
    let metric = RouteMetric {
        label: "externalPushScaler",
        scaling: source.scaling(route)?,
        source,
        route: route.clone(),
        measure: Measure::Concurrency,
        target: 0,
        deadline: Duration::ZERO,
    };
    let measures = [Measure::Concurrency, Measure::Rate].into_iter();
    let metrics = measures.filter_map(|measure| metric.measuring(measure));
    Some(
        metrics
            .map(|metric| Arc::new(metric) as Arc<dyn Trigger>)
            .collect(),
    )
}

impl RouteMetric {
    /// The same route by another measure, if it has a target for that.
    fn measuring(&self, measure: Measure) -> Option<Self> {
        let target = match measure {
            Measure::Concurrency => self.scaling.concurrency,
            Measure::Rate => self.scaling.rate.map(|rate| rate.target),
        };
        Some(Self {
            measure,
            target: target?,
            ..self.clone()
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "far fewer requests are held")]
    fn observed(&self, totals: &Totals) -> Observed {
        let value = match self.measure {
            Measure::Concurrency => totals.held() as f64,
            Measure::Rate => totals.rate.unwrap_or(totals.held() as f64),
        };
        let recent = totals.quiet_for.is_some_and(|quiet| quiet < RECENT);
        Observed {
            value,
            active: value > 0.0 || recent,
        }
    }
}

impl Trigger for RouteMetric {
    fn label(&self) -> &'static str {
        self.label
    }

    fn metric(&self) -> MetricSpec {
        let measure = match self.measure {
            Measure::Concurrency => "concurrency",
            Measure::Rate => "rate",
        };
        MetricSpec {
            base_name: format!("http_{}_{measure}", self.route.name),
            target: Target::Whole(i64::from(self.target)),
        }
    }

    fn deadline(&self) -> Duration {
        self.deadline
    }

    fn read(self: Arc<Self>) -> BoxFuture<'static, Result<Observed, ReadError>> {
        async move {
            let told = self.told();
            told.unknown.map_or(Ok(told.observed), Err)
        }
        .boxed()
    }

    fn beside(&self) -> Option<Arc<dyn Trigger>> {
        match self.measure {
            Measure::Concurrency => Some(Arc::new(self.measuring(Measure::Rate)?)),
            Measure::Rate => None,
        }
    }

    fn is_current(&self) -> bool {
        self.source.scaling(&self.route) == Some(self.scaling)
    }

    fn pushed(&self) -> Option<&dyn Pushed> {
        Some(self)
    }
}

impl Pushed for RouteMetric {
    fn told(&self) -> Told {
        let (totals, unknown) = match self.source.demand(&self.route) {
            Demand::Known(totals) => (totals, None),
            Demand::Unknown { why, at_least } => {
                let what = format!("the demand for InterceptorRoute {} is unknown: {why}", self.route);
                (at_least, Some(ReadError::new(ReadErrorKind::Unreachable, what)))
            }
        };
        Told {
            observed: self.observed(&totals),
            waiting: totals.is_waiting(),
            quiet_for: totals.quiet_for,
            began_ago: totals
                .edge
                .map(|edge| Instant::now().into_std().saturating_duration_since(edge)),
            unknown,
        }
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.source.news(&self.route)
    }

    fn sizes(&self) -> bool {
        self.measure == Measure::Concurrency
    }

    fn hold(&self) -> BoxFuture<'_, Result<Box<dyn Hold>, ReadError>> {
        if self.measure == Measure::Rate && self.scaling.concurrency.is_some() {
            return async { Ok(Box::new(HeldBeside) as Box<dyn Hold>) }.boxed();
        }
        self.source.hold(&self.route)
    }
}

/// The hold of a second metric: that of the first one, which is asked for too, is for both.
struct HeldBeside;

impl Hold for HeldBeside {
    fn slept(self: Box<Self>) {}
}

#[cfg(test)]
mod tests;
