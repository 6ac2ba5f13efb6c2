//! Requests at a steady rate, whatever the answers take, and how long they took.
//!
//! A latency counts from the moment at which the request was due, so that a server that stalls cannot hide the requests
//! which would have come meanwhile.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Requests under way at once; one more than that counts as failed and is not sent.
const MOST_AT_ONCE: usize = 500;

/// What came of a load.
#[derive(Default, Debug)]
pub(crate) struct Outcome {
    sorted: Vec<Duration>,
    /// Requests that failed, or were not sent as too many were under way.
    pub(crate) failed: usize,
    /// One of the reasons.
    pub(crate) failure: Option<String>,
}

impl Outcome {
    /// The latency that this share of the answers kept, in milliseconds.
    pub(crate) fn percentile(&self, share: f64) -> Option<f64> {
        let last = self.sorted.len().checked_sub(1)?;
        let at = ((self.sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
        Some(self.sorted[at.min(last)].as_secs_f64() * 1000.0)
    }

    /// How many answers came.
    pub(crate) fn answered(&self) -> usize {
        self.sorted.len()
    }

    fn add(&mut self, took: Duration, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.sorted.push(took),
            Err(error) => self.fail(format!("{error:#}")),
        }
    }

    fn fail(&mut self, reason: String) {
        self.failed += 1;
        self.failure.get_or_insert(reason);
    }
}

/// Sends `rate` requests per second for so long. `request` is given the number of each.
pub(crate) async fn steady<F>(rate: u32, span: Duration, request: impl Fn(usize) -> F) -> Outcome
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (began, every) = (Instant::now(), Duration::from_secs(1) / rate);
    let count = (span.as_secs_f64() * f64::from(rate)) as usize;
    let (turns, mut under_way) = (Arc::new(Semaphore::new(MOST_AT_ONCE)), JoinSet::new());
    let mut outcome = Outcome::default();
    for number in 0..count {
        let due = began + every * u32::try_from(number).unwrap_or(u32::MAX);
        if due > Instant::now() {
            sleep_until(due).await;
        }
        while let Some(ended) = under_way.try_join_next() {
            collect(&mut outcome, ended);
        }
        let Ok(turn) = turns.clone().try_acquire_owned() else {
            outcome.fail(format!("{MOST_AT_ONCE} requests were under way"));
            continue;
        };
        let request = request(number);
        under_way.spawn(async move {
            let ended = request.await;
            drop(turn);
            (due.elapsed(), ended)
        });
    }
    while let Some(ended) = under_way.join_next().await {
        collect(&mut outcome, ended);
    }
    outcome.sorted.sort_unstable();
    outcome
}

fn collect(outcome: &mut Outcome, ended: Result<(Duration, Result<()>), tokio::task::JoinError>) {
    match ended {
        Ok((took, ended)) => outcome.add(took, ended),
        Err(error) => outcome.fail(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_are_sent_on_time_and_a_slow_answer_delays_no_other() {
        let outcome = steady(200, Duration::from_millis(500), |number| async move {
            let slow = if number == 0 { 600 } else { 1 };
            tokio::time::sleep(Duration::from_millis(slow)).await;
            anyhow::ensure!(number != 7, "the seventh");
            Ok(())
        })
        .await;
        assert_eq!((outcome.answered(), outcome.failed), (99, 1));
        assert_eq!(outcome.failure.as_deref(), Some("the seventh"));
        assert!(outcome.percentile(0.5).unwrap() < 300.0, "{outcome:?}");
        assert!(outcome.percentile(1.0).unwrap() >= 600.0, "{outcome:?}");
    }

    #[test]
    fn percentiles_of_few_and_of_none() {
        assert_eq!(Outcome::default().percentile(0.99), None);
        let sorted = (1..=100).map(Duration::from_millis).collect();
        let outcome = Outcome {
            sorted,
            ..Outcome::default()
        };
        assert_eq!(outcome.percentile(0.99), Some(99.0));
        assert_eq!(outcome.percentile(0.5), Some(50.0));
    }
}
