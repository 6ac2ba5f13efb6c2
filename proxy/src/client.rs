//! The client of a connection, as its requests see it.

use std::future::pending;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::OwnedSemaphorePermit;

use crate::activity::Activity;
use crate::worker::Worker;

/// One client connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    pub(crate) address: SocketAddr,
    /// Whether it is believed what it says about clients of its own.
    pub(crate) trusted: bool,
    /// Whether it speaks TLS.
    pub(crate) secure: bool,
    pub(crate) activity: Arc<Activity>,
    socket: Arc<OwnedWriteHalf>,
    /// Its place among the connections that there may be; an upgraded one keeps it.
    _permit: OwnedSemaphorePermit,
}

impl Client {
    pub(crate) fn new(
        worker: Rc<Worker>,
        address: SocketAddr,
        secure: bool,
        socket: Arc<OwnedWriteHalf>,
        activity: Arc<Activity>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        // An IPv4 client of a socket for both families is an IPv4 client.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let trusted = match &worker.shared.config.trusted_proxies {
            Some(networks) => networks.iter().any(|network| network.contains(&address.ip())),
            None => true,
        };
        Self {
            worker,
            address,
            trusted,
            activity,
            secure,
            socket,
            _permit: permit,
        }
    }

    /// Resolves when the client left.
    ///
    /// hyper does not notice that while a request is answered. This asks the socket for a closed read side and nothing else: to
    /// ask for readable data would take that event from hyper, whose registration this is.
    pub(crate) async fn gone(&self) {
        match self.socket.ready(Interest::PRIORITY).await {
            Ok(ready) if !ready.is_read_closed() => pending().await,
            _ => {}
        }
    }
}
