//! One session: who it is, and what it says.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dormouse_core::demand::RouteKey;
use dormouse_engine::DemandHub;
use dormouse_wire::demand::demand_server::Demand;
use dormouse_wire::demand::from_interceptor::Message;
use dormouse_wire::demand::from_operator::Message as Reply;
use dormouse_wire::demand::{Acknowledgement, FromInterceptor, FromOperator, Pod};
use futures::Stream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};

use super::messages;
use super::probes::{PodBooth, ReadPods, Selector, Wanted};
use super::reviewer::Reviewer;
use super::scouts::{self, Scouts};
use super::server::InUse;
use super::sessions::{Opened, Outbox, Sessions};

/// Messages to one interceptor that may wait to be sent.
const OUTBOX: usize = 256;
/// A session in which nothing was heard for so long has lost its other end: a heartbeat comes each second.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);
/// Cold routes of a report that are looked at.
const MOST_COLD: usize = 64;
/// How long the last word of a session may wait to be sent.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Takes in the sessions of interceptors.
pub struct DemandService {
    hub: DemandHub,
    sessions: Sessions,
    reviewer: Arc<dyn Reviewer>,
    booth: PodBooth,
}

impl DemandService {
    /// Feeds `hub` with what is said in sessions, which are entered into `sessions`; what interceptors want to know of pods is
    /// read by `pods`, and those of a route are found by `selector`.
    #[must_use]
    pub fn new(
        hub: DemandHub,
        sessions: Sessions,
        reviewer: Arc<dyn Reviewer>,
        pods: Arc<dyn ReadPods>,
        selector: Selector,
    ) -> Self {
        Self {
            hub,
            sessions,
            reviewer,
            booth: PodBooth::new(pods, selector),
        }
    }

    async fn reporter(&self, metadata: &MetadataMap) -> Result<Arc<str>, Status> {
        let token = metadata
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let token = token.ok_or_else(|| Status::unauthenticated("a bearer token is needed"))?;
        let reporter = self.reviewer.reporter(token).await.map_err(|error| {
            // Who calls is not known: nothing of the API server's answer is for them.
            info!(%error, "an interceptor's token cannot be reviewed");
            Status::unavailable("the token cannot be reviewed now")
        })?;
        reporter.ok_or_else(|| Status::unauthenticated("the token is not that of an interceptor's pod"))
    }
}

#[tonic::async_trait]
impl Demand for DemandService {
    type SessionStream = Outbound;

    async fn session(
        &self,
        request: Request<Streaming<FromInterceptor>>,
    ) -> Result<Response<Outbound>, Status> {
        let reporter = self.reporter(request.metadata()).await?;
        let in_use = request.extensions().get::<InUse>().cloned();
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let session = Session {
            opened: self.sessions.open(reporter, outbox.clone())?,
            hub: self.hub.clone(),
            outbox,
            process: None,
            booth: self.booth.clone(),
            wanted: Wanted::default(),
            scouts: Scouts::default(),
        };
        let reader = tokio::spawn(session.run(request.into_inner()));
        Ok(Response::new(Outbound {
            messages,
            _reader: AbortOnDropHandle::new(reader),
            _in_use: in_use,
        }))
    }
}

/// What goes to one interceptor. With it, the session ends.
pub struct Outbound {
    messages: mpsc::Receiver<Result<FromOperator, Status>>,
    _reader: AbortOnDropHandle<()>,
    _in_use: Option<InUse>,
}

impl Stream for Outbound {
    type Item = Result<FromOperator, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.poll_recv(cx)
    }
}

/// The reading half of a session.
struct Session {
    opened: Opened,
    hub: DemandHub,
    outbox: Outbox,
    /// The number of the interceptor's process, once it has said hello.
    process: Option<u64>,
    booth: PodBooth,
    /// The pods it wants to know of; ends with the session.
    wanted: Wanted,
    /// Those it will want to know of soon.
    scouts: Scouts,
}

impl Session {
    /// Takes in messages until the interceptor has no more, falls silent or says something that cannot be.
    async fn run(mut self, mut messages: Streaming<FromInterceptor>) {
        loop {
            let fault = match timeout(LONGEST_SILENCE, messages.message()).await {
                Ok(Ok(Some(message))) => match self.take_in(message) {
                    Ok(()) => continue,
                    Err(fault) => fault,
                },
                Ok(Ok(None)) => return,
                Ok(Err(broken)) => {
                    return debug!(reporter = %self.opened.reporter(), %broken, "a demand session broke off");
                }
                Err(_elapsed) => Status::deadline_exceeded("nothing was heard for 10 s"),
            };
            info!(reporter = %self.opened.reporter(), %fault, "a demand session was ended");
            drop(timeout(LAST_WORD, self.outbox.send(Err(fault))).await);
            return;
        }
    }

    fn take_in(&mut self, message: FromInterceptor) -> Result<(), Status> {
        let message = message
            .message
            .ok_or_else(|| Status::invalid_argument("a message that this operator does not know"))?;
        if let Message::Hello(hello) = message {
            if self.process.replace(hello.session).is_some() {
                return Err(Status::invalid_argument("a second Hello"));
            }
            info!(reporter = %self.opened.reporter(), version = hello.version, "an interceptor has come");
            return Ok(());
        }
        let reporter = self.opened.reporter();
        let process = self
            .process
            .ok_or_else(|| Status::invalid_argument("Hello has to come first"))?;
        match message {
            Message::Hello(_) => {}
            Message::Report(report) => {
                let sequence = report.sequence;
                let report = messages::report(reporter, process, report)?;
                let cold: Vec<RouteKey> = report
                    .routes
                    .iter()
                    .filter(|(_, demand)| scouts::is_cold(demand))
                    .map(|(route, _)| route.clone())
                    .take(MOST_COLD)
                    .collect();
                self.hub.apply(report);
                self.scouts.waiting(cold.iter(), &self.booth, &self.outbox);
                self.reply(Reply::Acknowledgement(Acknowledgement { sequence }));
            }
            Message::Heartbeat(heartbeat) => {
                if !self.hub.heartbeat(reporter, process, heartbeat.sequence) {
                    return Err(Status::failed_precondition(
                        "that report is not the newest here: begin a new session",
                    ));
                }
                self.scouts.rest();
            }
            Message::Goodbye(goodbye) => self.hub.apply(messages::goodbye(reporter, process, goodbye)),
            Message::HoldAnswer(answer) => self.opened.answer(answer),
            Message::PodsWanted(wanted) => {
                debug!(%reporter, pods = wanted.pods.len(), "probes were asked for");
                let (hub, booth) = (&self.hub, &self.booth);
                let serves = |namespace: &str| hub.has_routes_in(namespace);
                let has_told = |pod: &Pod| self.scouts.has_told(pod);
                self.wanted.replace(wanted, booth, &self.outbox, serves, has_told);
            }
        }
        Ok(())
    }

    /// An interceptor that takes nothing in misses acknowledgements, which the next one makes up for.
    fn reply(&self, reply: Reply) {
        drop(self.outbox.try_send(Ok(messages::to_interceptor(reply))));
    }
}
