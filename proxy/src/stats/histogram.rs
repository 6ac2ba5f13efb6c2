//! Times, counted in buckets.

use std::time::Duration;

/// How many times were how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    bounds: &'static [Duration],
    /// One for each bound, for what is no longer than it and longer than the one before; and one for the rest.
    counts: Box<[u64]>,
    sum: Duration,
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [Duration]) -> Self {
        Self {
            bounds,
            counts: vec![0; bounds.len() + 1].into(),
            sum: Duration::ZERO,
        }
    }

    pub(crate) fn observe(&mut self, took: Duration) {
        let bucket = self.bounds.iter().position(|bound| took <= *bound);
        if let Some(count) = self.counts.get_mut(bucket.unwrap_or(self.bounds.len())) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(took);
    }

    /// Adds one with the same bounds.
    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long they were together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Each bound in seconds, the last of which is [`f64::INFINITY`] and stands for none, with how many were no longer than it and
    /// longer than the one before.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = self
            .bounds
            .iter()
            .map(Duration::as_secs_f64)
            .chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[Duration] = &[Duration::from_millis(5), Duration::from_secs(1)];

    #[test]
    fn a_time_is_in_the_first_bucket_that_holds_it() {
        let mut histogram = Histogram::new(BOUNDS);
        for millis in [0, 5, 6, 1000, 1001, 90_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut both = histogram.clone();
        both.add(&histogram);
        let buckets: Vec<_> = both.buckets().collect();
        assert_eq!(buckets, [(0.005, 4), (1.0, 4), (f64::INFINITY, 4)]);
        assert_eq!((both.count(), both.sum()), (12, Duration::from_millis(184_024)));
    }
}
