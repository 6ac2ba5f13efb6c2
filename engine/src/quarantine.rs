//! An object whose loop panics: it rests for a while and is tried again, and all others go on.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{Instant, sleep, timeout};

use crate::object::{Object, PORT_DEADLINE};

/// The first and the longest rest. A new generation of the object begins without one.
const REST: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// Runs an object's loop until it ends by itself. What it holds is replaced whole, so that it stays sound after a panic.
pub(crate) async fn run(object: Arc<Object>) {
    let mut rest = REST.0;
    loop {
        let began = Instant::now();
        let ran = AssertUnwindSafe(object.clone().run()).catch_unwind().await;
        if ran.is_ok() {
            return;
        }
        if began.elapsed() >= REST.1 {
            rest = REST.0;
        }
        // Writing it down may be the very thing that panics.
        let told = AssertUnwindSafe(async { object.journal.quarantined(&object.spec, rest).await });
        drop(timeout(PORT_DEADLINE, told.catch_unwind()).await);
        let mut leading = object.leadership.subscribe();
        tokio::select! {
            () = sleep(rest) => rest = (rest * 2).min(REST.1),
            _ = leading.wait_for(|leads| !leads) => return object.stand_down(),
        }
    }
}
