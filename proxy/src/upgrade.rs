//! Connections that change their protocol: bytes both ways, until both sides are done.
//!
//! When the proxy is to stop, the two sides of a WebSocket are told so by a Close between two frames, and have until the
//! drain's deadline to end by themselves. Other protocols go on until then.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use http::HeaderValue;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::body::Flight;
use crate::client::Client;
use crate::websocket::{CLOSE_TO_CLIENT, CLOSE_TO_ENDPOINT, Frames};
use crate::worker::Drain;

/// How long both sides may take to change once the endpoint has said yes.
const CHANGING: Duration = Duration::from_secs(10);
const BUFFER: usize = 16 * 1024;

/// The two sides of a connection that changes its protocol.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) protocol: HeaderValue,
    pub(crate) downstream: OnUpgrade,
    pub(crate) upstream: OnUpgrade,
}

impl Tunnel {
    /// Passes bytes between a client and an endpoint. The request is in flight until they are done, and the client keeps
    /// its place among the connections.
    pub(crate) fn open(self, client: Rc<Client>, flight: Flight) {
        spawn_local(async move {
            let changing = async { tokio::try_join!(self.downstream, self.upstream) };
            let Ok(Ok((downstream, upstream))) = timeout(CHANGING, changing).await else {
                return;
            };
            let has_frames = self.protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
            tokio::select! {
                passed = pass_both_ways(downstream, upstream, has_frames, &client.worker.drain) => {
                    if let Err(error) = passed {
                        tracing::trace!(client = %client.address, error = %error, "upgraded connection ended");
                    }
                }
                () = client.worker.drain.is_over() => {}
            }
            drop(flight);
        });
    }
}

async fn pass_both_ways(
    downstream: Upgraded,
    upstream: Upgraded,
    has_frames: bool,
    drain: &Drain,
) -> io::Result<()> {
    let (from_client, to_client) = split(TokioIo::new(downstream));
    let (from_endpoint, to_endpoint) = split(TokioIo::new(upstream));
    let close = |close: &'static [u8]| has_frames.then_some(close);
    tokio::try_join!(
        pass(from_client, to_endpoint, close(&CLOSE_TO_ENDPOINT), drain),
        pass(from_endpoint, to_client, close(&CLOSE_TO_CLIENT), drain),
    )?;
    Ok(())
}

/// Passes bytes one way until they end, or until the drain begins if there is something to say then.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    close: Option<&'static [u8]>,
    drain: &Drain,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut frames = Frames::default();
    let mut drain_begins = pin!(drain.begins());
    loop {
        let count = match close {
            Some(close) if drain.has_begun() && frames.at_border() => {
                to.write_all(close).await?;
                // What still comes has no reader any more; what matters is that it ends.
                while from.read(&mut buffer).await? > 0 {}
                return to.shutdown().await;
            }
            Some(_) if !drain.has_begun() => tokio::select! {
                biased;
                () = drain_begins.as_mut() => continue,
                count = from.read(&mut buffer) => count?,
            },
            _ => from.read(&mut buffer).await?,
        };
        let mut bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            return to.shutdown().await;
        }
        if close.is_some() {
            if drain.has_begun() {
                let end = frames.finish(bytes);
                bytes = bytes.get(..end).unwrap_or_default();
            } else {
                frames.follow(bytes);
            }
        }
        to.write_all(bytes).await?;
    }
}
