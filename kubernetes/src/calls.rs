//! Unary calls to the API server: bounded in number and in time, and told apart by how they fail.
//!
//! There is no client-side rate limit: the server's own priority and fairness decides, and when it says "later" (429 with
//! `Retry-After`) ordinary calls wait. [`MAX_CALLS`] run at once, and the last [`KEPT_FOR_WAKES`] of them are open to calls
//! that wake a workload. Whenever a permit is free, it goes to the most urgent call that waits: when there is more to do than
//! the server can take, what is put off is what comes round again by itself.

mod error;
mod gate;
mod throttle;

use std::{future::Future, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::time::{Instant, sleep_until, timeout_at};

pub use error::{CallError, NAMESPACE_ENDING, OUTAGE};
pub use throttle::{MAX_PAUSE, Throttle};

use crate::requests::Requests;
use gate::Gate;

/// Calls that may run at once.
pub const MAX_CALLS: usize = 64;
/// The part of [`MAX_CALLS`] that only wakes may use.
pub const KEPT_FOR_WAKES: usize = 8;
/// The time a call may take, waiting for a permit included.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// The part of [`DEADLINE`] that waiting may take. What has waited longer is not sent at all: if it were, with less time than
/// an answer takes, a line that has once grown long would keep the server busy with calls that all come to nothing.
pub const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// How a call is ranked against others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Someone waits for a workload to wake: first in line, and not held back when the server asks for patience.
    Wake,
    /// Everything else.
    Normal,
    /// What is done again soon anyway, or is a courtesy: the look at a target on each tick, an Event. Last in line.
    Routine,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    call: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, Default)]
struct CallMetrics {
    calls: Family<CallLabels, Counter>,
    running: Gauge,
}

/// The one way to make a unary call. Cheap to clone; all clones share the bounds.
#[derive(Debug, Clone)]
pub struct Calls {
    gate: Arc<Gate>,
    throttle: Throttle,
    metrics: CallMetrics,
    requests: Requests,
}

impl Calls {
    /// Calls over clients that report the server's wish for patience to `throttle`.
    #[must_use]
    pub fn new(throttle: Throttle) -> Self {
        Self {
            gate: Gate::new(MAX_CALLS, KEPT_FOR_WAKES),
            throttle,
            metrics: CallMetrics::default(),
            requests: Requests::default(),
        }
    }

    /// The same, showing the counts of the requests its clients send.
    pub(crate) fn counting(self, requests: Requests) -> Self {
        Self { requests, ..self }
    }

    /// Registers `dormouse_kubernetes_calls_total{call,result}`, `dormouse_kubernetes_calls_running`, and what the clients
    /// count of their requests and watches.
    pub fn register(&self, registry: &mut Registry) {
        self.requests.register(registry);
        registry.register(
            "dormouse_kubernetes_calls",
            "Calls to the Kubernetes API by what was attempted and how it ended",
            self.metrics.calls.clone(),
        );
        registry.register(
            "dormouse_kubernetes_calls_running",
            "Calls to the Kubernetes API that are running now",
            self.metrics.running.clone(),
        );
    }

    /// Makes one call. `call` completes the sentence "unable to ..." and is a metric label, so it names no object.
    ///
    /// The request is first polled when it has a permit, so a future that is already running gains nothing here.
    ///
    /// # Errors
    /// The class of the failure; [`CallError::Timeout`] after [`LONGEST_WAIT`] without a permit or after [`DEADLINE`] in all,
    /// [`CallError::Throttled`] at once when the server asked for more patience than it may wait.
    pub async fn unary<T>(
        &self,
        priority: Priority,
        call: &'static str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, CallError> {
        let began = Instant::now();
        let (sent_by, deadline) = (began + LONGEST_WAIT, began + DEADLINE);
        let result = match timeout_at(sent_by, self.permit(priority, call, sent_by)).await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(permit)) => {
                let _running = Running::start(&self.metrics.running, permit);
                match timeout_at(deadline, request).await {
                    Err(_) => Err(CallError::Timeout {
                        call,
                        stage: "waiting for the API server",
                    }),
                    Ok(result) => result.map_err(|error| CallError::classify(call, &error)),
                }
            }
            Err(_) => Err(CallError::Timeout {
                call,
                stage: "waiting for one of the calls that run at once",
            }),
        };
        if let Err(CallError::Throttled { retry_after, .. }) = &result {
            self.throttle.pause(*retry_after);
        }
        let labels = CallLabels {
            call,
            result: result.as_ref().map_or_else(CallError::category, |_| "ok"),
        };
        self.metrics.calls.get_or_create(&labels).inc();
        result
    }

    async fn permit(
        &self,
        priority: Priority,
        call: &'static str,
        sent_by: Instant,
    ) -> Result<gate::Permit, CallError> {
        loop {
            if let Some(until) = self.pause(priority) {
                if until >= sent_by {
                    return Err(CallError::Throttled {
                        call,
                        retry_after: until - Instant::now(),
                    });
                }
                sleep_until(until).await;
            }
            let permit = Gate::acquire(&self.gate, priority).await;
            // The server may have asked for patience while this call stood in line.
            if self.pause(priority).is_none() {
                return Ok(permit);
            }
        }
    }

    fn pause(&self, priority: Priority) -> Option<Instant> {
        (priority != Priority::Wake)
            .then(|| self.throttle.until())
            .flatten()
    }
}

/// A call under way: counted, and holding its permit.
struct Running<'a> {
    gauge: &'a Gauge,
    _permit: gate::Permit,
}

impl<'a> Running<'a> {
    fn start(gauge: &'a Gauge, permit: gate::Permit) -> Self {
        gauge.inc();
        Self {
            gauge,
            _permit: permit,
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

#[cfg(test)]
mod tests;
