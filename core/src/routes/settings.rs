//! What happens to the requests of a route: everything of an InterceptorRoute but what it matches, checked and with the
//! defaults filled in.

mod cold_start;
mod response;
mod scaling;
mod timeouts;

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use super::{Destination, HeaderSet, RouteKey, Rule};

pub use cold_start::{ColdStart, Overflow};
pub use response::{ConfigMapBody, ResponseBody, ResponseMode, StaticResponse, StaticRoute};
pub use scaling::{MOST_STEPS, RequestRate, RequestRateError, ScalingMetric};
pub use timeouts::{Timeout, Timeouts};

/// How long a request waits for a ready pod before it goes to the fallback, where nothing else bounds the wait: without
/// any bound the fallback would never have its turn.
pub const READINESS_BEFORE_FALLBACK: Duration = Duration::from_secs(30);

/// What happens to the requests of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSettings {
    /// The route's name.
    pub key: RouteKey,
    /// Who answers the requests.
    pub target: ServicePort,
    /// How long each part of a request may take.
    pub timeouts: Timeouts,
    /// What happens while there is no ready pod.
    pub cold_start: ColdStart,
    /// Requests that the interceptor answers itself; the first that matches holds.
    pub static_routes: Vec<StaticRoute>,
    /// What demand is measured in.
    pub scaling: ScalingMetric,
}

impl RouteSettings {
    /// How long a request waits for a ready pod, where the interceptor's own setting is `inherited`; `None` is no bound.
    #[must_use]
    pub fn readiness(&self, inherited: Option<Duration>) -> Option<Duration> {
        let before_fallback = self
            .cold_start
            .fallback
            .as_ref()
            .map(|_| READINESS_BEFORE_FALLBACK);
        self.timeouts.readiness.or(inherited).or(before_fallback)
    }

    /// The static route of a request, if it has one.
    #[must_use]
    pub fn static_route(
        &self,
        destination: &Destination<'_>,
        headers: &impl HeaderSet,
    ) -> Option<&StaticRoute> {
        let matches = |rule: &Rule| rule.matches(destination, headers);
        self.static_routes
            .iter()
            .find(|route| route.rules.iter().any(matches))
    }
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePort {
    /// Namespace of the Service.
    pub namespace: Arc<str>,
    /// Name of the Service.
    pub service: Arc<str>,
    /// The port.
    pub port: Port,
}

/// How a port of a Service is named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// By its number.
    Number(NonZeroU16),
    /// By its name.
    Name(Arc<str>),
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:", self.namespace, self.service)?;
        match &self.port {
            Port::Number(number) => number.fmt(f),
            Port::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{HostPattern, PathPrefix};

    struct NoHeaders;

    impl HeaderSet for NoHeaders {
        fn has(&self, _: &str, _: Option<&str>) -> bool {
            false
        }
    }

    fn settings() -> RouteSettings {
        RouteSettings {
            key: RouteKey::new("shop", "web"),
            target: service("web"),
            timeouts: Timeouts::default(),
            cold_start: ColdStart::default(),
            static_routes: Vec::new(),
            scaling: ScalingMetric::default(),
        }
    }

    fn service(name: &str) -> ServicePort {
        ServicePort {
            namespace: "shop".into(),
            service: name.into(),
            port: Port::Name("http".into()),
        }
    }

    #[test]
    fn ports_are_shown_by_number_or_name() {
        assert_eq!(service("web").to_string(), "shop/web:http");
        let port = Port::Number(NonZeroU16::MIN);
        assert_eq!(
            ServicePort {
                port,
                ..service("web")
            }
            .to_string(),
            "shop/web:1"
        );
    }

    #[test]
    fn a_fallback_has_its_turn() {
        let second = Duration::from_secs(1);
        let own = Timeout::After(second * 5);
        for (readiness, inherited, expected, with_fallback) in [
            (Timeout::Inherited, None, None, Some(READINESS_BEFORE_FALLBACK)),
            (Timeout::Inherited, Some(second), Some(second), Some(second)),
            (Timeout::None, Some(second), None, Some(READINESS_BEFORE_FALLBACK)),
            (own, Some(second), Some(second * 5), Some(second * 5)),
        ] {
            let mut settings = settings();
            settings.timeouts.readiness = readiness;
            assert_eq!(settings.readiness(inherited), expected, "{readiness:?}");
            settings.cold_start.fallback = Some(service("sorry"));
            assert_eq!(settings.readiness(inherited), with_fallback, "{readiness:?}");
        }
    }

    #[test]
    fn the_first_static_route_that_matches_holds() {
        let to = |status, hosts: &[&str], path| StaticRoute {
            rules: vec![
                Rule::new(vec![HostPattern::Exact("never".into())], vec![], vec![]),
                Rule::new(
                    hosts
                        .iter()
                        .map(|host| HostPattern::parse(host).unwrap())
                        .collect(),
                    vec![PathPrefix::new(path)],
                    vec![],
                ),
            ],
            response: StaticResponse {
                status,
                body: ResponseBody::Empty,
                headers: Vec::new(),
            },
            mode: ResponseMode::Always,
        };
        let settings = RouteSettings {
            static_routes: vec![
                to(201, &["a.b"], "/x/y"),
                to(202, &[], "/x"),
                to(203, &[], "/x/y"),
            ],
            ..settings()
        };
        for (host, path, expected) in [
            ("A.b:80", "/x/%79", Some(201)),
            ("b.b", "/x/y", Some(202)),
            ("a.b", "/x", Some(202)),
            ("a.b", "/xy", None),
        ] {
            let destination = Destination::new(host, path);
            let found = settings.static_route(&destination, &NoHeaders);
            assert_eq!(found.map(|route| route.response.status), expected, "{host}{path}");
        }
    }
}
