//! The parameters that all redis triggers have.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Topology;
use super::address::Address;
use super::connection::Credentials;
use super::net::Dialer;
use super::server::{Server, Settings};
use crate::clients::{Fingerprint, TlsIdentity};
use crate::connect::Connect;
use crate::sensitive::Sensitive;

/// `tls` of an authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Tls {
    Enable,
    Disable,
}

/// Which servers, and as whom.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConnectionParameters {
    /// `host:port` of the server, of nodes of the cluster, or of the sentinels.
    #[serde(default)]
    #[schemars(extend("x-sources" = ["metadata", "auth", "env"], "x-aliases" = ["addresses"]))]
    address: Vec<String>,
    /// Hosts, each with its port out of `port`; they come after those of `address`.
    #[serde(default)]
    #[schemars(extend("x-sources" = ["metadata", "env", "auth"], "x-aliases" = ["hosts"]))]
    host: Vec<String>,
    /// Ports of these hosts.
    #[serde(default)]
    #[schemars(extend("x-sources" = ["metadata", "env", "auth"], "x-aliases" = ["ports"]))]
    port: Vec<String>,
    /// User of the server's access control list. Without a password it is not used.
    #[schemars(extend("x-sources" = ["metadata", "env", "auth"]))]
    username: Option<Sensitive>,
    /// Password of the user, or of the server where there is no user.
    #[schemars(extend("x-sources" = ["metadata", "env", "auth"]))]
    password: Option<Sensitive>,
    /// User of the sentinels; for the sentinel types.
    #[schemars(extend("x-sources" = ["metadata", "env", "auth"]))]
    sentinel_username: Option<Sensitive>,
    /// Password of the sentinels; for the sentinel types.
    #[schemars(extend("x-sources" = ["metadata", "env", "auth"]))]
    sentinel_password: Option<Sensitive>,
    /// The sentinels' name for the master; required by the sentinel types.
    #[schemars(extend("x-sources" = ["metadata", "env", "auth"]))]
    sentinel_master: Option<String>,
    /// Database to read. A cluster has only database 0.
    #[serde(default)]
    database_index: u32,
    /// Whether to use TLS; not together with `tls`.
    #[serde(rename = "enableTLS")]
    enable_tls: Option<bool>,
    /// Whether to use TLS; not together with `enableTLS`.
    #[schemars(extend("x-sources" = ["auth"]))]
    tls: Option<Tls>,
    /// Whether certificates go unchecked.
    #[serde(default)]
    unsafe_ssl: bool,
    /// PEM of CA certificates to trust besides the system's.
    #[schemars(extend("x-sources" = ["auth"]))]
    ca: Option<Sensitive>,
    /// PEM of the client certificate.
    #[schemars(extend("x-sources" = ["auth"], "x-aliases" = ["Cert"]))]
    cert: Option<Sensitive>,
    /// PEM of its private key.
    #[schemars(extend("x-sources" = ["auth"]))]
    key: Option<Sensitive>,
    /// Password of an encrypted private key, which is not supported: a key must be given unencrypted.
    #[schemars(extend("x-sources" = ["auth"]))]
    key_password: Option<Sensitive>,
}

impl ConnectionParameters {
    /// Whether they fit together.
    pub(crate) fn validate(&self, topology: Topology) -> Result<(), String> {
        if self.host.len() != self.port.len() && !self.host.is_empty() && !self.port.is_empty() {
            return Err(
                "not enough hosts or ports given. number of hosts should be equal to the number of ports"
                    .to_owned(),
            );
        }
        if self.address.is_empty() && (self.host.is_empty() || self.port.is_empty()) {
            return Err(
                "no addresses or hosts given. address should be a comma separated list of host:port or set \
                        the host/port values"
                    .to_owned(),
            );
        }
        if self.enable_tls.is_some() && self.tls.is_some() {
            return Err(
                "unable to set `tls` in both ScaledObject and TriggerAuthentication together".to_owned(),
            );
        }
        if self.cert.is_some() != self.key.is_some() {
            return Err("cert and key must be given together".to_owned());
        }
        if self.key_password.is_some() {
            return Err("keyPassword is not supported: key must hold an unencrypted private key".to_owned());
        }
        if topology == Topology::Sentinel && self.sentinel_master.is_none() {
            return Err(
                "missing required parameter \"sentinelMaster\" in [triggerMetadata resolvedEnv authParams]"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// The servers, shared with all triggers that reach the same ones as the same user, and what stands for them.
    pub(super) fn server(
        self,
        topology: Topology,
        cx: &Connect,
    ) -> Result<(Arc<Server>, Fingerprint), String> {
        let printable = ["address", "addresses", "host", "hosts"]
            .iter()
            .any(|name| cx.params.metadata.contains_key(*name));
        let mut addresses = self.addresses(printable)?;
        if topology == Topology::Single {
            addresses.truncate(1);
        }
        for address in &addresses {
            cx.check_host(&address.host).map_err(|message| match printable {
                true => message,
                false => format!("{address} may not see the credentials of this trigger's authentication"),
            })?;
        }
        let secured = self.enable_tls.unwrap_or(self.tls == Some(Tls::Enable));
        let identity = TlsIdentity {
            ca: self.ca,
            certificate: self.cert.zip(self.key),
            unsafe_ssl: self.unsafe_ssl,
        };
        let tls = secured
            .then(|| cx.clients.tls(&identity))
            .transpose()
            .map_err(|error| error.to_string())?;
        let settings = Settings {
            topology,
            addresses,
            credentials: Credentials {
                username: self.username,
                password: self.password,
            },
            database: if topology == Topology::Cluster {
                0
            } else {
                self.database_index
            },
            dialer: Dialer {
                egress: cx.clients.egress().clone(),
                tls,
            },
            master: self.sentinel_master.unwrap_or_default(),
            sentinel_credentials: Credentials {
                username: self.sentinel_username,
                password: self.sentinel_password,
            },
        };
        let key = fingerprint(&settings, secured.then_some(&identity));
        let server = cx
            .clients
            .shared(key, || Ok::<_, String>(Server::new(settings)))?;
        Ok((server, key))
    }

    fn addresses(&self, printable: bool) -> Result<Vec<Address>, String> {
        let pairs = self.host.iter().zip(&self.port);
        let given = self
            .address
            .iter()
            .map(|text| Address::parse(text, printable))
            .chain(pairs.map(|(host, port)| Address::new(host, port, printable)));
        given
            .map(|address| {
                address.ok_or_else(|| {
                    "parameter \"address\" must be host:port, or \"host\" the name or IP address of a host and \
                     \"port\" a number from 1 to 65535"
                        .to_owned()
                })
            })
            .collect()
    }
}

fn fingerprint(settings: &Settings, tls: Option<&TlsIdentity>) -> Fingerprint {
    let secret = |part: &Option<Sensitive>| part.as_ref().map_or("", Sensitive::reveal).to_owned();
    let mut parts = vec![
        format!("{:?}", settings.topology),
        settings.database.to_string(),
        settings.master.clone(),
    ];
    for credentials in [&settings.credentials, &settings.sentinel_credentials] {
        parts.extend([secret(&credentials.username), secret(&credentials.password)]);
    }
    // Those that may not be named have clients of their own, whose errors do not name them.
    parts.extend(
        settings
            .addresses
            .iter()
            .map(|address| format!("{} {}", address.text(), address.printable)),
    );
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let base = tls.map_or_else(|| Fingerprint::of(&["plain"]), TlsIdentity::fingerprint);
    base.and(&["redis"]).and(&parts)
}
