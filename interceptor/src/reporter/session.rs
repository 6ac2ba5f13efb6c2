//! One session with one operator.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use dormouse_core::endpoints::PodKey;
use dormouse_wire::demand::from_interceptor::Message;
use dormouse_wire::demand::from_operator::Message as Order;
use dormouse_wire::demand::{
    FromInterceptor, FromOperator, Goodbye, Heartbeat, Hello, Pod, PodsWanted, Report,
};
use futures::stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Request, Status, Streaming};
use tracing::{debug, info};

use super::bulletin::Bulletin;
use super::connect::{ConnectError, Connection};
use super::holds::Holds;
use super::{Shared, obstacles, probes};

/// To an open connection: TCP, TLS and HTTP/2.
const CONNECT: Duration = Duration::from_secs(3);
/// To an accepted session: the operator has the token reviewed first.
const OPEN: Duration = Duration::from_secs(6);
/// How long the operator may leave a message untaken.
const SEND: Duration = Duration::from_secs(3);
/// After so long without a report comes a heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long the operator may take to hear the goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// Messages that may wait to be sent: reports are not among them for long, as a newer one replaces them before.
const OUTBOX: usize = 4;

/// Why a session ended before the last report.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{0}, not within {1:?}")]
    TooLong(&'static str, Duration),
    #[error("refused: {}", .0.message())]
    Refused(Box<Status>),
    #[error("ended by the operator: {}", .0.message())]
    Ended(Box<Status>),
    #[error("closed by the operator")]
    Closed,
}

/// Reports to the operator at `address` and does what it asks, until the last report was sent.
///
/// # Errors
/// The session could not be opened, or broke.
pub(super) async fn run(shared: &Shared, address: SocketAddr) -> Result<(), SessionError> {
    let mut connection = within(CONNECT, "no connection", shared.access.connect(address)).await??;
    let (outbox, messages) = mpsc::channel(OUTBOX);
    let mut orders = within(OPEN, "not accepted", open(shared, &mut connection, messages)).await??;
    info!(operator = %address, "reporting to an operator");
    let speaker = Speaker::new(shared, outbox.clone());
    tokio::select! {
        said = speaker.speak() => said?,
        end = listen(shared, outbox, &mut orders) => return Err(end),
    }
    // The operator ends its side once it has heard everything.
    let heard = async { while let Ok(Some(_)) = orders.message().await {} };
    within(GOODBYE, "goodbye not heard", heard).await
}

async fn within<T>(
    at_most: Duration,
    what: &'static str,
    future: impl Future<Output = T>,
) -> Result<T, SessionError> {
    let done = timeout(at_most, future).await;
    done.map_err(|_elapsed| SessionError::TooLong(what, at_most))
}

async fn open(
    shared: &Shared,
    connection: &mut Connection,
    messages: mpsc::Receiver<Message>,
) -> Result<Streaming<FromOperator>, SessionError> {
    let messages = stream::unfold(messages, |mut messages| async move {
        let message = Some(messages.recv().await?);
        Some((FromInterceptor { message }, messages))
    });
    let mut request = Request::new(messages);
    if let Some(authorization) = shared.access.authorization().await? {
        request.metadata_mut().insert("authorization", authorization);
    }
    let session = connection.client.session(request).await;
    let session = session.map_err(|status| SessionError::Refused(Box::new(status)))?;
    Ok(session.into_inner())
}

/// What the operator is told.
struct Speaker<'s> {
    shared: &'s Shared,
    outbox: mpsc::Sender<Message>,
    /// Number of the newest report that was sent; 0 before the first.
    sent: u64,
    /// When the operator was last told how things are.
    told: Instant,
    /// Reports were left out: counters may have moved that the operator does not know of.
    lacks: bool,
    /// Pods were asked for.
    asked: bool,
}

impl<'s> Speaker<'s> {
    fn new(shared: &'s Shared, outbox: mpsc::Sender<Message>) -> Self {
        Self {
            shared,
            outbox,
            sent: 0,
            told: Instant::now(),
            lacks: true,
            asked: false,
        }
    }

    /// Reports until the last one was sent, and the goodbye.
    async fn speak(mut self) -> Result<(), SessionError> {
        let (mut bulletins, mut pods) = (self.shared.bulletins.clone(), self.shared.pods.clone());
        let hello = Hello {
            session: self.shared.session,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.say(Message::Hello(hello)).await?;
        self.shared.lacking.notify_one();
        pods.mark_changed();
        loop {
            let bulletin = bulletins.borrow_and_update().clone();
            self.report(&bulletin).await?;
            if bulletin.last {
                let sequence = bulletin.report.sequence + 1;
                return self.say(Message::Goodbye(Goodbye { sequence })).await;
            }
            tokio::select! {
                biased;
                changed = bulletins.changed() => changed.map_err(|_| SessionError::Closed)?,
                changed = pods.changed() => {
                    changed.map_err(|_| SessionError::Closed)?;
                    let wanted = pods.borrow_and_update().clone();
                    self.ask(&wanted).await?;
                }
                () = sleep_until(self.told + HEARTBEAT) => self.beat().await?,
            }
        }
    }

    /// Sends the report, unless it is the one that was sent last. The first is a whole one: what a partial one leaves out would
    /// seem to have come just now when it is told.
    async fn report(&mut self, bulletin: &Bulletin) -> Result<(), SessionError> {
        let report = &bulletin.report;
        if self.sent == 0 && !bulletin.whole && !bulletin.last {
            self.shared.lacking.notify_one();
            return Ok(());
        }
        if report.sequence == self.sent {
            return Ok(());
        }
        self.say(Message::Report(Report::clone(report))).await?;
        self.lacks = !bulletin.whole && (self.lacks || report.sequence != self.sent + 1);
        (self.sent, self.told) = (report.sequence, Instant::now());
        if self.lacks {
            self.shared.lacking.notify_one();
        }
        Ok(())
    }

    /// Says that all is as it was reported last.
    async fn beat(&mut self) -> Result<(), SessionError> {
        self.told = Instant::now();
        let sequence = self.sent;
        if sequence == 0 {
            return Ok(());
        }
        self.say(Message::Heartbeat(Heartbeat { sequence })).await
    }

    async fn ask(&mut self, wanted: &BTreeSet<PodKey>) -> Result<(), SessionError> {
        if wanted.is_empty() && !self.asked {
            return Ok(());
        }
        self.asked = true;
        let pods = wanted.iter().map(|pod| Pod {
            namespace: pod.namespace.to_string(),
            name: pod.name.to_string(),
            uid: pod.uid.to_string(),
        });
        let wanted = PodsWanted { pods: pods.collect() };
        self.say(Message::PodsWanted(wanted)).await
    }

    async fn say(&self, message: Message) -> Result<(), SessionError> {
        let said = within(SEND, "a message was not taken", self.outbox.send(message)).await?;
        said.map_err(|_| SessionError::Closed)
    }
}

/// Does what the operator asks until the session ends, and says how it did. Its silence means nothing: the connection is
/// kept alive below.
async fn listen(
    shared: &Shared,
    outbox: mpsc::Sender<Message>,
    orders: &mut Streaming<FromOperator>,
) -> SessionError {
    let mut holds = Holds::new(&shared.proxy);
    loop {
        let order = match orders.message().await {
            Ok(Some(order)) => order.message,
            Ok(None) => return SessionError::Closed,
            Err(status) => return SessionError::Ended(Box::new(status)),
        };
        match order {
            Some(Order::Hold(request)) => {
                let Some(answer) = holds.hold(request) else {
                    continue;
                };
                let said = within(
                    SEND,
                    "a message was not taken",
                    outbox.send(Message::HoldAnswer(answer)),
                );
                match said.await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return SessionError::Closed,
                    Err(too_long) => return too_long,
                }
            }
            Some(Order::Release(release)) => holds.release(&release),
            Some(Order::ProbeSpecs(specs)) => {
                probes::learn(
                    &shared.proxy,
                    shared.newcomers.as_ref(),
                    &shared.pods,
                    &shared.ahead,
                    &specs,
                );
            }
            Some(Order::Obstacle(obstacle)) => obstacles::learn(&shared.proxy, obstacle),
            // How far the operator has come changes nothing here: the newest report is sent whether or not it has the others.
            Some(Order::Acknowledgement(_)) => {}
            None => debug!("an order that this interceptor does not know"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::num::NonZeroUsize;
    use std::sync::Arc;

    use dormouse_proxy::{Config, Proxy};
    use tokio::sync::{Notify, watch};

    use super::*;
    use crate::reporter::Access;

    fn bulletin(sequence: u64, whole: bool) -> Bulletin {
        let report = Report {
            sequence,
            ..Report::default()
        };
        Bulletin {
            report: Arc::new(report),
            whole,
            last: false,
        }
    }

    #[tokio::test]
    async fn the_first_report_is_a_whole_one() {
        let mut config = Config::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        config.threads = NonZeroUsize::MIN;
        let (publish, bulletins) = watch::channel(bulletin(57, false));
        let (_wanted, pods) = watch::channel(BTreeSet::new());
        let shared = Shared {
            proxy: Arc::new(Proxy::start(config).unwrap()),
            newcomers: None,
            access: Access {
                name: "operators".to_owned(),
                ca_file: None,
                token_file: None,
            },
            session: 1,
            bulletins,
            pods,
            ahead: Arc::default(),
            lacking: Arc::new(Notify::new()),
        };
        let (outbox, mut said) = mpsc::channel(OUTBOX);
        let heard = async {
            assert!(matches!(said.recv().await, Some(Message::Hello(_))));
            shared.lacking.notified().await;
            publish.send_replace(bulletin(58, true));
            let first = said.recv().await;
            assert!(
                matches!(&first, Some(Message::Report(report)) if report.sequence == 58),
                "{first:?}"
            );
        };
        tokio::select! {
            ended = Speaker::new(&shared, outbox).speak() => unreachable!("{ended:?}"),
            () = heard => {}
        }
    }
}
