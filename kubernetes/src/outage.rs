//! How often a failure that lasts is worth a log record.

use std::time::Duration;

use tokio::time::Instant;

/// The time between two records of the same outage.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Whether something works, and for how long it has not.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    since: Option<Instant>,
    logged: Option<Instant>,
}

impl Outage {
    /// Notes a failure. How long the outage has lasted, if that should be logged: at its beginning, then now and again.
    pub(crate) fn failed(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let lasting = now - *self.since.get_or_insert(now);
        if self.logged.is_some_and(|logged| now - logged < LOG_INTERVAL) {
            return None;
        }
        self.logged = Some(now);
        Some(Duration::from_millis(
            u64::try_from(lasting.as_millis()).unwrap_or(u64::MAX),
        ))
    }

    /// How long nothing has worked; zero while it does.
    pub(crate) fn lasting(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Notes a success. How long the outage lasted that it ends, if there was one.
    pub(crate) fn ended(&mut self) -> Option<Duration> {
        let lasted = self.since.take()?.elapsed();
        self.logged = None;
        Some(Duration::from_millis(
            u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
        ))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_told_at_once_then_once_a_minute_and_at_its_end() {
        let mut outage = Outage::default();
        assert_eq!(outage.ended(), None);
        let mut told = Vec::new();
        for _ in 0..180 {
            told.extend(outage.failed());
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(told, [0, 60, 120].map(Duration::from_secs));
        assert_eq!(outage.ended(), Some(Duration::from_secs(180)));
        assert_eq!(outage.failed(), Some(Duration::ZERO));
    }
}
