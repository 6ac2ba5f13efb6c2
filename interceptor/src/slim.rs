//! Routes, Services and EndpointSlices as far as the interceptor reads them: there may be thousands of each. What they are
//! called is for the watch to say.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use dormouse_api::InterceptorRoute;
use dormouse_core::endpoints::{Conditions, PodKey};
use dormouse_core::routes::{Candidate, RouteSettings};
use dormouse_kubernetes::shared_name;
use dormouse_kubernetes::slim::or_default;
use dormouse_proxy::Protocol;
use serde::{Deserialize, Deserializer};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An InterceptorRoute as the data plane wants it, or why it cannot be that.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "InterceptorRoute")]
pub(crate) struct Route(pub(crate) Result<Candidate<Arc<RouteSettings>>, String>);

impl From<InterceptorRoute> for Route {
    fn from(object: InterceptorRoute) -> Self {
        let mut route = dormouse_translate::route(&object).map_err(|refusal| refusal.to_string());
        if let Ok(candidate) = &mut route {
            candidate.key.namespace = shared_name(&candidate.key.namespace);
            // Nobody else has them yet.
            if let Some(settings) = Arc::get_mut(&mut candidate.value) {
                settings.key = candidate.key.clone();
                settings.target.namespace = Arc::clone(&candidate.key.namespace);
            }
        }
        Self(route)
    }
}

/// A Service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(from = "raw::Service")]
pub(crate) struct Service {
    /// Whether it is only a name in DNS.
    pub(crate) is_external: bool,
    /// Its own address; `None` while it has none, and where it never has.
    pub(crate) address: Option<IpAddr>,
    /// Stands for the labels of its pods: another one for others.
    pub(crate) selector: u64,
    /// Of which families its endpoints are.
    pub(crate) families: Families,
    /// Whether every address is listed as ready.
    pub(crate) publishes_not_ready: bool,
    /// Its ports.
    pub(crate) ports: Box<[ServicePort]>,
}

/// Families of addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Families {
    ipv4: bool,
    ipv6: bool,
}

impl Families {
    pub(crate) fn has(self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServicePort {
    /// Empty where it has no name.
    pub(crate) name: Arc<str>,
    pub(crate) number: u16,
    /// Where it comes out at a pod.
    pub(crate) target: TargetPort,
    pub(crate) protocol: Protocol,
}

/// A port of a pod.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TargetPort {
    Number(u16),
    /// That of a container which calls it so.
    Name(Arc<str>),
}

/// An EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(from = "raw::EndpointSlice")]
pub(crate) struct EndpointSlice {
    /// The Service that it is of, by its label.
    pub(crate) service: Option<Arc<str>>,
    pub(crate) endpoints: Box<[SliceEndpoint]>,
    pub(crate) ports: Box<[SlicePort]>,
}

/// An endpoint of a slice.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SliceEndpoint {
    /// The first of its addresses: all others are to be ignored, the API says.
    pub(crate) address: IpAddr,
    pub(crate) conditions: Conditions,
    /// The pod that it is said to be of.
    pub(crate) pod: Option<PodKey>,
}

/// A port of a slice.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SlicePort {
    /// Empty where it has no name.
    pub(crate) name: Arc<str>,
    pub(crate) number: u16,
}

/// The same as the API has it.
mod raw {
    use std::hash::{DefaultHasher, Hash, Hasher};

    use super::{
        Arc, BTreeMap, Conditions, Deserialize, Deserializer, Families, PodKey, Protocol, SERVICE_NAME,
        TargetPort, or_default, shared_name,
    };
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    #[derive(Deserialize)]
    pub(super) struct Service {
        #[serde(default)]
        spec: ServiceSpec,
    }

    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct ServiceSpec {
        #[serde(rename = "type")]
        type_: String,
        /// Empty while it is not assigned, and `None` where there is none.
        #[serde(rename = "clusterIP")]
        cluster_ip: String,
        /// The API server fills them in.
        #[serde(deserialize_with = "or_default")]
        ip_families: Vec<String>,
        publish_not_ready_addresses: bool,
        #[serde(deserialize_with = "or_default")]
        selector: BTreeMap<String, String>,
        #[serde(deserialize_with = "or_default")]
        ports: Vec<ServicePort>,
    }

    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct ServicePort {
        name: String,
        port: u16,
        /// The port itself where there is none.
        target_port: Option<IntOrString>,
        protocol: Option<String>,
        app_protocol: Option<String>,
    }

    impl ServicePort {
        fn target(&self) -> TargetPort {
            match &self.target_port {
                Some(IntOrString::String(name)) if !name.is_empty() => TargetPort::Name(shared_name(name)),
                Some(IntOrString::Int(number @ 1..)) => {
                    TargetPort::Number((*number).try_into().unwrap_or_default())
                }
                _ => TargetPort::Number(self.port),
            }
        }

        /// Of UDP there may be a port of the same number.
        fn is_tcp(&self) -> bool {
            matches!(self.protocol.as_deref(), None | Some("" | "TCP"))
        }
    }

    impl From<Service> for super::Service {
        fn from(Service { spec }: Service) -> Self {
            let ports = spec.ports.iter().filter(|port| port.is_tcp());
            let ports = ports.map(|port| super::ServicePort {
                name: shared_name(&port.name),
                number: port.port,
                target: port.target(),
                protocol: protocol(port.app_protocol.as_deref()),
            });
            let mut selector = DefaultHasher::new();
            spec.selector.hash(&mut selector);
            Self {
                selector: selector.finish(),
                is_external: spec.type_ == "ExternalName",
                address: spec.cluster_ip.parse().ok(),
                families: Families {
                    ipv4: spec.ip_families.iter().any(|family| family == "IPv4"),
                    ipv6: spec.ip_families.iter().any(|family| family == "IPv6"),
                },
                publishes_not_ready: spec.publish_not_ready_addresses,
                ports: ports.collect(),
            }
        }
    }

    fn protocol(app_protocol: Option<&str>) -> Protocol {
        match app_protocol {
            Some("kubernetes.io/h2c") => Protocol::H2c,
            Some("https" | "kubernetes.io/wss") => Protocol::Https,
            _ => Protocol::Http1,
        }
    }

    #[derive(Deserialize)]
    pub(super) struct EndpointSlice {
        #[serde(default, rename = "metadata", deserialize_with = "service_of")]
        service: Option<Arc<str>>,
        /// `null` once there is none any more.
        #[serde(default, deserialize_with = "or_default")]
        endpoints: Vec<Endpoint>,
        #[serde(default, deserialize_with = "or_default")]
        ports: Vec<Port>,
    }

    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Endpoint {
        #[serde(deserialize_with = "or_default")]
        addresses: Vec<String>,
        #[serde(deserialize_with = "or_default")]
        conditions: EndpointConditions,
        target_ref: Option<TargetRef>,
    }

    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct EndpointConditions {
        ready: Option<bool>,
        serving: Option<bool>,
        terminating: Option<bool>,
    }

    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct TargetRef {
        kind: String,
        namespace: String,
        name: String,
        uid: String,
    }

    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Port {
        name: Option<String>,
        port: Option<i32>,
    }

    impl From<EndpointSlice> for super::EndpointSlice {
        fn from(slice: EndpointSlice) -> Self {
            let ports = slice.ports.into_iter().filter_map(|port| {
                Some(super::SlicePort {
                    name: shared_name(port.name.as_deref().unwrap_or_default()),
                    number: port.port?.try_into().ok()?,
                })
            });
            Self {
                service: slice.service,
                endpoints: slice.endpoints.iter().filter_map(Endpoint::slim).collect(),
                ports: ports.collect(),
            }
        }
    }

    impl Endpoint {
        fn slim(&self) -> Option<super::SliceEndpoint> {
            let owner = self.target_ref.as_ref().filter(|owner| owner.kind == "Pod");
            Some(super::SliceEndpoint {
                address: self.addresses.first()?.parse().ok()?,
                conditions: Conditions {
                    ready: self.conditions.ready,
                    serving: self.conditions.serving,
                    terminating: self.conditions.terminating,
                },
                pod: owner.map(|owner| PodKey {
                    namespace: shared_name(&owner.namespace),
                    name: owner.name.as_str().into(),
                    uid: owner.uid.as_str().into(),
                }),
            })
        }
    }

    fn service_of<'de, D: Deserializer<'de>>(metadata: D) -> Result<Option<Arc<str>>, D::Error> {
        #[derive(Deserialize)]
        struct Labelled {
            #[serde(default, deserialize_with = "or_default")]
            labels: BTreeMap<String, String>,
        }
        let mut labels = Labelled::deserialize(metadata)?.labels;
        Ok(labels.remove(SERVICE_NAME).map(Into::into))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_spoken_at_a_port_is_what_it_says() {
        let ports = json!([
            {"name": "dns", "port": 443, "protocol": "UDP", "appProtocol": "kubernetes.io/h2c"},
            {"name": "a", "port": 443, "protocol": "TCP", "appProtocol": "https"},
            {"name": "b", "port": 444, "appProtocol": "kubernetes.io/wss"},
            {"name": "c", "port": 445, "appProtocol": "kubernetes.io/h2c"},
            {"name": "d", "port": 446, "appProtocol": "kubernetes.io/ws"},
            {"name": "e", "port": 447, "appProtocol": "example.com/own"},
            {"name": "f", "port": 448},
        ]);
        let service: Service = serde_json::from_value(json!({"spec": {"ports": ports}})).unwrap();
        let ports = service.ports.iter();
        let spoken: Vec<_> = ports.map(|port| (&*port.name, port.protocol)).collect();
        assert_eq!(
            spoken,
            [
                ("a", Protocol::Https),
                ("b", Protocol::Https),
                ("c", Protocol::H2c),
                ("d", Protocol::Http1),
                ("e", Protocol::Http1),
                ("f", Protocol::Http1),
            ]
        );
    }

    #[test]
    fn a_port_comes_out_where_it_says_or_at_itself() {
        let ports = json!([
            {"port": 80, "targetPort": 8080}, {"port": 81, "targetPort": "http"}, {"port": 82}, {"port": 83, "targetPort": 0},
        ]);
        let service: Service = serde_json::from_value(json!({"spec": {"ports": ports}})).unwrap();
        let targets: Vec<_> = service.ports.iter().map(|port| port.target.clone()).collect();
        let expected = [
            TargetPort::Number(8080),
            TargetPort::Name("http".into()),
            TargetPort::Number(82),
            TargetPort::Number(83),
        ];
        assert_eq!(targets, expected);
    }

    #[test]
    fn a_slice_without_an_address_is_one_without_an_endpoint() {
        // As the API server writes it once the last pod is gone.
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "web-x", "labels": {SERVICE_NAME: "web"}}, "addressType": "IPv4", "endpoints": null, "ports": null,
        }))
        .unwrap();
        assert_eq!((slice.endpoints.len(), slice.ports.len()), (0, 0));
        assert_eq!(slice.service.as_deref(), Some("web"));
    }
}
