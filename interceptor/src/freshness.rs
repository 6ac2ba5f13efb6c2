//! Whether what the interceptor knows of the cluster is still told to it.
//!
//! A watch that breaks tries again at least every few seconds and tells each failure; one that is heard again works, and so
//! does one that is silent. What is known stays in use meanwhile: requests of known routes go on. But a process that has not
//! heard of changes for long should leave the requests to others that have.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dormouse_kubernetes::{Readable, Watch, Watchable};
use dormouse_runtime::admin::Ready;
use tokio::time::{Instant, sleep};

/// A try fails within seconds, and then comes a pause of seconds: what fails again later than that has worked in between.
const SOON: Duration = Duration::from_secs(20);
/// Unless it is a server that takes the connection and is silent: that is found out after a minute.
const SILENT: Range<Duration> = Duration::from_secs(55)..Duration::from_secs(75);
/// Fewer failures than these are hiccups, however far apart.
const SEVERAL: u32 = 3;
/// An outage that lasted for so long. An API server that is replaced is away for less.
const LOST: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_secs(1);

/// The failures of all watches. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Freshness {
    outages: Arc<Mutex<Vec<Outage>>>,
}

#[derive(Clone, Copy, Debug)]
struct Outage {
    watch: &'static str,
    first: Instant,
    last: Instant,
    failures: u32,
}

impl Freshness {
    /// Has a watch tell when it fails, and when it works again.
    pub(crate) fn of<R, K>(&self, name: &'static str, watch: Watch<R, K>) -> Watch<R, K>
    where
        R: Watchable,
        K: Readable,
    {
        let (failing, working) = (self.clone(), self.clone());
        watch
            .on_failure(move |_| {
                failing.failed(name);
                // To be logged all the same.
                false
            })
            .on_recovery(move || working.recovered(name))
    }

    /// Keeps a check current: met while no watch is lost.
    pub(crate) async fn follow(self, fresh: Ready) {
        loop {
            fresh.set(self.lost().is_empty());
            sleep(LOOK).await;
        }
    }

    fn failed(&self, watch: &'static str) {
        let now = Instant::now();
        let mut outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        outages.retain(|outage| {
            let apart = now - outage.last;
            outage.watch != watch || apart < SOON || SILENT.contains(&apart)
        });
        match outages.iter_mut().find(|outage| outage.watch == watch) {
            Some(outage) => {
                outage.last = now;
                outage.failures += 1;
            }
            None => outages.push(Outage {
                watch,
                first: now,
                last: now,
                failures: 1,
            }),
        }
    }

    fn recovered(&self, watch: &str) {
        let mut outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        outages.retain(|outage| outage.watch != watch);
    }

    /// The watches that have been failing for too long.
    fn lost(&self) -> Vec<&'static str> {
        let outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        let lasting = outages.iter().filter(|outage| {
            let lasts = outage.last.elapsed() < SILENT.end && outage.last - outage.first >= LOST;
            lasts && outage.failures >= SEVERAL
        });
        lasting.map(|outage| outage.watch).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn failing(freshness: &Freshness, watch: &'static str, seconds: u64) {
        for _ in 0..seconds / 6 {
            freshness.failed(watch);
            sleep(Duration::from_secs(6)).await;
        }
        freshness.failed(watch);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_fails_for_long_is_lost_until_it_is_silent_again() {
        let freshness = Freshness::default();
        failing(&freshness, "routes", 54).await;
        assert!(
            freshness.lost().is_empty(),
            "an API server may be away for a while"
        );
        failing(&freshness, "routes", 12).await;
        assert_eq!(freshness.lost(), ["routes"]);
        sleep(SILENT.end).await;
        assert!(freshness.lost().is_empty(), "it works again");
        failing(&freshness, "routes", 66).await;
        assert_eq!(freshness.lost(), ["routes"]);
        freshness.recovered("slices");
        assert_eq!(freshness.lost(), ["routes"], "another one was heard");
        freshness.recovered("routes");
        assert!(freshness.lost().is_empty(), "it was heard");
        failing(&freshness, "slices", 6).await;
        sleep(Duration::from_secs(40)).await;
        failing(&freshness, "slices", 24).await;
        assert!(freshness.lost().is_empty(), "two short outages are no long one");
        for _ in 0..4 {
            sleep(Duration::from_secs(50)).await;
            freshness.failed("slices");
        }
        assert!(freshness.lost().is_empty(), "nor are many");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_whose_server_says_nothing_is_lost_too() {
        let freshness = Freshness::default();
        for _ in 0..2 {
            freshness.failed("routes");
            sleep(Duration::from_secs(61)).await;
        }
        assert!(freshness.lost().is_empty(), "two hiccups are no outage");
        freshness.failed("routes");
        assert_eq!(freshness.lost(), ["routes"]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_watch_that_is_lost_is_enough() {
        let freshness = Freshness::default();
        for _ in 0..12 {
            freshness.failed("routes");
            sleep(Duration::from_secs(6)).await;
        }
        freshness.failed("slices");
        assert_eq!(freshness.lost(), ["routes"]);
    }
}
