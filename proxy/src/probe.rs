//! Our own probes: of endpoints that are not called ready yet, while requests wait for them, and of ready ones that took no
//! connection.
//!
//! ```text
//! startup probe ──> readiness probe ──> traffic port ──> proved: the endpoint gets requests
//!   each: initial delay ─> TCP every 5 ms until it accepts ─> HTTP every 10 ms until it answers 200..=399
//! ```
//!
//! The kubelet probes once a period, 10 s by default, and three controllers carry the result here. A probe of our own
//! finds an application that came up within milliseconds. An endpoint that is called ready and took no connection is
//! looked for in the same way, on its traffic port.

mod pace;
mod spec;
mod tls;
mod tries;

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use dormouse_core::endpoints::Standing;
use tokio::time::{Instant, sleep, sleep_until};

pub use spec::{Check, HttpCheck, Probe, ProbeSpec, Scheme};

use crate::peer::{Peer, ProbeRight};
use crate::shared::Shared;
use crate::upstream::Upstream;

/// How often a prober looks whether it is still of use.
const STILL_WANTED: Duration = Duration::from_millis(50);

/// Two ends of a delay that are no farther apart than this are the same.
const SAME_TIME: Duration = Duration::from_millis(100);

/// A spec, and when its delays began.
#[derive(Debug)]
pub(crate) struct Plan {
    spec: ProbeSpec,
    set_at: Instant,
}

impl Plan {
    pub(crate) fn new(spec: ProbeSpec) -> Self {
        Self {
            spec,
            set_at: Instant::now(),
        }
    }

    /// Whether a newer plan says nothing new: the same tries, which begin at the same time or have begun.
    pub(crate) fn says_as(&self, newer: &Self) -> bool {
        let begins = |plan: &Self, probe: &Probe| (plan.set_at + probe.delay).max(newer.set_at);
        let same = |ours: &Option<Probe>, theirs: &Option<Probe>| match (ours, theirs) {
            (Some(ours), Some(theirs)) => {
                let (one, other) = (begins(self, ours), begins(newer, theirs));
                let apart = one.max(other) - one.min(other);
                (&ours.check, ours.timeout) == (&theirs.check, theirs.timeout) && apart <= SAME_TIME
            }
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        };
        self.spec.addresses == newer.spec.addresses
            && same(&self.spec.startup, &newer.spec.startup)
            && same(&self.spec.readiness, &newer.spec.readiness)
    }
}

/// Begins to probe a peer of an upstream, unless it is being probed or may not be.
pub(crate) fn start(shared: &Arc<Shared>, upstream: &Arc<Upstream>, peer: Arc<Peer>, standing: Standing) {
    let plan = match (standing, peer.pod()) {
        // Ready already, so that to take connections is all that it lacks.
        (Standing::Ready, _) => Arc::new(Plan::new(ProbeSpec::default())),
        (_, Some(pod)) => match shared.plan(pod) {
            Some(plan) if plan.spec.addresses.contains(&peer.address().ip()) => plan,
            _ => return,
        },
        _ => return,
    };
    if let Some(right) = peer.try_probe() {
        shared.control.spawn(run(
            Arc::downgrade(shared),
            Arc::clone(upstream),
            peer,
            standing,
            plan,
            right,
        ));
    }
}

async fn run(
    shared: Weak<Shared>,
    upstream: Arc<Upstream>,
    peer: Arc<Peer>,
    standing: Standing,
    plan: Arc<Plan>,
    right: ProbeRight,
) {
    let began = Instant::now();
    let passed = tokio::select! {
        () = passes(&plan, peer.address()) => true,
        () = unwanted(&shared, &upstream, &peer, standing, &plan) => false,
    };
    // What was enough for one that is called ready is not for one whose container was restarted since.
    if passed && upstream.wants_probe(&peer, standing) {
        tracing::debug!(endpoint = %peer.address(), after = ?began.elapsed(), "endpoint answers our probe");
        match standing {
            Standing::Ready => peer.forgive(),
            _ => peer.prove(),
        }
    }
    drop(right);
    // Who began to wait while this ended found the right taken; and another standing asks for another probe.
    for user in peer.users() {
        user.probe();
    }
}

/// Resolves when a probe of the peer makes no difference any more, or is to be made in another way.
async fn unwanted(
    shared: &Weak<Shared>,
    upstream: &Upstream,
    peer: &Peer,
    standing: Standing,
    plan: &Arc<Plan>,
) {
    let is_in_force = || {
        let now = shared.upgrade().zip(peer.pod());
        let now = now.and_then(|(shared, pod)| shared.plan(pod));
        now.is_some_and(|now| Arc::ptr_eq(&now, plan))
    };
    // That of a ready one is nobody's but ours.
    while upstream.wants_probe(peer, standing) && (standing == Standing::Ready || is_in_force()) {
        sleep(STILL_WANTED).await;
    }
}

/// Resolves when everything has passed that has to.
async fn passes(plan: &Plan, traffic: SocketAddr) {
    let ip = traffic.ip();
    let mut reached_traffic = false;
    for probe in [&plan.spec.startup, &plan.spec.readiness].into_iter().flatten() {
        sleep_until(plan.set_at + probe.delay).await;
        match &probe.check {
            Check::Tcp { port } => tries::tcp(SocketAddr::new(ip, *port)).await,
            Check::Http(check) => {
                let address = SocketAddr::new(ip, check.port);
                tries::tcp(address).await;
                tries::http(address, check, probe.timeout).await;
            }
        }
        reached_traffic |= probe.check.port() == traffic.port();
    }
    if !reached_traffic {
        tries::tcp(traffic).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(port: u16, delay: Duration) -> Plan {
        Plan::new(ProbeSpec {
            readiness: Some(Probe {
                check: Check::Tcp { port },
                delay,
                timeout: Duration::from_secs(1),
            }),
            ..ProbeSpec::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_again_is_nothing_new_unless_a_delay_began_again() {
        let (second, none) = (Duration::from_secs(1), Duration::ZERO);
        let (at_once, delayed) = (plan(80, none), plan(80, 3 * second));
        tokio::time::advance(second).await;
        assert!(at_once.says_as(&plan(80, none)));
        assert!(
            delayed.says_as(&plan(80, 2 * second)),
            "it ends when the other one does"
        );
        assert!(
            !delayed.says_as(&plan(80, 3 * second)),
            "the container began anew"
        );
        assert!(
            !delayed.says_as(&plan(80, none)),
            "there is nothing to wait for any more"
        );
        assert!(!at_once.says_as(&plan(81, none)));
        assert!(!at_once.says_as(&Plan::new(ProbeSpec::default())));
        tokio::time::advance(5 * second).await;
        assert!(delayed.says_as(&plan(80, none)), "both are over");
    }
}
