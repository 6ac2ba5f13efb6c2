//! Tells every operator replica what this process holds, and does what they ask.
//!
//! ```text
//! data plane ── edge, now; changes, coalesced ──> Publisher ──> Bulletin (newest report) ──> Session ── hello, reports,
//!            ── pods that requests wait for ────────┘                                      │            heartbeats, goodbye
//! headless Service ── addresses ──> Fleet: a session for each, opened again when it breaks ┘
//! data plane <── hold, release, probe specs, pods without a slice ────────────── Session <── the operator
//! ```
//!
//! Reports are whole snapshots and the same for all operators: one that could not be sent in time is made up for by the
//! next. A session that has not had them all asks for one with every counter in it.

mod bulletin;
mod connect;
mod fleet;
mod holds;
mod obstacles;
mod probes;
mod publish;
mod session;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use dormouse_core::endpoints::PodKey;
use dormouse_proxy::Proxy;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use bulletin::Bulletin;
use probes::Ahead;
use publish::Publisher;

use crate::backends::Backends;

pub(crate) use connect::Access;

/// What all sessions of the process have in common.
struct Shared {
    proxy: Arc<Proxy>,
    /// Where pods go that no slice names yet.
    newcomers: Option<Backends>,
    access: Access,
    /// Milliseconds since 1970 at the start: higher than those of processes that ran here before.
    session: u64,
    bulletins: watch::Receiver<Bulletin>,
    /// The pods whose probes are wanted. Whoever gives the data plane a spec does so while it borrows this.
    pods: watch::Receiver<BTreeSet<PodKey>>,
    /// The pods that will be wanted soon, as operators think.
    ahead: Arc<Ahead>,
    /// Some session lacks reports: the next has to have every counter.
    lacking: Arc<Notify>,
}

impl Shared {
    /// Waits until the last report is there.
    async fn over(&self) {
        let mut bulletins = self.bulletins.clone();
        // Without a publisher there will be none either.
        drop(bulletins.wait_for(|bulletin| bulletin.last).await);
    }
}

/// The reporter, before it runs.
pub(crate) struct Reporter {
    shared: Arc<Shared>,
    publisher: Publisher,
}

impl Reporter {
    /// A reporter of what `proxy` has to do. `newcomers` are told of pods that no slice names yet; `None` where requests go
    /// through Services, and not to pods.
    pub(crate) fn new(proxy: Arc<Proxy>, newcomers: Option<Backends>, access: Access) -> Self {
        let lacking = Arc::new(Notify::new());
        let ahead = Arc::<Ahead>::default();
        let (publisher, bulletins, pods) = Publisher::new(proxy.clone(), ahead.clone(), lacking.clone());
        let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let shared = Shared {
            proxy,
            newcomers,
            access,
            session: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            bulletins,
            pods,
            ahead,
            lacking,
        };
        Self {
            shared: Arc::new(shared),
            publisher,
        }
    }

    /// Reports to the operators at `operators` (host:port) until `end`, when nothing may be held any more; then says so
    /// and comes back within [`fleet::LAST_WORDS`].
    pub(crate) async fn run(self, operators: String, end: CancellationToken) {
        let (tell, addresses) = watch::channel(BTreeSet::new());
        tokio::select! {
            () = self.report_to(addresses, end) => {}
            () = fleet::follow_addresses(&operators, &tell) => {}
        }
    }

    async fn report_to(self, addresses: watch::Receiver<BTreeSet<SocketAddr>>, end: CancellationToken) {
        let sessions = fleet::keep_sessions(self.shared, addresses);
        tokio::join!(self.publisher.run(end), sessions);
    }
}
