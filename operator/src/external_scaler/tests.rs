//! The scaler over loopback, asked as KEDA asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dormouse_core::demand::{DemandReport, PodStage, RateWindow, RouteDemand, RouteKey};
use dormouse_engine::DemandHub;
use dormouse_scalers::{OwnAddresses, RateScaling, RouteScaling};
use dormouse_wire::externalscaler::external_scaler_client::ExternalScalerClient;
use dormouse_wire::externalscaler::{GetMetricsRequest, IsActiveResponse, ScaledObjectRef};
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::{Code, Streaming};

use super::{ExternalScalerService, serve};
use crate::demand::Sessions;

const PATIENCE: Duration = Duration::from_secs(10);

/// One HTTP/2 connection.
#[derive(Clone)]
struct Channel(SendRequest<Body>);

impl tower::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.send_request(request).boxed()
    }
}

/// A scaler that knows the route shop/web, and KEDA.
struct Scaler {
    hub: DemandHub,
    client: ExternalScalerClient<Channel>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

fn web() -> RouteKey {
    RouteKey::new("shop", "web")
}

fn both() -> RouteScaling {
    RouteScaling {
        concurrency: Some(10),
        rate: Some(RateScaling {
            target: 5,
            window: RateWindow::new(Duration::from_secs(60), Duration::from_secs(1)),
        }),
    }
}

fn object(route: Option<&str>) -> ScaledObjectRef {
    let route = route.map(|route| ("interceptorRoute".to_owned(), route.to_owned()));
    ScaledObjectRef {
        name: "web".to_owned(),
        namespace: "shop".to_owned(),
        scaler_metadata: BTreeMap::from_iter(route),
    }
}

impl Scaler {
    async fn start() -> Self {
        let addresses = OwnAddresses::new("scaler", "keda", Vec::new());
        let hub = DemandHub::new(addresses, Arc::new(Sessions::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let service = ExternalScalerService::new(Arc::new(hub.clone()));
        let server = tokio::spawn(serve(listener, service, stopped.map(drop)));
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let origin = format!("http://{address}").parse().unwrap();
        Self {
            hub,
            client: ExternalScalerClient::with_origin(Channel(sender), origin),
            stop,
            server,
        }
    }

    /// A scaler with the route, and an interceptor that has reported so many requests.
    async fn with_pending(pending: u32) -> Self {
        let scaler = Self::start().await;
        scaler.hub.set_route(web(), both());
        scaler.hub.listed([("pod-a".into(), PodStage::Staying)].into());
        scaler.report(1, pending);
        scaler
    }

    fn report(&self, sequence: u64, pending: u32) {
        let demand = RouteDemand {
            pending,
            in_flight: 0,
            started: pending.into(),
        };
        self.hub.apply(DemandReport {
            reporter: "pod-a".into(),
            session: 1,
            sequence,
            routes: BTreeMap::from([(web(), demand)]),
            goodbye: false,
        });
    }

    async fn value(&mut self, metric: &str) -> Result<(i64, f64), Code> {
        let request = GetMetricsRequest {
            scaled_object_ref: Some(object(Some("web"))),
            metric_name: metric.to_owned(),
        };
        let answer = self.client.get_metrics(request).await;
        let values = answer.map_err(|status| status.code())?.into_inner().metric_values;
        assert_eq!((values.len(), &*values[0].metric_name), (1, metric));
        Ok((values[0].metric_value, values[0].metric_value_float))
    }
}

async fn next(stream: &mut Streaming<IsActiveResponse>) -> bool {
    let message = timeout(PATIENCE, stream.message()).await.unwrap();
    message.unwrap().unwrap().result
}

#[tokio::test]
async fn a_route_has_a_metric_for_each_of_its_targets() {
    let mut scaler = Scaler::with_pending(25).await;
    let specs = scaler.client.get_metric_spec(object(Some("web"))).await.unwrap();
    let specs = specs.into_inner().metric_specs;
    let specs: Vec<_> = specs
        .iter()
        .map(|spec| (&*spec.metric_name, spec.target_size, spec.target_size_float))
        .collect();
    assert_eq!(
        specs,
        [("http_web_concurrency", 10, 10.0), ("http_web_rate", 5, 5.0)]
    );
    assert_eq!(scaler.value("http_web_concurrency").await, Ok((25, 25.0)));
    let (_, rate) = scaler.value("http_web_rate").await.unwrap();
    assert!(rate >= 25.0, "{rate}");
    assert_eq!(scaler.value("http_web").await, Err(Code::NotFound));
    let active = scaler.client.is_active(object(Some("web"))).await.unwrap();
    assert!(active.into_inner().result);
}

#[tokio::test]
async fn what_is_unknown_is_an_error_and_no_0() {
    let mut scaler = Scaler::with_pending(0).await;
    let idle = scaler.client.is_active(object(Some("web"))).await.unwrap();
    assert!(!idle.into_inner().result);
    let both = ["pod-a", "pod-b"].map(|pod| (pod.into(), PodStage::Staying));
    scaler.hub.listed(both.into());
    assert_eq!(scaler.value("http_web_concurrency").await, Err(Code::Unavailable));
    let unknown = scaler.client.is_active(object(Some("web"))).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unavailable);
    scaler.report(2, 1);
    let active = scaler.client.is_active(object(Some("web"))).await.unwrap();
    assert!(active.into_inner().result, "what is certain is enough");
    for (route, code) in [
        (Some("other"), Code::NotFound),
        (Some(""), Code::InvalidArgument),
        (None, Code::InvalidArgument),
    ] {
        let refused = scaler.client.is_active(object(route)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{route:?}");
    }
}

#[tokio::test]
async fn a_stream_tells_at_once_that_a_route_became_active() {
    let mut scaler = Scaler::with_pending(0).await;
    let stream = scaler.client.stream_is_active(object(Some("web"))).await;
    let mut stream = stream.unwrap().into_inner();
    assert!(!next(&mut stream).await);
    scaler.report(2, 1);
    assert!(next(&mut stream).await);
    scaler.report(3, 9);
    assert!(next(&mut stream).await, "and again when more waits unserved");
    scaler.stop.send(()).unwrap();
    timeout(PATIENCE, scaler.server).await.unwrap().unwrap();
    let ended = timeout(PATIENCE, stream.message()).await.unwrap();
    assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
}

#[tokio::test]
async fn a_stream_that_comes_before_its_route_waits_for_it() {
    let mut scaler = Scaler::start().await;
    let stream = scaler.client.stream_is_active(object(Some("web"))).await;
    let mut stream = stream.unwrap().into_inner();
    scaler.hub.set_route(web(), both());
    scaler.hub.listed([("pod-a".into(), PodStage::Staying)].into());
    scaler.report(1, 1);
    assert!(next(&mut stream).await);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_call_is_closed() {
    let hub = DemandHub::new(
        OwnAddresses::new("scaler", "keda", Vec::new()),
        Arc::new(Sessions::default()),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = ExternalScalerService::new(Arc::new(hub));
    tokio::spawn(serve(listener, service, std::future::pending()));
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut said = Vec::new();
    let closed = timeout(Duration::from_secs(11), silent.read_to_end(&mut said));
    assert!(closed.await.is_ok(), "it may not stay for ever");
}
