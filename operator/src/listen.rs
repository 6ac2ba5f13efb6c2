//! Accepts connections, a bounded number at once, and ends them all with the server.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs `connection` for each connection that `listener` takes, `at_most` so many at once, until `stop` ends; what runs then
/// is dropped. `what` names the server in the log.
pub(crate) async fn serve_each<F>(
    listener: TcpListener,
    what: &'static str,
    at_most: usize,
    stop: impl Future<Output = ()> + Send,
    connection: impl Fn(TcpStream) -> F + Send + Sync,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
    let slots = Arc::new(Semaphore::new(at_most));
    let accept = async {
        while let Ok(slot) = slots.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!("{what}: TCP_NODELAY cannot be set: {error}");
                    }
                    let (served, stopping) = (connection(stream), stopping.clone());
                    tasks.spawn(async move {
                        let _slot = slot;
                        stopping.run_until_cancelled(served).await;
                    });
                }
                Err(error) => {
                    // Out of something, most likely: a full file table is not met with a busy loop.
                    warn!("{what} cannot accept a connection: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = stop => {}
        () = accept => {}
    }
    drop(listener);
    stopping.cancel();
    tasks.close();
    tasks.wait().await;
}
