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
use std::sync::Arc;
use std::time::Duration;

use dormouse_core::demand::{RouteDemand, RouteKey};
use dormouse_wire::demand as wire;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::ahead::Ahead;
use super::probes::PodBooth;
use super::sessions::Outbox;

/// Routes whose pods are followed for one interceptor.
const MOST_ROUTES: usize = 32;
/// How long after it began to wait: the change of its scale goes first, and no pod has an address so soon.
pub(super) const AFTER: Duration = Duration::from_millis(100);
/// How long the pods of a route are followed after it was last seen to wait: what comes and goes is not begun each time anew.
pub(super) const LINGER: Duration = Duration::from_secs(5);
/// And how long at most while it waits: what has no pod by then is no cold start that milliseconds matter to, and others need
/// the place. Nothing is taken back after that; interceptors forget by themselves.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

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
    ahead: Arc<Ahead>,
    /// Taken when it has gone on for too long.
    watch: Option<AbortOnDropHandle<()>>,
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
            // Who still waits, for the pods of another Service by now, is followed anew with the next report.
            (scout.waits || lingers) && !scout.ahead.is_over()
        });
        for scout in self.following.values_mut() {
            // It keeps its entry until it has ceased to wait, and so is not followed anew.
            scout.watch.take_if(|_| scout.began.elapsed() >= LONGEST);
            if scout.waits && scout.watch.is_some() {
                scout.ahead.remind();
            }
        }
    }

    /// Whether the interceptor asks for a pod of which it was told ahead. It is so once: who asks again has forgotten.
    pub(super) fn has_told(&self, pod: &wire::Pod) -> bool {
        // All of them: several routes may lead to one pod.
        let told = self.following.values().filter_map(|scout| scout.ahead.asked(pod));
        told.max().is_some()
    }
}

impl Scout {
    fn follow(route: &RouteKey, booth: &PodBooth, outbox: Outbox) -> Option<Self> {
        let selection = booth.selection(route)?;
        let labels = selection.labels.clone();
        let ahead = Arc::new(Ahead::new(route.clone(), selection, booth.clone(), outbox));
        let told = Arc::clone(&ahead);
        let follow = booth.follow(route, &labels, Box::new(move |pod| told.see(pod)))?;
        let watch = async move {
            sleep(AFTER).await;
            follow.await;
        };
        let now = Instant::now();
        Some(Self {
            began: now,
            waited: now,
            waits: true,
            ahead,
            watch: Some(AbortOnDropHandle::new(tokio::spawn(watch))),
        })
    }
}
