//! Which routes have something to do, so that whoever looks at demand looks at those alone, however many others there are.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{mem, sync::Arc};

use dormouse_core::routes::RouteKey;

use crate::route::RouteState;

/// The routes that had something to do, and those at which requests wait.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    /// Each once, by its own mark.
    noted: Mutex<Vec<Arc<RouteState>>>,
    waiting: Mutex<HashSet<RouteKey>>,
}

impl Busy {
    /// Notes that a route has something to do, after that was counted.
    pub(crate) fn note(&self, route: &Arc<RouteState>) {
        // Of thousands of requests in a second one finds no mark: the others need not write.
        if route.is_marked() {
            return;
        }
        let mut noted = lock(&self.noted);
        // Under the lock: who sees the mark knows that the next `take` has the route.
        if route.mark() {
            noted.push(Arc::clone(route));
        }
    }

    /// The routes that were noted since the last call.
    pub(crate) fn take(&self) -> Vec<RouteKey> {
        let noted = mem::take(&mut *lock(&self.noted));
        // Before their counters are read: what is counted after that is noted again.
        let keys = noted.iter().map(|route| {
            route.unmark();
            route.key().clone()
        });
        keys.collect()
    }

    /// Notes that requests wait at a route, after the first of them was counted.
    pub(crate) fn waits(&self, route: &RouteState) {
        lock(&self.waiting).insert(route.key().clone());
    }

    /// Notes that none may wait there any more; the counter says whether that is so.
    pub(crate) fn may_rest(&self, route: &RouteState) {
        if route.load().pending() > 0 {
            return;
        }
        let mut waiting = lock(&self.waiting);
        // Another may have come before the lock was taken.
        if route.load().pending() == 0 {
            waiting.remove(route.key());
        }
    }

    /// The routes at which requests wait.
    pub(crate) fn waiting(&self) -> Vec<RouteKey> {
        lock(&self.waiting).iter().cloned().collect()
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
