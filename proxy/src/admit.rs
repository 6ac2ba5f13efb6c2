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
use crate::peer::{Peer, PeerLoad};
use crate::route::{Route, RouteNumber};
use crate::stats::{HoldEnd, Tally};
use crate::upstream::{Known, Protocol, TlsName, Upstream};

/// How long a request goes on after its endpoint did not take it, if there are no others and nobody said how long it waits.
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
    /// When it began to wait first, if it did, and for how long it has waited in all.
    waits_since: Option<Instant>,
    held: Duration,
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
    /// How the endpoint is known, if it speaks TLS.
    pub(crate) tls: Option<Arc<TlsName>>,
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
        let count = || Count::InFlight(InFlight::begin(Arc::clone(&route), &client.worker.shared));
        Self {
            count: is_counted.then(count),
            client,
            is_counted,
            route,
            patience: now + waits.readiness,
            deadline: waits.request.map(|request| now + request),
            waits_since: None,
            held: Duration::ZERO,
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
        // A fallback took it and failed.
        if self.count.is_none() {
            self.count = Some(Count::InFlight(InFlight::count(
                Arc::clone(&self.route),
                &self.client.worker.shared,
            )));
        }
        // After it was counted: see `RouteState::is_on_hold`.
        if self.route.state().is_open()
            && let Some(passage) = self.pick(self.route.target())
        {
            return Ok(passage);
        }
        let view = self.route.target().view();
        if view.known == Known::Missing {
            drop(view);
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
        if self.failed.is_none() && !self.route.waits().readiness_is_set {
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
        self.waits_since.is_some()
    }

    /// How long it has waited for one.
    pub(crate) fn held(&self) -> Duration {
        self.held
    }

    /// How long ago an endpoint became one that gets requests, if this one waited for it then.
    pub(crate) fn since_usable(&self, peer: &Peer) -> Option<Duration> {
        let (began, usable) = (self.waits_since?, peer.usable_since()?);
        (began <= usable).then(|| usable.elapsed())
    }

    /// Its route.
    pub(crate) fn route(&self) -> &Route {
        &self.route
    }

    async fn wait(&mut self) -> Result<Passage, Turned> {
        self.become_pending()?;
        let mut hold = Hold::begin(&self.client, &self.route);
        self.waits_since.get_or_insert(hold.began);
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
        self.held += hold.began.elapsed();
        match granted {
            Ok(mut grant) => {
                hold.end = HoldEnd::Endpoint;
                Ok(Passage {
                    load: grant.take_load(),
                    protocol: grant.view().protocol,
                    tls: grant.view().tls.clone(),
                    grant: Some(grant),
                    is_fallback: false,
                })
            }
            Err(failure @ (Failure::NotReady(..) | Failure::Unreachable(_))) => {
                let fallback = self.fall_back();
                hold.end = match fallback {
                    Some(_) => HoldEnd::Fallback,
                    None => HoldEnd::Timeout,
                };
                fallback.ok_or(failure.into())
            }
            Err(failure) => {
                hold.end = match failure {
                    Failure::ClientGone => HoldEnd::Left,
                    Failure::TooLong(_) => HoldEnd::Timeout,
                    _ => HoldEnd::Turned,
                };
                Err(failure.into())
            }
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
            (None, _) => Failure::NotReady(waits.readiness, self.route.state().obstacle()),
        }
    }

    /// A way to the fallback, where the request is no load of its route any more: it keeps no pod of it.
    fn fall_back(&mut self) -> Option<Passage> {
        let passage = self.pick(self.route.fallback()?)?;
        self.count = None;
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
            tls: view.tls.clone(),
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

/// A wait for an endpoint, counted when it is over. One that is just dropped has a client that left.
struct Hold {
    tally: Arc<Tally>,
    route: RouteNumber,
    began: Instant,
    end: HoldEnd,
}

impl Hold {
    fn begin(client: &Client, route: &Route) -> Self {
        Self {
            tally: Arc::clone(&client.worker.tally),
            route: route.state().number(),
            began: Instant::now(),
            end: HoldEnd::Left,
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.tally.hold(self.route, self.end, self.began.elapsed());
    }
}
