use std::sync::Mutex;
use std::time::Instant;

use dormouse_core::demand::{RateWindow, Unknown};

use super::*;
use crate::demand_source::RateScaling;
use crate::registry;
use crate::testing::{context, params};

/// One route, `default/shop`, whose demand a test sets.
struct Source {
    scaling: Mutex<Option<RouteScaling>>,
    demand: Mutex<Demand>,
}

impl DemandSource for Source {
    fn is_ours(&self, address: &str) -> bool {
        address == "scaler.keda:9090"
    }

    fn scaling(&self, route: &RouteKey) -> Option<RouteScaling> {
        self.scaling
            .lock()
            .unwrap()
            .filter(|_| *route == RouteKey::new("default", "shop"))
    }

    fn demand(&self, _route: &RouteKey) -> Demand {
        self.demand.lock().unwrap().clone()
    }

    fn news(&self, _route: &RouteKey) -> watch::Receiver<u64> {
        watch::Sender::new(0).subscribe()
    }

    fn hold<'a>(&'a self, _route: &'a RouteKey) -> BoxFuture<'a, Result<Box<dyn Hold>, ReadError>> {
        async { Err(ReadError::new(ReadErrorKind::Internal, "not in this test")) }.boxed()
    }
}

const BOTH: RouteScaling = RouteScaling {
    concurrency: Some(100),
    rate: None,
};

fn both() -> RouteScaling {
    let window = RateWindow::new(Duration::from_secs(60), Duration::from_secs(1));
    RouteScaling {
        rate: Some(RateScaling { target: 20, window }),
        ..BOTH
    }
}

fn source(scaling: RouteScaling) -> Arc<Source> {
    Arc::new(Source {
        scaling: Mutex::new(Some(scaling)),
        demand: Mutex::new(Demand::Known(Totals::default())),
    })
}

fn built(
    trigger_type: &str,
    source: &Arc<Source>,
    metadata: &[(&str, &str)],
) -> Result<Arc<dyn Trigger>, String> {
    let mut cx = context(params(trigger_type, metadata, &[]));
    cx.demand = Some(source.clone());
    registry::connect(&cx).map_err(|error| error.to_string())
}

const SHOP: &[(&str, &str)] = &[
    ("scalerAddress", "scaler.keda:9090"),
    ("interceptorRoute", "shop"),
];

#[test]
fn one_trigger_gives_a_metric_for_each_measure_of_its_route() {
    let first = built("external-push", &source(both()), SHOP).unwrap();
    let second = first.beside().unwrap();
    assert!(second.beside().is_none());
    for (trigger, name, target) in [
        (&first, "http_shop_concurrency", 100),
        (&second, "http_shop_rate", 20),
    ] {
        let expected = MetricSpec {
            base_name: name.into(),
            target: Target::Whole(target),
        };
        assert_eq!(trigger.metric(), expected);
        assert_eq!(trigger.label(), "externalPushScaler");
    }
    assert!(first.pushed().unwrap().sizes());
    assert!(
        !second.pushed().unwrap().sizes(),
        "a rate says nothing of how much is held"
    );

    let rate_alone = source(RouteScaling {
        concurrency: None,
        ..both()
    });
    let trigger = built("external", &rate_alone, SHOP).unwrap();
    assert_eq!(trigger.metric().base_name, "http_shop_rate");
    assert_eq!(trigger.label(), "externalScaler");
    assert!(trigger.beside().is_none());
}

#[test]
fn what_is_wrong_is_said() {
    let source = source(BOTH);
    for (metadata, sentence) in [
        (
            &[("interceptorRoute", "shop")][..],
            "missing required parameter \"scalerAddress\" in [triggerMetadata]",
        ),
        (
            &SHOP[..1],
            "missing required parameter \"interceptorRoute\" in [triggerMetadata]",
        ),
        (
            &[("scalerAddress", "other.keda:9090"), ("interceptorRoute", "shop")],
            "scalerAddress \"other.keda:9090\" is not that of the HTTP interceptors' scaler",
        ),
        (
            &[
                ("scalerAddress", "scaler.keda:9090"),
                ("interceptorRoute", "shoes"),
            ],
            "there is no InterceptorRoute default/shoes",
        ),
    ] {
        let error = built("external-push", &source, metadata).err().unwrap();
        assert!(error.contains(sentence), "{error}");
    }
}

#[test]
fn a_trigger_is_current_until_its_route_asks_for_something_else() {
    let source = source(BOTH);
    let trigger = built("external-push", &source, SHOP).unwrap();
    assert!(trigger.is_current());
    *source.scaling.lock().unwrap() = Some(both());
    assert!(!trigger.is_current());
    *source.scaling.lock().unwrap() = None;
    assert!(!trigger.is_current());
}

#[tokio::test]
async fn values_and_activity() {
    let source = source(both());
    let concurrency = built("external-push", &source, SHOP).unwrap();
    let rate = concurrency.beside().unwrap();
    let demand = |pending, in_flight, rate, quiet: Option<f64>| Totals {
        pending,
        in_flight,
        rate: Some(rate),
        edge: Some(Instant::now()),
        quiet_for: quiet.map(Duration::from_secs_f64),
    };
    for (totals, held, rated, active) in [
        (demand(0, 0, 0.0, None), 0.0, 0.0, (false, false)),
        (demand(3, 4, 7.0, Some(0.0)), 7.0, 7.0, (true, true)),
        (demand(0, 0, 0.5, Some(2.9)), 0.0, 0.5, (true, true)),
        (demand(0, 0, 0.5, Some(3.0)), 0.0, 0.5, (false, true)),
        (demand(0, 0, 0.0, Some(90.0)), 0.0, 0.0, (false, false)),
    ] {
        *source.demand.lock().unwrap() = Demand::Known(totals);
        let expected = |value, active| Ok(Observed { value, active });
        assert_eq!(
            concurrency.clone().read().await,
            expected(held, active.0),
            "{totals:?}"
        );
        assert_eq!(rate.clone().read().await, expected(rated, active.1), "{totals:?}");
    }
}

#[tokio::test]
async fn unknown_demand_is_a_failure_that_still_tells_what_is_certain() {
    let source = source(BOTH);
    let trigger = built("external-push", &source, SHOP).unwrap();
    *source.demand.lock().unwrap() = Demand::Unknown {
        why: Unknown::NotListed,
        at_least: Totals {
            pending: 2,
            ..Totals::default()
        },
    };
    let error = trigger.clone().read().await.unwrap_err();
    assert_eq!(
        error.message,
        "the demand for InterceptorRoute default/shop is unknown: the interceptors have not been listed yet"
    );
    let told = trigger.pushed().unwrap().told();
    assert_eq!(
        told.observed,
        Observed {
            value: 2.0,
            active: true
        }
    );
    assert!(told.waiting);
}
