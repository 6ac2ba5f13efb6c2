//! From a Service port to where its requests go.
//!
//! ```text
//! ServicePort (of a route) + Service + its EndpointSlices + its newcomers ──resolve──> Backend, or why there is none
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use dormouse_core::endpoints::{Conditions, Endpoint, EndpointSet, Standing};
use dormouse_core::routes::settings::{Port, ServicePort};
use dormouse_proxy::Protocol;

use crate::newcomers::Newcomer;
use crate::slim::{EndpointSlice, Service, SliceEndpoint, SlicePort};

/// Where the requests of a Service port go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    /// The addresses behind it.
    pub(crate) endpoints: EndpointSet,
    /// What is spoken there.
    pub(crate) protocol: Protocol,
    /// The Service's own address and port, where it has one.
    pub(crate) cluster: Option<SocketAddr>,
}

impl Backend {
    /// The same through the Service's own address, where it has one: the cluster's network picks the pod. Whether there is a
    /// pod to pick is still for the slices to say.
    pub(crate) fn through_service(self) -> Self {
        let Some(cluster) = self.cluster else {
            return self;
        };
        let reaches = |wanted| self.endpoints.iter().any(|(_, standing)| standing == wanted);
        let conditions = Conditions {
            ready: Some(reaches(Standing::Ready)),
            serving: Some(reaches(Standing::Ready) || reaches(Standing::Leaving)),
            terminating: Some(!reaches(Standing::Ready)),
        };
        let through = conditions.serving.filter(|serving| *serving);
        let endpoints = through.map(|_| Endpoint::new(cluster, None, conditions));
        Self {
            endpoints: EndpointSet::new(endpoints, false),
            ..self
        }
    }
}

/// Why a Service port leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unresolved {
    /// There is no such Service.
    #[error("Service {service:?} does not exist in namespace {namespace:?}")]
    NoService {
        /// Its namespace.
        namespace: String,
        /// Its name.
        service: String,
    },
    /// The Service has other ports.
    #[error("{wanted} is no port of that Service; it has {known}")]
    NoPort {
        /// The Service and the port that was wanted.
        wanted: String,
        /// Those it has.
        known: String,
    },
    /// The Service is a name in DNS and has no endpoints.
    #[error("Service {service:?} is of type ExternalName, which is not accepted")]
    ExternalName {
        /// Its name.
        service: String,
    },
}

/// Finds the port of a Service and gathers what its slices say about it; pods that they do not name yet are beside them.
///
/// # Errors
/// The Service or the port is not there, or it leads out of the cluster.
pub(crate) fn resolve<'n>(
    wanted: &ServicePort,
    service: Option<&Service>,
    slices: &[Arc<EndpointSlice>],
    newcomers: impl Iterator<Item = &'n Newcomer>,
) -> Result<Backend, Unresolved> {
    let name = wanted.service.to_string();
    let Some(service) = service else {
        let namespace = wanted.namespace.to_string();
        return Err(Unresolved::NoService {
            namespace,
            service: name,
        });
    };
    if service.is_external {
        return Err(Unresolved::ExternalName { service: name });
    }
    let is_wanted = |number: u16, named: &str| match &wanted.port {
        Port::Number(port) => port.get() == number,
        Port::Name(port) => **port == *named,
    };
    let ports = &service.ports;
    let Some(port) = ports.iter().find(|port| is_wanted(port.number, &port.name)) else {
        let known: Vec<_> = ports
            .iter()
            .map(|port| format!("{} {:?}", port.number, port.name))
            .collect();
        return Err(Unresolved::NoPort {
            wanted: wanted.to_string(),
            known: known.join(", "),
        });
    };
    let unlisted = newcomers.filter_map(|newcomer| newcomer.endpoint(service, port));
    let listed = slices.iter().flat_map(|slice| {
        let of_that_name = slice.ports.iter().find(|own| own.name == port.name);
        let of = |own: &SlicePort| {
            let number = own.number;
            let endpoints = slice.endpoints.iter();
            endpoints.map(move |endpoint| of_slice(&wanted.namespace, endpoint, number))
        };
        of_that_name.map(of).into_iter().flatten()
    });
    Ok(Backend {
        endpoints: EndpointSet::new(listed.chain(unlisted), service.publishes_not_ready),
        protocol: port.protocol,
        cluster: service
            .address
            .map(|address| SocketAddr::new(address, port.number)),
    })
}

fn of_slice(namespace: &str, endpoint: &SliceEndpoint, port: u16) -> Endpoint {
    // Whoever may write slices must not make the interceptor believe that another namespace's pod is its own.
    let pod = endpoint.pod.clone().filter(|pod| *pod.namespace == *namespace);
    Endpoint::new(SocketAddr::new(endpoint.address, port), pod, endpoint.conditions)
}

#[cfg(test)]
mod tests {
    use std::iter;
    use std::num::NonZeroU16;

    use serde_json::json;

    use super::*;

    fn wanted(port: Port) -> ServicePort {
        ServicePort {
            namespace: "shop".into(),
            service: "web".into(),
            port,
        }
    }

    fn number(port: u16) -> ServicePort {
        wanted(Port::Number(NonZeroU16::new(port).unwrap()))
    }

    fn service(spec: serde_json::Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}))
            .unwrap()
    }

    fn slice(ports: serde_json::Value, endpoints: serde_json::Value) -> Arc<EndpointSlice> {
        let slice = json!({"metadata": {"name": "web-1", "namespace": "shop"}, "ports": ports, "endpoints": endpoints});
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    fn pod(address: &str, name: &str, namespace: &str, ready: bool) -> serde_json::Value {
        json!({
            "addresses": [address, "10.9.9.9"], "conditions": {"ready": ready, "serving": ready},
            "targetRef": {"kind": "Pod", "namespace": namespace, "name": name, "uid": format!("uid-{name}")},
        })
    }

    #[test]
    fn a_port_is_found_by_number_or_name_and_leads_to_the_slices_port_of_that_name() {
        let service = service(json!({
            "type": "ClusterIP", "clusterIP": "10.96.0.7",
            "ports": [{"name": "admin", "port": 81}, {"name": "http", "port": 80, "appProtocol": "kubernetes.io/h2c"}],
        }));
        let slices = [slice(
            json!([{"name": "http", "port": 8080}, {"name": "admin", "port": 9000}]),
            json!([
                pod("10.0.0.1", "a", "shop", true),
                pod("10.0.0.2", "b", "shop", false)
            ]),
        )];
        for wanted in [number(80), wanted(Port::Name("http".into()))] {
            let backend = resolve(&wanted, Some(&service), &slices, iter::empty()).unwrap();
            let seen: Vec<_> = backend
                .endpoints
                .iter()
                .map(|(endpoint, standing)| (endpoint.address.to_string(), standing))
                .collect();
            assert_eq!(
                seen,
                [
                    ("10.0.0.1:8080".to_owned(), Standing::Ready),
                    ("10.0.0.2:8080".to_owned(), Standing::Starting)
                ]
            );
            assert_eq!(backend.protocol, Protocol::H2c);
            assert_eq!(backend.cluster, Some("10.96.0.7:80".parse().unwrap()));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let service = service(json!({"ports": [{"name": "http", "port": 80}]}));
        let error = resolve(&number(80), None, &[], iter::empty()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Service \"web\" does not exist in namespace \"shop\""
        );
        let error = resolve(&number(8080), Some(&service), &[], iter::empty()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "shop/web:8080 is no port of that Service; it has 80 \"http\""
        );
        let outside = self::service(json!({"type": "ExternalName", "ports": [{"port": 80}]}));
        let error = resolve(&number(80), Some(&outside), &[], iter::empty()).unwrap_err();
        assert!(matches!(error, Unresolved::ExternalName { .. }), "{error}");
    }

    #[test]
    fn a_slice_without_the_port_has_no_endpoints_for_it() {
        let service = service(json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}));
        let slices = [slice(
            json!([{"name": "admin", "port": 9000}]),
            json!([pod("10.0.0.1", "a", "shop", true)]),
        )];
        let backend = resolve(&number(80), Some(&service), &slices, iter::empty()).unwrap();
        assert_eq!(backend.endpoints.iter().count(), 0);
        assert_eq!(backend.cluster, None);
    }

    #[test]
    fn through_the_service_there_is_one_address_while_there_are_pods() {
        let spec = json!({"clusterIP": "10.96.0.7", "ports": [{"port": 80}]});
        let headless = json!({"clusterIP": "None", "ports": [{"port": 80}]});
        let seen = |spec: &serde_json::Value, pods: serde_json::Value| {
            let slices = [slice(json!([{"port": 8080}]), pods)];
            let backend = resolve(&number(80), Some(&service(spec.clone())), &slices, iter::empty()).unwrap();
            let backend = backend.through_service();
            let seen = backend.endpoints.iter();
            seen.map(|(endpoint, standing)| (endpoint.address.to_string(), standing))
                .collect::<Vec<_>>()
        };
        let (ready, starting) = (
            pod("10.0.0.1", "a", "shop", true),
            pod("10.0.0.2", "b", "shop", false),
        );
        let mut leaving = ready.clone();
        leaving["conditions"] = json!({"ready": false, "serving": true, "terminating": true});
        let service_address = |standing| vec![("10.96.0.7:80".to_owned(), standing)];
        assert_eq!(
            seen(&spec, json!([ready, starting])),
            service_address(Standing::Ready)
        );
        assert_eq!(seen(&spec, json!([leaving])), service_address(Standing::Leaving));
        assert_eq!(seen(&spec, json!([starting])), []);
        assert_eq!(
            seen(&headless, json!([ready])),
            [("10.0.0.1:8080".to_owned(), Standing::Ready)]
        );
    }

    #[test]
    fn an_address_that_is_said_to_be_anothers_pod_is_never_probed() {
        let service = service(json!({"ports": [{"port": 80}]}));
        let slices = [slice(
            json!([{"port": 8080}]),
            json!([
                pod("10.0.0.1", "a", "bank", false),
                pod("10.0.0.2", "b", "bank", true)
            ]),
        )];
        let backend = resolve(&number(80), Some(&service), &slices, iter::empty()).unwrap();
        let seen: Vec<_> = backend
            .endpoints
            .iter()
            .map(|(endpoint, standing)| (endpoint.pod.clone(), standing))
            .collect();
        assert_eq!(seen, [(None, Standing::Unusable), (None, Standing::Ready)]);
    }
}
