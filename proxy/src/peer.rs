//! One application instance that requests are sent to, as all threads see it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use dormouse_core::endpoints::PodKey;
use tokio::time::Instant;

use crate::upstream::Upstream;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Where a peer is.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Location {
    pub(crate) address: SocketAddr,
    /// A new pod may get the address of one that has gone.
    pub(crate) pod: Option<PodKey>,
}

/// An address of a pod, or of something else behind a Service, for as long as any Service port lists it.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Unlike the address never used again, so that connections to a pod are not taken for ones to its successor.
    pub(crate) id: u64,
    location: Location,
    in_flight: AtomicU32,
    flags: Flags,
    /// When it was first known to serve.
    usable_since: OnceLock<Instant>,
    /// The Service ports that list it. Locked when slices change and when its standing does, never on a request's way.
    users: Mutex<Vec<Weak<Upstream>>>,
}

#[derive(Debug, Default)]
struct Flags {
    /// Our own probe found it serving before its slice did.
    proved: AtomicBool,
    /// It did not take a connection: nothing more is sent before a probe finds it serving, which begins at once.
    suspect: AtomicBool,
    /// It began a response at least once.
    answered: AtomicBool,
    /// A prober runs.
    probing: AtomicBool,
    /// It must not get new requests: its idle connections are dropped.
    retired: AtomicBool,
    /// It is about to go, whatever its slice still says.
    condemned: AtomicBool,
}

impl Peer {
    pub(crate) fn new(location: Location) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            location,
            in_flight: AtomicU32::new(0),
            flags: Flags::default(),
            usable_since: OnceLock::new(),
            users: Mutex::default(),
        }
    }

    /// Where it is.
    pub(crate) fn location(&self) -> &Location {
        &self.location
    }

    /// Where connections to it lead.
    pub(crate) fn address(&self) -> SocketAddr {
        self.location.address
    }

    /// The pod that owns the address, if one does.
    pub(crate) fn pod(&self) -> Option<&PodKey> {
        self.location.pod.as_ref()
    }

    /// Requests that it is working on, from all threads.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether it may get requests although its slice does not call it ready.
    pub(crate) fn is_proved(&self) -> bool {
        self.flags.proved.load(Ordering::Relaxed)
    }

    /// Whether it failed to take a connection since it was last found serving.
    pub(crate) fn is_suspect(&self) -> bool {
        self.flags.suspect.load(Ordering::Relaxed)
    }

    /// Whether it ever began a response.
    pub(crate) fn has_answered(&self) -> bool {
        self.flags.answered.load(Ordering::Relaxed)
    }

    /// It began a response; says whether that is its first.
    pub(crate) fn answered(&self) -> bool {
        // A store on every response would move the cache line between the threads for nothing.
        let first = !self.has_answered() && !self.flags.answered.swap(true, Ordering::Relaxed);
        if first {
            // Requests of other routes too may have waited for that.
            self.republish();
        }
        first
    }

    /// When it was first known to serve, if it ever was.
    pub(crate) fn usable_since(&self) -> Option<Instant> {
        self.usable_since.get().copied()
    }

    /// Whether it must not get new requests.
    pub(crate) fn is_retired(&self) -> bool {
        self.flags.retired.load(Ordering::Relaxed)
    }

    /// Says whether it may get new requests at all.
    pub(crate) fn set_retired(&self, retired: bool) {
        self.flags.retired.store(retired, Ordering::Relaxed);
    }

    /// Whether nothing that was found out here speaks against it.
    pub(crate) fn may_get_requests(&self) -> bool {
        !self.is_suspect() && !self.is_condemned()
    }

    /// Whether it is about to go, whatever its slice still says.
    pub(crate) fn is_condemned(&self) -> bool {
        self.flags.condemned.load(Ordering::Relaxed)
    }

    /// Says whether it is about to go.
    pub(crate) fn set_condemned(&self, condemned: bool) {
        self.flags.condemned.store(condemned, Ordering::Relaxed);
    }

    /// It is listed as ready by now: from here on that is believed, also when it is taken back.
    pub(crate) fn believe_list(&self) {
        self.usable_since.get_or_init(Instant::now);
        self.flags.proved.store(false, Ordering::Relaxed);
    }

    /// Our probe found it serving.
    pub(crate) fn prove(&self) {
        self.usable_since.get_or_init(Instant::now);
        self.flags.proved.store(true, Ordering::Relaxed);
        self.flags.suspect.store(false, Ordering::Relaxed);
        self.republish();
    }

    /// It takes connections again. Whether it may get requests is for its slice to say, as before.
    pub(crate) fn forgive(&self) {
        self.flags.suspect.store(false, Ordering::Relaxed);
        self.republish();
    }

    /// It took no connection. What a probe found before counts no longer.
    pub(crate) fn suspect(&self) {
        self.flags.proved.store(false, Ordering::Relaxed);
        if !self.flags.suspect.swap(true, Ordering::Relaxed) {
            self.republish();
        }
    }

    /// Takes the right to probe it, which one prober has at a time.
    pub(crate) fn try_probe(self: &Arc<Self>) -> Option<ProbeRight> {
        let taken = self.flags.probing.swap(true, Ordering::AcqRel);
        (!taken).then(|| ProbeRight {
            peer: Arc::clone(self),
        })
    }

    /// Adds a Service port that lists it.
    pub(crate) fn add_user(&self, user: &Arc<Upstream>) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|other| other.strong_count() > 0);
        if !users.iter().any(|other| other.as_ptr() == Arc::as_ptr(user)) {
            users.push(Arc::downgrade(user));
        }
    }

    /// Removes a Service port that lists it no longer; without any it is retired.
    pub(crate) fn remove_user(&self, user: &Upstream) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|other| other.strong_count() > 0 && !std::ptr::eq(other.as_ptr(), user));
        if users.is_empty() {
            self.set_retired(true);
        }
    }

    /// The Service ports that list it.
    pub(crate) fn users(&self) -> Vec<Arc<Upstream>> {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.iter().filter_map(Weak::upgrade).collect()
    }

    fn republish(&self) {
        for user in self.users() {
            user.publish();
        }
    }
}

/// One more request that a peer is working on, until this is dropped.
#[derive(Debug)]
pub(crate) struct PeerLoad {
    peer: Arc<Peer>,
}

impl PeerLoad {
    pub(crate) fn new(peer: Arc<Peer>) -> Self {
        peer.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { peer }
    }

    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }
}

impl Drop for PeerLoad {
    fn drop(&mut self) {
        self.peer.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to probe a peer, given back when dropped.
#[derive(Debug)]
pub(crate) struct ProbeRight {
    peer: Arc<Peer>,
}

impl Drop for ProbeRight {
    fn drop(&mut self) {
        self.peer.flags.probing.store(false, Ordering::Release);
    }
}
