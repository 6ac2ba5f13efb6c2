//! Goes ahead of the pods that a wake brings forth: how one may be probed is told as soon as its address is known, and so
//! before its EndpointSlice asks for it.
//!
//! ```text
//! Report: a route waits, nothing of it is under way ──> watch of its pods ──> address known ──> ProbeSpecs
//! ```
//!
//! A pod that is told of too early is one that an interceptor need not ask for: between an EndpointSlice and the first probe
//! stands nothing then. Whoever is told late, or never, still asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dormouse_core::demand::{RouteDemand, RouteKey};
use dormouse_wire::demand as wire;
use dormouse_wire::demand::from_operator::Message;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::messages::to_interceptor;
use super::probe_spec::Told;
use super::probes::PodBooth;
use super::sessions::Outbox;

/// Routes whose pods are followed for one interceptor; those of the others are read when they are asked for.
const MOST_ROUTES: usize = 32;
/// How long after it began to wait: the change of its scale goes first, and no pod has an address so soon.
const AFTER: Duration = Duration::from_millis(100);
/// How long the pods of a route are followed after it was last seen to wait: what comes and goes is not begun each time anew.
const LINGER: Duration = Duration::from_secs(10);
/// For how long an interceptor is believed to know what it was told.
const KNOWN: Duration = Duration::from_secs(10);
/// Pods of one route that are told ahead.
const MOST_PODS: usize = 100;

/// Whether requests wait at a route of which none is served: who could serve them is still to come.
pub(super) fn is_asleep(demand: &RouteDemand) -> bool {
    demand.pending > 0 && demand.in_flight == 0
}

/// The routes whose pods are followed for one interceptor.
#[derive(Default)]
pub(super) struct Scouts {
    following: HashMap<RouteKey, Scout>,
}

struct Scout {
    waits: bool,
    waited: Instant,
    /// When; nothing any more once it was asked for.
    told: Arc<Mutex<HashMap<wire::Pod, Option<Instant>>>>,
    _watch: AbortOnDropHandle<()>,
}

impl Scouts {
    /// Takes in at which routes requests wait from now on.
    pub(super) fn waiting(&mut self, routes: Vec<RouteKey>, booth: &PodBooth, outbox: &Outbox) {
        for scout in self.following.values_mut() {
            scout.waits = false;
        }
        for route in routes {
            if let Some(scout) = self.following.get_mut(&route) {
                (scout.waits, scout.waited) = (true, Instant::now());
            } else if self.following.len() < MOST_ROUTES
                && let Some(scout) = Scout::follow(&route, booth, outbox.clone())
            {
                self.following.insert(route, scout);
            }
        }
        self.rest();
    }

    /// Nothing has changed; but what waited long ago is followed no more.
    pub(super) fn rest(&mut self) {
        self.following
            .retain(|_, scout| scout.waits || scout.waited.elapsed() < LINGER);
    }

    /// Whether the interceptor asks for a pod of which it was told ahead. It is so once: who asks again has forgotten.
    pub(super) fn has_told(&self, pod: &wire::Pod) -> bool {
        let told = self.following.values().find_map(|scout| {
            let mut told = scout.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.get_mut(pod)?.take()
        });
        told.is_some_and(|at| at.elapsed() < KNOWN)
    }
}

impl Scout {
    fn follow(route: &RouteKey, booth: &PodBooth, outbox: Outbox) -> Option<Self> {
        let told = Arc::new(Mutex::new(HashMap::new()));
        let known = Arc::clone(&told);
        let tell = move |Told { probe, complete }: &Told| {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            let pod = probe.pod.clone().unwrap_or_default();
            if !complete || known.contains_key(&pod) || known.len() >= MOST_PODS {
                return;
            }
            let specs = wire::ProbeSpecs {
                pods: vec![probe.clone()],
            };
            let message = to_interceptor(Message::ProbeSpecs(specs));
            if outbox.try_send(Ok(message)).is_ok() {
                known.insert(pod, Some(Instant::now()));
            }
        };
        let follow = booth.follow(route, Box::new(tell))?;
        let watch = async move {
            sleep(AFTER).await;
            follow.await;
        };
        Some(Self {
            waits: true,
            waited: Instant::now(),
            told,
            _watch: AbortOnDropHandle::new(tokio::spawn(watch)),
        })
    }
}
