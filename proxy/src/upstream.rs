//! One Service port: which of its endpoints get requests now.
//!
//! ```text
//! listed ── set() ──┐
//!                   ├─> publish() ──> View (snapshot that threads read) ──> the gates of its routes
//! probes, failures ─┘            └──> probers, while requests wait or an endpoint is suspect
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use arc_swap::{ArcSwap, Guard};
use dormouse_core::endpoints::{EndpointSet, PodKey, Standing};
use dormouse_core::routes::settings::ServicePort;
use rustls::pki_types::ServerName;
use smallvec::SmallVec;

use crate::peer::{Peer, PeerLoad};
use crate::probe;
use crate::random::Random;
use crate::route::RouteState;
use crate::shared::Shared;

/// What an endpoint speaks, by its Service port's `appProtocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 in the clear.
    #[default]
    Http1,
    /// HTTP/2 in the clear, by prior knowledge (`kubernetes.io/h2c`).
    H2c,
    /// HTTP/1.1 over TLS (`https`), with a certificate for the Service.
    Https,
}

/// What certificate a Service's endpoints must have.
#[derive(Debug)]
pub(crate) struct TlsName {
    /// Connections with the same number are known to lead to the same Service. Never 0.
    pub(crate) number: u64,
    /// `<service>.<namespace>.svc`; `None` where that can be no name.
    pub(crate) name: Option<ServerName<'static>>,
}

impl TlsName {
    fn of(port: &ServicePort) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            name: ServerName::try_from(format!("{}.{}.svc", port.service, port.namespace)).ok(),
        }
    }
}

/// The endpoints of one Service port. All threads share it.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Only where TLS is or was spoken.
    name: OnceLock<Arc<TlsName>>,
    view: ArcSwap<View>,
    /// Locked when something about its endpoints changes, never on a warm request's way.
    state: Mutex<State>,
    /// Set with its first endpoints: what a prober needs.
    shared: OnceLock<Weak<Shared>>,
}

#[derive(Debug, Default)]
struct State {
    known: Known,
    protocol: Protocol,
    peers: Vec<(Arc<Peer>, Standing)>,
    routes: Vec<Weak<RouteState>>,
}

/// What is known of a Service port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing yet.
    #[default]
    Nothing,
    /// There is no such Service or port.
    Missing,
    /// Its endpoints.
    Endpoints,
}

/// What a request sees of a Service port.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) known: Known,
    pub(crate) protocol: Protocol,
    /// How its endpoints are known, if they speak TLS.
    pub(crate) tls: Option<Arc<TlsName>>,
    /// Mostly one, which then needs no block of memory of its own.
    usable: SmallVec<[Arc<Peer>; 1]>,
}

impl View {
    /// The endpoints that get requests.
    pub(crate) fn usable(&self) -> &[Arc<Peer>] {
        &self.usable
    }

    /// Of two endpoints picked at random the one with less to do, counted there from now on. `but` is one that just
    /// failed: it is taken only where there is no other.
    pub(crate) fn pick(&self, random: &Random, but: Option<u64>) -> Option<PeerLoad> {
        let peer = match self.usable.as_slice() {
            [] => return None,
            [only] => only,
            many => {
                let first = random.below(many.len());
                // Any but the first, each as likely.
                let second = (first + 1 + random.below(many.len() - 1)) % many.len();
                less_loaded(many.get(first)?, many.get(second)?, but)
            }
        };
        Some(PeerLoad::new(Arc::clone(peer)))
    }
}

fn less_loaded<'a>(one: &'a Arc<Peer>, other: &'a Arc<Peer>, but: Option<u64>) -> &'a Arc<Peer> {
    let rank = |peer: &Peer| (but == Some(peer.id), peer.in_flight());
    if rank(other) < rank(one) { other } else { one }
}

impl Upstream {
    pub(crate) fn new() -> Self {
        Self {
            name: OnceLock::new(),
            view: ArcSwap::default(),
            state: Mutex::default(),
            shared: OnceLock::new(),
        }
    }

    /// What a request sees of it now.
    pub(crate) fn view(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// The same, to be kept.
    pub(crate) fn view_now(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Takes what its slices say; `None` if there is no such Service or port.
    pub(crate) fn set(
        self: &Arc<Self>,
        port: &ServicePort,
        set: Option<&EndpointSet>,
        protocol: Protocol,
        shared: &Arc<Shared>,
    ) {
        self.shared.get_or_init(|| Arc::downgrade(shared));
        if protocol == Protocol::Https {
            self.name.get_or_init(|| Arc::new(TlsName::of(port)));
        }
        // Before its own lock is taken: the registry takes its lock first, then that of a Service port.
        let listed: Vec<(Arc<Peer>, Standing)> = set
            .into_iter()
            .flat_map(EndpointSet::iter)
            .map(|(endpoint, standing)| (shared.peer(endpoint), standing))
            .collect();
        for (peer, standing) in &listed {
            peer.add_user(self);
            peer.set_retired(matches!(standing, Standing::Leaving | Standing::Unusable));
            if *standing == Standing::Ready {
                peer.believe_list();
            }
        }
        let before = {
            let mut state = self.lock();
            state.known = if set.is_some() {
                Known::Endpoints
            } else {
                Known::Missing
            };
            state.protocol = protocol;
            std::mem::replace(&mut state.peers, listed.clone())
        };
        for (peer, standing) in &listed {
            let ready = |(other, standing): &(Arc<Peer>, Standing)| {
                other.id == peer.id && *standing == Standing::Ready
            };
            // Behind an address that is no pod's there are other pods by now than those that were about to go.
            if peer.pod().is_none() && *standing == Standing::Ready && !before.iter().any(ready) {
                peer.set_condemned(false);
            }
        }
        for (gone, _) in &before {
            if !listed.iter().any(|(peer, _)| peer.id == gone.id) {
                gone.remove_user(self);
            }
        }
        self.publish();
        if before.iter().chain(&listed).any(|(peer, _)| peer.is_retired()) {
            shared.retirements.send_replace(());
        }
    }

    /// Lets threads see which endpoints are usable by now, and those that wait for one have it.
    pub(crate) fn publish(self: &Arc<Self>) {
        let mut state = self.lock();
        state.routes.retain(|route| route.strong_count() > 0);
        // Under the lock, or an older view could replace a newer one.
        self.view.store(Arc::new(state.view(self.name.get())));
        let routes: Vec<Arc<RouteState>> = state.routes.iter().filter_map(Weak::upgrade).collect();
        drop(state);
        for route in routes {
            route.pump();
        }
        self.probe();
    }

    /// Says of the endpoints that it has now that they are about to go: they get no more requests. Gives them.
    pub(crate) fn condemn(self: &Arc<Self>) -> Vec<Arc<Peer>> {
        let peers: Vec<Arc<Peer>> = self
            .lock()
            .peers
            .iter()
            .map(|(peer, _)| Arc::clone(peer))
            .collect();
        for peer in &peers {
            peer.set_condemned(true);
        }
        self.publish();
        peers
    }

    /// The pods that a probe could find serving before their slice says so.
    pub(crate) fn pods_to_probe(&self) -> Vec<PodKey> {
        let state = self.lock();
        let starting = state
            .peers
            .iter()
            .filter(|(peer, standing)| *standing == Standing::Starting && state.may_probe(peer, *standing));
        starting.filter_map(|(peer, _)| peer.pod().cloned()).collect()
    }

    /// Nobody will say anything of it any more: requests that still look here find nothing.
    pub(crate) fn forget(self: &Arc<Self>) {
        let before = {
            let mut state = self.lock();
            state.known = Known::Nothing;
            std::mem::take(&mut state.peers)
        };
        for (peer, _) in before {
            peer.remove_user(self);
        }
        self.publish();
    }

    /// Adds a route whose requests go here.
    pub(crate) fn add_route(&self, route: &Arc<RouteState>) {
        let routes = &mut self.lock().routes;
        if !routes.iter().any(|other| other.as_ptr() == Arc::as_ptr(route)) {
            routes.push(Arc::downgrade(route));
        }
    }

    /// Removes a route that goes elsewhere.
    pub(crate) fn remove_route(&self, route: &Arc<RouteState>) {
        self.lock()
            .routes
            .retain(|other| other.as_ptr() != Arc::as_ptr(route));
    }

    /// Whether a probe of this endpoint, begun when it had this standing, still makes a difference.
    pub(crate) fn wants_probe(&self, peer: &Peer, standing: Standing) -> bool {
        let state = self.lock();
        let mut peers = state.peers.iter();
        peers.any(|(other, now)| other.id == peer.id && *now == standing && state.may_probe(other, standing))
    }

    /// Probes what may be probed and is not.
    pub(crate) fn probe(self: &Arc<Self>) {
        let Some(shared) = self.shared.get().and_then(Weak::upgrade) else {
            return;
        };
        let candidates: Vec<(Arc<Peer>, Standing)> = {
            let state = self.lock();
            let peers = state.peers.iter();
            let candidates = peers.filter(|(peer, standing)| state.may_probe(peer, *standing));
            candidates.cloned().collect()
        };
        if candidates
            .iter()
            .any(|(_, standing)| *standing == Standing::Starting)
        {
            shared.wants.notify_one();
        }
        for (peer, standing) in candidates {
            probe::start(&shared, self, peer, standing);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_waited_for(&self) -> bool {
        let mut routes = self.routes.iter().filter_map(Weak::upgrade);
        routes.any(|route| route.load().pending() > 0)
    }

    /// Whether a probe could find out more than is known: of a pod that is not called ready yet and that requests wait for, or
    /// of an address that did not take a connection although it is. Nobody may ever wait for that one again: others, or the
    /// route of this fallback, have what would.
    fn may_probe(&self, peer: &Peer, standing: Standing) -> bool {
        match standing {
            _ if peer.is_condemned() => false,
            Standing::Starting => self.is_waited_for() && !peer.is_proved(),
            Standing::Ready => peer.is_suspect(),
            Standing::Leaving | Standing::Unusable => false,
        }
    }

    fn view(&self, name: Option<&Arc<TlsName>>) -> View {
        let usable = |wanted: fn(&Peer, Standing) -> bool| -> SmallVec<[Arc<Peer>; 1]> {
            let chosen = self
                .peers
                .iter()
                .filter(|(peer, standing)| peer.may_get_requests() && wanted(peer, *standing));
            chosen.map(|(peer, _)| Arc::clone(peer)).collect()
        };
        let mut chosen = usable(|peer, standing| match standing {
            Standing::Ready => true,
            Standing::Starting => peer.is_proved(),
            Standing::Leaving | Standing::Unusable => false,
        });
        if chosen.is_empty() {
            chosen = usable(|_, standing| standing == Standing::Leaving);
        }
        View {
            known: self.known,
            protocol: self.protocol,
            tls: name.filter(|_| self.protocol == Protocol::Https).cloned(),
            usable: chosen,
        }
    }
}
