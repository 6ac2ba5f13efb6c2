//! How often targets are looked at.
//!
//! A look at a target is a call of the API server, and the only call that a polling tick makes when nothing happens. As long
//! as few are made, each tick looks; beyond [`PER_SECOND`], a tick may take the target as it was, if it is looked at again within
//! [`LONGEST`] all the same. What acts on such a look acts on what was seen alone ([`crate::Target::set_replicas`]), or looks
//! anew.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::ports::TargetState;

/// The longest time between two looks of an object whose ticks are not further apart: KEDA's default polling interval, at which
/// its users are content with one.
const LONGEST: Duration = Duration::from_secs(30);
/// How many routine looks of all objects together are made whatever was seen before.
const PER_SECOND: u32 = 100;

/// The looks that all objects of a process may still make.
#[derive(Debug)]
pub(crate) struct Looks {
    left: Mutex<(f64, Instant)>,
    /// For those whose requests wait: no tick of others takes them away.
    left_for_waiting: Mutex<(f64, Instant)>,
    kept: AtomicU32,
}

impl Looks {
    pub(crate) fn new() -> Self {
        Self {
            left: Mutex::new((f64::from(PER_SECOND), Instant::now())),
            left_for_waiting: Mutex::new((f64::from(PER_SECOND), Instant::now())),
            kept: AtomicU32::new(0),
        }
    }

    /// For how long a look holds: between half of [`LONGEST`] and all of it, evenly spread whenever they are made, so that those
    /// that were made together (at a start, after an outage) are not all made again together.
    pub(crate) fn lifetime(&self) -> Duration {
        const GOLDEN: f64 = 0.618_033_988_749_894_9;
        let kept = f64::from(self.kept.fetch_add(1, Ordering::Relaxed));
        LONGEST.mul_f64(f64::midpoint(1.0, (kept * GOLDEN).fract()))
    }

    /// Whether one more may be made now; if so, it counts.
    pub(crate) fn take(&self) -> bool {
        Self::take_of(&self.left)
    }

    /// The same for an object whose requests wait although nothing seems to be missing.
    pub(crate) fn take_for_waiting(&self) -> bool {
        Self::take_of(&self.left_for_waiting)
    }

    fn take_of(left: &Mutex<(f64, Instant)>) -> bool {
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (most, gained) = (f64::from(PER_SECOND), (now - left.1).as_secs_f64());
        let available = (left.0 + gained * most).min(most);
        let granted = available >= 1.0;
        *left = (if granted { available - 1.0 } else { available }, now);
        granted
    }
}

/// The target as it was last seen, when that was, and until when it holds.
#[derive(Debug, Default)]
pub(crate) struct LastLook(Mutex<Option<Look>>);

#[derive(Debug)]
struct Look {
    seen: TargetState,
    at: Instant,
    until: Instant,
}

impl LastLook {
    /// What was seen or set just now.
    pub(crate) fn keep(&self, seen: &TargetState, lifetime: Duration) {
        let at = Instant::now();
        *self.lock() = Some(Look {
            seen: seen.clone(),
            at,
            until: at + lifetime,
        });
    }

    pub(crate) fn forget(&self) {
        *self.lock() = None;
    }

    /// What was seen or set last, however long ago.
    pub(crate) fn any(&self) -> Option<TargetState> {
        self.lock().as_ref().map(|look| look.seen.clone())
    }

    /// Whether the last look is less than `age` ago.
    pub(crate) fn is_younger_than(&self, age: Duration) -> bool {
        self.lock().as_ref().is_some_and(|look| look.at.elapsed() < age)
    }

    /// What was seen, if it still holds at the next tick, `interval` from now. Without a version nothing would tell whether it
    /// still holds.
    pub(crate) fn recent(&self, interval: Duration) -> Option<TargetState> {
        let last = self.lock();
        let Look { seen, until, .. } = last.as_ref()?;
        (seen.version.is_some() && Instant::now() + interval <= *until).then(|| seen.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_as_many_per_second() {
        let looks = Looks::new();
        let taken = || (0..1000).filter(|_| looks.take()).count();
        assert_eq!(taken(), 100);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(taken(), 50);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(taken(), 100, "what was not used was saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_is_kept_until_the_tick_before_it_is_too_old_and_only_with_a_version() {
        let last = LastLook::default();
        let seen = |version: Option<&str>| TargetState {
            replicas: 3,
            version: version.map(str::to_owned),
        };
        let interval = Duration::from_secs(5);
        last.keep(&seen(Some("7")), LONGEST);
        assert_eq!(last.recent(Duration::from_secs(31)), None);
        tokio::time::advance(LONGEST - interval).await;
        assert_eq!(last.recent(interval), Some(seen(Some("7"))));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(last.recent(interval), None);
        last.keep(&seen(Some("8")), LONGEST);
        last.keep(&seen(None), LONGEST);
        assert_eq!(last.recent(interval), None, "an older look came back");
    }

    #[tokio::test]
    async fn lifetimes_are_spread_evenly_over_the_second_half() {
        let looks = Looks::new();
        let mut lifetimes: Vec<Duration> = (0..100).map(|_| looks.lifetime()).collect();
        lifetimes.sort();
        assert!(
            lifetimes[0] >= LONGEST / 2 && lifetimes[99] <= LONGEST,
            "{lifetimes:?}"
        );
        let widest = lifetimes.windows(2).map(|two| two[1] - two[0]).max();
        assert!(widest < Some(LONGEST / 50), "{widest:?}");
    }
}
