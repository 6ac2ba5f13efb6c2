//! How often an endpoint is tried.

use std::time::Duration;

use tokio::time::Instant;

/// How long it is tried most often.
const EAGER: Duration = Duration::from_secs(1);
/// After this long, waiting for a second more makes no difference.
const LATE: Duration = Duration::from_secs(10);

/// The pauses between tries: `first` in the first second; after that about a fiftieth of the time that has passed, up to
/// 100 ms, and after ten seconds up to 1 s.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    began: Instant,
    first: Duration,
}

impl Pace {
    /// Begins now.
    pub(super) fn new(first: Duration) -> Self {
        Self {
            began: Instant::now(),
            first,
        }
    }

    /// The pause before the next try.
    pub(super) fn pause(&self) -> Duration {
        match self.began.elapsed() {
            passed if passed < EAGER => self.first,
            passed if passed < LATE => (passed / 50).clamp(self.first, Duration::from_millis(100)),
            passed => (passed / 50).min(Duration::from_secs(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_takes_long_is_tried_less_often() {
        let pace = Pace::new(Duration::from_millis(5));
        let mut at = Duration::ZERO;
        for (seconds, expected) in [
            (0.0, 5),
            (0.999, 5),
            (1.0, 20),
            (4.0, 80),
            (9.9, 100),
            (10.0, 200),
            (60.0, 1000),
        ] {
            let to = Duration::from_secs_f64(seconds);
            tokio::time::advance(to - at).await;
            at = to;
            assert_eq!(pace.pause().as_millis(), expected, "after {seconds} s");
        }
    }
}
