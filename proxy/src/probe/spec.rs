//! How a pod says that it is ready, as its containers have it.

use std::net::IpAddr;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};

/// What has to pass before a pod gets requests; with neither, its traffic port has to take a connection.
///
/// Only for pods whose readiness can be found out from outside: one probed container, a success threshold of 1, no host in
/// the probe, no readiness gate, no sidecar of a mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeSpec {
    /// The addresses that the pod owns. What a slice lists under its name besides them is never probed: anybody's address may
    /// be written there.
    pub addresses: Vec<IpAddr>,
    /// What has to pass first.
    pub startup: Option<Probe>,
    /// What has to pass then.
    pub readiness: Option<Probe>,
}

/// One probe of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is tried.
    pub check: Check,
    /// What is left of `initialDelaySeconds`, which count from the container's start, when the spec is handed over.
    pub delay: Duration,
    /// How long one try may take (`timeoutSeconds`).
    pub timeout: Duration,
}

/// What a probe tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// To connect.
    Tcp {
        /// Where.
        port: u16,
    },
    /// To be answered with a status from 200 to 399.
    Http(HttpCheck),
}

/// The request of a probe.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// Where it goes.
    pub port: u16,
    /// In the clear, or over TLS.
    pub scheme: Scheme,
    /// Its path and query.
    pub path: PathAndQuery,
    /// Its own headers, which may hold secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// What an HTTP probe goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// TLS, with any certificate, as the kubelet has it.
    Https,
}

impl Check {
    pub(super) fn port(&self) -> u16 {
        match self {
            Self::Tcp { port } => *port,
            Self::Http(check) => check.port,
        }
    }
}

impl std::fmt::Debug for HttpCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&HeaderName> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("HttpCheck")
            .field("port", &self.port)
            .field("scheme", &self.scheme)
            .field("path", &self.path)
            .field("headers", &names)
            .finish()
    }
}
