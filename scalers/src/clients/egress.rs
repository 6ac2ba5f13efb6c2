//! Where scalers may connect to.
//!
//! A manifest names a server, and a name can resolve to anything: to the cloud's metadata service, to the operator's own
//! loopback, to the API server that trusts the operator. So it is the *resolved* address that is judged, in the same step
//! that connects to it: there is no moment between the check and the connection in which a name could move.
//!
//! ```text
//! name ──resolve──> addresses ──judge each──> those that may be reached ──> connect
//! address written in a URL ──judge──────────────────────────────────────> connect
//! ```

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{ReadError, ReadErrorKind};

/// A connection that is not there after this long will not come, whatever deadline the read has.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried, one after the other.
const MOST_ADDRESSES: usize = 8;

/// Metadata services whose addresses are no link-local ones: AWS and GCP over IPv6, Alibaba, Oracle, Azure.
const METADATA_SERVICES: [&str; 6] = [
    "fd00:ec2::/32",
    "fd20:ce::254/128",
    "100.100.100.200/32",
    "192.0.0.192/32",
    "168.63.129.16/32",
    "fd00:42::42/128",
];
/// IPv6 networks that carry an IPv4 address, with the byte at which it begins: NAT64 and 6to4.
const CARRIERS: [(&str, usize); 2] = [("64:ff9b::/96", 12), ("2002::/16", 2)];

/// Resolves a name.
pub type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// What the user of the process decides about egress.
#[derive(Clone)]
pub struct EgressRules {
    /// Networks that may be reached although they would be refused (`--egress-allow`).
    pub allowed: Vec<IpNet>,
    /// How names are resolved: by the system.
    pub lookup: Lookup,
}

impl Default for EgressRules {
    fn default() -> Self {
        Self {
            allowed: Vec::new(),
            lookup: Arc::new(|host| by_the_system(host).boxed()),
        }
    }
}

impl EgressRules {
    /// Rules that also allow loopback: for one machine without a cluster.
    #[must_use]
    pub fn with_loopback() -> Self {
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
        let v6 = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
        Self {
            allowed: vec![v4.into(), v6.into()],
            ..Self::default()
        }
    }
}

impl fmt::Debug for EgressRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EgressRules")
            .field("allowed", &self.allowed)
            .finish_non_exhaustive()
    }
}

/// An address that scalers may not reach.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{host} {relation} {address}, {class}, which triggers may not reach (--egress-allow lists exceptions)"
)]
pub struct EgressDenied {
    host: String,
    relation: &'static str,
    address: IpAddr,
    class: &'static str,
}

impl From<EgressDenied> for ReadError {
    fn from(denied: EgressDenied) -> Self {
        Self::new(ReadErrorKind::EgressDenied, denied.to_string())
    }
}

/// Why a host has no address.
enum HostError {
    Denied(EgressDenied),
    Unknown(io::Error),
}

impl From<EgressDenied> for HostError {
    fn from(denied: EgressDenied) -> Self {
        Self::Denied(denied)
    }
}

/// Which port a connection is for. An HTTP client's resolver is not told, so that there is one client for the ports on
/// which API servers listen, and one for all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    Port(u16),
    ApiServerPorts,
    OtherPorts,
}

/// The rules in force; a cheap handle.
#[derive(Clone)]
pub struct Egress {
    rules: Arc<EgressRules>,
    // Read for each connection, written when the API server moves; never held over an await.
    api_servers: Arc<RwLock<Vec<SocketAddr>>>,
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rules.fmt(f)
    }
}

impl Egress {
    pub(super) fn new(rules: EgressRules) -> Self {
        Self {
            rules: Arc::new(rules),
            api_servers: Arc::default(),
        }
    }

    /// Says where the API server is: its Service and its endpoints.
    pub fn set_api_servers(&self, servers: Vec<SocketAddr>) {
        *self.api_servers.write().unwrap_or_else(PoisonError::into_inner) = servers;
    }

    /// Connects to `host`, a name or an address, if it may be reached.
    ///
    /// # Errors
    /// The address is refused, the name is unknown, or nothing answers within five seconds. No error names more than the
    /// host.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that connects, to addresses that were judged"
    )]
    pub async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, ReadError> {
        let unreachable = |what: String| ReadError::new(ReadErrorKind::Unreachable, what);
        let connecting = async {
            let mut last = None;
            let addresses = match self.addresses(host, For::Port(port)).await {
                Ok(addresses) => addresses,
                Err(HostError::Denied(denied)) => return Err(denied.into()),
                Err(HostError::Unknown(error)) => {
                    return Err(unreachable(format!("unable to resolve {host}: {error}")));
                }
            };
            for address in addresses {
                match TcpStream::connect(SocketAddr::new(address, port)).await {
                    Ok(stream) => {
                        stream.set_nodelay(true).ok();
                        return Ok(stream);
                    }
                    Err(error) => last = Some(error),
                }
            }
            let why = last.map_or_else(|| "it has no address".to_owned(), |error| error.to_string());
            Err(unreachable(format!("unable to connect to {host}:{port}: {why}")))
        };
        timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| {
            let seconds = CONNECT_TIMEOUT.as_secs();
            Err(unreachable(format!(
                "unable to connect to {host}:{port}: no answer within {seconds} s"
            )))
        })
    }

    /// The addresses of `host` that may be reached.
    async fn addresses(&self, host: &str, port: For) -> Result<Vec<IpAddr>, HostError> {
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            self.judge(host, address, port)?;
            return Ok(vec![address]);
        }
        let resolved = (self.rules.lookup)(host.to_owned())
            .await
            .map_err(HostError::Unknown)?;
        let judged: Vec<_> = resolved
            .into_iter()
            .take(MOST_ADDRESSES)
            .map(|address| self.judge(host, address, port).map(|()| address))
            .collect();
        let denied = judged.iter().find_map(|judged| judged.as_ref().err().cloned());
        let reachable: Vec<IpAddr> = judged.into_iter().flatten().collect();
        match denied {
            Some(denied) if reachable.is_empty() => Err(denied.into()),
            _ => Ok(reachable),
        }
    }

    /// Whether `host`, if it is an address, may be reached. Names are judged when they are resolved.
    pub(super) fn check_literal(&self, host: &url::Host<&str>, port: u16) -> Result<(), EgressDenied> {
        let address = match host {
            url::Host::Domain(_) => return Ok(()),
            url::Host::Ipv4(address) => IpAddr::V4(*address),
            url::Host::Ipv6(address) => IpAddr::V6(*address),
        };
        self.judge(&host.to_string(), address, For::Port(port))
    }

    /// Whether an API server listens on this port anywhere.
    pub(super) fn is_api_port(&self, port: u16) -> bool {
        let servers = self.api_servers.read().unwrap_or_else(PoisonError::into_inner);
        servers.iter().any(|server| server.port() == port)
    }

    fn judge(&self, host: &str, address: IpAddr, port: For) -> Result<(), EgressDenied> {
        let meant = innermost(address);
        let api_server = || {
            self.is_api_server(meant, port)
                .then_some("the API server's address")
        };
        let Some(class) = class_of(meant).or_else(api_server) else {
            return Ok(());
        };
        if self.rules.allowed.iter().any(|network| network.contains(&meant)) {
            return Ok(());
        }
        let written = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        Err(EgressDenied {
            host: host.to_owned(),
            relation: if written { "is" } else { "resolves to" },
            address,
            class,
        })
    }

    fn is_api_server(&self, address: IpAddr, port: For) -> bool {
        let servers = self.api_servers.read().unwrap_or_else(PoisonError::into_inner);
        servers
            .iter()
            .filter(|server| innermost(server.ip()) == address)
            .any(|server| match port {
                For::Port(port) => port == server.port(),
                For::ApiServerPorts => true,
                For::OtherPorts => false,
            })
    }
}

/// What speaks against an address as such.
fn class_of(address: IpAddr) -> Option<&'static str> {
    let metadata = METADATA_SERVICES
        .iter()
        .filter_map(|network| network.parse::<IpNet>().ok())
        .any(|network| network.contains(&address));
    if metadata {
        return Some("a metadata service's address");
    }
    let (loopback, link_local, multicast, nowhere) = match address {
        IpAddr::V4(v4) => (
            v4.is_loopback(),
            v4.is_link_local(),
            v4.is_multicast() || v4.is_broadcast(),
            v4.octets()[0] == 0,
        ),
        IpAddr::V6(v6) => (
            v6.is_loopback(),
            v6.is_unicast_link_local(),
            v6.is_multicast(),
            v6.is_unspecified(),
        ),
    };
    // Connecting to the unspecified address reaches loopback.
    match (loopback || nowhere, link_local, multicast) {
        (true, ..) => Some("a loopback address"),
        (_, true, _) => Some("a link-local address"),
        (.., true) => Some("a multicast address"),
        _ => None,
    }
}

/// The IPv4 address that an IPv6 address carries, or the address itself.
fn innermost(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return IpAddr::V4(v4);
    }
    let octets = v6.octets();
    for (network, at) in CARRIERS {
        if network
            .parse::<Ipv6Net>()
            .is_ok_and(|network| network.contains(&v6))
            && let Some(&[a, b, c, d]) = octets[at..].first_chunk::<4>()
        {
            return IpAddr::V4(Ipv4Addr::new(a, b, c, d));
        }
    }
    // ::a.b.c.d, long deprecated, but some systems still connect it.
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => v6.to_ipv4().map_or(address, IpAddr::V4),
        _ => address,
    }
}

async fn by_the_system(host: String) -> io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
    Ok(found.map(|address| address.ip()).collect())
}

/// Resolves names for an HTTP client, and leaves out what may not be reached.
pub(super) struct Judge {
    pub(super) egress: Egress,
    pub(super) port: For,
}

impl Resolve for Judge {
    fn resolve(&self, name: Name) -> Resolving {
        let (egress, port) = (self.egress.clone(), self.port);
        async move {
            match egress.addresses(name.as_str(), port).await {
                Ok(reachable) => {
                    let found: Addrs = Box::new(reachable.into_iter().map(|ip| SocketAddr::new(ip, 0)));
                    Ok(found)
                }
                Err(HostError::Denied(denied)) => Err(denied.into()),
                Err(HostError::Unknown(error)) => Err(error.into()),
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
