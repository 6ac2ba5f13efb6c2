//! Tells the scalers' egress rules where the API server is, so that no trigger can make the operator talk to it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use dormouse_kubernetes::{Calls, Priority};
use dormouse_scalers::clients::Egress;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::endpoints::ports;

/// API servers rarely move; a new one is refused no later than this after it appeared.
const REFRESH: Duration = Duration::from_secs(60);
/// While its addresses could not be read.
const RETRY: Duration = Duration::from_secs(5);
const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);

/// Where the API server is asked after.
pub struct ApiServer {
    /// Client of the API server.
    pub client: Client,
    /// Its bounded calls.
    pub calls: Calls,
    /// Host and port of the client's configuration.
    pub server: Option<(String, u16)>,
}

impl ApiServer {
    /// The API server that a client with this configuration talks to.
    #[must_use]
    pub fn new(client: Client, calls: Calls, config: &kube::Config) -> Self {
        let port = match config.cluster_url.scheme_str() {
            Some("http") => 80,
            _ => 443,
        };
        let server = config.cluster_url.host().map(|host| {
            let host = host.trim_matches(['[', ']']).to_owned();
            (host, config.cluster_url.port_u16().unwrap_or(port))
        });
        Self {
            client,
            calls,
            server,
        }
    }

    /// Keeps the rules up to date, for as long as it runs.
    pub async fn follow(self, egress: Egress) {
        let mut known = BTreeSet::new();
        let mut told = false;
        loop {
            let mut servers = self.configured().await;
            let read = self.endpoints().await;
            let complete = read.is_ok();
            match read {
                Ok(endpoints) => servers.extend(endpoints),
                // What is known stays refused.
                Err(error) => {
                    servers.extend(&known);
                    if !told {
                        warn!(%error, "egress: the API server's endpoints are not known");
                        told = true;
                    }
                }
            }
            if servers != known {
                info!(addresses = ?servers, "egress: triggers may not reach the API server");
                egress.set_api_servers(servers.iter().copied().collect());
                known = servers;
            }
            sleep(if complete { REFRESH } else { RETRY }).await;
        }
    }

    /// The addresses of the client's own configuration: in a pod, the Service `kubernetes`.
    async fn configured(&self) -> BTreeSet<SocketAddr> {
        let Some((host, port)) = &self.server else {
            return BTreeSet::new();
        };
        match timeout(LOOKUP_DEADLINE, lookup_host((host.as_str(), *port))).await {
            Ok(Ok(addresses)) => addresses.collect(),
            _ => BTreeSet::new(),
        }
    }

    /// The addresses behind it, which the API server itself writes into a slice of this name.
    async fn endpoints(&self) -> Result<BTreeSet<SocketAddr>, dormouse_kubernetes::CallError> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), "default");
        let reading = api.get_opt("kubernetes");
        let slice = self
            .calls
            .unary(Priority::Normal, "read the API server's EndpointSlice", reading)
            .await?;
        Ok(slice.map(|slice| addresses(&slice)).unwrap_or_default())
    }
}

fn addresses(slice: &EndpointSlice) -> BTreeSet<SocketAddr> {
    let ports = ports(slice);
    let hosts = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    hosts
        .filter_map(|host| host.parse().ok())
        .flat_map(|host| ports.iter().map(move |port| SocketAddr::new(host, *port)))
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort};

    use super::*;

    #[test]
    fn every_address_with_every_port() {
        let port = |port| EndpointPort {
            port: Some(port),
            ..Default::default()
        };
        let slice = EndpointSlice {
            endpoints: vec![Endpoint {
                addresses: vec!["10.10.0.1".into(), "10.10.0.2".into()],
                ..Default::default()
            }],
            ports: Some(vec![port(6443), port(8443)]),
            ..Default::default()
        };
        let found: Vec<String> = addresses(&slice).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "10.10.0.1:6443",
                "10.10.0.1:8443",
                "10.10.0.2:6443",
                "10.10.0.2:8443"
            ]
        );
    }
}
