//! Servers of a test itself, on the node's own address, where pods and the control plane reach them.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use axum::Router;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::NODE_ADDRESS;

/// Listens on the node's address and a port of its own.
///
/// # Errors
/// When the address cannot be bound, as outside the cluster's network.
pub async fn listen() -> Result<TcpListener> {
    listen_at(NODE_ADDRESS).await
}

async fn listen_at(host: &str) -> Result<TcpListener> {
    let bound = TcpListener::bind((host, 0)).await;
    bound.with_context(|| format!("unable to listen on {host}; is this inside the cluster's network?"))
}

/// A running HTTP server; it ends with this value.
pub struct Served {
    address: SocketAddr,
    _serve: AbortOnDropHandle<()>,
}

impl Served {
    /// Serves `router` at an address of its own.
    ///
    /// # Errors
    /// As [`listen`].
    pub async fn start(router: Router) -> Result<Self> {
        Self::at(NODE_ADDRESS, router).await
    }

    /// The same at another of this machine's addresses.
    ///
    /// # Errors
    /// As [`listen`].
    pub async fn at(host: &str, router: Router) -> Result<Self> {
        let listener = listen_at(host).await?;
        let address = listener.local_addr().context("reading the port")?;
        let serve = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            address,
            _serve: AbortOnDropHandle::new(serve),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
