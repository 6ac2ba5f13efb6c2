//! A server that asks for patience gets it from every trigger of the account it told, and from no other.
//!
//! ```text
//! 429 or 503 with Retry-After ── pause ──> account (server + identity) ── admit ──> "throttled", without a call
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clients::Fingerprint;
use crate::error::{ReadError, ReadErrorKind};

/// The longest an account is left alone for one answer, whatever the answer says: a server that asks for a day must not
/// put an autoscaler out of work for a day.
pub const LONGEST_PATIENCE: Duration = Duration::from_secs(5 * 60);
/// Accounts remembered at once; beyond that, who is told to wait is forgotten rather than memory grown.
const ACCOUNTS: usize = 10_000;

/// Until when accounts are left alone.
#[derive(Debug, Default)]
pub(crate) struct Backpressure {
    // Held for a look or an entry only.
    until: Mutex<HashMap<Fingerprint, Instant>>,
}

impl Backpressure {
    fn until(&self) -> MutexGuard<'_, HashMap<Fingerprint, Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One identity at one server.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    backpressure: Arc<Backpressure>,
    key: Fingerprint,
}

impl Account {
    pub(crate) fn new(backpressure: &Arc<Backpressure>, key: Fingerprint) -> Self {
        Self {
            backpressure: Arc::clone(backpressure),
            key,
        }
    }

    /// The same identity at this server.
    pub(crate) fn at(&self, scheme: &str, host: &str, port: Option<u16>) -> Self {
        let port = port.map(|port| port.to_string()).unwrap_or_default();
        Self::new(&self.backpressure, self.key.and(&[scheme, host, &port]))
    }

    /// Fails while the server wants to be left alone. `what` begins the sentence, which is the same for as long as the
    /// pause lasts.
    pub(crate) fn admit(&self, what: &str) -> Result<(), ReadError> {
        let now = Instant::now();
        let mut until = self.backpressure.until();
        match until.get(&self.key) {
            Some(end) if *end > now => {
                let kind = ReadErrorKind::Throttled {
                    retry_after: Some(*end - now),
                };
                let message = format!("{what}: not asked, as the server wants to be left alone for a while");
                Err(ReadError::new(kind, message))
            }
            Some(_) => {
                until.remove(&self.key);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Takes note of a failure that says how long to wait.
    pub(crate) fn obey(&self, failure: &ReadError) {
        if let ReadErrorKind::Throttled {
            retry_after: Some(wait),
        } = failure.kind
        {
            self.pause(wait);
        }
    }

    /// Takes note that the server wants to be left alone for so long.
    pub(crate) fn pause(&self, wait: Duration) {
        if wait.is_zero() {
            return;
        }
        let now = Instant::now();
        let end = now + wait.min(LONGEST_PATIENCE);
        let mut until = self.backpressure.until();
        if until.len() >= ACCOUNTS && !until.contains_key(&self.key) {
            until.retain(|_, end| *end > now);
            if until.len() >= ACCOUNTS {
                return;
            }
        }
        let known = until.entry(self.key).or_insert(end);
        *known = end.max(*known);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn account(backpressure: &Arc<Backpressure>, name: &str) -> Account {
        Account::new(backpressure, Fingerprint::of(&[name]))
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_is_left_alone_for_as_long_as_it_was_asked_and_no_other_is() {
        let book = Arc::new(Backpressure::default());
        let (one, other) = (account(&book, "one"), account(&book, "other"));
        one.pause(Duration::from_secs(20));
        // Answers to calls that were under way come late, and may say less.
        one.pause(Duration::from_secs(1));
        let refused = one.admit("error reading x").unwrap_err();
        assert_eq!(
            refused.kind,
            ReadErrorKind::Throttled {
                retry_after: Some(Duration::from_secs(20))
            }
        );
        assert!(refused.message.starts_with("error reading x: "), "{refused}");
        assert!(other.admit("x").is_ok());
        assert!(one.at("https", "elsewhere", None).admit("x").is_ok());
        advance(Duration::from_secs(19)).await;
        assert_eq!(one.admit("error reading x").unwrap_err().message, refused.message);
        advance(Duration::from_secs(1)).await;
        assert!(one.admit("x").is_ok());
        assert!(book.until().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_left_alone_for_a_day_and_memory_has_a_bound() {
        let book = Arc::new(Backpressure::default());
        let one = account(&book, "one");
        one.pause(Duration::from_secs(86_400));
        advance(LONGEST_PATIENCE).await;
        assert!(one.admit("x").is_ok());
        for name in 0..2 * ACCOUNTS {
            account(&book, &name.to_string()).pause(Duration::from_secs(60));
        }
        assert_eq!(book.until().len(), ACCOUNTS);
        advance(Duration::from_secs(60)).await;
        one.pause(Duration::from_secs(1));
        assert_eq!(book.until().len(), 1, "what is over makes room");
    }
}
