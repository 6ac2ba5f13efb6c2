//! How often targets are looked at.
//!
//! A look at a target is a call of the API server, and the only call that a polling tick makes when nothing happens. As long
//! as few are made, each tick looks; beyond [`PER_SECOND`], a tick may take the target as it was at most [`LONGEST`] ago.
//! What acts on such a look acts on the version that was seen, or looks anew.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::ports::TargetState;

/// The oldest look that a tick decides on: KEDA's default polling interval, at which its users are content with one.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);
/// How many routine looks of all objects together are made whatever was seen before.
pub(crate) const PER_SECOND: u32 = 100;

/// The looks that all objects of a process may still make.
#[derive(Debug)]
pub(crate) struct Looks {
    left: Mutex<(f64, Instant)>,
}

impl Looks {
    pub(crate) fn new() -> Self {
        Self {
            left: Mutex::new((f64::from(PER_SECOND), Instant::now())),
        }
    }

    /// Whether one more may be made now; if so, it counts.
    pub(crate) fn take(&self) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (most, gained) = (f64::from(PER_SECOND), (now - left.1).as_secs_f64());
        let available = (left.0 + gained * most).min(most);
        let granted = available >= 1.0;
        *left = (if granted { available - 1.0 } else { available }, now);
        granted
    }
}

/// The target as it was last seen.
#[derive(Debug, Default)]
pub(crate) struct LastLook(Mutex<Option<(TargetState, Instant)>>);

impl LastLook {
    /// What was seen or set just now.
    pub(crate) fn keep(&self, seen: &TargetState) {
        *self.lock() = Some((seen.clone(), Instant::now()));
    }

    pub(crate) fn forget(&self) {
        *self.lock() = None;
    }

    /// What was seen or set last, however long ago.
    pub(crate) fn any(&self) -> Option<TargetState> {
        self.lock().as_ref().map(|(seen, _)| seen.clone())
    }

    /// What was seen, if that is not too long ago to decide on. Without a version nothing would tell whether it still holds.
    pub(crate) fn recent(&self) -> Option<TargetState> {
        let last = self.lock();
        let (seen, at) = last.as_ref()?;
        (seen.version.is_some() && at.elapsed() < LONGEST).then(|| seen.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(TargetState, Instant)>> {
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
    async fn a_look_is_kept_for_half_a_minute_and_only_with_a_version() {
        let last = LastLook::default();
        let seen = |version: Option<&str>| TargetState {
            replicas: 3,
            version: version.map(str::to_owned),
        };
        last.keep(&seen(Some("7")));
        tokio::time::advance(LONGEST - Duration::from_millis(1)).await;
        assert_eq!(last.recent(), Some(seen(Some("7"))));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(last.recent(), None);
        last.keep(&seen(Some("8")));
        last.keep(&seen(None));
        assert_eq!(last.recent(), None, "an older look came back");
    }
}
