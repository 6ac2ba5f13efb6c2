//! Where the requests of one route wait for an endpoint, first come first served.
//!
//! ```text
//! request ── join ──> waiters (FIFO) ──┐
//!                                      ├─ pump: a waiter and a lane with allowance ──> Grant
//! endpoints, once usable ──> lanes ────┘
//! Grant, once dropped ──> one more
//! ```
//!
//! An endpoint that just appeared gets as many requests as the route's concurrency target, until it has begun a response:
//! whatever it is, it is not asked for everything before it is known to answer. From then on it gets what comes, or
//! responses that take long would keep all other requests waiting.
//!
//! The warm path does not come here. All threads share a gate; its lock is held for moments and never over an await.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::peer::{Peer, PeerLoad};
use crate::route::RouteState;
use crate::upstream::{Upstream, View};

/// Waiters that left are cleared away once there are twice as many entries as waiters, and this many more.
const SLACK: usize = 64;

/// The gate of one route.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    waiters: VecDeque<oneshot::Sender<Grant>>,
    lanes: Vec<Lane>,
    /// The endpoints that `lanes` are for.
    followed: Option<Arc<View>>,
    /// Where the endpoints come from; `None` while there is no such route.
    source: Option<Source>,
}

#[derive(Debug)]
struct Source {
    target: Arc<Upstream>,
    pace: u32,
}

/// What an endpoint may be given before it has answered.
#[derive(Debug)]
struct Lane {
    peer: Arc<Peer>,
    allowance: u32,
}

/// Where a request joins the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It has waited already, and its endpoint failed it.
    Front,
    Back,
}

impl Gate {
    /// Waits behind (or before) all others. The receiver fails once the route is gone.
    pub(crate) fn join(&self, place: Place) -> oneshot::Receiver<Grant> {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.lock();
        // Without a route the sender is dropped here, which tells the receiver.
        if inner.source.is_some() {
            match place {
                Place::Front => inner.waiters.push_front(sender),
                Place::Back => inner.waiters.push_back(sender),
            }
        }
        receiver
    }

    /// Hands out what can be handed out now. To be called after each change of what decides it: endpoints, waiters, a
    /// hold that ended, a grant that came back.
    pub(crate) fn pump(&self, state: &Arc<RouteState>) {
        let mut inner = self.lock();
        if inner.waiters.len() > 2 * state.load().pending() as usize + SLACK {
            inner.waiters.retain(|waiter| !waiter.is_closed());
        }
        if inner.waiters.is_empty() {
            inner.forget_lanes();
            return;
        }
        inner.follow_source();
        if state.is_on_hold() {
            return;
        }
        let Some(view) = inner.followed.clone() else {
            return;
        };
        while let Some(index) = inner.widest_lane() {
            let Some(waiter) = inner.waiters.pop_front() else {
                break;
            };
            let Some(lane) = inner.lanes.get_mut(index) else {
                break;
            };
            let grant = Grant::new(Arc::clone(state), Arc::clone(&lane.peer), Arc::clone(&view));
            match waiter.send(grant) {
                Ok(()) => lane.allowance = lane.allowance.saturating_sub(1),
                // Its drop would come back here, to a lock that is held.
                Err(left) => left.forget(),
            }
        }
    }

    /// Says which endpoints are waited for, and how many requests each gets at first.
    pub(crate) fn open(&self, target: Arc<Upstream>, pace: u32) {
        self.lock().source = Some(Source {
            target,
            pace: pace.max(1),
        });
    }

    /// There is no such route any more: tells all that wait.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.source = None;
        inner.forget_lanes();
        inner.waiters.clear();
    }

    fn give_back(&self, peer: &Peer) {
        if let Some(lane) = self.lock().lanes.iter_mut().find(|lane| lane.peer.id == peer.id) {
            lane.allowance = lane.allowance.saturating_add(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// One lane for each usable endpoint; those that stay keep their allowance.
    fn follow_source(&mut self) {
        let Some(source) = &self.source else { return };
        // Read under the lock: whoever comes later sees newer endpoints, never older ones.
        let view = source.target.view_now();
        if self
            .followed
            .as_ref()
            .is_some_and(|followed| Arc::ptr_eq(followed, &view))
        {
            return;
        }
        let usable = view.usable();
        self.lanes
            .retain(|lane| usable.iter().any(|peer| peer.id == lane.peer.id));
        for peer in usable {
            if !self.lanes.iter().any(|lane| lane.peer.id == peer.id) {
                self.lanes.push(Lane {
                    peer: Arc::clone(peer),
                    allowance: source.pace,
                });
            }
        }
        self.followed = Some(view);
    }

    fn forget_lanes(&mut self) {
        self.lanes.clear();
        self.followed = None;
    }

    /// Of the lanes that are open, the one whose endpoint has the least to do.
    fn widest_lane(&self) -> Option<usize> {
        let open = self
            .lanes
            .iter()
            .enumerate()
            .filter(|(_, lane)| lane.allowance > 0 || lane.peer.has_answered());
        open.min_by_key(|(_, lane)| lane.peer.in_flight())
            .map(|(index, _)| index)
    }
}

/// The turn of one request, at one endpoint.
#[derive(Debug)]
pub(crate) struct Grant {
    /// `None` once it was given back.
    state: Option<Arc<RouteState>>,
    peer: Arc<Peer>,
    /// Where it is one of the endpoints: the route's target may be another than when the request came.
    view: Arc<View>,
    /// Counts at the endpoint from the moment it is granted, or the next grant would choose the same.
    load: Option<PeerLoad>,
}

impl Grant {
    fn new(state: Arc<RouteState>, peer: Arc<Peer>, view: Arc<View>) -> Self {
        let load = Some(PeerLoad::new(Arc::clone(&peer)));
        Self {
            state: Some(state),
            peer,
            view,
            load,
        }
    }

    /// The endpoint it is for, to be counted there.
    pub(crate) fn take_load(&mut self) -> PeerLoad {
        self.load
            .take()
            .unwrap_or_else(|| PeerLoad::new(Arc::clone(&self.peer)))
    }

    /// What is known of the endpoint's Service port.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    fn forget(mut self) {
        self.state = None;
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            state.gate().give_back(&self.peer);
            state.pump();
        }
    }
}

#[cfg(test)]
mod tests;
