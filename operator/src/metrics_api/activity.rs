//! What happens on one connection: enough to tell an idle one from a busy one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// The activity of one connection; shared between its task and its requests.
#[derive(Debug)]
pub(crate) struct Activity {
    in_flight: AtomicUsize,
    begun: AtomicUsize,
    // A plain mutex: an Instant has no atomic form, and it is held for one store or load.
    last: Mutex<Instant>,
    first: Notify,
}

/// One request being answered. Dropping it ends the request.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Activity>);

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            in_flight: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            last: Mutex::new(Instant::now()),
            first: Notify::new(),
        })
    }

    /// A request begins.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        if self.begun.fetch_add(1, Ordering::Relaxed) == 0 {
            self.first.notify_one();
        }
        InFlight(Arc::clone(self))
    }

    /// Since when nothing happens, or none while something does.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let busy = self.in_flight.load(Ordering::Relaxed) > 0;
        (!busy).then(|| *self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether no request has come yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.begun.load(Ordering::Relaxed) == 0
    }

    /// Ends when the first request begins.
    pub(crate) async fn first_request(&self) {
        if self.is_fresh() {
            self.first.notified().await;
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
