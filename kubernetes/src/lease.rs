//! Who of several replicas may write: leader election over a Lease, in the form client-go writes it.
//!
//! ```text
//!            renewed every 2 s, by a PUT that names the version it replaces
//! leader  ──────────────────────────────────────────────> Lease <────── watch ── followers
//!   │ valid for 10 s from the start of the last renewal that succeeded              │ sleep until 15 s after the last
//!   └─ no longer: not leader, by the local clock alone                              └ change they saw, then replace it
//! ```
//!
//! Why there are never two leaders. A follower claims a lease only in the exact version it has known for the lease's whole
//! duration; a renewal makes a new version, so a claim that crosses one is refused by the API server. A leader counts its
//! time from *before* a renewal was sent, a follower from *after* it saw it, and the leader's time is the shorter one. Both
//! measure with their own monotonic clock; the times written in the Lease are for people and are never compared. What
//! remains is deletion of the Lease by hand: who saw it existing waits as if it still did, but a replica that starts just
//! then makes a new one at once.

mod election;
mod record;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use kube::Client;
use tokio::{sync::watch, time::Instant};

pub use election::Election;

/// The annotation by which followers find the leader's metrics API.
pub const ADDRESS_ANNOTATION: &str = "dormouse.dev/metrics-address";
/// The Lease's name unless `--leader-election-id` says otherwise.
pub const DEFAULT_NAME: &str = "operator.keda.sh";

/// How a replica takes part.
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// What tells this process from all others; see [`identity`].
    pub identity: String,
    /// Where this replica, as leader, answers metric reads.
    pub metrics_address: Option<String>,
    /// How long others leave an unrenewed lease alone.
    pub duration: Duration,
    /// How long this replica counts itself leader after the start of its last successful renewal.
    pub renew_deadline: Duration,
    /// The time between renewals.
    pub retry_period: Duration,
}

/// Times that would allow two leaders or none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "leader election with a lease of {duration:?}, a renew deadline of {renew_deadline:?} and a retry period of \
     {retry_period:?} cannot work: accepted are whole seconds of lease, more than the deadline, and a deadline of more than \
     1.2 retry periods"
)]
pub struct LeaseConfigError {
    duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
}

impl LeaseConfig {
    /// A candidate with the default name and times: 15 s of lease, 10 s to renew, a renewal every 2 s.
    pub fn new(namespace: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: DEFAULT_NAME.into(),
            identity: identity.into(),
            metrics_address: None,
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }

    fn validate(&self) -> Result<(), LeaseConfigError> {
        let Self {
            duration,
            renew_deadline,
            retry_period,
            ..
        } = *self;
        let legal = duration.subsec_nanos() == 0
            && duration > renew_deadline
            && renew_deadline > retry_period.mul_f64(1.2)
            && !retry_period.is_zero()
            && duration <= Duration::from_secs(3600);
        if legal {
            Ok(())
        } else {
            Err(LeaseConfigError {
                duration,
                renew_deadline,
                retry_period,
            })
        }
    }
}

/// `<host name>_<random>`: as client-go, so that a restarted process is not taken for the one before it.
#[must_use]
pub fn identity(host: &str) -> String {
    format!("{host}_{:032x}", rand::random::<u128>())
}

/// Who leads, as far as a follower knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderInfo {
    /// The leader's identity.
    pub identity: String,
    /// Where it answers metric reads.
    pub address: Option<String>,
}

/// This replica's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaderState {
    /// It leads.
    Leader,
    /// It does not; `leader` does, if anybody.
    Follower {
        /// The holder of the lease.
        leader: Option<LeaderInfo>,
    },
}

/// Whether this replica may write. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Leadership {
    term: Arc<Term>,
    state: watch::Receiver<LeaderState>,
    /// Keeps the channel of [`Self::always`] open.
    _always: Option<Arc<watch::Sender<LeaderState>>>,
}

/// Until when this replica leads: nanoseconds since `base`.
#[derive(Debug)]
struct Term {
    base: Instant,
    until: AtomicU64,
}

impl Term {
    fn set(&self, until: Option<Instant>) {
        let nanos = until.map_or(0, |until| {
            u64::try_from(until.saturating_duration_since(self.base).as_nanos()).unwrap_or(u64::MAX)
        });
        self.until.store(nanos, Ordering::Release);
    }

    fn holds(&self) -> bool {
        u128::from(self.until.load(Ordering::Acquire)) > self.base.elapsed().as_nanos()
    }
}

impl Leadership {
    /// The leadership of a process that runs alone.
    #[must_use]
    pub fn always() -> Self {
        let (sender, state) = watch::channel(LeaderState::Leader);
        let term = Term {
            base: Instant::now(),
            until: AtomicU64::new(u64::MAX),
        };
        Self {
            term: Arc::new(term),
            state,
            _always: Some(Arc::new(sender)),
        }
    }

    /// Whether this replica leads at this very moment, by its own clock: to be asked right before each write. A write with
    /// the deadline of [`crate::calls::DEADLINE`] that begins under a `true` ends before another replica can lead, with the
    /// default times.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.term.holds()
    }

    /// The present state, and every later one.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<LeaderState> {
        self.state.clone()
    }

    /// The leader, where it is another replica.
    #[must_use]
    pub fn leader(&self) -> Option<LeaderInfo> {
        match &*self.state.borrow() {
            LeaderState::Follower { leader } => leader.clone(),
            LeaderState::Leader => None,
        }
    }
}

/// Prepares to stand for election over `client`, which should be [`crate::Cluster::election`]. Nothing happens until
/// [`Election::run`].
///
/// # Errors
/// When the times in `config` cannot work.
pub fn elect(client: &Client, config: LeaseConfig) -> Result<(Leadership, Election), LeaseConfigError> {
    config.validate()?;
    let (sender, state) = watch::channel(LeaderState::Follower { leader: None });
    let term = Arc::new(Term {
        base: Instant::now(),
        until: AtomicU64::new(0),
    });
    let election = Election::new(client.clone(), config, term.clone(), sender);
    Ok((
        Leadership {
            term,
            state,
            _always: None,
        },
        election,
    ))
}

#[cfg(test)]
mod tests;
