//! From messages to demand.

use std::collections::BTreeMap;
use std::sync::Arc;

use dormouse_core::demand::{DemandReport, MOST_ROUTES, RouteDemand, RouteKey};
use dormouse_wire::demand as wire;
use tonic::Status;

/// The demand in a report of `reporter`.
///
/// # Errors
/// More routes than a report may have, or one without a name.
pub(super) fn report(
    reporter: &Arc<str>,
    session: u64,
    report: wire::Report,
) -> Result<DemandReport, Status> {
    if report.routes.len() > MOST_ROUTES {
        return Err(Status::resource_exhausted(format!(
            "a report of {} routes: {MOST_ROUTES} are accepted",
            report.routes.len()
        )));
    }
    // Routes of one namespace share its name.
    let mut namespaces: BTreeMap<String, Arc<str>> = BTreeMap::new();
    let mut routes = BTreeMap::new();
    for demand in report.routes {
        let name = demand.route.unwrap_or_default();
        if name.namespace.is_empty() || name.name.is_empty() {
            return Err(Status::invalid_argument("a route without namespace or name"));
        }
        let namespace = namespaces
            .entry(name.namespace)
            .or_insert_with_key(|namespace| namespace.as_str().into());
        let demand_of_route = RouteDemand {
            pending: demand.pending,
            in_flight: demand.in_flight,
            started: demand.started,
        };
        routes.insert(RouteKey::new(namespace.clone(), name.name), demand_of_route);
    }
    Ok(DemandReport {
        reporter: reporter.clone(),
        session,
        sequence: report.sequence,
        routes,
        goodbye: false,
    })
}

/// The last report of a session.
pub(super) fn goodbye(reporter: &Arc<str>, session: u64, goodbye: wire::Goodbye) -> DemandReport {
    DemandReport {
        reporter: reporter.clone(),
        session,
        sequence: goodbye.sequence,
        routes: BTreeMap::new(),
        goodbye: true,
    }
}

/// A message to an interceptor.
pub(super) fn to_interceptor(message: wire::from_operator::Message) -> wire::FromOperator {
    wire::FromOperator {
        message: Some(message),
    }
}

/// How one pod may be probed, told to an interceptor.
pub(super) fn probe_spec(probe: &wire::PodProbe) -> wire::FromOperator {
    let pods = vec![probe.clone()];
    to_interceptor(wire::from_operator::Message::ProbeSpecs(wire::ProbeSpecs {
        pods,
    }))
}
