//! Connections to endpoints that wait for their next request. Each data thread has its own: nothing is locked.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http2::SendRequest;
use rustls::ClientConfig;
use tokio::sync::Mutex;
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};

use crate::body::RequestBody;
use crate::config::{Bounds, Config, Timeouts};
use crate::connect::{self, ConnectError, Http1};
use crate::peer::Peer;
use crate::upstream::TlsName;

/// Connections that are kept for an endpoint at least; for one that serves many at once it is twice as many as that.
const KEPT_AT_LEAST: usize = 64;
/// Requests that one connection carries before another is made: few endpoints allow less.
const STREAMS: usize = 100;
/// Connections to one endpoint that carry many requests each.
const MOST_MULTIPLEXED: usize = 8;
/// How long a connection may take to come to the end of a request whose response has ended.
const SETTLING: Duration = Duration::from_secs(1);
/// For a request that must not be sent twice: an endpoint that closes idle connections does so after a longer time.
const FRESH: Duration = Duration::from_secs(1);

/// [`Peer::id`], and [`TlsName::number`] or 0: what one Service's certificate was good for is not good for another's.
type Key = (u64, u64);

/// A thread's connections.
#[derive(Debug)]
pub(crate) struct Pool {
    timeouts: Timeouts,
    bounds: Bounds,
    /// How endpoints that speak TLS are known.
    endpoint_tls: Option<Arc<ClientConfig>>,
    http1: RefCell<HashMap<Key, Idle>>,
    /// How many are in `http1`.
    idle: Cell<usize>,
    /// By [`Peer::id`].
    http2: RefCell<HashMap<u64, Multiplexed>>,
}

#[derive(Debug)]
struct Idle {
    peer: Arc<Peer>,
    connections: Vec<(Http1, Instant)>,
}

/// The connections to an endpoint that speaks HTTP/2: one, if that can carry everything. Who finds none makes one while the
/// others wait.
#[derive(Debug)]
struct Multiplexed {
    peer: Arc<Peer>,
    connections: Rc<Mutex<Vec<Http2>>>,
}

#[derive(Debug)]
struct Http2 {
    sender: SendRequest<RequestBody>,
    /// Each of its requests has a share in it.
    places: Rc<()>,
}

impl Http2 {
    fn streams(&self) -> usize {
        Rc::strong_count(&self.places) - 1
    }

    fn stream(&self, is_used: bool) -> Stream {
        Stream {
            sender: self.sender.clone(),
            is_used,
            _place: Rc::clone(&self.places),
        }
    }
}

/// A request's part of a connection that carries many.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) sender: SendRequest<RequestBody>,
    /// Whether the connection was there before.
    pub(crate) is_used: bool,
    _place: Rc<()>,
}

/// What carries a request to an endpoint, until its response has ended.
#[derive(Debug)]
pub(crate) enum Carrier {
    Lease(Lease),
    Stream(Stream),
}

impl Carrier {
    /// Lets another request have the connection, once this one is done with it.
    pub(crate) fn give_back(self) {
        match self {
            Self::Lease(lease) => lease.give_back(),
            Self::Stream(stream) => drop(stream),
        }
    }
}

/// A connection to an endpoint, taken out of the pool.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Rc<Pool>,
    peer: Arc<Peer>,
    key: Key,
    pub(crate) connection: Http1,
    /// How many of the endpoint are kept.
    kept: usize,
    /// Whether it carried a request before.
    pub(crate) is_used: bool,
}

/// What a request asks of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// The request can be sent again if the connection turns out to be closed.
    Any,
    /// It cannot.
    Fresh,
    /// One that was used before has failed it already.
    New,
}

impl Pool {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            timeouts: config.timeouts,
            bounds: config.bounds,
            endpoint_tls: config.upstream_tls.clone(),
            http1: RefCell::default(),
            idle: Cell::new(0),
            http2: RefCell::default(),
        }
    }

    /// A connection that carries one request at a time: a waiting one, or a new one.
    ///
    /// # Errors
    /// The endpoint does not take a new one.
    pub(crate) async fn http1(
        self: &Rc<Self>,
        peer: &Arc<Peer>,
        tls: Option<&TlsName>,
        target: u32,
        age: Age,
    ) -> Result<Lease, ConnectError> {
        let key = (peer.id, tls.map_or(0, |tls| tls.number));
        let (connection, is_used) = match (self.take(key, age), tls) {
            (Some(connection), _) => (connection, true),
            // In a box of its own: most requests find a connection, and need no room for making one.
            (None, None) => {
                let connecting = Box::pin(connect::http1(peer.address(), self.timeouts.connect));
                (connecting.await?, false)
            }
            (None, Some(tls)) => {
                let (Some(config), Some(name)) = (&self.endpoint_tls, &tls.name) else {
                    return Err(ConnectError::NoTls);
                };
                let connecting = connect::https(peer.address(), config, name, self.timeouts.connect);
                (Box::pin(connecting).await?, false)
            }
        };
        let kept = KEPT_AT_LEAST
            .max(2 * target as usize)
            .min(self.bounds.idle_per_endpoint);
        Ok(Lease {
            pool: Rc::clone(self),
            peer: Arc::clone(peer),
            key,
            connection,
            kept,
            is_used,
        })
    }

    /// A place on a connection that carries many requests at once.
    ///
    /// # Errors
    /// There is none, and the endpoint does not take a new one.
    pub(crate) async fn http2(&self, peer: &Arc<Peer>) -> Result<Stream, ConnectError> {
        let slot = {
            let mut slots = self.http2.borrow_mut();
            let slot = slots.entry(peer.id).or_insert_with(|| Multiplexed {
                peer: Arc::clone(peer),
                connections: Rc::default(),
            });
            Rc::clone(&slot.connections)
        };
        let mut connections = slot.lock().await;
        connections.retain(|connection| connection.sender.is_ready());
        let is_full = connections.len() >= MOST_MULTIPLEXED;
        if let Some(connection) = connections.iter().min_by_key(|connection| connection.streams())
            && (is_full || connection.streams() < STREAMS)
        {
            return Ok(connection.stream(true));
        }
        // By now it failed one that came before: each of those that waited here would spend the same time in vain.
        if peer.is_suspect() {
            return Err(ConnectError::Suspect);
        }
        let connection = Http2 {
            sender: Box::pin(connect::http2(peer.address(), self.timeouts.connect)).await?,
            places: Rc::default(),
        };
        let stream = connection.stream(false);
        connections.push(connection);
        Ok(stream)
    }

    fn take(&self, key: Key, age: Age) -> Option<Http1> {
        if age == Age::New {
            return None;
        }
        let mut idle = self.http1.borrow_mut();
        let connections = &mut idle.get_mut(&key)?.connections;
        // The one that waits for the shortest time is the least likely to be closed by now.
        while let Some((connection, since)) = connections.pop() {
            if age == Age::Fresh && since.elapsed() >= FRESH {
                // All others are older.
                connections.push((connection, since));
                return None;
            }
            self.idle.set(self.idle.get().saturating_sub(1));
            if connection.sender.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    fn put(&self, key: Key, peer: Arc<Peer>, connection: Http1, kept: usize) {
        let is_full = self.idle.get() >= self.bounds.idle;
        if is_full || peer.is_retired() || connection.sender.is_closed() {
            return;
        }
        let mut idle = self.http1.borrow_mut();
        let idle = idle.entry(key).or_insert_with(|| Idle {
            peer,
            connections: Vec::new(),
        });
        if idle.connections.len() < kept {
            idle.connections.push((connection, Instant::now()));
            self.idle.set(self.idle.get() + 1);
        }
    }

    /// Closes what waits for too long, what its endpoint closed, and what leads to an endpoint that must get no more
    /// requests.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let mut left = 0;
        self.http1.borrow_mut().retain(|_, idle| {
            let retired = idle.peer.is_retired();
            idle.connections.retain(|(connection, since)| {
                !retired && !connection.sender.is_closed() && now - *since < self.timeouts.upstream_idle
            });
            left += idle.connections.len();
            !idle.connections.is_empty()
        });
        self.idle.set(left);
        // Requests hold senders of their own: dropping these ends the connections when they are done.
        self.http2.borrow_mut().retain(|_, slot| {
            let is_open = |connections: &Vec<Http2>| connections.iter().any(|open| !open.sender.is_closed());
            !slot.peer.is_retired()
                && slot
                    .connections
                    .try_lock()
                    .map_or(true, |connections| is_open(&connections))
        });
    }
}

impl Lease {
    fn give_back(self) {
        let Self {
            pool,
            peer,
            key,
            mut connection,
            kept,
            ..
        } = self;
        if connection.sender.is_ready() {
            pool.put(key, peer, connection, kept);
        } else if !connection.sender.is_closed() {
            // The response may end before the request does.
            spawn_local(async move {
                if let Ok(Ok(())) = timeout(SETTLING, connection.sender.ready()).await {
                    pool.put(key, peer, connection, kept);
                }
            });
        }
    }
}
