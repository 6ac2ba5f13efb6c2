//! Ready addresses behind a Service, for triggers that ask every pod.

use std::collections::BTreeMap;

use dormouse_kubernetes::{CallError, Calls, Priority};
use dormouse_scalers::connect::ReadyEndpoint;
use dormouse_scalers::error::ReadErrorKind;
use dormouse_scalers::{ReadError, ServiceEndpoints};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Slices read at most; one holds up to 100 addresses.
const MOST_SLICES: u32 = 50;

/// Reads EndpointSlices when asked.
pub struct SliceEndpoints {
    /// Client of the API server.
    pub client: Client,
    /// Its bounded calls.
    pub calls: Calls,
}

impl SliceEndpoints {
    async fn list(&self, namespace: &str, service: &str) -> Result<Vec<ReadyEndpoint>, ReadError> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), namespace);
        let params = ListParams::default()
            .labels(&format!("{SERVICE_NAME}={service}"))
            .limit(MOST_SLICES);
        let slices = self
            .calls
            .unary(
                Priority::Normal,
                "list the EndpointSlices of a Service",
                api.list(&params),
            )
            .await;
        let slices = slices.map_err(|error| {
            let kind = match error {
                CallError::Forbidden { .. } => ReadErrorKind::Denied,
                CallError::Timeout { .. } => ReadErrorKind::Timeout,
                _ => ReadErrorKind::Unreachable,
            };
            ReadError::new(kind, format!("{error} (Service {namespace}/{service})"))
        })?;
        Ok(ready(slices.items))
    }
}

/// The ports of all addresses of a slice.
pub(crate) fn ports(slice: &EndpointSlice) -> Vec<u16> {
    let all = slice.ports.iter().flatten();
    all.filter_map(|port| u16::try_from(port.port?).ok()).collect()
}

/// The ready addresses of the slices, each once, with the ports of all slices that have it.
fn ready(slices: Vec<EndpointSlice>) -> Vec<ReadyEndpoint> {
    let mut ports_of: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    for slice in slices {
        let ports = ports(&slice);
        // Absent means ready: the API says so.
        let is_ready = |conditions: Option<bool>| conditions.unwrap_or(true);
        for endpoint in slice.endpoints {
            if is_ready(
                endpoint
                    .conditions
                    .as_ref()
                    .and_then(|conditions| conditions.ready),
            ) {
                for address in endpoint.addresses {
                    let known = ports_of.entry(address).or_default();
                    known.extend(
                        ports
                            .iter()
                            .filter(|port| !known.contains(port))
                            .copied()
                            .collect::<Vec<_>>(),
                    );
                }
            }
        }
    }
    ports_of
        .into_iter()
        .map(|(address, ports)| ReadyEndpoint { address, ports })
        .collect()
}

impl ServiceEndpoints for SliceEndpoints {
    fn ready<'a>(
        &'a self,
        namespace: &'a str,
        service: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ReadyEndpoint>, ReadError>> {
        self.list(namespace, service).boxed()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};

    use super::*;

    #[test]
    fn only_ready_addresses_count_and_each_once() {
        let endpoint = |address: &str, ready: Option<bool>| Endpoint {
            addresses: vec![address.into()],
            conditions: Some(EndpointConditions {
                ready,
                ..Default::default()
            }),
            ..Default::default()
        };
        let slice = |port: i32, endpoints: Vec<Endpoint>| EndpointSlice {
            address_type: "IPv4".into(),
            endpoints,
            ports: Some(vec![EndpointPort {
                port: Some(port),
                ..Default::default()
            }]),
            ..Default::default()
        };
        let found = ready(vec![
            slice(
                8080,
                vec![
                    endpoint("10.0.0.1", Some(true)),
                    endpoint("10.0.0.2", Some(false)),
                ],
            ),
            slice(9090, vec![endpoint("10.0.0.1", None)]),
        ]);
        assert_eq!(
            found,
            [ReadyEndpoint {
                address: "10.0.0.1".into(),
                ports: vec![8080, 9090]
            }]
        );
    }
}
