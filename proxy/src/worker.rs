//! What the tasks of one data thread share, without a lock.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::pool::Pool;
use crate::random::Random;
use crate::shared::Shared;
use crate::stats::Tally;

/// The most bytes of a request's head, and of what hyper reads ahead.
const MAX_HEAD: usize = 64 * 1024;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const MAX_STREAMS: u32 = 200;
/// How long before the end of a drain those that still wait are told.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What the tasks of one data thread share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) random: Random,
    pub(crate) drain: Drain,
    pub(crate) http1: http1::Builder,
    /// For clients that speak TLS.
    pub(crate) https1: http1::Builder,
    pub(crate) http2: http2::Builder<LocalExecutor>,
}

impl Worker {
    /// That of the data thread with this number.
    pub(crate) fn new(shared: Arc<Shared>, number: usize) -> Self {
        let mut http1 = http1::Builder::new();
        http1.max_buf_size(MAX_HEAD).header_read_timeout(None);
        // The end of a session over TLS is not one of its socket: hyper has to read to see it.
        let https1 = http1.clone();
        // Else hyper reads while a request is answered, into one buffer more for each, to see whether its client leaves. The
        // request and the response ask the socket for that: `Client::gone`.
        http1.half_close(true);
        let mut http2 = http2::Builder::new(LocalExecutor);
        http2
            .max_header_list_size(MAX_HEAD as u32)
            .max_send_buf_size(MAX_HEAD)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(MAX_STREAMS);
        Self {
            pool: Rc::new(Pool::new(&shared.config)),
            tally: shared.tallies.get(number).cloned().unwrap_or_default(),
            shared,
            random: Random::default(),
            drain: Drain::default(),
            http1,
            https1,
            http2,
        }
    }
}

/// Whether the thread takes no more requests, and until when those that it has may take.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    deadline: Cell<Option<Instant>>,
    begun: Notify,
}

impl Drain {
    /// Begins it: every connection is told to end after the requests that it has.
    pub(crate) fn begin(&self, deadline: Instant) {
        self.deadline.set(Some(deadline));
        self.begun.notify_waiters();
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.deadline.get().is_some()
    }

    /// Resolves when it begins.
    pub(crate) async fn begins(&self) {
        if !self.has_begun() {
            self.begun.notified().await;
        }
    }

    /// Resolves when everything has to be over but for what can be said in a moment.
    pub(crate) async fn is_over(&self) {
        self.begins().await;
        if let Some(deadline) = self.deadline.get() {
            sleep_until(deadline.checked_sub(LAST_WORDS).unwrap_or(deadline)).await;
        }
    }
}

/// Runs hyper's tasks on this thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
