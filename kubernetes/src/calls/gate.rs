//! Permits for calls: the most urgent first, and a share kept for wakes.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::Priority;

/// Hands out a bounded number of permits. A semaphore cannot let one kind of waiter overtake another.
#[derive(Debug)]
pub(super) struct Gate {
    total: usize,
    kept: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    wakes: usize,
    others: usize,
    waiting_wakes: Line,
    waiting_normal: Line,
    waiting_routine: Line,
}

type Line = VecDeque<oneshot::Sender<Permit>>;

/// The right to make one call; dropping it passes it on.
#[derive(Debug)]
pub(super) struct Permit {
    gate: Arc<Gate>,
    priority: Priority,
}

impl Gate {
    pub(super) fn new(total: usize, kept: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            kept,
            state: Mutex::default(),
        })
    }

    pub(super) async fn acquire(gate: &Arc<Self>, priority: Priority) -> Permit {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = gate.lock();
            match priority {
                Priority::Wake => state.waiting_wakes.push_back(sender),
                Priority::Normal => state.waiting_normal.push_back(sender),
                Priority::Routine => state.waiting_routine.push_back(sender),
            }
        }
        Self::hand_out(gate);
        receiver
            .await
            .expect("the gate is held by this call and drops no waiter without a permit")
    }

    /// Gives free permits to those who wait. The permit itself travels: a waiter that is gone drops it, and it is free again.
    fn hand_out(gate: &Arc<Self>) {
        loop {
            let (sender, priority) = {
                let mut state = gate.lock();
                let Some(next) = state.next(gate.total, gate.kept) else {
                    return;
                };
                next
            };
            let _ = sender.send(Permit {
                gate: gate.clone(),
                priority,
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self, total: usize, kept: usize) -> Option<(oneshot::Sender<Permit>, Priority)> {
        // All wait equally long, so those that gave up stand in front.
        for line in [
            &mut self.waiting_wakes,
            &mut self.waiting_normal,
            &mut self.waiting_routine,
        ] {
            while line.front().is_some_and(oneshot::Sender::is_closed) {
                line.pop_front();
            }
        }
        if self.wakes + self.others >= total {
            return None;
        }
        while let Some(sender) = self.waiting_wakes.pop_front() {
            if !sender.is_closed() {
                self.wakes += 1;
                return Some((sender, Priority::Wake));
            }
        }
        if self.others >= total - kept {
            return None;
        }
        for (line, priority) in [
            (&mut self.waiting_normal, Priority::Normal),
            (&mut self.waiting_routine, Priority::Routine),
        ] {
            while let Some(sender) = line.pop_front() {
                if !sender.is_closed() {
                    self.others += 1;
                    return Some((sender, priority));
                }
            }
        }
        None
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        {
            let mut state = self.gate.lock();
            match self.priority {
                Priority::Wake => state.wakes -= 1,
                Priority::Normal | Priority::Routine => state.others -= 1,
            }
        }
        Gate::hand_out(&self.gate);
    }
}
