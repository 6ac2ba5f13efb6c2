//! Delays between attempts: exponential, jittered, never beyond a cap.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use rand::Rng;

/// The delays of one retried activity.
///
/// Each delay lies in the upper half of an exponentially growing step: at least half of it, so that a retry is never
/// immediate, and at most the whole of it, so that the cap holds. Steps double from the first to the cap and stay there.
/// The backoff never gives up: whoever retries decides when to stop.
#[derive(Debug)]
pub struct Backoff {
    steps: ExponentialBuilder,
    current: ExponentialBackoff,
    cap: Duration,
}

impl Backoff {
    /// A backoff whose first delay is at most `first` and whose later ones grow to at most `cap`.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Self {
        let steps = ExponentialBuilder::new()
            .with_min_delay(first.min(cap))
            .with_max_delay(cap)
            .with_factor(2.0)
            .without_max_times();
        Self {
            steps,
            current: steps.build(),
            cap,
        }
    }

    /// How long to wait before the next attempt; each call takes a longer step.
    pub fn next_delay(&mut self) -> Duration {
        let step = self.current.next().unwrap_or(self.cap).min(self.cap);
        step.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Starts over from the first step, after an attempt that succeeded.
    pub fn reset(&mut self) {
        self.current = self.steps.build();
    }
}

/// The delay before attempt number `failures + 1`, for callers that count failures themselves.
///
/// `failures` of 0 means no delay. The same bounds and jitter as [`Backoff`] hold.
#[must_use]
pub fn delay_after(failures: u32, first: Duration, cap: Duration) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else {
        return Duration::ZERO;
    };
    let step = 1_u32
        .checked_shl(doublings)
        .and_then(|factor| first.checked_mul(factor))
        .map_or(cap, |step| step.min(cap));
    step.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn steps_double_up_to_the_cap_and_a_reset_starts_over() {
        let (first, cap) = (Duration::from_millis(100), Duration::from_secs(3));
        let mut backoff = Backoff::new(first, cap);
        for step in [100, 200, 400, 800, 1600, 3000, 3000, 3000] {
            let (delay, step) = (backoff.next_delay(), Duration::from_millis(step));
            assert!(
                delay <= step && delay >= step / 2,
                "{delay:?} is outside the upper half of {step:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next_delay() <= first);
    }

    proptest! {
        #[test]
        fn a_counted_delay_is_never_beyond_the_cap_nor_immediate(failures in 0_u32.., first in 1_u64..5_000) {
            let (first, cap) = (Duration::from_millis(first), Duration::from_secs(30));
            let delay = delay_after(failures, first, cap);
            prop_assert!(delay <= cap);
            prop_assert_eq!(delay.is_zero(), failures == 0);
        }
    }
}
