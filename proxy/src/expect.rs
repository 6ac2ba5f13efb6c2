//! `Expect: 100-continue`: the client's body is asked for when the endpoint asked for it, or after a second.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use http::header::EXPECT;
use http::{HeaderMap, Request, StatusCode};
use tokio::time::{Sleep, sleep};

/// How long the endpoint is given to say 100. Many never do and just read the body.
const PATIENCE: Duration = Duration::from_secs(1);

const WAITING: u8 = 0;
const MET: u8 = 1;
const REFUSED: u8 = 2;
const OVER: u8 = 3;

/// The endpoint answered without asking for the body.
#[derive(Debug, thiserror::Error)]
#[error("the endpoint answered without asking for the body")]
pub(crate) struct NotWanted;

/// Whether a body may be sent by now.
#[derive(Debug)]
pub(crate) struct Expectation {
    // hyper calls back from wherever it likes.
    signal: Arc<Signal>,
    patience: RefCell<Option<Pin<Box<Sleep>>>>,
}

#[derive(Debug, Default)]
struct Signal {
    state: AtomicU8,
    waker: AtomicWaker,
}

impl Signal {
    /// Says whether it was in the state `from`.
    fn change(&self, from: u8, to: u8) -> bool {
        let changed = self
            .state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if changed {
            self.waker.wake();
        }
        changed
    }
}

/// An answer for which the body is not wanted. The body fails when this is dropped, and not before: hyper would give up the
/// connection, with the rest of the answer.
#[derive(Debug)]
pub(crate) struct Refusal {
    signal: Arc<Signal>,
}

impl Drop for Refusal {
    fn drop(&mut self) {
        self.signal.change(REFUSED, OVER);
    }
}

impl Expectation {
    /// The expectation of a request, if it has one.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let wanted = headers
            .get(EXPECT)?
            .as_bytes()
            .eq_ignore_ascii_case(b"100-continue");
        wanted.then(|| Self {
            signal: Arc::default(),
            patience: RefCell::new(None),
        })
    }

    /// Lets the endpoint's 100 to this request meet it.
    pub(crate) fn listen<B>(&self, request: &mut Request<B>) {
        let signal = Arc::clone(&self.signal);
        hyper::ext::on_informational(request, move |response| {
            if response.status() == StatusCode::CONTINUE {
                signal.change(WAITING, MET);
            }
        });
    }

    /// The body may be sent at once.
    pub(crate) fn waive(&self) {
        self.signal.change(WAITING, MET);
    }

    /// The endpoint's final answer begins. With a success it may still read the body; otherwise one that was not sent by now
    /// is not wanted.
    pub(crate) fn answered(&self, status: StatusCode) -> Option<Refusal> {
        if status.is_success() {
            self.signal.change(WAITING, MET);
            return None;
        }
        self.signal.change(WAITING, REFUSED).then(|| Refusal {
            signal: Arc::clone(&self.signal),
        })
    }

    /// Ready once the body may be sent.
    ///
    /// # Errors
    /// It never may, and the answer has ended.
    pub(crate) fn poll_met(&self, cx: &mut Context<'_>) -> Poll<Result<(), NotWanted>> {
        self.signal.waker.register(cx.waker());
        match self.signal.state.load(Ordering::Acquire) {
            MET => return Poll::Ready(Ok(())),
            REFUSED => return Poll::Pending,
            OVER => return Poll::Ready(Err(NotWanted)),
            _ => {}
        }
        let mut patience = self.patience.borrow_mut();
        let patience = patience.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
        patience.as_mut().poll(cx).map(|()| {
            self.signal.change(WAITING, MET);
            Ok(())
        })
    }
}
