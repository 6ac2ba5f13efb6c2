//! An InterceptorRoute as the interceptor runs it: what it matches, and what happens to those requests.

mod faults;
mod matching;
mod response;
mod scaling;
#[cfg(test)]
mod tests;

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use dormouse_api::{ColdStart as ColdStartSpec, InterceptorRoute, route_defaults};
use dormouse_core::routes::settings::{ColdStart, Overflow, Port, ServicePort, Timeout, Timeouts};
use dormouse_core::routes::{Candidate, RouteKey, RouteSettings};
use dormouse_scalers::metadata::TimeSpan;

use faults::Faults;

pub use faults::RouteRefusal;

/// What durations are accepted.
const DURATION: &str = "a duration of at least 0, such as 1m30s or 500ms,";

/// Turns an InterceptorRoute into a candidate for the table of routes.
///
/// The rules of the custom resource are held again: the object may have been written under another version of it. Whether
/// the Services and ConfigMaps that it names exist is not known here. A route without rules is in order and matches nothing.
///
/// # Errors
/// Everything that is wrong with the object, not just the first.
pub fn route(object: &InterceptorRoute) -> Result<Candidate<Arc<RouteSettings>>, RouteRefusal> {
    let (metadata, spec) = (&object.metadata, &object.spec);
    let key = RouteKey::new(
        metadata.namespace.as_deref().unwrap_or("default"),
        metadata.name.as_deref().unwrap_or_default(),
    );
    let mut faults = Faults::default();
    let rules = matching::rules("spec.rules", &spec.rules, &mut faults);
    matching::keep_small(&rules, &mut faults);
    let target = PortRef {
        at: "spec.target",
        name: ("service", &spec.target.service),
        port: spec.target.port,
        port_name: spec.target.port_name.as_deref(),
    };
    let target = service_port(&key, &target, &mut faults);
    let scaling = scaling::metric(&spec.scaling_metric, &mut faults);
    let cold_start = spec.cold_start.as_ref();
    let cold_start = cold_start.map(|cold_start| self::cold_start(&key, cold_start, &mut faults));
    let timeouts = spec.timeouts.as_ref();
    let timeouts = timeouts.map(|timeouts| self::timeouts(timeouts, &mut faults));
    let static_routes = response::static_routes(&spec.static_routes, &mut faults);
    let (Some(target), true) = (target, faults.is_empty()) else {
        return Err(faults.of(key));
    };
    let settings = RouteSettings {
        key: key.clone(),
        target,
        timeouts: timeouts.unwrap_or_default(),
        cold_start: cold_start.unwrap_or_default(),
        static_routes,
        scaling,
    };
    let created = metadata.creation_timestamp.as_ref();
    Ok(Candidate {
        key,
        uid: metadata.uid.clone().unwrap_or_default(),
        created: created.map_or(0, |time| time.0.as_second()),
        rules,
        value: Arc::new(settings),
    })
}

/// A reference to a port of a Service, as it is written.
struct PortRef<'a> {
    at: &'a str,
    /// The field that names the Service, and its value.
    name: (&'a str, &'a str),
    port: Option<i32>,
    port_name: Option<&'a str>,
}

/// `None` only beside a fault.
fn service_port(route: &RouteKey, reference: &PortRef<'_>, faults: &mut Faults) -> Option<ServicePort> {
    let (at, (field, name)) = (reference.at, reference.name);
    if name.is_empty() {
        faults.refuse(format_args!("{at}.{field}"), name, "the name of a Service");
    }
    let port = match (reference.port, reference.port_name) {
        (Some(number), None) => {
            let port = u16::try_from(number).ok().and_then(NonZeroU16::new);
            if port.is_none() {
                faults.refuse(format_args!("{at}.port"), number, "a port from 1 to 65535");
            }
            port.map(Port::Number)
        }
        (None, Some("")) => {
            faults.refuse(format_args!("{at}.portName"), "", "the name of a port");
            None
        }
        (None, Some(name)) => Some(Port::Name(name.into())),
        _ => {
            faults.add(format!("{at}: exactly one of 'port' or 'portName' must be set"));
            None
        }
    };
    Some(ServicePort {
        namespace: Arc::clone(&route.namespace),
        service: name.into(),
        port: port?,
    })
}

fn cold_start(route: &RouteKey, spec: &ColdStartSpec, faults: &mut Faults) -> ColdStart {
    let at = "spec.coldStart";
    if spec.fallback.is_none() && spec.placeholder.is_none() && spec.max_pending_requests.is_none() {
        faults.add(format!(
            "{at}: at least one of 'fallback', 'placeholder' or 'maxPendingRequests' must be set"
        ));
    }
    let fallback = spec.fallback.as_ref().and_then(|fallback| {
        let reference = PortRef {
            at: "spec.coldStart.fallback.service",
            name: ("name", &fallback.service.name),
            port: fallback.service.port,
            port_name: fallback.service.port_name.as_deref(),
        };
        service_port(route, &reference, faults)
    });
    let placeholder = spec.placeholder.as_ref().map(|placeholder| {
        let at = format!("{at}.placeholder.response");
        let status = route_defaults::PLACEHOLDER_STATUS;
        Box::new(response::response(&at, &placeholder.response, status, faults))
    });
    let max_pending = spec.max_pending_requests.and_then(|max| {
        let bound = u32::try_from(max).ok();
        if bound.is_none() {
            let field = format_args!("{at}.maxPendingRequests");
            faults.refuse(field, max, "a whole number of at least 0");
        }
        bound
    });
    let overflow = match spec.overflow.as_deref().unwrap_or(route_defaults::OVERFLOW) {
        "Placeholder" => Overflow::Placeholder,
        "Reject" => Overflow::Reject,
        other => {
            faults.refuse(format_args!("{at}.overflow"), other, "Reject or Placeholder");
            Overflow::default()
        }
    };
    if overflow == Overflow::Placeholder && placeholder.is_none() {
        faults.add(format!(
            "{at}: 'placeholder' must be set when 'overflow' is 'Placeholder'"
        ));
    }
    ColdStart {
        fallback,
        placeholder,
        max_pending,
        overflow,
    }
}

fn timeouts(spec: &dormouse_api::Timeouts, faults: &mut Faults) -> Timeouts {
    let mut timeout = |field: &str, text: Option<&str>| {
        text.and_then(|text| {
            let duration = duration(text);
            if duration.is_none() {
                faults.refuse(format_args!("spec.timeouts.{field}"), text, DURATION);
            }
            duration
        })
        .map_or(Timeout::Inherited, Timeout::from)
    };
    Timeouts {
        readiness: timeout("readiness", spec.readiness.as_deref()),
        request: timeout("request", spec.request.as_deref()),
        response_header: timeout("responseHeader", spec.response_header.as_deref()),
    }
}

/// A span of time as Go reads it: unlike in the metadata of triggers, a number needs its unit. `None` for anything else.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    if text != "0" && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    TimeSpan::parse(text).ok().map(TimeSpan::duration)
}
