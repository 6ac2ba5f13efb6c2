//! The operators that there are, and a session with each of them.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dormouse_runtime::backoff::Backoff;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::Shared;
use super::session;

/// How often the Service's name is looked up: before and after it was found.
const LOOKUPS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(3));
const LOOKUP_DEADLINE: Duration = Duration::from_secs(2);
/// Operators at most.
const MOST_OPERATORS: usize = 16;
/// The first and the longest wait between two sessions with one operator.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));
/// A session that lasted for so long was in order.
const IN_ORDER: Duration = Duration::from_secs(3);
/// How long all sessions together may take to end after the last report.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(2);

/// Looks up the operators' addresses, both families, again and again. What was found last counts while nothing can be.
pub(super) async fn follow_addresses(operators: &str, tell: &watch::Sender<BTreeSet<SocketAddr>>) {
    let mut is_known = false;
    let mut is_told = false;
    loop {
        match look_up(operators).await {
            Ok(found) => {
                (is_known, is_told) = (true, false);
                tell.send_if_modified(|addresses| {
                    let differs = *addresses != found;
                    *addresses = found;
                    differs
                });
            }
            Err(error) if is_told => debug!(operators, error, "operators still not found"),
            Err(error) => {
                is_told = true;
                warn!(operators, error, "unable to look up the operators");
            }
        }
        sleep(if is_known { LOOKUPS.1 } else { LOOKUPS.0 }).await;
    }
}

async fn look_up(operators: &str) -> Result<BTreeSet<SocketAddr>, String> {
    match timeout(LOOKUP_DEADLINE, lookup_host(operators)).await {
        Ok(Ok(found)) => Ok(found.take(MOST_OPERATORS).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err(format!("no answer within {LOOKUP_DEADLINE:?}")),
    }
}

/// Keeps one session open with each of `addresses` until the last report was sent to all of them. A session with an address
/// that is listed no longer goes on until it breaks: an operator that is not ready may still lead.
pub(super) async fn keep_sessions(shared: Arc<Shared>, mut addresses: watch::Receiver<BTreeSet<SocketAddr>>) {
    let mut sessions = JoinSet::new();
    let mut running = HashSet::new();
    loop {
        let listed = addresses.borrow_and_update().clone();
        for address in listed {
            if running.insert(address) {
                sessions.spawn(keep_session(shared.clone(), address, addresses.clone()));
            }
        }
        tokio::select! {
            changed = addresses.changed() => if changed.is_err() { break },
            Some(ended) = sessions.join_next() => match ended {
                Ok(address) => {
                    running.remove(&address);
                }
                // It cannot be known whose it was: all begin anew.
                Err(error) => {
                    warn!(%error, "a session with an operator failed");
                    sessions.shutdown().await;
                    running.clear();
                    sleep(BACKOFF.1).await;
                }
            },
            () = shared.over() => break,
        }
    }
    let ended = timeout(LAST_WORDS, async {
        while sessions.join_next().await.is_some() {}
    })
    .await;
    if ended.is_err() {
        warn!(
            operators = sessions.len(),
            "operators did not hear the goodbye in time"
        );
    }
}

/// Holds sessions with one operator, one after the other, while it is listed. Gives back its address.
async fn keep_session(
    shared: Arc<Shared>,
    operator: SocketAddr,
    listed: watch::Receiver<BTreeSet<SocketAddr>>,
) -> SocketAddr {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    let mut is_told = false;
    loop {
        let began = Instant::now();
        let Err(error) = session::run(&shared, operator).await else {
            debug!(%operator, "said goodbye");
            return operator;
        };
        if began.elapsed() >= IN_ORDER {
            backoff.reset();
            is_told = false;
        }
        if !listed.borrow().contains(&operator) {
            info!(%operator, %error, "the session with an operator ended that is listed no longer");
            return operator;
        }
        if is_told {
            debug!(%operator, %error, "no session with an operator");
        } else {
            is_told = true;
            warn!(%operator, %error, "no session with an operator, trying again");
        }
        tokio::select! {
            () = sleep(backoff.next_delay()) => {}
            () = shared.over() => return operator,
        }
    }
}
