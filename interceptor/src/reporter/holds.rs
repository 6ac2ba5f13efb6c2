//! What one operator has this process hold.

use std::collections::HashMap;
use std::time::Duration;

use dormouse_core::routes::RouteKey;
use dormouse_proxy::{HoldOutcome, Proxy};
use dormouse_wire::demand::hold_release::Outcome;
use dormouse_wire::demand::{HoldAnswer, HoldRelease, HoldRequest};
use tokio::time::Instant;
use tracing::{debug, warn};

/// A hold lasts for so long at most, whatever the operator asks for.
const LONGEST: Duration = Duration::from_secs(30);
/// Holds of one operator at once.
const MOST: usize = 4096;

/// The holds of one session. Those that are left when it breaks may have ended in sleep: it is not known.
pub(super) struct Holds<'p> {
    proxy: &'p Proxy,
    open: HashMap<u64, Held>,
}

struct Held {
    route: RouteKey,
    until: Instant,
}

impl<'p> Holds<'p> {
    pub(super) fn new(proxy: &'p Proxy) -> Self {
        Self {
            proxy,
            open: HashMap::new(),
        }
    }

    /// Holds what comes for the route from now on, and says what it has to do. `None` to a request that cannot be met: the
    /// operator takes silence for a no.
    pub(super) fn hold(&mut self, request: HoldRequest) -> Option<HoldAnswer> {
        let name = request.route?;
        let route = RouteKey::new(name.namespace, name.name);
        let now = Instant::now();
        if self.open.len() >= MOST {
            self.open.retain(|_, held| held.until > now);
        }
        if self.open.len() >= MOST {
            warn!(%route, "an operator asks for too many holds");
            return None;
        }
        let at_most = Duration::from_millis(request.deadline_millis.into()).min(LONGEST);
        let Some(found) = self.proxy.hold(&route, at_most) else {
            // Nothing comes for a route that is not here.
            return Some(HoldAnswer {
                id: request.id,
                ..HoldAnswer::default()
            });
        };
        debug!(%route, found.pending, found.in_flight, "holding");
        let until = now + at_most;
        self.open.insert(request.id, Held { route, until });
        Some(HoldAnswer {
            id: request.id,
            in_flight: found.in_flight,
            pending: found.pending,
        })
    }

    /// Ends a hold; one that is not known has ended before.
    pub(super) fn release(&mut self, release: &HoldRelease) {
        let Some(held) = self.open.remove(&release.id) else {
            return;
        };
        debug!(route = %held.route, outcome = ?release.outcome(), "released");
        let outcome = match release.outcome() {
            Outcome::Asleep => HoldOutcome::Asleep,
            Outcome::CalledOff | Outcome::Unspecified => HoldOutcome::CalledOff,
        };
        self.proxy.release(&held.route, outcome);
    }
}

impl Drop for Holds<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        for held in self.open.values().filter(|held| held.until > now) {
            self.proxy.release(&held.route, HoldOutcome::Asleep);
        }
    }
}
