//! Connections that change their protocol: bytes both ways, until both sides are done.

use std::rc::Rc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::body::Flight;
use crate::client::Client;

/// How long both sides may take to change once the endpoint has said yes.
const CHANGING: Duration = Duration::from_secs(10);
const BUFFER: usize = 16 * 1024;

/// Passes bytes between a client and an endpoint. The request is in flight until they are done, and counts as a connection
/// of the client.
pub(crate) fn tunnel(client: Rc<Client>, downstream: OnUpgrade, upstream: OnUpgrade, flight: Flight) {
    spawn_local(async move {
        let changed = timeout(CHANGING, async { tokio::try_join!(downstream, upstream) }).await;
        let Ok(Ok((downstream, upstream))) = changed else {
            return;
        };
        let (mut downstream, mut upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
        tokio::select! {
            copied = copy_bidirectional_with_sizes(&mut downstream, &mut upstream, BUFFER, BUFFER) => {
                if let Err(error) = copied {
                    tracing::trace!(client = %client.address, error = %error, "upgraded connection ended");
                }
            }
            () = client.worker.drain.is_over() => {}
        }
        drop(flight);
    });
}
