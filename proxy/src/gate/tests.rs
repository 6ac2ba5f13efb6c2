use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};

use dormouse_core::endpoints::{Conditions, Endpoint, EndpointSet};
use dormouse_core::routes::settings::{ColdStart, Port, RouteSettings, ScalingMetric, ServicePort, Timeouts};
use dormouse_core::routes::{BuildOptions, Candidate, RouteKey};
use tokio::runtime::Handle;
use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::config::Config;
use crate::load::{InFlight, Pending};
use crate::route::Route;
use crate::shared::Shared;
use crate::upstream::Protocol;

const PACE: u32 = 3;

struct Rig {
    shared: Arc<Shared>,
    route: Arc<Route>,
}

/// A request that waits, and is counted so.
struct Waiter {
    turn: oneshot::Receiver<Grant>,
    _pending: Pending,
}

impl Rig {
    fn new() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let shared = Arc::new(Shared::new(Config::new(listen), Handle::current()));
        shared.set_routes(vec![candidate()], BuildOptions::default());
        let route = shared.routes().pop().unwrap();
        Self { shared, route }
    }

    fn endpoints(&self, ports: &[u16]) {
        let endpoint = |port: &u16| {
            Endpoint::new(
                SocketAddr::from(([10, 0, 0, 1], *port)),
                None,
                Conditions::default(),
            )
        };
        let set = EndpointSet::new(ports.iter().map(endpoint), false);
        let port = &self.route.settings().target;
        let target = self.route.target();
        target.set(port, Some(&set), Protocol::Http1, &self.shared);
    }

    fn waiter(&self, place: Place) -> Waiter {
        let in_flight = InFlight::begin(Arc::clone(&self.route), &self.shared);
        let pending = in_flight.into_pending(&self.shared).unwrap();
        let turn = self.route.state().gate().join(place);
        self.route.state().pump();
        Waiter {
            turn,
            _pending: pending,
        }
    }

    fn waiters(&self, count: usize) -> Vec<Waiter> {
        (0..count).map(|_| self.waiter(Place::Back)).collect()
    }
}

fn candidate() -> Candidate<Arc<RouteSettings>> {
    let key = RouteKey::new("shop", "web");
    let settings = RouteSettings {
        key: key.clone(),
        target: ServicePort {
            namespace: "shop".into(),
            service: "web".into(),
            port: Port::Number(NonZeroU16::MIN),
        },
        timeouts: Timeouts::default(),
        cold_start: ColdStart::default(),
        static_routes: Vec::new(),
        scaling: ScalingMetric {
            concurrency: NonZeroU32::new(PACE),
            request_rate: None,
        },
    };
    Candidate {
        key,
        uid: String::new(),
        created: 0,
        rules: Vec::new(),
        value: Arc::new(settings),
    }
}

impl Waiter {
    fn granted(&mut self) -> Option<Grant> {
        self.turn.try_recv().ok()
    }
}

/// The grants that are there, with the indices of those that got them.
fn granted(waiters: &mut [Waiter]) -> (Vec<usize>, Vec<Grant>) {
    let grants = waiters
        .iter_mut()
        .enumerate()
        .filter_map(|(index, waiter)| Some((index, waiter.granted()?)));
    grants.unzip()
}

#[tokio::test]
async fn first_come_first_served_at_the_pace_of_the_endpoint() {
    let rig = Rig::new();
    let mut waiters = rig.waiters(10);
    assert_eq!(granted(&mut waiters).0, [0_usize; 0]);
    rig.endpoints(&[1]);
    let (who, mut grants) = granted(&mut waiters);
    assert_eq!(who, [0, 1, 2], "the pace of an endpoint that has not answered");
    drop(grants.pop());
    let (who, more) = granted(&mut waiters);
    assert_eq!(who, [3], "what comes back makes room for itself");
    more[0].peer.answered();
    assert_eq!(
        granted(&mut waiters).0,
        [4, 5, 6, 7, 8, 9],
        "it is known to serve"
    );
}

#[tokio::test]
async fn each_endpoint_has_its_own_allowance_and_the_idle_one_comes_first() {
    let rig = Rig::new();
    let mut waiters = rig.waiters(20);
    rig.endpoints(&[1]);
    let (_, first) = granted(&mut waiters);
    rig.endpoints(&[1, 2]);
    let (_, second) = granted(&mut waiters);
    assert_eq!((first.len(), second.len()), (3, 3));
    assert!(first.iter().all(|grant| grant.peer.address().port() == 1));
    assert!(second.iter().all(|grant| grant.peer.address().port() == 2));
    rig.endpoints(&[2]);
    drop(first);
    assert_eq!(
        granted(&mut waiters).0.len(),
        0,
        "what comes back from an endpoint that is gone makes no room"
    );
}

#[tokio::test]
async fn who_comes_while_others_wait_waits_behind_them_and_who_was_failed_before() {
    let rig = Rig::new();
    let mut waiters = rig.waiters(3);
    rig.endpoints(&[1]);
    let (_, mut grants) = granted(&mut waiters);
    let mut late = rig.waiter(Place::Back);
    let mut failed = rig.waiter(Place::Front);
    assert!(late.granted().is_none() && failed.granted().is_none());
    drop(grants.pop());
    assert!(late.granted().is_none());
    assert!(failed.granted().is_some());
}

#[tokio::test]
async fn who_left_is_passed_over() {
    let rig = Rig::new();
    let mut waiters = rig.waiters(6);
    waiters.drain(..2);
    rig.endpoints(&[1]);
    assert_eq!(granted(&mut waiters).0, [0, 1, 2]);
    assert_eq!(rig.route.load().pending(), 4);
}

#[tokio::test]
async fn a_grant_that_was_not_taken_goes_to_the_next() {
    let rig = Rig::new();
    let mut waiters = rig.waiters(5);
    rig.endpoints(&[1]);
    // Granted, and gone before they looked.
    waiters.drain(..3);
    assert_eq!(granted(&mut waiters).0, [0, 1]);
}

#[tokio::test]
async fn those_that_left_do_not_pile_up() {
    let rig = Rig::new();
    for _ in 0..10_000 {
        drop(rig.waiter(Place::Back));
    }
    assert!(rig.route.state().gate().lock().waiters.len() <= SLACK + 1);
}

#[tokio::test]
async fn a_hold_keeps_everyone_until_it_is_released_or_over() {
    let rig = Rig::new();
    rig.endpoints(&[1]);
    let state = rig.route.state();
    assert!(state.is_open());
    let first = state.hold();
    assert!(!state.is_open());
    let mut waiters = rig.waiters(2);
    assert_eq!(granted(&mut waiters).0.len(), 0);
    let _second = state.hold();
    state.release(Some(first));
    assert_eq!(
        granted(&mut waiters).0.len(),
        0,
        "the end of an older hold does not end a newer"
    );
    state.release(None);
    assert_eq!(granted(&mut waiters).0, [0, 1]);
}

#[tokio::test]
async fn those_that_wait_at_a_route_that_goes_are_told() {
    let rig = Rig::new();
    let mut waiter = rig.waiter(Place::Back);
    rig.shared.set_routes(vec![candidate()], BuildOptions::default());
    assert!(
        matches!(waiter.turn.try_recv(), Err(TryRecvError::Empty)),
        "it stayed"
    );
    rig.shared.set_routes(Vec::new(), BuildOptions::default());
    assert!(matches!(waiter.turn.try_recv(), Err(TryRecvError::Closed)));
    let mut late = rig.route.state().gate().join(Place::Back);
    assert!(matches!(late.try_recv(), Err(TryRecvError::Closed)));
}
