//! What a route has to do: the numbers that scaling reads, counted by guards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::route::Route;
use crate::shared::Shared;

/// How long a request that was answered with a placeholder counts as waiting: its client will come back, and an answer
/// within a millisecond would be seen by no report.
const PLACEHOLDER_COUNTS: Duration = Duration::from_secs(30);

/// The counters of one route, over all threads.
#[derive(Debug)]
pub(crate) struct Load {
    pending: AtomicU32,
    in_flight: AtomicU32,
    started: AtomicU64,
    born: Instant,
    /// Milliseconds after `born` until which a placeholder's client counts.
    placeholder_until: AtomicU64,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            pending: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            started: AtomicU64::new(0),
            born: Instant::now(),
            placeholder_until: AtomicU64::new(0),
        }
    }
}

impl Load {
    /// Requests that wait for an endpoint.
    pub(crate) fn pending(&self) -> u32 {
        self.pending.load(Ordering::SeqCst)
    }

    /// Requests that were sent to an endpoint and whose response has not ended.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Requests that came since the process began.
    pub(crate) fn started(&self) -> u64 {
        self.started.load(Ordering::SeqCst)
    }

    /// Whether a client that got a placeholder still counts.
    pub(crate) fn has_placeholder(&self) -> bool {
        self.now() < self.placeholder_until.load(Ordering::Relaxed)
    }

    /// Counts a client that got a placeholder; says whether there was none.
    pub(crate) fn placeholder(&self) -> bool {
        let until = self.now() + millis(PLACEHOLDER_COUNTS);
        self.placeholder_until.swap(until, Ordering::Relaxed) <= self.now()
    }

    fn now(&self) -> u64 {
        millis(self.born.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One request of a route that is in flight, until this is dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    route: Arc<Route>,
}

impl InFlight {
    /// Counts a request that came in. It is in flight from here on, so that whoever asks between this and a look at
    /// [`Route::is_on_hold`] is told of it.
    pub(crate) fn begin(route: Arc<Route>, shared: &Shared) -> Self {
        route.load().started.fetch_add(1, Ordering::SeqCst);
        Self::count(route, shared)
    }

    /// Counts one that is known already.
    pub(crate) fn count(route: Arc<Route>, shared: &Shared) -> Self {
        route.load().in_flight.fetch_add(1, Ordering::SeqCst);
        shared.busy.note(route.state());
        Self { route }
    }

    /// Counts it as waiting instead, if the bounds allow one more.
    ///
    /// # Errors
    /// They do not; it is in flight no longer.
    pub(crate) fn into_pending(self, shared: &Arc<Shared>) -> Result<Pending, Overflow> {
        // Before this one is dropped: the sum must not fall in between.
        Pending::count(Arc::clone(&self.route), Arc::clone(shared))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.route.load().in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One request of a route that waits for an endpoint, until this is dropped.
#[derive(Debug)]
pub(crate) struct Pending {
    route: Arc<Route>,
    shared: Arc<Shared>,
}

/// As many requests wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overflow(());

impl Pending {
    fn count(route: Arc<Route>, shared: Arc<Shared>) -> Result<Self, Overflow> {
        let all = shared.config.bounds.pending;
        take(&shared.pending, all)?;
        let before = take(&route.load().pending, route.pending_bound(&shared.config)).inspect_err(|_| {
            shared.pending.fetch_sub(1, Ordering::Relaxed);
            // The last of the others may have left while this one was counted.
            shared.busy.may_rest(route.state());
        })?;
        if before == 0 {
            shared.busy.waits(route.state());
            shared.edges.notify_one();
            route.target().probe();
        }
        Ok(Self { route, shared })
    }

    /// Counts it as in flight instead.
    pub(crate) fn into_in_flight(self) -> InFlight {
        InFlight::count(Arc::clone(&self.route), &self.shared)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.route.load().pending.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.shared.busy.may_rest(self.route.state());
        }
        self.shared.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Adds one unless that passes `bound`; gives the number before.
fn take(counter: &AtomicU32, bound: u32) -> Result<u32, Overflow> {
    let before = counter.fetch_add(1, Ordering::SeqCst);
    if before >= bound {
        counter.fetch_sub(1, Ordering::SeqCst);
        return Err(Overflow(()));
    }
    Ok(before)
}
