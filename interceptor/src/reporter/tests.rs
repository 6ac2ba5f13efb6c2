//! The reporter over loopback, against operators that say what a test wants.

mod operator;
mod pods;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use dormouse_core::endpoints::{Conditions, Endpoint, EndpointSet, PodKey};
use dormouse_core::routes::settings::{
    ColdStart, Port, RouteSettings, ScalingMetric, ServicePort, Timeout, Timeouts,
};
use dormouse_core::routes::{BuildOptions, Candidate, HostPattern, RouteKey, Rule};
use dormouse_proxy::{Config, Protocol, Proxy};
use dormouse_wire::demand::from_interceptor::Message;
use dormouse_wire::demand::from_operator::Message as Order;
use dormouse_wire::demand::hold_release::Outcome;
use dormouse_wire::demand::{HoldRelease, HoldRequest, Obstacle, Report, Route};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Access, Reporter};
use crate::backends::Backends;
use crate::run::backends;
use operator::{Operator, PATIENCE, Session};

/// A data plane with one route to the Service `web`, and a reporter that runs.
struct Interceptor {
    proxy: Arc<Proxy>,
    backends: Backends,
    end: CancellationToken,
    running: JoinHandle<()>,
}

fn in_the_clear() -> Access {
    Access {
        name: "operators".to_owned(),
        ca_file: None,
        token_file: None,
    }
}

fn target() -> ServicePort {
    ServicePort {
        namespace: "shop".into(),
        service: "web".into(),
        port: Port::Name("http".into()),
    }
}

fn pod(name: &str) -> PodKey {
    PodKey {
        namespace: "shop".into(),
        name: name.into(),
        uid: format!("uid-{name}").into(),
    }
}

/// The route to the Service.
fn candidate(timeouts: Timeouts) -> Candidate<Arc<RouteSettings>> {
    let key = RouteKey::new("shop", "web");
    let settings = RouteSettings {
        key: key.clone(),
        target: target(),
        timeouts,
        cold_start: ColdStart::default(),
        static_routes: Vec::new(),
        scaling: ScalingMetric::default(),
    };
    Candidate {
        key,
        uid: "1".to_owned(),
        created: 0,
        rules: vec![Rule::new(vec![HostPattern::Any], vec![], vec![])],
        value: Arc::new(settings),
    }
}

impl Interceptor {
    /// Reports to `operators`.
    fn start(operators: &str, access: Access) -> Self {
        let operators = operators.to_owned();
        Self::with(access, |reporter, end| reporter.run(operators, end))
    }

    fn with<R: Future<Output = ()> + Send + 'static>(
        access: Access,
        run: impl FnOnce(Reporter, CancellationToken) -> R,
    ) -> Self {
        let mut config = Config::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        config.threads = NonZeroUsize::MIN;
        let proxy = Arc::new(Proxy::start(config).unwrap());
        proxy.set_routes(vec![candidate(Timeouts::default())], BuildOptions::default());
        let backends = backends(&proxy, true);
        let reporter = Reporter::new(proxy.clone(), Some(backends.clone()), access);
        let end = CancellationToken::new();
        let running = tokio::spawn(run(reporter, end.clone()));
        let interceptor = Self {
            proxy,
            backends,
            end,
            running,
        };
        interceptor.endpoints(&[]);
        interceptor
    }

    /// Pods of the Service, and whether they are ready.
    fn endpoints(&self, pods: &[(SocketAddr, &str, bool)]) {
        let endpoints = pods.iter().map(|(address, name, ready)| {
            let conditions = Conditions {
                ready: Some(*ready),
                serving: Some(*ready),
                terminating: None,
            };
            Endpoint::new(*address, Some(pod(name)), conditions)
        });
        let endpoints = EndpointSet::new(endpoints, false);
        self.proxy
            .set_endpoints(&target(), Some(&endpoints), Protocol::Http1);
    }

    async fn request(&self) -> TcpStream {
        let mut client = TcpStream::connect(self.proxy.address()).await.unwrap();
        let request = "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        client
    }

    /// Waits until nothing is held.
    async fn until_idle(&self) {
        let holds = || {
            let loads = self.proxy.demand().snapshot();
            loads.iter().any(|load| load.pending + load.in_flight > 0)
        };
        let idle = async {
            while holds() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, idle).await.unwrap();
    }

    async fn stop(self) {
        self.end.cancel();
        timeout(PATIENCE, self.running).await.unwrap().unwrap();
    }
}

/// An application that answers every request with 200.
async fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 1024];
                // A connection that says nothing is a probe.
                if matches!(stream.read(&mut head).await, Ok(read) if read > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                    drop(stream.write_all(answer).await);
                }
            });
        }
    });
    address
}

async fn answer(mut client: TcpStream) -> String {
    let mut answer = String::new();
    timeout(PATIENCE, client.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

/// What a report says of the route: pending, in flight, started.
fn counts(report: &Report) -> Option<(u32, u32, u64)> {
    let demand = report.routes.first()?;
    assert_eq!(demand.route.as_ref().unwrap().name, "web");
    Some((demand.pending, demand.in_flight, demand.started))
}

fn route() -> Option<Route> {
    Some(Route {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
    })
}

fn hold(id: u64) -> Order {
    Order::Hold(HoldRequest {
        id,
        route: route(),
        deadline_millis: 20_000,
    })
}

/// Of a route that is not here.
fn hold_elsewhere(id: u64) -> Order {
    Order::Hold(HoldRequest {
        id,
        route: Some(Route {
            name: "other".to_owned(),
            ..route().unwrap()
        }),
        deadline_millis: 20_000,
    })
}

fn release(id: u64, outcome: Outcome) -> Order {
    Order::Release(HoldRelease {
        id,
        outcome: outcome.into(),
    })
}

/// An interceptor in a session with one operator that heard its first report.
async fn reporting() -> (Operator, Interceptor, Session) {
    let mut operator = Operator::start("127.0.0.1:0").await;
    let interceptor = Interceptor::start(&operator.address.to_string(), in_the_clear());
    let mut session = operator.session().await;
    session.hello().await;
    assert_eq!(counts(&session.report().await), None, "nothing is held");
    (operator, interceptor, session)
}

#[tokio::test]
async fn an_edge_is_reported_at_once_with_what_is_held() {
    let mut operator = Operator::start("127.0.0.1:0").await;
    let address = operator.address.to_string();
    let interceptor = Interceptor::with(in_the_clear(), |mut reporter, end| {
        // So that nothing but the edge can bring it.
        reporter.publisher.changes = Duration::from_secs(3600);
        reporter.run(address, end)
    });
    let mut session = operator.session().await;
    for number in 1..=10 {
        let client = interceptor.request().await;
        session
            .report_that(|report| matches!(counts(report), Some((1, _, started)) if started == number))
            .await;
        drop(client);
        interceptor.until_idle().await;
    }
}

#[tokio::test]
async fn reports_are_numbered_one_after_the_other_and_heartbeats_keep_them_alive() {
    let (_operator, interceptor, mut session) = reporting().await;
    let mut newest = session.newest;
    let client = interceptor.request().await;
    let began = Instant::now();
    let mut beats = 0;
    while beats < 2 {
        match session.message().await {
            Message::Report(report) => {
                assert_eq!(report.sequence, newest + 1);
                newest = report.sequence;
            }
            Message::Heartbeat(heartbeat) => {
                assert_eq!(heartbeat.sequence, newest);
                beats += 1;
            }
            other => unreachable!("{other:?}"),
        }
    }
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1900), "{took:?}");
    drop(client);
}

#[tokio::test]
async fn changes_are_gathered() {
    let (_operator, interceptor, mut session) = reporting().await;
    interceptor.endpoints(&[(application().await, "a", true)]);
    let began = Instant::now();
    let first = session.newest;
    let mut asked = 0;
    while began.elapsed() < Duration::from_millis(500) {
        assert_eq!(answer(interceptor.request().await).await, "HTTP/1.1 200 OK");
        asked += 1;
    }
    let all = session
        .report_that(|report| counts(report).is_some_and(|(_, _, started)| started == asked))
        .await;
    let most = u64::try_from(began.elapsed().as_millis() / 50).unwrap() + 3;
    assert!(
        all.sequence - first <= most,
        "{} reports of {asked} requests",
        all.sequence - first
    );
}

#[tokio::test]
async fn a_new_session_begins_with_everything() {
    let (mut operator, interceptor, mut session) = reporting().await;
    interceptor.endpoints(&[(application().await, "a", true)]);
    answer(interceptor.request().await).await;
    interceptor.until_idle().await;
    let mut newest = session.newest;
    let mut processes = BTreeSet::new();
    for _ in 0..3 {
        drop(session);
        session = operator.session().await;
        processes.insert(session.hello().await);
        let whole = session.report_that(|report| {
            // A counter that has not moved since, and a number that goes on.
            counts(report) == Some((0, 0, 1)) && report.sequence > newest
        });
        newest = whole.await.sequence;
    }
    assert_eq!(processes.len(), 1, "it is the same process");
}

#[tokio::test]
async fn every_operator_has_a_session_of_its_own_and_hears_the_same() {
    let mut one = Operator::start("127.0.0.1:0").await;
    let mut other = Operator::start("127.0.0.1:0").await;
    let (tell, addresses) = watch::channel([one.address].into());
    let interceptor = Interceptor::with(in_the_clear(), |reporter, end| reporter.report_to(addresses, end));
    let mut first = one.session().await;
    tell.send_replace([one.address, other.address].into());
    let mut second = other.session().await;
    let client = interceptor.request().await;
    for session in [&mut first, &mut second] {
        session
            .report_that(|report| counts(report).is_some_and(|(pending, ..)| pending == 1))
            .await;
    }
    // One that is listed no longer goes on for as long as it can, and does not come back.
    tell.send_replace([other.address].into());
    let _second_client = interceptor.request().await;
    for session in [&mut first, &mut second] {
        session
            .report_that(|report| counts(report).is_some_and(|(pending, ..)| pending == 2))
            .await;
    }
    drop((first, client));
    second
        .report_that(|report| counts(report).is_some_and(|(pending, ..)| pending == 1))
        .await;
    assert!(timeout(Duration::from_millis(300), one.session()).await.is_err());
}

#[tokio::test]
async fn a_hold_is_answered_and_what_came_meanwhile_goes_on_when_it_is_called_off() {
    let (_operator, interceptor, mut session) = reporting().await;
    interceptor.endpoints(&[(application().await, "a", true)]);
    session.order(hold(7)).await;
    let held = session.hold_answer().await;
    assert_eq!((held.id, held.in_flight, held.pending), (7, 0, 0));
    let client = interceptor.request().await;
    session
        .report_that(|report| counts(report) == Some((1, 0, 1)))
        .await;
    session.order(hold(8)).await;
    assert_eq!(session.hold_answer().await.pending, 1, "what waits is told");
    session.order(release(8, Outcome::CalledOff)).await;
    assert_eq!(answer(client).await, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn after_a_sleep_what_came_meanwhile_waits_for_a_new_pod() {
    for breaks in [false, true] {
        let (_operator, interceptor, mut session) = reporting().await;
        let old = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let old = (old.local_addr().unwrap(), "old", true);
        interceptor.endpoints(&[old]);
        session.order(hold(1)).await;
        session.hold_answer().await;
        let client = interceptor.request().await;
        session.report_that(|report| counts(report).is_some()).await;
        if breaks {
            // Nobody says any more what became of it.
            drop(session);
        } else {
            session.order(release(1, Outcome::Asleep)).await;
        }
        sleep(Duration::from_millis(50)).await;
        interceptor.endpoints(&[old, (application().await, "new", true)]);
        assert_eq!(answer(client).await, "HTTP/1.1 200 OK", "{breaks}");
    }
}

#[tokio::test]
async fn a_route_that_is_not_here_holds_nothing() {
    let (_operator, _interceptor, mut session) = reporting().await;
    session.order(hold_elsewhere(3)).await;
    let held = session.hold_answer().await;
    assert_eq!((held.id, held.in_flight, held.pending), (3, 0, 0));
}

#[tokio::test]
async fn who_waited_in_vain_is_told_what_the_operator_found() {
    let (_operator, interceptor, mut session) = reporting().await;
    let timeouts = Timeouts {
        readiness: Timeout::After(Duration::from_millis(50)),
        ..Timeouts::default()
    };
    interceptor
        .proxy
        .set_routes(vec![candidate(timeouts)], BuildOptions::default());
    let found = Obstacle {
        route: route(),
        what: "its image\n cannot be pulled".to_owned(),
    };
    session.order(Order::Obstacle(found)).await;
    // Orders are taken in one after the other.
    session.order(hold(1)).await;
    session.hold_answer().await;
    session.order(release(1, Outcome::CalledOff)).await;
    let mut client = interceptor.request().await;
    let mut answer = String::new();
    timeout(PATIENCE, client.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(
        answer.ends_with("within 50ms: its image  cannot be pulled\n"),
        "{answer}"
    );
    drop(session);
    interceptor.stop().await;
}

#[tokio::test]
async fn the_end_is_the_last_report_and_a_goodbye() {
    let (_operator, interceptor, mut session) = reporting().await;
    let client = interceptor.request().await;
    session.report_that(|report| counts(report).is_some()).await;
    drop(client);
    interceptor.proxy.drain(Duration::from_secs(1)).await;
    let stopping = tokio::spawn(interceptor.stop());
    let mut last = session.newest;
    let goodbye = loop {
        match session.message().await {
            Message::Report(report) => {
                assert!(counts(&report).is_none_or(|(pending, ..)| pending == 0));
                last = report.sequence;
            }
            Message::Goodbye(goodbye) => break goodbye.sequence,
            Message::Heartbeat(_) | Message::PodsWanted(_) => {}
            other => unreachable!("{other:?}"),
        }
    };
    assert_eq!(goodbye, last + 1);
    session.ended().await;
    drop(session);
    stopping.await.unwrap();
}

#[tokio::test]
async fn an_operator_that_takes_nothing_does_not_keep_the_process() {
    // Accepted by the kernel, and by nobody else.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let interceptor = Interceptor::start(&silent.local_addr().unwrap().to_string(), in_the_clear());
    let (_stream, _) = silent.accept().await.unwrap();
    let began = Instant::now();
    interceptor.stop().await;
    assert!(began.elapsed() < Duration::from_millis(2900));
}

#[tokio::test]
async fn operators_are_known_by_their_certificate_and_this_pod_by_its_token() {
    let folder = tempfile::tempdir().unwrap();
    let (ca_file, token_file) = (folder.path().join("ca.crt"), folder.path().join("token"));
    let mut operator = Operator::start_tls("127.0.0.1:0", "operators").await;
    std::fs::write(&ca_file, operator.authority()).unwrap();
    std::fs::write(&token_file, "first\n").unwrap();
    let access = |name: &str| Access {
        name: name.to_owned(),
        ca_file: Some(ca_file.clone()),
        token_file: Some(token_file.clone()),
    };
    let address = operator.address.to_string();
    let interceptor = Interceptor::start(&address, access("operators"));
    let mut session = operator.session().await;
    assert_eq!(session.authorization.as_deref(), Some("Bearer first"));
    session.hello().await;
    std::fs::write(&token_file, "second\n").unwrap();
    drop(session);
    let session = operator.session().await;
    assert_eq!(
        session.authorization.as_deref(),
        Some("Bearer second"),
        "read again"
    );
    drop(session);
    interceptor.stop().await;

    let mut unheard = Operator::start_tls("127.0.0.1:0", "operators").await;
    std::fs::write(&ca_file, unheard.authority()).unwrap();
    let address = unheard.address.to_string();
    let _wrong_name = Interceptor::start(&address, access("others"));
    assert!(
        timeout(Duration::from_millis(300), unheard.session())
            .await
            .is_err()
    );
    std::fs::write(&ca_file, operator.authority()).unwrap();
    let _wrong_authority = Interceptor::start(&address, access("operators"));
    assert!(
        timeout(Duration::from_millis(300), unheard.session())
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn addresses_that_cannot_be_looked_up_are_tried_again_and_forget_nothing() {
    let known: BTreeSet<SocketAddr> = ["10.0.0.1:9091".parse().unwrap()].into();
    let (tell, addresses) = watch::channel(known.clone());
    let follow = super::fleet::follow_addresses("no such name:9091", &tell);
    assert!(timeout(Duration::from_secs(30), follow).await.is_err());
    assert_eq!(*addresses.borrow(), known);
}
