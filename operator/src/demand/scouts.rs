//! Goes ahead of the pods that a wake brings forth: what Service one is of and how it may be probed is told as soon as its
//! address is known, and so before an EndpointSlice names it.
//!
//! ```text
//! Report: a route waits, nothing of it is under way ──> watch of its pods ──> address known ──> ProbeSpecs
//! ```
//!
//! An interceptor probes it from then on, and does not wait for the slice: milliseconds where all is well, seconds where the
//! controller that writes slices has much to do. Whatever is not told ahead is told when it is asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dormouse_core::demand::{RouteDemand, RouteKey};
use dormouse_wire::demand as wire;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::messages;
use super::probe_spec::Told;
use super::probes::{PodBooth, Selection};
use super::sessions::Outbox;

/// Routes whose pods are followed for one interceptor.
const MOST_ROUTES: usize = 32;
/// How long after it began to wait: the change of its scale goes first, and no pod has an address so soon.
pub(super) const AFTER: Duration = Duration::from_millis(100);
/// How long the pods of a route are followed after it was last seen to wait: what comes and goes is not begun each time anew.
pub(super) const LINGER: Duration = Duration::from_secs(5);
/// And how long at most while it waits: what has no pod by then is no cold start that milliseconds matter to, and others need
/// the place.
pub(super) const LONGEST: Duration = Duration::from_secs(60);
/// For how long an interceptor is believed to know what it was told; it forgets later than that.
const KNOWN: Duration = Duration::from_secs(10);
/// Pods of one route that are told ahead.
const MOST_PODS: usize = 100;

/// Whether requests wait here while none is served: who could serve them is still to come.
pub(super) fn is_cold(demand: &RouteDemand) -> bool {
    demand.pending > 0 && demand.in_flight == 0
}

/// The routes whose pods are followed for one interceptor.
#[derive(Default)]
pub(super) struct Scouts {
    following: HashMap<RouteKey, Scout>,
}

struct Scout {
    began: Instant,
    /// When it was last seen to wait.
    waited: Instant,
    waits: bool,
    told: Arc<Mutex<HashMap<wire::Pod, Ahead>>>,
    /// Taken when it has gone on for too long.
    watch: Option<AbortOnDropHandle<()>>,
}

/// What was told of a pod.
struct Ahead {
    probe: wire::PodProbe,
    /// When; nothing any more once it was asked for.
    at: Option<Instant>,
}

impl Scouts {
    /// Takes in at which routes requests wait from now on while none is served.
    pub(super) fn waiting<'r>(
        &mut self,
        routes: impl Iterator<Item = &'r RouteKey>,
        booth: &PodBooth,
        outbox: &Outbox,
    ) {
        for scout in self.following.values_mut() {
            scout.waits = false;
        }
        for route in routes {
            if let Some(scout) = self.following.get_mut(route) {
                (scout.waits, scout.waited) = (true, Instant::now());
            } else if self.following.len() < MOST_ROUTES
                && let Some(scout) = Scout::follow(route, booth, outbox.clone())
            {
                self.following.insert(route.clone(), scout);
            }
        }
        self.rest();
    }

    /// Nothing has changed; but what waited long ago, or for too long, is followed no more.
    pub(super) fn rest(&mut self) {
        self.following.retain(|_, scout| {
            let lingers = scout.began.elapsed() >= AFTER && scout.waited.elapsed() < LINGER;
            scout.waits || lingers
        });
        for scout in self.following.values_mut() {
            // It keeps its entry until it has ceased to wait, and so is not followed anew.
            scout.watch.take_if(|_| scout.began.elapsed() >= LONGEST);
        }
    }

    /// Whether the interceptor asks for a pod of which it was told ahead. It is so once: who asks again has forgotten.
    pub(super) fn has_told(&self, pod: &wire::Pod) -> bool {
        let told = self.following.values().filter_map(|scout| {
            let mut told = lock(&scout.told);
            told.get_mut(pod)?.at.take()
        });
        // From all of them: several routes may lead to one pod.
        told.max().is_some_and(|at| at.elapsed() < KNOWN)
    }
}

impl Scout {
    fn follow(route: &RouteKey, booth: &PodBooth, outbox: Outbox) -> Option<Self> {
        let told = Arc::default();
        let known = Arc::clone(&told);
        let Selection { service, labels } = booth.selection(route)?;
        let tell = move |pod: &Told| {
            let mut known = lock(&known);
            if pod.is_worth_telling_ahead() {
                let mut probe = pod.probe.clone();
                probe.service.clone_from(&service);
                tell(&mut known, probe, &outbox);
            } else if pod.is_over() {
                take_back(&mut known, &pod.gone().probe, &outbox);
            }
        };
        let follow = booth.follow(route, &labels, Box::new(tell))?;
        let watch = async move {
            sleep(AFTER).await;
            follow.await;
        };
        let now = Instant::now();
        Some(Self {
            began: now,
            waited: now,
            waits: true,
            told,
            watch: Some(AbortOnDropHandle::new(tokio::spawn(watch))),
        })
    }
}

fn tell(told: &mut HashMap<wire::Pod, Ahead>, probe: wire::PodProbe, outbox: &Outbox) {
    let pod = probe.pod.clone().unwrap_or_default();
    let before = told.get(&pod);
    if before.is_some_and(|before| before.probe == probe) || (before.is_none() && told.len() >= MOST_PODS) {
        return;
    }
    // One that takes nothing in asks for it later.
    if outbox.try_send(Ok(messages::probe_spec(&probe))).is_ok() {
        let at = Some(Instant::now());
        told.insert(pod, Ahead { probe, at });
    }
}

/// A pod that was told is over. One that takes nothing in forgets it by itself.
fn take_back(told: &mut HashMap<wire::Pod, Ahead>, bare: &wire::PodProbe, outbox: &Outbox) {
    if bare.pod.as_ref().and_then(|pod| told.remove(pod)).is_some() {
        drop(outbox.try_send(Ok(messages::probe_spec(bare))));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
