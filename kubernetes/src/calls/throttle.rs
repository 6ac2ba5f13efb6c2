//! The server's wish for patience, shared by all clients of one API server.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Response, StatusCode, header::RETRY_AFTER};
use tokio::time::Instant;

/// The longest pause that is obeyed; a server that means more will say so again.
pub const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Until when ordinary calls wait. Cheap to clone; all clones share it.
#[derive(Debug, Clone, Default)]
pub struct Throttle {
    until: Arc<Mutex<Option<Instant>>>,
}

impl Throttle {
    /// A throttle that holds nothing back.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes what an answer says about patience: the header, because the text of a 429 is not an object with the number.
    pub fn observe<B>(&self, answer: &Response<B>) {
        if !matches!(
            answer.status(),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) {
            return;
        }
        let seconds = answer
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        if let Some(seconds) = seconds {
            self.pause(Duration::from_secs(seconds));
        }
    }

    /// Holds ordinary calls back for `asked`, at most [`MAX_PAUSE`]. A pause is never shortened.
    pub fn pause(&self, asked: Duration) {
        let end = Instant::now() + asked.min(MAX_PAUSE);
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.is_none_or(|until| until < end) {
            *until = Some(end);
        }
    }

    /// The end of the pause in force, if there is one.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.filter(|until| *until > Instant::now())
    }
}
