//! Requests per second over a sliding window, in memory that does not grow with the requests.

use std::time::{Duration, Instant};

/// How a rate is averaged: bounds are applied once, here, so that no window can be empty or cost much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateWindow {
    window: Duration,
    granularity: Duration,
}

impl RateWindow {
    /// Reports come coalesced: finer steps would say nothing.
    const FINEST: Duration = Duration::from_millis(100);
    /// The longest window: a day.
    const LONGEST: Duration = Duration::from_secs(24 * 3600);
    /// Steps of a window at most; a longer one has coarser steps.
    const MOST_STEPS: u32 = 120;

    /// An average over `window`, in steps of `granularity`; both are brought within what can be measured.
    #[must_use]
    pub fn new(window: Duration, granularity: Duration) -> Self {
        let window = window.clamp(Self::FINEST, Self::LONGEST);
        Self {
            window,
            granularity: granularity
                .max(window / Self::MOST_STEPS)
                .clamp(Self::FINEST, window),
        }
    }

    /// The length of the window.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.window
    }

    fn steps(&self) -> usize {
        usize::try_from(self.window.as_nanos().div_ceil(self.granularity.as_nanos())).unwrap_or(usize::MAX)
    }
}

/// Requests by step of time, for the last window.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    over: RateWindow,
    /// One more step than the window has: the newest is still filling.
    steps: Box<[u64]>,
    /// When step 0 began.
    epoch: Instant,
    newest: u64,
}

impl Counts {
    pub(super) fn new(over: RateWindow, now: Instant) -> Self {
        Self {
            over,
            steps: vec![0; over.steps() + 1].into_boxed_slice(),
            epoch: now,
            newest: 0,
        }
    }

    pub(super) fn over(&self) -> RateWindow {
        self.over
    }

    pub(super) fn clear(&mut self) {
        self.steps.fill(0);
    }

    pub(super) fn add(&mut self, now: Instant, requests: u64) {
        let (step, len) = (self.step(now), self.len());
        if step > self.newest {
            for passed in (self.newest + 1..=step).rev().take(self.steps.len()) {
                self.steps[slot(passed, len)] = 0;
            }
            self.newest = step;
        }
        let count = &mut self.steps[slot(self.newest, len)];
        *count = count.saturating_add(requests);
    }

    /// Requests per second. Until a window has passed since `edge`, the average is over the time since then.
    #[expect(clippy::cast_precision_loss, reason = "an average")]
    pub(super) fn rate(&self, now: Instant, edge: Option<Instant>) -> f64 {
        let Some(edge) = edge else { return 0.0 };
        let (step, len) = (self.step(now), self.len());
        let oldest = (step + 1).saturating_sub(len);
        let kept = (self.newest + 1).saturating_sub(len).max(oldest)..=self.newest;
        let requests: u64 = kept
            .map(|step| self.steps[slot(step, len)])
            .fold(0, u64::saturating_add);
        let oldest_began = self.epoch + self.over.granularity.mul_f64(oldest as f64);
        let covered = now.saturating_duration_since(oldest_began.max(edge));
        requests as f64 / covered.max(self.over.granularity).as_secs_f64()
    }

    fn step(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(passed / self.over.granularity.as_nanos()).unwrap_or(u64::MAX)
    }

    fn len(&self) -> u64 {
        self.steps.len() as u64
    }
}

#[expect(clippy::cast_possible_truncation, reason = "less than the number of steps")]
fn slot(step: u64, len: u64) -> usize {
    (step % len) as usize
}
