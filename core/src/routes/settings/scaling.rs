//! What demand is measured in.

use std::num::NonZeroU32;
use std::time::Duration;

/// Into how many steps a rate's window is divided at most: the memory that each route's rate takes is bounded.
pub const MOST_STEPS: u32 = 3600;

/// What one replica copes with. At least one of the two is there; with both, the one that asks for more replicas counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScalingMetric {
    /// Requests at the same time, waiting ones included.
    pub concurrency: Option<NonZeroU32>,
    /// Requests per second.
    pub request_rate: Option<RequestRate>,
}

/// A rate per second, averaged over a window that moves in steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRate {
    target: NonZeroU32,
    window: Duration,
    granularity: Duration,
}

/// Why a window cannot be measured; the message says what is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestRateError {
    /// The window is empty.
    #[error("a duration above 0")]
    EmptyWindow,
    /// The steps are empty, or longer than the window.
    #[error("a duration above 0 and no longer than the window")]
    Granularity,
}

impl RequestRate {
    /// A rate of `target` requests per second for each replica. Steps so fine that the window would have more than
    /// [`MOST_STEPS`] are made coarser.
    ///
    /// # Errors
    /// See [`RequestRateError`].
    pub fn try_new(
        target: NonZeroU32,
        window: Duration,
        granularity: Duration,
    ) -> Result<Self, RequestRateError> {
        if window.is_zero() {
            return Err(RequestRateError::EmptyWindow);
        }
        if granularity.is_zero() || granularity > window {
            return Err(RequestRateError::Granularity);
        }
        // Rounded up, so that the steps do not become one too many.
        let finest = window.as_nanos().div_ceil(u128::from(MOST_STEPS));
        let finest = u64::try_from(finest).map_or(window, Duration::from_nanos);
        Ok(Self {
            target,
            window,
            granularity: granularity.max(finest),
        })
    }

    /// Requests per second that one replica copes with.
    #[must_use]
    pub fn target(&self) -> NonZeroU32 {
        self.target
    }

    /// The time that the rate is averaged over; above 0.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.window
    }

    /// The steps in which the window moves; above 0 and no longer than the window.
    #[must_use]
    pub fn granularity(&self) -> Duration {
        self.granularity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_cannot_be_measured_is_refused_and_what_is_too_fine_made_coarser() {
        let hour = SECOND * 3600;
        let nano = Duration::from_nanos(1);
        for (window, granularity, expected) in [
            (SECOND * 60, SECOND, Ok(SECOND)),
            (SECOND, SECOND, Ok(SECOND)),
            (SECOND, SECOND / 2, Ok(SECOND / 2)),
            (hour, SECOND, Ok(SECOND)),
            (hour * 24, SECOND, Ok(SECOND * 24)),
            (nano * 3601, nano, Ok(nano * 2)),
            (nano, nano, Ok(nano)),
            (Duration::MAX, nano, Ok(Duration::MAX)),
            (Duration::ZERO, SECOND, Err(RequestRateError::EmptyWindow)),
            (SECOND, Duration::ZERO, Err(RequestRateError::Granularity)),
            (SECOND, SECOND + nano, Err(RequestRateError::Granularity)),
        ] {
            let rate = RequestRate::try_new(NonZeroU32::MIN, window, granularity);
            assert_eq!(rate.map(|rate| rate.granularity()), expected, "{window:?}");
            if let Ok(rate) = rate {
                let steps = rate.window().as_nanos().div_ceil(rate.granularity().as_nanos());
                assert!(steps <= u128::from(MOST_STEPS), "{window:?}");
            }
        }
    }
}
