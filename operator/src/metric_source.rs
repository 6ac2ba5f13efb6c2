//! Answers the metrics API: the leader from the engine's memory, a follower by asking the leader, and when that does not
//! answer by reading for itself. So there is one truth, and the sources are not read more often for having more replicas.

use std::sync::Arc;
use std::time::Duration;

use dormouse_api::ScaledObject;
use dormouse_core::Quantity;
use dormouse_engine::{Engine, Leadership, MetricError, ObjectKey};
use dormouse_kubernetes::Watched;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout_at};

use crate::context::watch_key;
use crate::leadership::Fence;
use crate::metrics_api::{Caller, ExternalMetric, MetricQuery, MetricReadError, MetricSource};
use crate::peers::{Leader, PeerAnswer};

/// How long a follower waits for the leader.
const LEADER_DEADLINE: Duration = Duration::from_secs(1);
/// How long a process that has just started may take to come to an object that is asked for, and how often that is looked at.
const CATCHING_UP: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The metric source of an operator.
pub struct EngineMetrics {
    /// The running objects.
    pub engine: Engine,
    /// Who leads.
    pub fence: Fence,
    /// The way to the leader.
    pub leader: Arc<Leader>,
    /// All ScaledObjects.
    pub objects: Watched<ScaledObject>,
    /// Whether a ScaledObject is about to be set up.
    pub is_due: Box<dyn Fn(&ObjectKey) -> bool + Send + Sync>,
}

impl EngineMetrics {
    async fn answer(&self, query: MetricQuery<'_>) -> Result<ExternalMetric, MetricReadError> {
        if self.fence.is_leader() {
            return self.own(query, false).await;
        }
        if query.caller == Caller::Forwarded {
            return Err(MetricReadError::NotLeader {
                metric: query.metric.to_owned(),
            });
        }
        if let Some(address) = self.fence.other().and_then(|leader| leader.address) {
            let asked = tokio::time::timeout(LEADER_DEADLINE, self.leader.ask(&address, query)).await;
            match asked {
                Ok(PeerAnswer::Metric(metric)) => return Ok(metric),
                Ok(PeerAnswer::Refused(message)) => return Err(MetricReadError::FromLeader { message }),
                Ok(PeerAnswer::Silent) | Err(_) => {}
            }
        }
        self.own(query, true).await
    }

    async fn own(
        &self,
        query: MetricQuery<'_>,
        read_through: bool,
    ) -> Result<ExternalMetric, MetricReadError> {
        let key = ObjectKey::new(query.namespace, query.scaled_object);
        let deadline = Instant::now() + CATCHING_UP;
        loop {
            let served = self
                .engine
                .external_metric(&key, query.metric, read_through)
                .await;
            match served {
                Ok(served) => {
                    return Ok(ExternalMetric {
                        value: Quantity::from_f64_milli(served.value),
                        timestamp: served.at,
                    });
                }
                Err(MetricError::UnknownObject(_)) if self.may_come(&key, deadline).await? => {}
                Err(error) => return Err(read_error(error)),
            }
        }
    }

    /// Whether an object that the engine does not know may be known to it now, having waited a moment for that.
    async fn may_come(&self, key: &ObjectKey, deadline: Instant) -> Result<bool, MetricReadError> {
        let synced = timeout_at(deadline, self.objects.synced()).await.is_ok();
        if synced && self.objects.get(&watch_key(key)).is_none() {
            return Ok(false);
        }
        let is_coming = !synced || (self.is_due)(key);
        // It may have been set up since it was looked for.
        if !is_coming && self.engine.view(key).is_some() {
            return Ok(true);
        }
        if !is_coming || Instant::now() >= deadline {
            return Err(MetricReadError::NotSetUp {
                scaled_object: key.name.clone(),
            });
        }
        sleep(LOOK_AGAIN).await;
        Ok(true)
    }
}

fn read_error(error: MetricError) -> MetricReadError {
    match error {
        MetricError::UnknownObject(scaled_object) => MetricReadError::UnknownObject { scaled_object },
        MetricError::UnknownMetric(metric) => MetricReadError::UnknownMetric { metric },
        MetricError::Failing { metric, failure } => MetricReadError::Failing {
            metric,
            cause: failure.message,
        },
        MetricError::TooOld { metric, age, limit } => MetricReadError::TooOld { metric, age, limit },
        MetricError::NotYet(metric) => MetricReadError::NotYetRead { metric },
        MetricError::Settling(metric) => MetricReadError::Failing {
            metric,
            cause: "the target was woken just now for requests that wait; ask again in a second".to_owned(),
        },
        MetricError::FallbackImpossible(metric) => MetricReadError::Failing {
            metric,
            cause: "error performing fallback: no ready pods to divide by".to_owned(),
        },
    }
}

impl MetricSource for EngineMetrics {
    fn external_metric<'a>(
        &'a self,
        query: MetricQuery<'a>,
    ) -> BoxFuture<'a, Result<ExternalMetric, MetricReadError>> {
        self.answer(query).boxed()
    }
}
