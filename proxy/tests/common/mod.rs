//! A proxy on loopback, applications behind it, and a client that says exactly what it is told to.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod app;
pub mod frames;
pub mod raw;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use dormouse_core::endpoints::{Conditions, Endpoint, EndpointSet, PodKey};
use dormouse_core::routes::settings::{ColdStart, Port, RouteSettings, ScalingMetric, ServicePort, Timeouts};
use dormouse_core::routes::{BuildOptions, Candidate, HostPattern, RouteKey, Rule};
use dormouse_proxy::{Config, ProbeSpec, Protocol, Proxy};

/// Long enough for a busy machine; no test that passes waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Rig {
    pub proxy: Proxy,
}

impl Rig {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        config.threads = NonZeroUsize::new(2).unwrap();
        change(&mut config);
        Self {
            proxy: Proxy::start(config).unwrap(),
        }
    }

    /// A proxy with one route, `web`, for all hosts, and an endpoint that is ready.
    pub fn serving(address: SocketAddr) -> Self {
        let rig = Self::new();
        rig.routes([settings("web")]);
        rig.ready("web", &[address]);
        rig
    }

    /// Each route has its name as its host; `web` has all others.
    pub fn routes(&self, routes: impl IntoIterator<Item = RouteSettings>) {
        let candidate = |settings: RouteSettings| {
            let host = match &*settings.key.name {
                "web" => HostPattern::Any,
                name => HostPattern::parse(name).unwrap(),
            };
            Candidate {
                key: settings.key.clone(),
                uid: settings.key.to_string(),
                created: 0,
                rules: vec![Rule::new(vec![host], vec![], vec![])],
                value: Arc::new(settings),
            }
        };
        let conflicts = self.proxy.set_routes(
            routes.into_iter().map(candidate).collect(),
            BuildOptions::default(),
        );
        assert!(conflicts.is_empty());
    }

    pub fn endpoints(&self, service: &str, endpoints: &[(SocketAddr, &str)]) {
        self.endpoints_of(service, endpoints, Protocol::Http1);
    }

    /// Endpoints, each a pod, with the letters of the conditions that are true: ready, serving, terminating.
    pub fn endpoints_of(&self, service: &str, endpoints: &[(SocketAddr, &str)], protocol: Protocol) {
        let endpoints = endpoints.iter().map(|(address, flags)| {
            let flag = |letter| Some(flags.contains(letter));
            let conditions = Conditions {
                ready: flag('r'),
                serving: flag('s'),
                terminating: flag('t'),
            };
            Endpoint::new(*address, Some(pod(*address)), conditions)
        });
        self.proxy.set_endpoints(
            &target(service),
            Some(&EndpointSet::new(endpoints, false)),
            protocol,
        );
    }

    pub fn ready(&self, service: &str, addresses: &[SocketAddr]) {
        let endpoints: Vec<_> = addresses.iter().map(|address| (*address, "rs")).collect();
        self.endpoints(service, &endpoints);
    }

    pub fn asleep(&self, service: &str) {
        self.endpoints(service, &[]);
    }

    pub fn address(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// What route `name` has to do: waiting, in flight, ever started.
    pub fn load(&self, name: &str) -> (u32, u32, u64) {
        let snapshot = self.proxy.demand().snapshot();
        let load = snapshot
            .into_iter()
            .find(|load| &*load.route.name == name)
            .unwrap();
        (load.pending, load.in_flight, load.started)
    }

    /// Waits until the route has so many waiting and in flight.
    pub async fn until_load(&self, name: &str, pending: u32, in_flight: u32) {
        until(
            &format!("{name} has {pending} waiting and {in_flight} in flight"),
            || {
                let (now_pending, now_in_flight, _) = self.load(name);
                (now_pending, now_in_flight) == (pending, in_flight)
            },
        )
        .await;
    }
}

pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, waiting).await.is_ok(),
        "not in time: {what}"
    );
}

pub fn key(name: &str) -> RouteKey {
    RouteKey::new("shop", name)
}

pub fn target(service: &str) -> ServicePort {
    ServicePort {
        namespace: "shop".into(),
        service: service.into(),
        port: Port::Number(NonZeroU16::new(80).unwrap()),
    }
}

pub fn pod(address: SocketAddr) -> PodKey {
    let name = address.to_string();
    PodKey {
        namespace: "shop".into(),
        name: name.as_str().into(),
        uid: name.into(),
    }
}

/// How a pod on loopback may be probed: by its traffic port alone.
pub fn by_traffic_port() -> ProbeSpec {
    ProbeSpec {
        addresses: vec![Ipv4Addr::LOCALHOST.into()],
        ..ProbeSpec::default()
    }
}

/// A route to the Service of its name.
pub fn settings(name: &str) -> RouteSettings {
    RouteSettings {
        key: key(name),
        target: target(name),
        timeouts: Timeouts::default(),
        cold_start: ColdStart::default(),
        static_routes: Vec::new(),
        scaling: ScalingMetric {
            concurrency: NonZeroU32::new(10),
            request_rate: None,
        },
    }
}
