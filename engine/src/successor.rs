//! A trigger whose credentials have changed: the old client is kept until the new one has been let in.
//!
//! A source may take a while to know a new key that it has already handed out (AWS does), and its owner changes the Secret in
//! that while. So what is refused at first is read once more as before, for a short time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dormouse_scalers::error::ReadErrorKind;
use dormouse_scalers::{MetricSpec, Observed, ReadError, Trigger};
use futures::future::BoxFuture;
use tokio::time::Instant;

/// How long a new credential may be refused before that counts.
const GRACE: Duration = Duration::from_secs(30);

/// The new client and, until it has read once, the old one.
pub(crate) struct Successor {
    new: Arc<dyn Trigger>,
    // Held to look at or take away, never over a read.
    old: Mutex<Option<Old>>,
}

struct Old {
    trigger: Arc<dyn Trigger>,
    until: Instant,
}

impl Successor {
    pub(crate) fn of(old: Arc<dyn Trigger>, new: Arc<dyn Trigger>) -> Arc<dyn Trigger> {
        let until = Instant::now() + GRACE;
        let old = Mutex::new(Some(Old { trigger: old, until }));
        Arc::new(Self { new, old })
    }

    /// The old client is refused too, and so of no more use.
    fn give_up_the_old(&self) {
        *self.old.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The old client, if this result of the new one calls for it. It is gone for good after the first success.
    fn predecessor(&self, result: &Result<Observed, ReadError>) -> Option<Arc<dyn Trigger>> {
        let mut old = self.old.lock().unwrap_or_else(PoisonError::into_inner);
        let over = old.as_ref().is_some_and(|old| old.until <= Instant::now());
        match result {
            Ok(_) => *old = None,
            Err(_) if over => *old = None,
            Err(error) if error.kind == ReadErrorKind::Denied => {
                return old.as_ref().map(|old| old.trigger.clone());
            }
            Err(_) => {}
        }
        None
    }
}

impl Trigger for Successor {
    fn label(&self) -> &'static str {
        self.new.label()
    }

    fn metric(&self) -> MetricSpec {
        self.new.metric()
    }

    fn deadline(&self) -> Duration {
        self.new.deadline()
    }

    fn read(self: Arc<Self>) -> BoxFuture<'static, Result<Observed, ReadError>> {
        Box::pin(async move {
            let result = self.new.clone().read().await;
            let Some(old) = self.predecessor(&result) else {
                return result;
            };
            let by_the_old = old.read().await;
            if matches!(&by_the_old, Err(error) if error.kind == ReadErrorKind::Denied) {
                self.give_up_the_old();
            }
            by_the_old.or(result)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use dormouse_scalers::Target;
    use tokio::time::sleep;

    use super::*;

    /// Answers its value, or is refused.
    struct Source(Arc<Mutex<Result<f64, ReadErrorKind>>>);

    impl Trigger for Source {
        fn label(&self) -> &'static str {
            "source"
        }

        fn metric(&self) -> MetricSpec {
            MetricSpec {
                base_name: "source".into(),
                target: Target::Whole(1),
            }
        }

        fn deadline(&self) -> Duration {
            Duration::from_secs(3)
        }

        fn read(self: Arc<Self>) -> BoxFuture<'static, Result<Observed, ReadError>> {
            let now = *self.0.lock().unwrap();
            Box::pin(async move {
                now.map(|value| Observed::above(value, 0.0))
                    .map_err(|kind| ReadError::new(kind, "no"))
            })
        }
    }

    struct Pair {
        old: Arc<Mutex<Result<f64, ReadErrorKind>>>,
        new: Arc<Mutex<Result<f64, ReadErrorKind>>>,
        held: Weak<dyn Trigger>,
        trigger: Arc<dyn Trigger>,
    }

    fn pair(new: Result<f64, ReadErrorKind>) -> Pair {
        let (old, new) = (Arc::new(Mutex::new(Ok(1.0))), Arc::new(Mutex::new(new)));
        let first: Arc<dyn Trigger> = Arc::new(Source(old.clone()));
        let held = Arc::downgrade(&first);
        let trigger = Successor::of(first, Arc::new(Source(new.clone())));
        Pair {
            old,
            new,
            held,
            trigger,
        }
    }

    impl Pair {
        async fn read(&self) -> Result<f64, ReadErrorKind> {
            let read = self.trigger.clone().read().await;
            read.map(|observed| observed.value).map_err(|error| error.kind)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_success_ends_the_old_one() {
        let pair = pair(Ok(2.0));
        assert_eq!(pair.read().await, Ok(2.0));
        assert!(pair.held.upgrade().is_none());
        *pair.new.lock().unwrap() = Err(ReadErrorKind::Denied);
        assert_eq!(pair.read().await, Err(ReadErrorKind::Denied));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_not_known_yet_costs_no_read_until_it_is() {
        let pair = pair(Err(ReadErrorKind::Denied));
        for _ in 0..5 {
            assert_eq!(pair.read().await, Ok(1.0));
            sleep(Duration::from_secs(2)).await;
        }
        *pair.new.lock().unwrap() = Ok(2.0);
        assert_eq!(pair.read().await, Ok(2.0));
        assert!(pair.held.upgrade().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_key_fails_after_the_grace_or_once_the_old_one_does() {
        let wrong = pair(Err(ReadErrorKind::Denied));
        assert_eq!(wrong.read().await, Ok(1.0));
        sleep(GRACE).await;
        assert_eq!(wrong.read().await, Err(ReadErrorKind::Denied));
        assert!(wrong.held.upgrade().is_none());

        let revoked = pair(Err(ReadErrorKind::Denied));
        *revoked.old.lock().unwrap() = Err(ReadErrorKind::NotFound);
        assert_eq!(revoked.read().await, Err(ReadErrorKind::Denied));
        assert!(revoked.held.upgrade().is_some(), "it may be let in again");
        *revoked.old.lock().unwrap() = Err(ReadErrorKind::Denied);
        assert_eq!(revoked.read().await, Err(ReadErrorKind::Denied));
        assert!(
            revoked.held.upgrade().is_none(),
            "both were refused, and are asked both"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn any_other_failure_is_told_as_it_is() {
        let pair = pair(Err(ReadErrorKind::Unreachable));
        assert_eq!(pair.read().await, Err(ReadErrorKind::Unreachable));
    }
}
