//! What the process decides about its data plane; routes decide the rest for themselves.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::access::AccessLog;
use crate::no_wake::NoWake;
use crate::trace::TraceSink;

/// A listener for requests over TLS.
#[derive(Clone, Debug)]
pub struct TlsListener {
    /// Where they come in. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// Certificates and versions. Clients choose HTTP/2 or HTTP/1.1 by its `alpn_protocols`.
    pub server: Arc<rustls::ServerConfig>,
}

/// How the proxy listens, what it holds at most and how long it waits.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where requests come in. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where requests come in over TLS, if anywhere.
    pub tls: Option<TlsListener>,
    /// How endpoints that speak TLS are known; without it, none is.
    pub upstream_tls: Option<Arc<rustls::ClientConfig>>,
    /// Threads that carry requests, each with a listener of its own.
    pub threads: NonZeroUsize,
    /// What is held at most.
    pub bounds: Bounds,
    /// How long anything may take.
    pub timeouts: Timeouts,
    /// Peers whose `X-Forwarded-*` and `Forwarded` are believed; `None` believes every peer, as the add-on does.
    pub trusted_proxies: Option<Vec<IpNet>>,
    /// Whether responses say by `X-KEDA-HTTP-Cold-Start` if they had to wait for an endpoint.
    pub cold_start_header: bool,
    /// Requests that wake nothing.
    pub no_wake: NoWake,
    /// Who is told of each request that is traced; nobody by default.
    pub traces: Option<TraceSink>,
    /// Where a line is written for each request; nowhere by default.
    pub access_log: Option<AccessLog>,
}

impl Config {
    /// The defaults, with one thread per processor.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            tls: None,
            upstream_tls: None,
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            bounds: Bounds::default(),
            timeouts: Timeouts::default(),
            trusted_proxies: None,
            cold_start_header: true,
            no_wake: NoWake::default(),
            traces: None,
            access_log: None,
        }
    }
}

/// Upper bounds of what clients can make the process hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections of clients, over all threads. Further ones wait in the kernel.
    pub connections: usize,
    /// Requests of one route that wait for an endpoint, where the route sets no bound itself.
    pub pending_per_route: u32,
    /// Requests of all routes that wait for an endpoint.
    pub pending: u32,
    /// Idle connections to all endpoints, of each thread.
    pub idle: usize,
    /// Idle connections to one endpoint, of each thread.
    pub idle_per_endpoint: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 32_768,
            pending_per_route: 10_000,
            pending: 20_000,
            idle: 1000,
            idle_per_endpoint: 200,
        }
    }
}

/// Deadlines. Routes may have their own for the first three, of which `None` is no bound.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// How long a request waits for an endpoint; never longer than [`Self::max_hold`].
    pub readiness: Option<Duration>,
    /// How long a request may take in all, to the end of its response.
    pub request: Option<Duration>,
    /// How long an endpoint may take to begin its response once it has the request.
    pub response_header: Option<Duration>,
    /// One attempt to connect to an endpoint.
    pub connect: Duration,
    /// What ends the wait for an endpoint where nothing else does.
    pub max_hold: Duration,
    /// From a client's connection to its first byte.
    pub first_byte: Duration,
    /// From the first byte of a request's head to its last.
    pub header: Duration,
    /// A client's connection between two requests.
    pub keep_alive: Duration,
    /// A client that takes nothing of its response, or of any of those on one connection.
    pub stalled: Duration,
    /// A connection to an endpoint between two requests.
    pub upstream_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            readiness: None,
            request: None,
            response_header: Some(Duration::from_secs(300)),
            connect: Duration::from_millis(500),
            max_hold: Duration::from_secs(15 * 60),
            first_byte: Duration::from_secs(5),
            header: Duration::from_secs(60),
            keep_alive: Duration::from_secs(75),
            stalled: Duration::from_secs(300),
            upstream_idle: Duration::from_secs(60),
        }
    }
}
