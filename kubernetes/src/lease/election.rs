//! The election itself: follow until the lease can be claimed, lead until it is lost, and so on.

use std::{pin::pin, sync::Arc, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::PostParams};
use rand::Rng as _;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    LeaderState, LeaseConfig, Term,
    record::{self, Observation},
};
use crate::{
    calls::CallError,
    namespaces::Namespaces,
    outage::Outage,
    watch::{Change, Watch},
};

/// The least time between two attempts that fail while the lease is held.
const RENEW_AGAIN: Duration = Duration::from_millis(500);
/// How long giving up the lease may take.
const RELEASE_DEADLINE: Duration = Duration::from_secs(2);

/// A candidate, to be run as a task the process cannot do without: a process that no longer renews must not go on.
pub struct Election {
    client: Client,
    api: Api<Lease>,
    config: LeaseConfig,
    term: Arc<Term>,
    state: watch::Sender<LeaderState>,
    seen: Seen,
}

/// What is known of the Lease.
#[derive(Debug, Clone)]
enum Seen {
    Nothing,
    /// It does not exist; it may be made from `claimable_at` on.
    Absent {
        claimable_at: Instant,
    },
    Present(Box<Observation>),
}

impl Seen {
    fn present(lease: Lease, at: Instant) -> Self {
        Self::Present(Box::new(Observation { lease, at }))
    }
}

enum Attempt {
    Holds { until: Instant },
    TakenByAnother,
    Failed(CallError),
}

impl Election {
    pub(super) fn new(
        client: Client,
        config: LeaseConfig,
        term: Arc<Term>,
        state: watch::Sender<LeaderState>,
    ) -> Self {
        let api = Api::namespaced(client.clone(), &config.namespace);
        Self {
            client,
            api,
            config,
            term,
            state,
            seen: Seen::Nothing,
        }
    }

    /// Takes part until `stop` is cancelled, which must be when nothing more will be written; then gives the lease up, so
    /// that another replica need not wait for its end.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            loop {
                let until = self.follow().await;
                self.lead(until).await;
            }
        })
        .await;
        self.resign();
        match timeout(RELEASE_DEADLINE, self.release()).await {
            Ok(Ok(true)) => tracing::info!(lease = self.config.name, "gave up the lease"),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, outage = error.outage(), "unable to give up the lease, others wait for its end")
            }
            Err(_) => tracing::warn!("the lease could not be given up in time, others wait for its end"),
        }
    }

    /// Waits until the lease can be claimed and claims it. Until when it is held then.
    async fn follow(&mut self) -> Instant {
        let (events, mut changed) = watch::channel(None);
        let namespace = Namespaces::These(vec![self.config.namespace.clone()]);
        let (_watched, watching) = Watch::<Lease>::within(&self.client, &namespace)
            .fields(&format!("metadata.name={}", self.config.name))
            .on_change(move |_, change| {
                // Stamped here, after the event arrived: a late stamp only makes this candidate wait longer.
                events.send_replace(Some((change.clone(), Instant::now())));
            })
            .start();
        let mut watching = pin!(watching);
        let mut not_before = Instant::now();
        let mut outage = Outage::default();
        loop {
            self.publish_leader();
            let due = self.claimable_at().max(not_before);
            tokio::select! {
                () = &mut watching => {}
                Ok(()) = changed.changed() => {
                    if let Some((change, at)) = changed.borrow_and_update().clone() {
                        self.see(&change, at);
                    }
                }
                () = sleep_until(due) => {
                    match self.attempt(self.config.renew_deadline / 3).await {
                        Attempt::Holds { until } => return until,
                        Attempt::TakenByAnother => {
                            outage.ended();
                            // Where another was faster and let go again, the next try is not to be the same race.
                            not_before = Instant::now() + RENEW_AGAIN.mul_f64(rand::rng().random_range(0.2..1.0));
                        }
                        Attempt::Failed(error) => {
                            if let Some(lasting) = outage.failed() {
                                tracing::warn!(
                                    lease = self.config.name, %error, ?lasting, outage = error.outage(),
                                    "unable to claim the lease, trying again"
                                );
                            }
                            let jitter = rand::rng().random_range(1.0..1.2);
                            not_before = Instant::now() + self.config.retry_period.mul_f64(jitter);
                        }
                    }
                }
            }
        }
    }

    /// Renews the lease until it is lost.
    async fn lead(&mut self, mut until: Instant) {
        self.term.set(Some(until));
        self.state.send_replace(LeaderState::Leader);
        tracing::info!(
            lease = self.config.name,
            identity = self.config.identity,
            "leading"
        );
        let mut next = Instant::now() + self.config.retry_period;
        let reason = loop {
            sleep_until(next.min(until)).await;
            let now = Instant::now();
            if now >= until {
                break "it could not be renewed in time";
            }
            match self
                .attempt((self.config.renew_deadline / 3).min(until - now))
                .await
            {
                Attempt::Holds { until: renewed } => {
                    until = renewed;
                    self.term.set(Some(until));
                    next = now + self.config.retry_period;
                }
                Attempt::TakenByAnother => break "another replica holds it",
                Attempt::Failed(error) => {
                    let left = until.saturating_duration_since(Instant::now());
                    let outage = error.outage();
                    tracing::warn!(lease = self.config.name, %error, ?left, outage, "unable to renew the lease");
                    next = Instant::now() + RENEW_AGAIN;
                }
            }
        };
        self.resign();
        tracing::warn!(lease = self.config.name, reason, "no longer leading");
    }

    /// Stops counting as leader, at once.
    fn resign(&self) {
        self.term.set(None);
        self.publish_leader();
    }

    /// Writes this candidate into the version of the Lease that is known, if that version may be claimed; learns the present
    /// version where the known one is outdated. Takes at most `limit`.
    async fn attempt(&mut self, limit: Duration) -> Attempt {
        let started = Instant::now();
        match timeout(limit, self.write()).await {
            Ok(Ok(true)) => Attempt::Holds {
                until: started + self.config.renew_deadline,
            },
            Ok(Ok(false)) => Attempt::TakenByAnother,
            Ok(Err(error)) => Attempt::Failed(error),
            Err(_) => Attempt::Failed(CallError::Timeout {
                call: "renew the lease",
                stage: "waiting for the API server",
            }),
        }
    }

    async fn write(&mut self) -> Result<bool, CallError> {
        // Twice at most: with the version known, and with the present one if that shows this candidate as the holder,
        // which is what a write looks like whose answer was lost.
        for _ in 0..2 {
            if matches!(self.seen, Seen::Nothing) {
                self.look().await?;
            }
            if self.claimable_at() > Instant::now() {
                return Ok(false);
            }
            let params = PostParams::default();
            let written = match &self.seen {
                Seen::Present(seen) => {
                    let lease = record::claim(&self.config, Some(&seen.lease));
                    self.api.replace(&self.config.name, &params, &lease).await
                }
                _ => self.api.create(&params, &record::claim(&self.config, None)).await,
            };
            match written.map_err(|error| CallError::classify("write the lease", &error)) {
                Ok(lease) => {
                    self.seen = Seen::present(lease, Instant::now());
                    return Ok(true);
                }
                // Not found, when it was to be made, is the namespace and no reason to look again.
                Err(CallError::Conflict { .. } | CallError::AlreadyExists { .. }) => self.look().await?,
                Err(CallError::NotFound { .. }) if matches!(self.seen, Seen::Present(_)) => {
                    self.look().await?
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Reads the present version.
    async fn look(&mut self) -> Result<(), CallError> {
        let found = self.api.get_opt(&self.config.name).await;
        let found = found.map_err(|error| CallError::classify("read the lease", &error))?;
        let now = Instant::now();
        match found {
            Some(lease) => self.see(&Change::Applied(Arc::new(lease)), now),
            None => self.see_absent(now),
        }
        Ok(())
    }

    fn see(&mut self, change: &Change<Lease>, at: Instant) {
        match change {
            Change::Applied(lease) => {
                if !matches!(&self.seen, Seen::Present(seen) if seen.is_version_of(lease)) {
                    self.seen = Seen::present((**lease).clone(), at);
                }
            }
            Change::Deleted(_) => self.see_absent(at),
        }
    }

    fn see_absent(&mut self, at: Instant) {
        // Its holder may not know yet that it is gone.
        let claimable_at = match &self.seen {
            Seen::Nothing => at,
            Seen::Absent { claimable_at } => *claimable_at,
            Seen::Present(seen) => seen.claimable_at(&self.config).max(at),
        };
        self.seen = Seen::Absent { claimable_at };
    }

    fn claimable_at(&self) -> Instant {
        match &self.seen {
            Seen::Nothing => Instant::now(),
            Seen::Absent { claimable_at } => *claimable_at,
            Seen::Present(seen) => seen.claimable_at(&self.config),
        }
    }

    fn publish_leader(&self) {
        let leader = match &self.seen {
            Seen::Present(seen) => seen
                .leader()
                .filter(|leader| leader.identity != self.config.identity),
            _ => None,
        };
        let state = LeaderState::Follower { leader };
        self.state.send_if_modified(|known| {
            let modified = *known != state;
            if modified {
                *known = state;
            }
            modified
        });
    }

    /// Whether there was a lease of ours to give up.
    async fn release(&mut self) -> Result<bool, CallError> {
        // The present version, because the answer to the last write may have been lost with it.
        for _ in 0..2 {
            self.look().await?;
            let Seen::Present(seen) = &self.seen else {
                return Ok(false);
            };
            if seen.holder() != Some(&self.config.identity) {
                return Ok(false);
            }
            let lease = record::release(&self.config, &seen.lease);
            let written = self
                .api
                .replace(&self.config.name, &PostParams::default(), &lease)
                .await;
            match written.map_err(|error| CallError::classify("give up the lease", &error)) {
                Ok(_) => return Ok(true),
                Err(CallError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}
