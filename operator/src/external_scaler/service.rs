//! What is answered.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dormouse_core::demand::RouteKey;
use dormouse_scalers::{DemandSource, Pushed, Trigger, route_triggers};
use dormouse_wire::externalscaler::external_scaler_server::ExternalScaler;
use dormouse_wire::externalscaler::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
    ScaledObjectRef,
};
use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status};

/// Streams at once, of all callers.
const STREAMS: usize = 4096;
/// How often a stream looks whether its route is still active: only that it has become so is told at once.
const LOOK: Duration = Duration::from_secs(1);

/// Answers what KEDA asks of the interceptors' scaler.
pub struct ExternalScalerService {
    source: Arc<dyn DemandSource>,
    streams: Arc<Semaphore>,
}

impl ExternalScalerService {
    /// Answers from `source`.
    #[must_use]
    pub fn new(source: Arc<dyn DemandSource>) -> Self {
        Self {
            source,
            streams: Arc::new(Semaphore::new(STREAMS)),
        }
    }

    fn triggers(&self, object: &ScaledObjectRef) -> Result<Vec<Arc<dyn Trigger>>, Status> {
        let route = route_of(object)?;
        route_triggers(self.source.clone(), &route)
            .ok_or_else(|| Status::not_found(format!("there is no InterceptorRoute {route}")))
    }
}

#[tonic::async_trait]
impl ExternalScaler for ExternalScalerService {
    type StreamIsActiveStream = Activity;

    async fn is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<IsActiveResponse>, Status> {
        let triggers = self.triggers(request.get_ref())?;
        let result = is_active(&triggers)?;
        Ok(Response::new(IsActiveResponse { result }))
    }

    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Activity>, Status> {
        let route = route_of(request.get_ref())?;
        let permit = self.streams.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Status::resource_exhausted("too many streams"))?;
        let (tell, told) = mpsc::channel(1);
        let follow = tokio::spawn(follow(self.source.clone(), route, tell));
        Ok(Response::new(Activity {
            told,
            _follow: AbortOnDropHandle::new(follow),
            _permit: permit,
        }))
    }

    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        let triggers = self.triggers(request.get_ref())?;
        let specs = triggers.iter().map(|trigger| {
            let metric = trigger.metric();
            let target = metric.target.value();
            MetricSpec {
                metric_name: metric.base_name,
                target_size: whole(target),
                target_size_float: target,
            }
        });
        Ok(Response::new(GetMetricSpecResponse {
            metric_specs: specs.collect(),
        }))
    }

    async fn get_metrics(
        &self,
        request: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        let GetMetricsRequest {
            scaled_object_ref,
            metric_name,
        } = request.into_inner();
        let triggers = self.triggers(&scaled_object_ref.unwrap_or_default())?;
        let wanted = triggers
            .iter()
            .find(|trigger| trigger.metric().base_name == metric_name);
        let pushed = wanted.and_then(|trigger| trigger.pushed());
        let pushed = pushed
            .ok_or_else(|| Status::not_found(format!("there is no metric {metric_name:?} of this route")))?;
        let told = pushed.told();
        if let Some(unknown) = told.unknown {
            return Err(Status::unavailable(unknown.message));
        }
        let value = MetricValue {
            metric_name,
            metric_value: whole(told.observed.value),
            metric_value_float: told.observed.value,
        };
        Ok(Response::new(GetMetricsResponse {
            metric_values: vec![value],
        }))
    }
}

/// Which route a trigger names: it is in the namespace of its ScaledObject.
fn route_of(object: &ScaledObjectRef) -> Result<RouteKey, Status> {
    match object.scaler_metadata.get("interceptorRoute") {
        Some(name) if !name.is_empty() => Ok(RouteKey::new(&*object.namespace, &**name)),
        _ => Err(Status::invalid_argument(
            "missing required parameter \"interceptorRoute\" in the metadata",
        )),
    }
}

/// Whether any of a route's metrics asks for a replica. What is certain is enough to say yes.
fn is_active(triggers: &[Arc<dyn Trigger>]) -> Result<bool, Status> {
    let mut unknown = None;
    for told in triggers
        .iter()
        .filter_map(|trigger| trigger.pushed().map(Pushed::told))
    {
        if told.observed.active {
            return Ok(true);
        }
        unknown = unknown.or(told.unknown);
    }
    unknown.map_or(Ok(false), |unknown| Err(Status::unavailable(unknown.message)))
}

/// The next whole number: a demand that is not 0 must not become one.
#[expect(clippy::cast_possible_truncation, reason = "far fewer requests are held")]
fn whole(value: f64) -> i64 {
    value.ceil() as i64
}

/// Tells whether a route is active: at first, whenever that changes, and again at each burst. While it is unknown, or there
/// is no such route, nothing is told: an end of the stream would have KEDA wait for up to a minute before the next.
async fn follow(
    source: Arc<dyn DemandSource>,
    route: RouteKey,
    tell: mpsc::Sender<Result<IsActiveResponse, Status>>,
) {
    let mut news: Option<watch::Receiver<u64>> = None;
    let mut before = None;
    let mut burst = false;
    loop {
        let triggers = route_triggers(source.clone(), &route);
        if triggers.is_some() && news.is_none() {
            // Not before it is there: what is listened to is kept.
            news = Some(source.news(&route));
        }
        if let Some(Ok(result)) = triggers.map(|triggers| is_active(&triggers))
            && (before != Some(result) || (burst && result))
        {
            if tell.send(Ok(IsActiveResponse { result })).await.is_err() {
                return;
            }
            before = Some(result);
        }
        let changed = async {
            match &mut news {
                Some(news) => news.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        let looked = timeout(LOOK, changed).await;
        burst = looked == Ok(true);
        if looked == Ok(false) {
            news = None;
        }
    }
}

/// One stream of [`StreamIsActive`](ExternalScaler::stream_is_active); what follows the route ends with it.
pub struct Activity {
    told: mpsc::Receiver<Result<IsActiveResponse, Status>>,
    _follow: AbortOnDropHandle<()>,
    _permit: OwnedSemaphorePermit,
}

impl Stream for Activity {
    type Item = Result<IsActiveResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.told.poll_recv(cx)
    }
}
