//! An operator that takes sessions, and leaves to the test what is said in them.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dormouse_wire::demand::demand_server::{Demand, DemandServer};
use dormouse_wire::demand::from_interceptor::Message;
use dormouse_wire::demand::from_operator::Message as Order;
use dormouse_wire::demand::{FromInterceptor, FromOperator, HoldAnswer, Report};
use futures::Stream;
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Listens until it is dropped; its sessions go on.
pub(super) struct Operator {
    pub(super) address: SocketAddr,
    sessions: mpsc::Receiver<Session>,
    authority: Option<String>,
    _listening: AbortOnDropHandle<()>,
}

impl Operator {
    pub(super) async fn start(address: &str) -> Self {
        Self::try_start(address).await.unwrap()
    }

    /// `None` if there is no such address here.
    pub(super) async fn try_start(address: &str) -> Option<Self> {
        Some(Self::on(TcpListener::bind(address).await.ok()?, None))
    }

    /// With a certificate of its own that bears `name`.
    pub(super) async fn start_tls(address: &str, name: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self::on(listener, Some((TlsAcceptor::from(Arc::new(config)), cert.pem())))
    }

    fn on(listener: TcpListener, tls: Option<(TlsAcceptor, String)>) -> Self {
        let (opened, sessions) = mpsc::channel(16);
        let (acceptor, authority) = tls.unzip();
        Self {
            address: listener.local_addr().unwrap(),
            sessions,
            authority,
            _listening: AbortOnDropHandle::new(tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (service, acceptor) = (Service(opened.clone()), acceptor.clone());
                    tokio::spawn(async move {
                        match acceptor {
                            None => serve(TokioIo::new(stream), service).await,
                            Some(acceptor) => {
                                if let Ok(stream) = acceptor.accept(stream).await {
                                    serve(TokioIo::new(stream), service).await;
                                }
                            }
                        }
                    });
                }
            })),
        }
    }

    pub(super) fn authority(&self) -> &str {
        self.authority.as_deref().unwrap()
    }

    /// The next session that an interceptor opens.
    pub(super) async fn session(&mut self) -> Session {
        timeout(PATIENCE, self.sessions.recv()).await.unwrap().unwrap()
    }
}

async fn serve(stream: impl Read + Write + Unpin + Send + 'static, service: Service) {
    let service = TowerToHyperService::new(DemandServer::new(service));
    let builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    drop(builder.serve_connection(stream, service).await);
}

#[derive(Clone)]
struct Service(mpsc::Sender<Session>);

#[tonic::async_trait]
impl Demand for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<FromOperator, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<FromInterceptor>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (orders, to_send) = mpsc::channel(16);
        let authorization = request.metadata().get("authorization");
        let session = Session {
            authorization: authorization.map(|value| value.to_str().unwrap().to_owned()),
            newest: 0,
            said: request.into_inner(),
            orders,
        };
        self.0.send(session).await.unwrap();
        let orders = futures::stream::unfold(to_send, |mut to_send| async move {
            let message = Some(to_send.recv().await?);
            Some((Ok(FromOperator { message }), to_send))
        });
        Ok(Response::new(Box::pin(orders)))
    }
}

/// One session, as the operator sees it. It ends when this is dropped.
pub(super) struct Session {
    pub(super) authorization: Option<String>,
    /// Number of the newest report that was heard.
    pub(super) newest: u64,
    said: Streaming<FromInterceptor>,
    orders: mpsc::Sender<Order>,
}

impl Session {
    pub(super) async fn message(&mut self) -> Message {
        let message = timeout(PATIENCE, self.said.message()).await.unwrap();
        let message = message.unwrap().unwrap().message.unwrap();
        if let Message::Report(report) = &message {
            self.newest = report.sequence;
        }
        message
    }

    /// The number of the process that says hello.
    pub(super) async fn hello(&mut self) -> u64 {
        match self.message().await {
            Message::Hello(hello) => hello.session,
            other => unreachable!("{other:?}"),
        }
    }

    /// The next report.
    pub(super) async fn report(&mut self) -> Report {
        self.report_that(|_| true).await
    }

    /// The next report of which this is true; other messages are passed over.
    pub(super) async fn report_that(&mut self, is_it: impl Fn(&Report) -> bool) -> Report {
        loop {
            if let Message::Report(report) = self.message().await
                && is_it(&report)
            {
                return report;
            }
        }
    }

    pub(super) async fn hold_answer(&mut self) -> HoldAnswer {
        loop {
            if let Message::HoldAnswer(answer) = self.message().await {
                return answer;
            }
        }
    }

    /// The names of the pods that are asked for next.
    pub(super) async fn pods_wanted(&mut self) -> Vec<String> {
        loop {
            if let Message::PodsWanted(wanted) = self.message().await {
                return wanted.pods.into_iter().map(|pod| pod.name).collect();
            }
        }
    }

    pub(super) async fn order(&self, order: Order) {
        self.orders.send(order).await.unwrap();
    }

    /// Waits until the interceptor has no more to say.
    pub(super) async fn ended(&mut self) {
        let ended = timeout(PATIENCE, self.said.message()).await.unwrap();
        assert!(matches!(ended, Ok(None)), "{ended:?}");
    }
}
