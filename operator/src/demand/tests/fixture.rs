//! A running server, and interceptors that say what a test wants.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use dormouse_core::demand::RouteKey;
use dormouse_engine::DemandHub;
use dormouse_kubernetes::CallError;
use dormouse_scalers::{OwnAddresses, RouteScaling};
use dormouse_wire::demand::demand_client::DemandClient;
use dormouse_wire::demand::from_interceptor::Message as Said;
use dormouse_wire::demand::from_operator::Message as Heard;
use dormouse_wire::demand::hold_release::Outcome;
use dormouse_wire::demand::{
    FromInterceptor, FromOperator, Hello, HoldRequest, PodProbe, Report, Route, RouteDemand,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::Pod;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::{Request, Status, Streaming};

use super::super::{DemandService, ReadPods, ReviewFailed, Reviewer, Selection, Sessions, Tell, Told, serve};

const HOST: &str = "keda-operator.keda.svc";
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn web() -> RouteKey {
    RouteKey::new("shop", "web")
}

/// The pods of a route with the label `app=web`, as a Service named as the route selects them.
pub(super) fn selection(route: &RouteKey) -> Selection {
    Selection {
        service: route.name.to_string(),
        labels: "app=web".to_owned(),
    }
}

pub(super) fn hello() -> Said {
    Said::Hello(Hello {
        session: 7,
        version: "0.1.0".to_owned(),
    })
}

pub(super) fn report(sequence: u64, pending: u32, in_flight: u32) -> Said {
    let route = Route {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
    };
    Said::Report(Report {
        sequence,
        routes: vec![RouteDemand {
            route: Some(route),
            pending,
            in_flight,
            started: u64::from(pending + in_flight),
        }],
    })
}

/// Knows the tokens `a` and `b`, and cannot say of `down`.
struct Scripted;

impl Reviewer for Scripted {
    fn reporter<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<Arc<str>>, ReviewFailed>> {
        let answer = match token {
            "a" | "b" => Ok(Some(format!("pod-{token}").into())),
            "down" => Err(ReviewFailed("no connection".to_owned())),
            _ => Ok(None),
        };
        async move { answer }.boxed()
    }
}

/// The pods of a cluster, by name.
#[derive(Default)]
pub(super) struct Pods {
    pub(super) there: Arc<Mutex<HashMap<String, Pod>>>,
    /// The names of those that were read.
    pub(super) read: Mutex<Vec<String>>,
    /// One for each watch that there is.
    pub(super) followed: Arc<()>,
    changed: watch::Sender<()>,
}

impl Pods {
    pub(super) fn set(&self, pod: Value) {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let name = pod.metadata.name.clone().unwrap();
        self.there.lock().unwrap().insert(name, pod);
        self.changed.send_replace(());
    }

    /// Deletes it at once, without a grace period.
    pub(super) fn delete(&self, name: &str) {
        self.there.lock().unwrap().remove(name);
        self.changed.send_replace(());
    }
}

impl ReadPods for Pods {
    fn pod<'a>(
        &'a self,
        _namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Pod>, CallError>> {
        self.read.lock().unwrap().push(name.to_owned());
        let pod = self.there.lock().unwrap().get(name).cloned();
        async move { Ok(pod) }.boxed()
    }

    fn pods<'a>(
        &'a self,
        _namespace: &'a str,
        _selector: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Pod>, CallError>> {
        let pods = self.there.lock().unwrap().values().cloned().collect();
        async move { Ok(pods) }.boxed()
    }

    fn follow(&self, namespace: &str, selector: &str, tell: Tell) -> BoxFuture<'static, ()> {
        assert_eq!((namespace, selector), ("shop", "app=web"));
        let (there, followed) = (self.there.clone(), self.followed.clone());
        let mut changed = self.changed.subscribe();
        async move {
            let _followed = followed;
            let mut before = HashMap::new();
            loop {
                let now = there.lock().unwrap().clone();
                before.retain(|name, _| !now.contains_key(name));
                before
                    .values()
                    .for_each(|pod: &Pod| tell(&Told::from(pod.clone()).gone()));
                now.values().for_each(|pod| tell(&Told::from(pod.clone())));
                before = now;
                changed.changed().await.unwrap();
            }
        }
        .boxed()
    }
}

#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

pub(super) struct Operator {
    pub(super) hub: DemandHub,
    pub(super) sessions: Sessions,
    pub(super) pods: Arc<Pods>,
    address: SocketAddr,
    trusted: CertificateDer<'static>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Operator {
    pub(super) async fn start() -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let certified = CertifiedKey::new(vec![cert.der().clone()], key);
        let sessions = Sessions::default();
        let hub = DemandHub::new(
            OwnAddresses::new("scaler", "keda", Vec::new()),
            Arc::new(sessions.clone()),
        );
        hub.set_route(
            web(),
            RouteScaling {
                concurrency: Some(10),
                rate: None,
            },
        );
        let pods = Arc::new(Pods::default());
        let selector = Arc::new(|route: &RouteKey| (*route == web()).then(|| selection(route)));
        let service = DemandService::new(
            hub.clone(),
            sessions.clone(),
            Arc::new(Scripted),
            pods.clone(),
            selector,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopped = stopped.map(drop);
        let server = tokio::spawn(serve(
            listener,
            Arc::new(Fixed(Arc::new(certified))),
            service,
            stopped,
        ));
        Self {
            hub,
            sessions,
            pods,
            address,
            trusted: cert.der().clone(),
            stop,
            server,
        }
    }

    pub(super) async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.server).await.unwrap().unwrap();
    }

    pub(super) async fn connect(&self, token: &str) -> Interceptor {
        let session = self.try_connect(Some(&format!("Bearer {token}"))).await;
        session.unwrap_or_else(|status| panic!("{status}"))
    }

    pub(super) async fn try_connect(&self, authorization: Option<&str>) -> Result<Interceptor, Status> {
        let mut roots = RootCertStore::empty();
        roots.add(self.trusted.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from(HOST).unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap();
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let (say, said) = mpsc::channel(16);
        let said = futures::stream::unfold(said, |mut said| async move { Some((said.recv().await?, said)) });
        let mut request = Request::new(said);
        if let Some(authorization) = authorization {
            let value = authorization.parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let origin = format!("https://{HOST}").parse().unwrap();
        let mut client = DemandClient::with_origin(Channel(sender), origin);
        let heard = client.session(request).await?.into_inner();
        Ok(Interceptor {
            say: Some(say),
            heard: Some(heard),
        })
    }
}

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

/// One session.
pub(super) struct Interceptor {
    say: Option<mpsc::Sender<FromInterceptor>>,
    heard: Option<Streaming<FromOperator>>,
}

impl Interceptor {
    pub(super) async fn say(&mut self, message: Said) {
        let message = FromInterceptor {
            message: Some(message),
        };
        self.say.as_ref().unwrap().send(message).await.unwrap();
    }

    pub(super) fn hang_up(&mut self) {
        (self.say, self.heard) = (None, None);
    }

    async fn next(&mut self) -> Result<Option<Heard>, Status> {
        let message = timeout(PATIENCE, self.heard.as_mut().unwrap().message());
        let message = message.await.unwrap_or_else(|_| panic!("nothing came"))?;
        Ok(message.and_then(|message| message.message))
    }

    pub(super) async fn acknowledged(&mut self) -> u64 {
        match self.next().await {
            Ok(Some(Heard::Acknowledgement(acknowledgement))) => acknowledgement.sequence,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn asked_to_hold(&mut self) -> HoldRequest {
        match self.next().await {
            Ok(Some(Heard::Hold(request))) => request,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn released(&mut self) -> Outcome {
        match self.next().await {
            Ok(Some(Heard::Release(release))) => release.outcome(),
            other => panic!("{other:?}"),
        }
    }

    /// How the next pod may be probed.
    pub(super) async fn told_of_pod(&mut self) -> PodProbe {
        match self.next().await {
            Ok(Some(Heard::ProbeSpecs(mut specs))) if specs.pods.len() == 1 => specs.pods.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// What comes within a moment.
    pub(super) async fn within_a_moment(&mut self) -> Option<Heard> {
        let message = timeout(Duration::from_millis(50), self.heard.as_mut().unwrap().message());
        message.await.ok()?.ok()??.message
    }

    /// The status that ends the session; what was said before it is passed over.
    pub(super) async fn fault(&mut self) -> Status {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a fault"),
                Err(status) => return status,
            }
        }
    }

    /// Waits for the end of the session, however it comes.
    pub(super) async fn ended(&mut self) {
        while let Ok(Some(_)) = self.next().await {}
    }
}
