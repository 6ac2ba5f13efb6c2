//! Events on ScaledObjects and authentications, written by one task at low priority: an Event never delays a decision.

use std::time::Duration;

use dormouse_api::labels;
use dormouse_kubernetes::{Calls, Priority};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tracing::{debug, warn};

/// Events that wait to be written; more are dropped, and the log says how many.
const QUEUE: usize = 4096;
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
}

impl Events {
    /// The handle, and the task that writes what is sent. The task ends when every handle is gone.
    pub fn new(client: Client, calls: Calls, instance: String) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (Self { queue }, write(client, calls, instance, waiting))
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
        if self.queue.try_send(event).is_err() {
            warn!(reason, "an Event was dropped: too many wait to be written");
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

async fn write(client: Client, calls: Calls, instance: String, mut waiting: mpsc::Receiver<Event>) {
    let reporter = Reporter {
        controller: labels::MANAGED_BY.to_owned(),
        instance: Some(instance),
    };
    let recorder = Recorder::new(client, reporter);
    while let Some(event) = waiting.recv().await {
        let type_ = if event.warning {
            EventType::Warning
        } else {
            EventType::Normal
        };
        let written = kube::runtime::events::Event {
            type_,
            reason: event.reason.to_owned(),
            note: Some(event.note),
            action: event.action,
            secondary: None,
        };
        let publish = recorder.publish(&written, &event.regarding);
        if let Err(error) = calls.unary(Priority::Normal, "write an Event", publish).await {
            // Events are a courtesy: while the API server is away they are lost rather than piled up.
            debug!(%error, reason = event.reason, "an Event could not be written");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
