//! Answers of the API server about callers, remembered for a short while.
//!
//! ```text
//! age 0 ──────────── fresh/2 ──────────── fresh ───────────────── stale limit
//!      served as it is │ served, asked anew │ asked anew; served only   │ forgotten
//!                      │ in the background  │ if nobody can be asked    │
//! ```

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

/// A question is put as its digest, so that remembering one costs the same whatever a client sent.
pub(crate) type Question = [u8; 32];

/// How long an answer may be waited for, its turn included.
pub(crate) const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// After a question failed it is not put again for so long while an old answer will do.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How long a caller for whom an old answer will do waits for a new one.
const PATIENCE_WITH_OLD: Duration = Duration::from_secs(1);
/// Questions on their way to the API server at once, per cache.
const ASKED_AT_ONCE: usize = 16;

/// An answer that can be remembered.
pub(crate) trait Answer: Clone + Send + Sync + 'static {
    /// How long this answer holds without asking again.
    fn fresh_for(&self) -> Duration;
}

/// Nobody could say: the API server did not answer, or refused to.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the Kubernetes API server gave no answer: {0}")]
pub(crate) struct Unanswered(pub(crate) String);

type Pending<V> = Shared<BoxFuture<'static, Result<V, Unanswered>>>;

struct Entry<V> {
    answered: Option<(V, Instant)>,
    pending: Option<Pending<V>>,
    not_before: Option<Instant>,
}

impl<V> Default for Entry<V> {
    fn default() -> Self {
        Self {
            answered: None,
            pending: None,
            not_before: None,
        }
    }
}

/// A bounded memory of answers; a cheap handle.
pub(crate) struct ReviewCache<V> {
    // A plain mutex: held for map operations only, never over an await.
    entries: Arc<Mutex<HashMap<Question, Entry<V>>>>,
    turns: Arc<Semaphore>,
    capacity: usize,
}

impl<V> Clone for ReviewCache<V> {
    fn clone(&self) -> Self {
        Self {
            entries: Arc::clone(&self.entries),
            turns: Arc::clone(&self.turns),
            capacity: self.capacity,
        }
    }
}

impl<V: Answer> ReviewCache<V> {
    /// A memory of at most `capacity` answers.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            entries: Arc::default(),
            turns: Arc::new(Semaphore::new(ASKED_AT_ONCE)),
            capacity,
        }
    }

    /// The answer to `question`, put by `ask` if need be. When that fails, an answer of at most `stale_limit` of age
    /// still counts; zero means that none does.
    pub(crate) async fn resolve<F>(
        &self,
        question: Question,
        stale_limit: Duration,
        ask: impl FnOnce() -> F,
    ) -> Result<V, Unanswered>
    where
        F: Future<Output = Result<V, Unanswered>> + Send + 'static,
    {
        let (pending, old) = {
            let mut entries = self.lock();
            let now = Instant::now();
            let entry = entries.entry(question).or_default();
            let old = entry
                .answered
                .clone()
                .filter(|(answer, at)| now - *at < answer.fresh_for().max(stale_limit));
            let wait = entry.not_before.is_some_and(|not_before| now < not_before);
            if let Some((answer, at)) = &old {
                let (age, fresh) = (now - *at, answer.fresh_for());
                let renew = age >= fresh / 2 && !wait && entry.pending.is_none();
                if age < fresh || wait {
                    let answer = answer.clone();
                    if renew {
                        entry.pending = Some(self.put(question, ask()));
                    }
                    return Ok(answer);
                }
            }
            let pending = entry
                .pending
                .get_or_insert_with(|| self.put(question, ask()))
                .clone();
            self.trim(&mut entries, now);
            (pending, old)
        };
        let Some((old, _)) = old else {
            return pending.await;
        };
        match timeout(PATIENCE_WITH_OLD, pending).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Ok(old),
        }
    }

    /// What is remembered of `question`, without asking.
    pub(crate) fn remembered(&self, question: &Question, stale_limit: Duration) -> Option<V> {
        let entries = self.lock();
        let (answer, at) = entries.get(question)?.answered.as_ref()?;
        (at.elapsed() < answer.fresh_for().max(stale_limit)).then(|| answer.clone())
    }

    /// Starts asking, in a task of its own: a caller who leaves takes nobody else's answer away.
    fn put(
        &self,
        question: Question,
        ask: impl Future<Output = Result<V, Unanswered>> + Send + 'static,
    ) -> Pending<V> {
        let cache = self.clone();
        let task = tokio::spawn(async move {
            let turn = async {
                let _turn = cache.turns.acquire().await;
                ask.await
            };
            let result = timeout(ANSWER_DEADLINE, turn)
                .await
                .unwrap_or_else(|_| Err(Unanswered("deadline of 5 s exceeded".to_owned())));
            cache.note(question, &result);
            result
        });
        async move {
            task.await
                .unwrap_or_else(|_| Err(Unanswered("the question was abandoned".to_owned())))
        }
        .boxed()
        .shared()
    }

    fn note(&self, question: Question, result: &Result<V, Unanswered>) {
        let mut entries = self.lock();
        let now = Instant::now();
        let entry = entries.entry(question).or_default();
        entry.pending = None;
        match result {
            Ok(answer) => {
                entry.answered = Some((answer.clone(), now));
                entry.not_before = None;
            }
            Err(_) if entry.answered.is_some() => entry.not_before = Some(now + RETRY_AFTER),
            Err(_) => {
                entries.remove(&question);
            }
        }
        self.trim(&mut entries, now);
    }

    /// Makes room: entries that never got an answer go first, then the oldest answers.
    fn trim(&self, entries: &mut HashMap<Question, Entry<V>>, now: Instant) {
        while entries.len() > self.capacity {
            let age = |entry: &Entry<V>| entry.answered.as_ref().map_or(Duration::MAX, |(_, at)| now - *at);
            let waiting = |entry: &Entry<V>| entry.pending.is_some();
            let oldest = entries
                .iter()
                .max_by_key(|(_, entry)| (!waiting(entry), age(entry)))
                .map(|(question, _)| *question);
            match oldest {
                Some(question) => entries.remove(&question),
                None => break,
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Question, Entry<V>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
