//! A data thread: one listener, one runtime, and every task of the connections that it accepts.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::coop::unconstrained;
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsListener;
use crate::connection;
use crate::shared::Shared;
use crate::worker::Worker;

/// After an `accept` that failed for want of file descriptors: others become free only with time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often idle connections to endpoints are looked at.
const SWEEP: Duration = Duration::from_secs(5);

/// The listening sockets of a thread.
#[derive(Debug)]
pub(crate) struct Listeners<L> {
    pub(crate) plain: L,
    /// Where there is TLS.
    pub(crate) tls: Option<L>,
}

/// The handle of a data thread. When dropped, the thread stops at once.
#[derive(Debug)]
pub(crate) struct DataThread {
    drain: Option<oneshot::Sender<Instant>>,
    drained: oneshot::Receiver<usize>,
}

impl DataThread {
    /// Starts the thread, which accepts from now on.
    pub(crate) fn start(
        number: usize,
        listeners: Listeners<std::net::TcpListener>,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let (drain, drain_begins) = oneshot::channel();
        let (is_drained, drained) = oneshot::channel();
        // A local runtime has to be made where it runs.
        let (started, has_started) = mpsc::sync_channel(1);
        thread::Builder::new()
            .name(format!("proxy-{number}"))
            .spawn(move || {
                let (runtime, listeners) = match runtime_for(listeners) {
                    Ok(both) => both,
                    Err(error) => {
                        started.send(Err(error)).ok();
                        return;
                    }
                };
                started.send(Ok(())).ok();
                let cut = runtime.block_on(run_until_drained(listeners, number, shared, drain_begins));
                // With its tasks, and their connections.
                drop(runtime);
                is_drained.send(cut).ok();
            })?;
        has_started
            .recv()
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
        Ok(Self {
            drain: Some(drain),
            drained,
        })
    }

    /// Lets it take no more connections, and end at the deadline.
    pub(crate) fn begin_drain(&mut self, deadline: Instant) {
        if let Some(drain) = self.drain.take() {
            drain.send(deadline).ok();
        }
    }

    /// Waits for its end, and says how many connections were cut.
    pub(crate) async fn drained(self) -> usize {
        self.drained.await.unwrap_or(0)
    }
}

fn runtime_for(
    listeners: Listeners<std::net::TcpListener>,
) -> io::Result<(LocalRuntime, Listeners<TcpListener>)> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    let listeners = {
        let _inside = runtime.enter();
        Listeners {
            plain: TcpListener::from_std(listeners.plain)?,
            tls: listeners.tls.map(TcpListener::from_std).transpose()?,
        }
    };
    Ok((runtime, listeners))
}

/// Accepts until the drain begins, and gives the number of connections that it cut.
async fn run_until_drained(
    listeners: Listeners<TcpListener>,
    number: usize,
    shared: Arc<Shared>,
    drain: oneshot::Receiver<Instant>,
) -> usize {
    let bound = (shared.config.bounds.connections / shared.config.threads).max(1);
    let room = Arc::new(Semaphore::new(bound));
    let worker = Rc::new(Worker::new(shared, number));
    spawn_local(sweep(Rc::clone(&worker)));
    let deadline = tokio::select! {
        deadline = drain => deadline,
        () = accept(&worker, &listeners.plain, None, &room) => return 0,
        () = accept_tls(&worker, &listeners, &room) => return 0,
    };
    // Without a deadline the handle was dropped: nobody waits for the requests.
    let Ok(deadline) = deadline else { return 0 };
    // The runtime looks at its sockets before this goes on: what came by now is known then, connections and requests.
    yield_now().await;
    // The kernel took these already; closing the socket now would reset them.
    let plain = (Some(&listeners.plain), None);
    let over_tls = (listeners.tls.as_ref(), worker.shared.config.tls.as_ref());
    for (listener, tls) in [plain, over_tls] {
        let Some(listener) = listener else { continue };
        // However many they are: without a budget, this is not told to let others run.
        while let Some(Ok((stream, address))) = unconstrained(listener.accept()).now_or_never() {
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                break;
            };
            spawn(&worker, stream, address, tls, permit);
        }
    }
    drop(listeners);
    worker.drain.begin(deadline);
    let all = u32::try_from(bound).unwrap_or(u32::MAX);
    match timeout_at(deadline, room.acquire_many(all)).await {
        Ok(_) => 0,
        Err(_) => bound - room.available_permits(),
    }
}

/// Accepts what comes over TLS, if anything does.
async fn accept_tls(worker: &Rc<Worker>, listeners: &Listeners<TcpListener>, room: &Arc<Semaphore>) {
    match (&listeners.tls, &worker.shared.config.tls) {
        (Some(listener), Some(tls)) => accept(worker, listener, Some(tls), room).await,
        _ => pending().await,
    }
}

async fn accept(
    worker: &Rc<Worker>,
    listener: &TcpListener,
    tls: Option<&TlsListener>,
    room: &Arc<Semaphore>,
) {
    // Without room, clients wait in the kernel.
    while let Ok(permit) = Arc::clone(room).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, address)) => spawn(worker, stream, address, tls, permit),
            Err(error) => {
                tracing::debug!(error = %error, "unable to accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn spawn(
    worker: &Rc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<&TlsListener>,
    permit: OwnedSemaphorePermit,
) {
    let worker = Rc::clone(worker);
    // Each has a task of its own type: a connection in the clear need not be as large as one over TLS.
    match tls {
        Some(tls) => spawn_local(connection::serve_tls(
            worker,
            TlsAcceptor::from(Arc::clone(&tls.server)),
            stream,
            address,
            permit,
        )),
        None => spawn_local(connection::serve(worker, stream, address, permit)),
    };
}

/// Closes idle connections to endpoints that are too old or that must get no more requests.
async fn sweep(worker: Rc<Worker>) {
    let mut retirements = worker.shared.retirements.subscribe();
    let mut ticks = interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = retirements.changed() => if changed.is_err() { return },
        }
        worker.pool.sweep();
    }
}
