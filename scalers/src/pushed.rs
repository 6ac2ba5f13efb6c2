//! Triggers that are told of changes: what they know is in memory, and they say when to look.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::error::ReadError;
use crate::scaler::Observed;

/// The side of a trigger that never has to ask anybody.
pub trait Pushed: Send + Sync {
    /// What it knows at this moment.
    fn told(&self) -> Told;
    /// Changes whenever what it knows has to be acted on at once. Only a hint to look: the number means nothing.
    fn news(&self) -> watch::Receiver<u64>;
    /// Whether its value, held against its target, says how many replicas are needed at once.
    fn sizes(&self) -> bool;
    /// Makes sure that its target may be put to sleep: what comes from now on waits, and nothing is under way. Has to be
    /// asked under a deadline.
    ///
    /// # Errors
    /// Something is under way, or it cannot be known: the target has to stay.
    fn hold(&self) -> BoxFuture<'_, Result<Box<dyn Hold>, ReadError>>;
}

/// What a pushed trigger knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// What is certain.
    pub observed: Observed,
    /// Whether what was counted waits for replicas that do not serve yet.
    pub waiting: bool,
    /// How long ago there was demand; `None` where none was ever heard of.
    pub quiet_for: Option<Duration>,
    /// How long ago it began, after a spell without any; `None` where that is not known.
    pub began_ago: Option<Duration>,
    /// Why there may be more than what is certain. It may wake a target then, and neither put it to sleep nor be served.
    pub unknown: Option<ReadError>,
}

/// While this lives, nothing that comes reaches the target. Dropping it calls the sleep off: what was held goes on.
pub trait Hold: Send {
    /// The target sleeps: what was held, and what comes, waits until it is awake again.
    fn slept(self: Box<Self>);
}
