//! Events on ScaledObjects and authentications, written by one task at low priority: an Event never delays a decision.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dormouse_api::labels;
use dormouse_kubernetes::{Calls, Priority};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

/// Events that wait to be written; more are dropped, and the log says how many.
const QUEUE: usize = 4096;
/// Events written at once.
const AT_ONCE: usize = 4;
/// How often an Event that is held back looks whether it may be written, and for how long it does so.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
const LONGEST_HOLD: Duration = Duration::from_secs(10);
/// The longest note the API server takes.
const LONGEST_NOTE: usize = 1024;

/// One Event.
#[derive(Clone, Debug)]
pub struct Event {
    /// What it is about.
    pub regarding: ObjectReference,
    /// Whether someone should look.
    pub warning: bool,
    /// Machine-readable reason, KEDA's.
    pub reason: &'static str,
    /// What was done or failed: KEDA repeats the note here for the life of an object, else the reason.
    pub action: String,
    /// One sentence.
    pub note: String,
}

/// A cheap handle for sending Events.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Event>,
    dropped: Arc<AtomicU64>,
}

impl Events {
    /// The handle, and the task that writes what is sent. The task ends when every handle is gone.
    ///
    /// While `is_busy`, Events wait: the API server's time goes to what they are about. One holds up the others for a few
    /// seconds at most, and none while the queue is half full. They are last in line for a call, and one that gets none for as
    /// long is lost.
    pub fn new(
        client: Client,
        calls: Calls,
        instance: String,
        is_busy: impl Fn() -> bool + Send + Sync,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let dropped = Arc::<AtomicU64>::default();
        let events = Self {
            queue,
            dropped: dropped.clone(),
        };
        (events, write(client, calls, instance, waiting, dropped, is_busy))
    }

    /// How many wait to be written.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Sends an Event whose action is its reason.
    pub fn send(
        &self,
        regarding: &ObjectReference,
        warning: bool,
        reason: &'static str,
        note: impl Into<String>,
    ) {
        self.send_with_action(regarding, warning, reason, reason.to_owned(), note.into());
    }

    /// Sends an Event of an object's life, whose action is the note itself.
    pub fn send_lifecycle(
        &self,
        regarding: &ObjectReference,
        warning: bool,
        reason: &'static str,
        note: impl Into<String>,
    ) {
        let note = note.into();
        self.send_with_action(regarding, warning, reason, note.clone(), note);
    }

    /// Sends an Event whose action is neither its reason nor its note.
    pub fn send_with_action(
        &self,
        regarding: &ObjectReference,
        warning: bool,
        reason: &'static str,
        action: String,
        note: String,
    ) {
        let event = Event {
            regarding: regarding.clone(),
            warning,
            reason,
            action: cut(action, 128),
            note: cut(note, LONGEST_NOTE),
        };
        if self.queue.try_send(event).is_err() && self.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            warn!("Events are dropped: {QUEUE} wait to be written");
        }
    }
}

fn cut(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        let mut end = longest;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

/// Events are numbered and dated in the order they were sent; a few are written at once, so that a burst does not wait for one
/// slow answer after the other.
async fn write(
    client: Client,
    calls: Calls,
    instance: String,
    waiting: mpsc::Receiver<Event>,
    dropped: Arc<AtomicU64>,
    is_busy: impl Fn() -> bool,
) {
    let (is_busy, dropped) = (&is_busy, &dropped);
    let numbered = stream::unfold((waiting, 0_u32), async |(mut waiting, number)| {
        let event = waiting.recv().await?;
        hold_back(is_busy, || waiting.len()).await;
        if waiting.len() < QUEUE / 2 && dropped.load(Ordering::Relaxed) > 0 {
            let dropped = dropped.swap(0, Ordering::Relaxed);
            warn!(dropped, "Events were dropped, and there is room for them again");
        }
        Some(((event, number), (waiting, number.wrapping_add(1))))
    });
    let writing = numbered.for_each_concurrent(AT_ONCE, |(event, number)| {
        let namespace = event.regarding.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        let written = to_wire(event, &namespace, &instance, number, Timestamp::now());
        let api: Api<events::v1::Event> = Api::namespaced(client.clone(), &namespace);
        let calls = &calls;
        async move {
            let (params, until) = (PostParams::default(), Instant::now() + LONGEST_HOLD);
            loop {
                let create = api.create(&params, &written);
                let Err(error) = calls.unary(Priority::Routine, "write an Event", create).await else {
                    break;
                };
                // Events are a courtesy: while the API server is away they are lost rather than piled up.
                if error.outage().is_none() || Instant::now() >= until {
                    debug!(%error, reason = written.reason, "an Event could not be written");
                    break;
                }
                sleep(LOOK_AGAIN).await;
            }
        }
    });
    writing.await;
}

/// Waits while something more important is to be done, if that may wait; `waiting` is how many Events do.
async fn hold_back(is_busy: impl Fn() -> bool, waiting: impl Fn() -> usize) {
    let until = Instant::now() + LONGEST_HOLD;
    while is_busy() && waiting() < QUEUE / 2 && Instant::now() < until {
        sleep(LOOK_AGAIN).await;
    }
}

/// Every Event is an object of its own: a series would keep the note of its first.
fn to_wire(event: Event, namespace: &str, instance: &str, number: u32, now: Timestamp) -> events::v1::Event {
    let subject: String = event
        .regarding
        .name
        .as_deref()
        .unwrap_or_default()
        .chars()
        .take(200)
        .collect();
    events::v1::Event {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            // Unique by time and number; the operator is the only one that writes this name on this object.
            name: Some(format!("{subject}.{:x}{number:04x}", now.as_nanosecond())),
            ..Default::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(if event.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(event.reason.to_owned()),
        action: Some(event.action),
        note: Some(event.note),
        regarding: Some(event.regarding),
        reporting_controller: Some(labels::MANAGED_BY.to_owned()),
        reporting_instance: Some(
            if instance.is_empty() {
                labels::MANAGED_BY
            } else {
                instance
            }
            .to_owned(),
        ),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn events_wait_for_what_is_more_important_but_not_for_ever_nor_until_some_are_lost() {
        let began = Instant::now();
        hold_back(|| false, || 1).await;
        hold_back(|| true, || QUEUE / 2).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        hold_back(|| began.elapsed() < Duration::from_secs(1), || 1).await;
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        hold_back(|| true, || 1).await;
        assert_eq!(began.elapsed(), Duration::from_secs(1) + LONGEST_HOLD);
    }

    #[test]
    fn two_events_of_one_reason_are_two_objects_with_their_own_notes() {
        let event = |note: &str| Event {
            regarding: ObjectReference {
                name: Some("orders".into()),
                ..Default::default()
            },
            warning: true,
            reason: "KEDAScalerFailed",
            action: "KEDAScalerFailed".into(),
            note: note.into(),
        };
        let now = Timestamp::UNIX_EPOCH;
        let (a, b) = (
            to_wire(event("a"), "shop", "pod", 1, now),
            to_wire(event("b"), "shop", "pod", 2, now),
        );
        assert_ne!(a.metadata.name, b.metadata.name);
        assert_eq!((a.note.as_deref(), b.note.as_deref()), (Some("a"), Some("b")));
        assert_eq!(a.type_.as_deref(), Some("Warning"));
    }

    #[test]
    fn long_notes_are_cut_between_characters() {
        assert_eq!(cut("äöü".into(), 3), "ä");
        assert_eq!(cut("short".into(), 99), "short");
    }
}
