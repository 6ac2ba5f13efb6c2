//! Routes, Services and EndpointSlices as far as the interceptor reads them: there may be thousands of each. What they are
//! called is for the watch to say.

use std::collections::BTreeMap;
use std::sync::Arc;

use dormouse_api::InterceptorRoute;
use dormouse_core::routes::{Candidate, RouteSettings};
use dormouse_kubernetes::slim::or_default;
use serde::{Deserialize, Deserializer};

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An InterceptorRoute in the data plane's terms, or what is wrong with it.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "InterceptorRoute")]
pub(crate) struct Route(pub(crate) Result<Candidate<Arc<RouteSettings>>, String>);

impl From<InterceptorRoute> for Route {
    fn from(object: InterceptorRoute) -> Self {
        Self(dormouse_translate::route(&object).map_err(|refusal| refusal.to_string()))
    }
}

/// A Service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Service {
    /// Where it leads.
    #[serde(default)]
    pub(crate) spec: ServiceSpec,
}

/// The part of a Service's spec that is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub(crate) type_: String,
    /// Its own address; empty or `None` where it has none.
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: String,
    /// Whether its slices call every address ready.
    pub(crate) publish_not_ready_addresses: bool,
    /// Its ports.
    #[serde(deserialize_with = "or_default")]
    pub(crate) ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServicePort {
    /// Its name; empty where the only port has none.
    pub(crate) name: String,
    /// Its number.
    pub(crate) port: u16,
    /// What is spoken there, such as `kubernetes.io/h2c`.
    pub(crate) app_protocol: Option<String>,
}

/// A part of the addresses behind a Service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct EndpointSlice {
    /// Its Service, in the same namespace. One without is somebody else's.
    #[serde(default, rename = "metadata", deserialize_with = "service_of")]
    pub(crate) service: Option<Arc<str>>,
    /// The addresses.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) endpoints: Vec<SliceEndpoint>,
    /// The ports that all of them have.
    #[serde(default)]
    pub(crate) ports: Option<Vec<SlicePort>>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SliceEndpoint {
    /// Its addresses, of which all but the first are to be ignored.
    #[serde(deserialize_with = "or_default")]
    pub(crate) addresses: Vec<String>,
    /// What may be done with it.
    #[serde(deserialize_with = "or_default")]
    pub(crate) conditions: SliceConditions,
    /// What it belongs to.
    pub(crate) target_ref: Option<TargetRef>,
}

/// The conditions of an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct SliceConditions {
    /// May it get requests.
    pub(crate) ready: Option<bool>,
    /// Does it answer.
    pub(crate) serving: Option<bool>,
    /// Is it on its way out.
    pub(crate) terminating: Option<bool>,
}

/// What an endpoint belongs to.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct TargetRef {
    /// `Pod`, mostly.
    pub(crate) kind: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// Its uid.
    pub(crate) uid: String,
}

/// A port of a slice.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct SlicePort {
    /// The name of the Service's port.
    pub(crate) name: Option<String>,
    /// The number at the addresses.
    pub(crate) port: Option<i32>,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_slice_without_an_address_is_one_without_an_endpoint() {
        // As the API server writes it once the last pod is gone.
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "web-x", "labels": {SERVICE_NAME: "web"}}, "addressType": "IPv4", "endpoints": null, "ports": null,
        }))
        .unwrap();
        assert_eq!((slice.endpoints.len(), slice.ports), (0, None));
        assert_eq!(slice.service.as_deref(), Some("web"));
    }
}
