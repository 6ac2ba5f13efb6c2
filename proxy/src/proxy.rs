//! The handle by which the rest of the process steers the data plane.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dormouse_core::endpoints::{EndpointSet, PodKey};
use dormouse_core::routes::settings::{RouteSettings, ServicePort};
use dormouse_core::routes::{BuildOptions, Candidate, Conflict, RouteKey};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::config::Config;
use crate::demand::Demand;
use crate::listener;
use crate::probe::{Plan, ProbeSpec};
use crate::shared::Shared;
use crate::stats::RequestStats;
use crate::thread::{DataThread, Listeners};
use crate::upstream::Protocol;

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("unable to listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A thread could not be made.
    #[error("unable to start a data thread")]
    Thread(#[source] io::Error),
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections of clients that were still busy at the deadline, and cut.
    pub cut: usize,
}

/// What a route has to do when a hold begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Requests that were sent to an endpoint, and whose response has not ended.
    pub in_flight: u32,
    /// Requests that wait.
    pub pending: u32,
}

/// What became of what a hold was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldOutcome {
    /// The endpoints stay.
    CalledOff,
    /// The endpoints that are known now are about to go.
    Asleep,
}

/// How long an endpoint that is about to go is not believed to be there. Its slice says so long before that.
const CONDEMNED: Duration = Duration::from_secs(5);

/// The running data plane.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    /// Taken by the drain.
    threads: Mutex<Vec<DataThread>>,
}

impl Proxy {
    /// Listens, and answers from now on, with 404 until there are routes. Probes run on the runtime that this is called in.
    ///
    /// # Errors
    /// The address is taken, or threads cannot be made.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let wanted = config.listen;
        let (address, listeners) =
            listener::bind(wanted, config.threads).map_err(|source| StartError::Listen {
                address: wanted,
                source,
            })?;
        let (tls_address, mut tls_listeners) = match &config.tls {
            Some(tls) => {
                let bound = listener::bind(tls.listen, config.threads);
                let (address, listeners) = bound.map_err(|source| StartError::Listen {
                    address: tls.listen,
                    source,
                })?;
                (Some(address), listeners)
            }
            None => (None, Vec::new()),
        };
        let shared = Arc::new(Shared::new(config, Handle::current()));
        let threads = listeners
            .into_iter()
            .enumerate()
            .map(|(number, plain)| {
                let listeners = Listeners {
                    plain,
                    tls: tls_listeners.pop(),
                };
                DataThread::start(number, listeners, Arc::clone(&shared))
            })
            .collect::<io::Result<Vec<_>>>()
            .map_err(StartError::Thread)?;
        Ok(Self {
            shared,
            address,
            tls_address,
            threads: Mutex::new(threads),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for TLS, if it does.
    #[must_use]
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// Replaces the routes and says which of them want the same. Requests that wait at a route that stays go on waiting;
    /// those at a route that goes get 503.
    pub fn set_routes(
        &self,
        routes: Vec<Candidate<Arc<RouteSettings>>>,
        options: BuildOptions,
    ) -> Vec<Conflict> {
        self.shared.set_routes(routes, options)
    }

    /// Says which endpoints a Service port has and what they speak; `None` if there is no such Service or port. Until
    /// this was said once, requests wait.
    pub fn set_endpoints(&self, target: &ServicePort, endpoints: Option<&EndpointSet>, protocol: Protocol) {
        self.shared
            .upstream(target)
            .set(target, endpoints, protocol, &self.shared);
    }

    /// Says how a pod may be probed while requests wait for it. Without a spec, which is how it begins, its slice decides.
    pub fn set_probe(&self, pod: &PodKey, spec: Option<ProbeSpec>) {
        self.shared.set_plan(pod, spec.map(Plan::new));
    }

    /// Says in a sentence what keeps a route's target from starting, for those who wait in vain within `counts` from now; or
    /// that nothing does.
    pub fn set_obstacle(&self, route: &RouteKey, what: Option<&str>, counts: Duration) {
        if let Some(route) = self.shared.route(route) {
            route.state().set_obstacle(what, counts);
        }
    }

    /// Says what a ConfigMap has, by key, for routes that answer with a value of it; `None` if there is none.
    pub fn set_page(&self, namespace: &str, name: &str, values: Option<BTreeMap<String, Bytes>>) {
        self.shared
            .pages
            .rcu(|pages| pages.with(namespace, name, values.as_ref()));
    }

    /// What all routes have to do.
    #[must_use]
    pub fn demand(&self) -> Demand {
        Demand::new(Arc::clone(&self.shared))
    }

    /// What became of requests since the process began, of routes that there are and of none.
    #[must_use]
    pub fn stats(&self) -> RequestStats {
        self.shared.stats()
    }

    /// Lets new requests of a route wait for at most `at_most`, and says what it has to do then: with nothing in flight, its
    /// pods can go. `None` if there is no such route.
    #[must_use]
    pub fn hold(&self, route: &RouteKey, at_most: Duration) -> Option<Held> {
        let state = self.shared.state(route)?;
        let number = state.hold();
        // In this order: one that gets its turn in between is counted twice, and not missed.
        let pending = state.load().pending();
        let in_flight = state.load().in_flight();
        let held = Held { in_flight, pending };
        self.shared.control.spawn(async move {
            sleep(at_most).await;
            state.release(Some(number));
        });
        Some(held)
    }

    /// Ends a hold: requests that waited because of it go on, or wait for new endpoints.
    pub fn release(&self, route: &RouteKey, outcome: HoldOutcome) {
        if outcome == HoldOutcome::Asleep
            && let Some(route) = self.shared.route(route)
        {
            let target = Arc::clone(route.target());
            let condemned = target.condemn();
            self.shared.control.spawn(async move {
                sleep(CONDEMNED).await;
                for peer in condemned {
                    peer.set_condemned(false);
                }
                target.publish();
            });
        }
        if let Some(state) = self.shared.state(route) {
            state.release(None);
        }
    }

    /// Takes no more connections from now on, lets requests end until the deadline, cuts what is left, and stops. Whoever
    /// calls it again finds nothing left.
    pub fn drain(&self, deadline: Duration) -> impl Future<Output = Drained> + Send + use<> {
        let deadline = Instant::now() + deadline;
        let mut threads = {
            let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *threads)
        };
        for thread in &mut threads {
            thread.begin_drain(deadline);
        }
        async move {
            let mut cut = 0;
            for thread in threads {
                cut += thread.drained().await;
            }
            Drained { cut }
        }
    }
}
