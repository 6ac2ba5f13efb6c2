//! When to look at the data plane, and to say what is seen.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dormouse_core::endpoints::PodKey;
use dormouse_proxy::{Demand, Proxy};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::bulletin::{Bulletin, Scribe};
use super::probes::Ahead;

/// Looks at the data plane that nothing hastened, and so reports of changes: 20 in a second at most.
const CHANGES: Duration = Duration::from_millis(50);
/// The share of a processor that those may take, however many routes are in use: one in so many.
const SHARE: u32 = 20;
/// After each look comes a pause of at least this, and as long as the look took.
const PAUSE: Duration = Duration::from_millis(1);
/// Pods whose probes are asked for at once.
const MOST_PODS: usize = 1000;

/// Looks at the data plane and publishes what it has to do.
pub(super) struct Publisher {
    /// Between two looks while nothing hastens them.
    pub(super) changes: Duration,
    proxy: Arc<Proxy>,
    demand: Demand,
    scribe: Scribe,
    bulletins: watch::Sender<Bulletin>,
    pods: watch::Sender<BTreeSet<PodKey>>,
    ahead: Arc<Ahead>,
    lacking: Arc<Notify>,
}

impl Publisher {
    /// The publisher, where its reports appear, and where the pods whose probes are wanted do.
    pub(super) fn new(
        proxy: Arc<Proxy>,
        ahead: Arc<Ahead>,
        lacking: Arc<Notify>,
    ) -> (Self, watch::Receiver<Bulletin>, watch::Receiver<BTreeSet<PodKey>>) {
        let (bulletins, published) = watch::channel(Bulletin::default());
        let (pods, wanted) = watch::channel(BTreeSet::new());
        let publisher = Self {
            changes: CHANGES,
            demand: proxy.demand(),
            proxy,
            scribe: Scribe::default(),
            bulletins,
            pods,
            ahead,
            lacking,
        };
        (publisher, published, wanted)
    }

    /// Publishes until `end`, and then what is so at that moment, as the last.
    pub(super) async fn run(mut self, end: CancellationToken) {
        let mut next = Instant::now();
        loop {
            let whole = tokio::select! {
                biased;
                () = end.cancelled() => break,
                () = self.demand.edge() => false,
                () = self.lacking.notified() => true,
                () = sleep_until(next) => false,
                () = self.demand.more_pods_wanted() => {
                    self.want_probes();
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let began = Instant::now();
            self.publish(whole);
            let took = began.elapsed();
            next = began + self.changes.max(took * SHARE);
            sleep(PAUSE.max(took)).await;
        }
        self.publish(false);
        self.bulletins.send_modify(|bulletin| bulletin.last = true);
    }

    fn publish(&mut self, whole: bool) {
        let loads = if whole {
            self.demand.snapshot()
        } else {
            self.demand.changes(self.scribe.busy())
        };
        if let Some(report) = self.scribe.write(loads, whole) {
            self.bulletins.send_replace(Bulletin {
                // Before the first, nothing was told of any counter.
                whole: whole || report.sequence == 1,
                report: Arc::new(report),
                last: false,
            });
        }
        self.want_probes();
    }

    /// Asks for the probes of those pods that requests wait for by now, and forgets the other ones'.
    fn want_probes(&self) {
        let mut wanted = self.demand.pods_wanted();
        while wanted.len() > MOST_PODS {
            wanted.pop_last();
        }
        self.pods.send_if_modified(|pods| {
            let never_wanted = self.ahead.sweep(&wanted);
            for gone in pods.difference(&wanted).chain(&never_wanted) {
                self.proxy.set_probe(gone, None);
            }
            let differs = *pods != wanted;
            *pods = wanted;
            differs
        });
    }
}
