//! Timeouts that a route may have of its own.

use std::time::Duration;

/// How long each part of a request may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Waiting for a ready pod: see also [`RouteSettings::readiness`](super::RouteSettings::readiness).
    pub readiness: Timeout,
    /// The request in all.
    pub request: Timeout,
    /// From the end of the request to the head of the response.
    pub response_header: Timeout,
}

/// What a route says of a timeout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timeout {
    /// Nothing: the interceptor's own setting holds.
    #[default]
    Inherited,
    /// `0s`: there is none. What the interceptor bounds in any case, it still does.
    None,
    /// This long; above 0.
    After(Duration),
}

impl Timeout {
    /// The timeout in force, where the interceptor's own setting is `inherited`; `None` is no bound.
    #[must_use]
    pub fn or(self, inherited: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Inherited => inherited,
            Self::None => None,
            Self::After(duration) => Some(duration),
        }
    }
}

impl From<Duration> for Timeout {
    fn from(duration: Duration) -> Self {
        if duration.is_zero() {
            Self::None
        } else {
            Self::After(duration)
        }
    }
}
