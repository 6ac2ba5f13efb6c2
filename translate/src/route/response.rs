//! Answers that the interceptor gives by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use dormouse_api::{
    ConfigMapKeyRef, StaticResponse as ResponseSpec, StaticRoute as StaticRouteSpec, route_defaults,
};
use dormouse_core::routes::is_token;
use dormouse_core::routes::settings::{
    ConfigMapBody, ResponseBody, ResponseMode, StaticResponse, StaticRoute,
};

use super::faults::Faults;
use super::matching;

/// Characters of a body, as the custom resource has it.
pub(super) const LONGEST_BODY: usize = 32_768;
/// Hosts, paths and headers of all static routes together: they are looked at one after the other for each request.
const MOST_CONDITIONS: usize = 1024;
/// Headers that frame a message or belong to a connection, which are the interceptor's.
const RESERVED: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn static_routes(specs: &[StaticRouteSpec], faults: &mut Faults) -> Vec<StaticRoute> {
    let rules = specs.iter().flat_map(|spec| &spec.rules);
    let conditions: usize = rules
        .map(|rule| 1 + rule.hosts.len() + rule.paths.len() + rule.headers.len())
        .sum();
    if conditions > MOST_CONDITIONS {
        faults.add(format!(
            "spec.staticRoutes have {conditions} rules, hosts, paths and headers: at most {MOST_CONDITIONS} are accepted"
        ));
    }
    let route = |(index, spec)| static_route(&format!("spec.staticRoutes[{index}]"), spec, faults);
    specs.iter().enumerate().map(route).collect()
}

fn static_route(at: &str, spec: &StaticRouteSpec, faults: &mut Faults) -> StaticRoute {
    if spec.rules.is_empty() {
        faults.add(format!("{at}.rules is empty: at least one rule is accepted"));
    }
    let mode = spec.response_mode.as_deref();
    let mode = match mode.unwrap_or(route_defaults::RESPONSE_MODE) {
        "Always" => ResponseMode::Always,
        "WhenUnavailable" => ResponseMode::WhenUnavailable,
        other => {
            let field = format_args!("{at}.responseMode");
            faults.refuse(field, other, "Always or WhenUnavailable");
            ResponseMode::default()
        }
    };
    StaticRoute {
        rules: matching::rules(&format!("{at}.rules"), &spec.rules, faults),
        response: response(
            &format!("{at}.response"),
            &spec.response,
            route_defaults::STATIC_ROUTE_STATUS,
            faults,
        ),
        mode,
    }
}

/// The response at the field `at`.
pub(super) fn response(
    at: &str,
    spec: &ResponseSpec,
    default_status: u16,
    faults: &mut Faults,
) -> StaticResponse {
    let status = spec.status_code.map_or(Some(default_status), |code| {
        let status = u16::try_from(code).ok();
        let status = status.filter(|status| (200..=599).contains(status));
        if status.is_none() {
            let field = format_args!("{at}.statusCode");
            faults.refuse(field, code, "a final status from 200 to 599");
        }
        status
    });
    let body = match (&spec.body, &spec.body_from_config_map) {
        (None, None) => ResponseBody::Empty,
        (Some(text), None) => self::text(at, text, faults),
        (None, Some(reference)) => config_map(at, reference, faults),
        (Some(_), Some(_)) => {
            faults.add(format!(
                "{at}: at most one of 'body' or 'bodyFromConfigMap' may be set"
            ));
            ResponseBody::Empty
        }
    };
    StaticResponse {
        status: status.unwrap_or(default_status),
        body,
        headers: headers(at, &spec.headers, faults),
    }
}

fn text(at: &str, text: &str, faults: &mut Faults) -> ResponseBody {
    let length = text.chars().count();
    if length > LONGEST_BODY {
        faults.add(format!(
            "{at}.body has {length} characters: at most {LONGEST_BODY} are accepted"
        ));
    }
    ResponseBody::Text(text.into())
}

fn config_map(at: &str, reference: &ConfigMapKeyRef, faults: &mut Faults) -> ResponseBody {
    if reference.name.is_empty() {
        let field = format_args!("{at}.bodyFromConfigMap.name");
        faults.refuse(field, "", "the name of a ConfigMap");
    }
    let key = reference.key.as_deref().filter(|key| !key.is_empty());
    ResponseBody::ConfigMap(ConfigMapBody {
        name: reference.name.as_str().into(),
        key: key.map(Into::into),
    })
}

fn headers(at: &str, specs: &BTreeMap<String, String>, faults: &mut Faults) -> Vec<(Arc<str>, Arc<str>)> {
    for (name, value) in specs {
        let field = format_args!("{at}.headers[{name:?}]");
        if !is_token(name) {
            faults.add(format!(
                "{field}: a header cannot have this name; letters, digits and '-' are accepted"
            ));
        } else if RESERVED
            .iter()
            .any(|reserved| name.eq_ignore_ascii_case(reserved))
        {
            faults.add(format!(
                "{field}: the interceptor sets this header itself; leave it out"
            ));
        }
        if !value.bytes().all(is_of_value) {
            faults.refuse(
                field,
                value,
                "a value without line breaks and other control characters",
            );
        }
    }
    let pair = |(name, value): (&String, &String)| (name.as_str().into(), value.as_str().into());
    specs.iter().map(pair).collect()
}

/// Whether a header's value may have this byte (RFC 9110 §5.5).
fn is_of_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
