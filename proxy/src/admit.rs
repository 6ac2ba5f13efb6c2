//! A request's way to an endpoint: at once where one is usable, else through its route's gate.
//!
//! ```text
//! in flight ── open and an endpoint? ──yes──> Passage
//!     └─no─> pending ── gate ── grant ──> in flight, Passage
//!                        ├─ readiness timeout ──> fallback, else 504
//!                        └─ client left, route removed, proxy stops
//! ```

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::client::Client;
use crate::failure::Failure;
use crate::gate::{Grant, Place};
use crate::load::{InFlight, Pending};
use crate::peer::PeerLoad;
use crate::route::Route;
use crate::upstream::{Known, Protocol, Upstream};

/// How long a request goes on after its endpoint did not take it, if there are no others.
const KEEP_TRYING: Duration = Duration::from_secs(60);

/// A request on its way to an endpoint.
#[derive(Debug)]
pub(crate) struct Admission {
    client: Rc<Client>,
    route: Arc<Route>,
    /// How it is counted; `None` if it is not.
    count: Option<Count>,
    is_counted: bool,
    /// When it has waited for long enough.
    patience: Instant,
    deadline: Option<Instant>,
    waited: bool,
    /// The last endpoint that failed it, and how.
    failed: Option<(u64, String)>,
}

#[derive(Debug)]
enum Count {
    InFlight(InFlight),
    Pending(Pending),
}

/// The right to send a request to an endpoint.
#[derive(Debug)]
pub(crate) struct Passage {
    pub(crate) load: PeerLoad,
    pub(crate) protocol: Protocol,
    /// Where it came through the gate.
    pub(crate) grant: Option<Grant>,
    /// Whether the endpoint only stands in for the route's own.
    pub(crate) is_fallback: bool,
}

/// What a request gets that does not get an endpoint.
#[derive(Debug)]
pub(crate) enum Turned {
    /// What its route has for such requests.
    AnswerOurselves,
    Failure(Failure),
}

impl From<Failure> for Turned {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Admission {
    /// Begins with a request of this route. One that is not counted wakes nothing: it never waits.
    pub(crate) fn begin(client: Rc<Client>, route: Arc<Route>, is_counted: bool) -> Self {
        let now = Instant::now();
        let waits = route.waits();
        Self {
            client,
            count: is_counted.then(|| Count::InFlight(InFlight::begin(Arc::clone(&route)))),
            is_counted,
            route,
            patience: now + waits.readiness,
            deadline: waits.request.map(|request| now + request),
            waited: false,
            failed: None,
        }
    }

    /// An endpoint to send the request to.
    ///
    /// # Errors
    /// There is none, for as long as the request may wait or at all.
    pub(crate) async fn passage(&mut self) -> Result<Passage, Turned> {
        if !self.is_counted {
            return self.pick(self.route.target()).ok_or(Turned::AnswerOurselves);
        }
        // After it was counted: see `RouteState::is_on_hold`.
        if self.route.state().is_open()
            && let Some(passage) = self.pick(self.route.target())
        {
            return Ok(passage);
        }
        let view = self.route.target().view();
        if view.known == Known::Missing {
            return self.fall_back().ok_or(Turned::Failure(Failure::TargetMissing));
        }
        if view.usable().is_empty() && self.route.placeholder().is_some() {
            self.count_placeholder();
            return Err(Turned::AnswerOurselves);
        }
        drop(view);
        self.wait().await
    }

    /// Notes that an endpoint failed the request before anything of it was done.
    pub(crate) fn failed(&mut self, peer: u64, how: String) {
        if self.failed.is_none() {
            self.patience = self.patience.min(Instant::now() + KEEP_TRYING);
        }
        self.failed = Some((peer, how));
    }

    /// What counts the request from here to the end of its response.
    pub(crate) fn into_in_flight(mut self) -> Option<InFlight> {
        self.become_in_flight();
        match self.count {
            Some(Count::InFlight(in_flight)) => Some(in_flight),
            _ => None,
        }
    }

    /// When the request has to be done, in all.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether it had to wait for an endpoint.
    pub(crate) fn waited(&self) -> bool {
        self.waited
    }

    async fn wait(&mut self) -> Result<Passage, Turned> {
        self.waited = true;
        self.become_pending()?;
        let place = if self.failed.is_some() {
            Place::Front
        } else {
            Place::Back
        };
        let turn = self.route.state().gate().join(place);
        // An endpoint may have come between the look and the joining, when nobody waited to be told.
        self.route.state().pump();
        let granted = self.turn(turn).await;
        self.become_in_flight();
        match granted {
            Ok(mut grant) => Ok(Passage {
                load: grant.take_load(),
                protocol: self.route.target().view().protocol,
                grant: Some(grant),
                is_fallback: false,
            }),
            Err(failure @ (Failure::NotReady(_) | Failure::Unreachable(_))) => {
                self.fall_back().ok_or(failure.into())
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// Waits at the gate.
    async fn turn(&self, turn: oneshot::Receiver<Grant>) -> Result<Grant, Failure> {
        let until = self
            .deadline
            .map_or(self.patience, |deadline| deadline.min(self.patience));
        tokio::select! {
            biased;
            granted = turn => granted.map_err(|_| Failure::RouteGone),
            () = sleep_until(until) => Err(self.waited_in_vain()),
            () = self.client.gone() => Err(Failure::ClientGone),
            () = self.client.worker.drain.is_over() => Err(Failure::Stopping),
        }
    }

    fn waited_in_vain(&self) -> Failure {
        let waits = self.route.waits();
        match (&self.failed, self.deadline) {
            (_, Some(deadline)) if deadline <= self.patience => {
                Failure::TooLong(waits.request.unwrap_or_default())
            }
            (Some((_, how)), _) => Failure::Unreachable(how.clone()),
            (None, _) => Failure::NotReady(waits.readiness),
        }
    }

    fn fall_back(&self) -> Option<Passage> {
        let passage = self.pick(self.route.fallback()?)?;
        Some(Passage {
            is_fallback: true,
            ..passage
        })
    }

    fn pick(&self, upstream: &Upstream) -> Option<Passage> {
        let view = upstream.view();
        let failed = self.failed.as_ref().map(|(peer, _)| *peer);
        let load = view.pick(&self.client.worker.random, failed)?;
        Some(Passage {
            load,
            protocol: view.protocol,
            grant: None,
            is_fallback: false,
        })
    }

    fn count_placeholder(&self) {
        if self.route.load().placeholder() {
            self.client.worker.shared.edges.notify_one();
        }
    }

    fn become_pending(&mut self) -> Result<(), Turned> {
        let Some(Count::InFlight(in_flight)) = self.count.take() else {
            return Ok(());
        };
        match in_flight.into_pending(&self.client.worker.shared) {
            Ok(pending) => {
                self.count = Some(Count::Pending(pending));
                Ok(())
            }
            Err(_) if self.route.settings().cold_start.answer_beyond_bound().is_some() => {
                Err(Turned::AnswerOurselves)
            }
            Err(_) => Err(Failure::Overflow.into()),
        }
    }

    fn become_in_flight(&mut self) {
        self.count = self.count.take().map(|count| match count {
            Count::Pending(pending) => Count::InFlight(pending.into_in_flight()),
            in_flight => in_flight,
        });
    }
}
