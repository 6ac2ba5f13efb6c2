//! Who may write, as the engine and the operator ask it: the lease, and whether this process is about to stop.

use dormouse_engine::Leadership;
use dormouse_kubernetes::LeaderState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The leadership of this process, which ends with its lease or with its will to go on.
#[derive(Clone, Debug)]
pub struct Fence {
    lease: dormouse_kubernetes::Leadership,
    stopping: CancellationToken,
    leads: watch::Receiver<bool>,
}

impl Fence {
    /// A fence around `lease`, and the task that keeps it told. Once `stopping` is cancelled it never leads again.
    pub fn new(
        lease: dormouse_kubernetes::Leadership,
        stopping: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, leads) = watch::channel(false);
        let mut state = lease.subscribe();
        let stop = stopping.clone();
        let follow = async move {
            loop {
                let leads_now = !stop.is_cancelled() && *state.borrow_and_update() == LeaderState::Leader;
                sender.send_if_modified(|leads| std::mem::replace(leads, leads_now) != leads_now);
                tokio::select! {
                    changed = state.changed() => if changed.is_err() { break },
                    () = stop.cancelled(), if !stop.is_cancelled() => {}
                    () = sender.closed() => break,
                }
            }
            sender.send_replace(false);
        };
        (
            Self {
                lease,
                stopping,
                leads,
            },
            follow,
        )
    }

    /// The leader, where it is another replica.
    #[must_use]
    pub fn other(&self) -> Option<dormouse_kubernetes::lease::LeaderInfo> {
        self.lease.leader()
    }
}

impl Leadership for Fence {
    fn is_leader(&self) -> bool {
        !self.stopping.is_cancelled() && self.lease.is_leader()
    }

    fn subscribe(&self) -> watch::Receiver<bool> {
        self.leads.clone()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Leads as the other half of the channel says, or said last.
    pub(crate) struct Leads(pub(crate) watch::Receiver<bool>);

    impl Leads {
        /// Leads, or does not, for ever.
        pub(crate) fn always(leads: bool) -> Self {
            Self(watch::channel(leads).1)
        }
    }

    impl Leadership for Leads {
        fn is_leader(&self) -> bool {
            *self.0.borrow()
        }

        fn subscribe(&self) -> watch::Receiver<bool> {
            self.0.clone()
        }
    }
}
