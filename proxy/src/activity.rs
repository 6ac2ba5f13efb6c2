//! What a client's connection is doing, and since when: what its deadline follows from.
//!
//! ```text
//! accepted ──> Head (bytes of a request) ──> busy (1 or more requests) ──> Idle ──> Head ...
//!                                              └ stalled, while the client takes nothing
//! ```
//!
//! hyper's own header timeout would also end idle connections, and it has none for a client that does not read.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::time::Instant;

use crate::config::Timeouts;

/// The state of one connection. Only tasks of its own thread use it; it is atomic because hyper wants the socket, which notes
/// things here, to be `Send`.
#[derive(Debug)]
pub(crate) struct Activity {
    born: Instant,
    /// Requests that are being answered.
    busy: AtomicU32,
    /// Whether bytes of a request came since the last one was answered.
    in_head: AtomicBool,
    /// Whether requests overlap, so that bytes say nothing about heads.
    multiplexed: AtomicBool,
    /// Since when it is in this state, in milliseconds from `born`.
    since: AtomicU64,
    /// Since when the client takes nothing, in milliseconds from `born`, plus one; 0 if it does.
    stalled: AtomicU64,
    /// Responses of overlapping requests that wait until the client makes room for more of them.
    without_room: AtomicU32,
    /// When one of them last began to wait, or went on, in milliseconds from `born`.
    moved: AtomicU64,
    /// The task that keeps the deadline. Others tell of room.
    keeper: AtomicWaker,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self {
            born: Instant::now(),
            busy: AtomicU32::new(0),
            in_head: AtomicBool::new(false),
            multiplexed: AtomicBool::new(false),
            since: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            without_room: AtomicU32::new(0),
            moved: AtomicU64::new(0),
            keeper: AtomicWaker::new(),
        }
    }

    /// Requests will overlap from here on.
    pub(crate) fn multiplex(&self) {
        self.multiplexed.store(true, Ordering::Relaxed);
        self.in_head.store(false, Ordering::Relaxed);
    }

    /// Whether requests overlap.
    pub(crate) fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Ordering::Relaxed)
    }

    /// Bytes came.
    pub(crate) fn received(&self) {
        let heads = !self.is_multiplexed();
        if heads && !self.is_busy() && !self.in_head.swap(true, Ordering::Relaxed) {
            self.changed();
        }
    }

    /// The client takes nothing.
    pub(crate) fn write_is_stalled(&self) {
        if self.stalled.load(Ordering::Relaxed) == 0 {
            self.stalled.store(self.now() + 1, Ordering::Relaxed);
        }
    }

    /// The client took something.
    pub(crate) fn wrote(&self) {
        self.stalled.store(0, Ordering::Relaxed);
    }

    /// A part of a response is on its way, and nobody asks for the next one until the client has room for it. HTTP/2 says so
    /// itself; the socket does not stall.
    pub(crate) fn waits_for_room(&self) {
        self.without_room.fetch_add(1, Ordering::Relaxed);
        self.moved.store(self.now(), Ordering::Relaxed);
        self.wake_if_without_room();
    }

    /// The next part is asked for, or nobody waits for it any more.
    pub(crate) fn has_room(&self) {
        self.without_room.fetch_sub(1, Ordering::Relaxed);
        self.moved.store(self.now(), Ordering::Relaxed);
    }

    /// A request is complete but for its body.
    pub(crate) fn begin(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.in_head.store(false, Ordering::Relaxed);
    }

    /// A request was answered.
    pub(crate) fn end(&self) {
        if self.busy.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.changed();
        }
        self.wake_if_without_room();
    }

    /// Wakes this task when a deadline comes about that it did not see coming.
    pub(crate) fn keep_deadline(&self, waker: &Waker) {
        if self.is_multiplexed() {
            self.keeper.register(waker);
        }
    }

    fn wake_if_without_room(&self) {
        if self.is_without_room() {
            self.keeper.wake();
        }
    }

    /// Whether the client takes nothing of any request's response. One that is only slow for one of them is served on.
    fn is_without_room(&self) -> bool {
        let waiting = self.without_room.load(Ordering::Relaxed);
        waiting > 0 && waiting >= self.busy.load(Ordering::Relaxed)
    }

    /// Whether any request is being answered.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// Until when something must have happened.
    pub(crate) fn deadline(&self, timeouts: &Timeouts) -> Option<Instant> {
        match self.stalled.load(Ordering::Relaxed) {
            0 => {}
            stalled => return Some(self.at(stalled - 1) + timeouts.stalled),
        }
        if self.is_without_room() {
            return Some(self.at(self.moved.load(Ordering::Relaxed)) + timeouts.stalled);
        }
        if self.is_busy() {
            return None;
        }
        let in_head = self.in_head.load(Ordering::Relaxed);
        let allowed = if in_head {
            timeouts.header
        } else {
            timeouts.keep_alive
        };
        Some(self.at(self.since.load(Ordering::Relaxed)) + allowed)
    }

    fn changed(&self) {
        self.since.store(self.now(), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn at(&self, millis: u64) -> Instant {
        self.born + Duration::from_millis(millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn deadlines_follow_what_the_connection_does() {
        let timeouts = Timeouts {
            header: SECOND * 10,
            keep_alive: SECOND * 75,
            stalled: SECOND * 300,
            ..Timeouts::default()
        };
        let activity = Activity::new();
        let left = || {
            activity
                .deadline(&timeouts)
                .map(|deadline| deadline - Instant::now())
        };
        let wait = |seconds| tokio::time::advance(SECOND * seconds);

        activity.received();
        wait(4).await;
        activity.received();
        assert_eq!(left(), Some(SECOND * 6), "from the first byte of the head");
        activity.begin();
        wait(1000).await;
        assert_eq!(left(), None, "an answer may take as long as it likes");
        activity.write_is_stalled();
        wait(1).await;
        activity.write_is_stalled();
        assert_eq!(
            left(),
            Some(SECOND * 299),
            "from the first time that nothing was taken"
        );
        activity.wrote();
        activity.end();
        assert_eq!(left(), Some(SECOND * 75));
        wait(70).await;
        activity.received();
        assert_eq!(left(), Some(SECOND * 10));
    }

    #[tokio::test(start_paused = true)]
    async fn responses_without_room_have_a_deadline_while_nothing_else_moves() {
        let timeouts = Timeouts {
            stalled: SECOND * 300,
            ..Timeouts::default()
        };
        let activity = Activity::new();
        activity.multiplex();
        let left = || {
            activity
                .deadline(&timeouts)
                .map(|deadline| deadline - Instant::now())
        };
        activity.begin();
        activity.begin();
        assert_eq!(left(), None);
        activity.waits_for_room();
        assert_eq!(left(), None, "one of both is served");
        activity.waits_for_room();
        tokio::time::advance(SECOND * 100).await;
        assert_eq!(left(), Some(SECOND * 200));
        activity.has_room();
        activity.waits_for_room();
        assert_eq!(left(), Some(SECOND * 300), "one of both went on");
        activity.has_room();
        activity.end();
        assert_eq!(left(), Some(SECOND * 300), "only the other one is left");
        activity.has_room();
        assert_eq!(left(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn frames_between_requests_do_not_keep_a_connection() {
        let timeouts = Timeouts {
            keep_alive: SECOND * 75,
            ..Timeouts::default()
        };
        let activity = Activity::new();
        activity.received();
        activity.multiplex();
        tokio::time::advance(SECOND * 5).await;
        activity.received();
        assert_eq!(activity.deadline(&timeouts), Some(Instant::now() + SECOND * 70));
    }
}
