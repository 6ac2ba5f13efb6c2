//! What an object was, and since when: a watch that remembers.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use futures::StreamExt as _;
use kube::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// A value and when it was first seen.
#[derive(Clone, Copy, Debug)]
pub struct Change<T> {
    /// When.
    pub at: Instant,
    /// The new value.
    pub value: T,
}

/// Follows one aspect of one object from the moment it is made. Each change is kept, at most 10,000 of them.
pub struct Timeline<T> {
    changes: watch::Receiver<Vec<Change<T>>>,
    _follow: AbortOnDropHandle<()>,
}

const KEPT: usize = 10_000;

impl<T: Clone + PartialEq + Debug + Send + Sync + 'static> Timeline<T> {
    /// Follows `aspect` of the object `name`, which need not exist yet.
    pub fn of<K>(api: Api<K>, name: &str, aspect: impl Fn(&K) -> T + Send + 'static) -> Self
    where
        K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let (tell, changes) = watch::channel(Vec::<Change<T>>::new());
        let stream = watch_object(api, name).default_backoff();
        let follow = tokio::spawn(async move {
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
                let Ok(Some(object)) = event else { continue };
                let value = aspect(&object);
                tell.send_if_modified(|all| {
                    let new = all.last().is_none_or(|last| last.value != value) && all.len() < KEPT;
                    if new {
                        all.push(Change {
                            at: Instant::now(),
                            value,
                        });
                    }
                    new
                });
            }
        });
        Self {
            changes,
            _follow: AbortOnDropHandle::new(follow),
        }
    }

    /// Everything seen so far, oldest first.
    #[must_use]
    pub fn changes(&self) -> Vec<Change<T>> {
        self.changes.borrow().clone()
    }

    /// The newest value.
    #[must_use]
    pub fn now(&self) -> Option<T> {
        self.changes.borrow().last().map(|change| change.value.clone())
    }

    /// The first change after `since` whose value is `wanted`, waiting for it up to `deadline`.
    ///
    /// # Errors
    /// When the deadline passes; with everything that was seen.
    pub async fn first(
        &self,
        what: &str,
        since: Instant,
        deadline: Duration,
        wanted: impl Fn(&T) -> bool,
    ) -> Result<Change<T>> {
        let mut changes = self.changes.clone();
        let find = |all: &Vec<Change<T>>| {
            all.iter()
                .find(|one| one.at >= since && wanted(&one.value))
                .cloned()
        };
        let found = tokio::time::timeout(deadline, changes.wait_for(|all| find(all).is_some())).await;
        match found {
            Ok(all) => {
                find(&*all.context("the watch has ended")?).ok_or_else(|| anyhow!("{what}: gone again"))
            }
            Err(_) => Err(anyhow!(
                "waited {deadline:?} for this, in vain: {what}; seen were {:?}",
                self.changes()
                    .iter()
                    .map(|change| change.value.clone())
                    .collect::<Vec<_>>()
            )),
        }
    }

    /// Waits until the value is `wanted`, which it may be already.
    ///
    /// # Errors
    /// As [`first`](Self::first).
    pub async fn reaches(&self, what: &str, deadline: Duration, wanted: impl Fn(&T) -> bool) -> Result<T> {
        let mut changes = self.changes.clone();
        let holds = |all: &Vec<Change<T>>| all.last().is_some_and(|last| wanted(&last.value));
        let found = tokio::time::timeout(deadline, changes.wait_for(holds)).await;
        match found {
            Ok(all) => all
                .context("the watch has ended")?
                .last()
                .map(|last| last.value.clone())
                .ok_or_else(|| anyhow!("{what}: nothing was seen")),
            Err(_) => Err(anyhow!(
                "waited {deadline:?} for this, in vain: {what}; now it is {:?}",
                self.now()
            )),
        }
    }
}
