//! What is told of pods: how they may be probed, and those that no slice names yet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dormouse_kubernetes::{Change, ObjectKey};
use dormouse_wire::demand::from_operator::Message as Order;
use dormouse_wire::demand::{NamedPort, Pod, PodProbe, Probe, ProbeSpecs, TcpCheck, probe};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::operator::Session;
use super::{answer, application, hold_elsewhere, reporting, target};

/// How a pod may be probed.
fn spec(name: &str, app: SocketAddr) -> PodProbe {
    PodProbe {
        pod: Some(Pod {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-{name}"),
        }),
        startup: None,
        readiness: Some(Probe {
            check: Some(probe::Check::Tcp(TcpCheck {
                port: app.port().into(),
            })),
            initial_delay_millis: 0,
            timeout_millis: 1000,
        }),
        container_started_millis: 0,
        addresses: vec![app.ip().to_string()],
        ..PodProbe::default()
    }
}

async fn tell(session: &mut Session, pods: Vec<PodProbe>) {
    session.order(Order::ProbeSpecs(ProbeSpecs { pods })).await;
}

/// Orders are answered one after the other: what was told has been taken in by then.
async fn is_taken_in(session: &mut Session) {
    session.order(hold_elsewhere(1)).await;
    session.hold_answer().await;
}

#[tokio::test]
async fn pods_are_asked_for_while_requests_wait_and_probed_as_told() {
    let (_operator, interceptor, mut session) = reporting().await;
    let app = application().await;
    interceptor.endpoints(&[(app, "a", false)]);
    let client = interceptor.request().await;
    assert_eq!(session.pods_wanted().await, ["a"]);
    tell(&mut session, vec![spec("stranger", app), spec("a", app)]).await;
    assert_eq!(answer(client).await, "HTTP/1.1 200 OK");
    assert!(session.pods_wanted().await.is_empty(), "nobody waits any more");
}

#[tokio::test]
async fn a_pod_that_was_told_ahead_is_probed_as_soon_as_its_slice_comes() {
    let (_operator, interceptor, mut session) = reporting().await;
    let app = application().await;
    interceptor.endpoints(&[]);
    let client = interceptor.request().await;
    tell(&mut session, vec![spec("a", app)]).await;
    is_taken_in(&mut session).await;
    interceptor.endpoints(&[(app, "a", false)]);
    assert_eq!(answer(client).await, "HTTP/1.1 200 OK", "nobody said more of it");
}

#[tokio::test]
async fn a_pod_that_was_told_with_its_service_needs_no_slice() {
    let (_operator, interceptor, mut session) = reporting().await;
    let app = application().await;
    let service = json!({
        "spec": {"ipFamilies": ["IPv4"], "ports": [{"name": "http", "port": 80, "targetPort": "web"}]},
    });
    let service = Change::Applied(Arc::new(serde_json::from_value(service).unwrap()));
    let key = ObjectKey::new("shop", "web");
    interceptor.backends.service_changed(&key, &service);
    interceptor.backends.want([target()]);
    let client = interceptor.request().await;
    let mut told = spec("a", app);
    told.service = "web".to_owned();
    told.named_ports = vec![NamedPort {
        name: "web".to_owned(),
        port: app.port().into(),
    }];
    tell(&mut session, vec![told]).await;
    assert_eq!(answer(client).await, "HTTP/1.1 200 OK");

    let mut over = spec("a", app);
    over.addresses.clear();
    tell(&mut session, vec![over]).await;
    is_taken_in(&mut session).await;
    let mut late = interceptor.request().await;
    let answered = timeout(Duration::from_millis(100), late.read_u8()).await;
    assert!(answered.is_err(), "it is over: nobody is left who could answer");
}

#[tokio::test]
async fn who_is_taken_back_as_a_services_is_probed_all_the_same_where_a_slice_names_it() {
    let (_operator, interceptor, mut session) = reporting().await;
    let app = application().await;
    interceptor.endpoints(&[]);
    let client = interceptor.request().await;
    let mut taken_back = spec("a", app);
    taken_back.addresses.clear();
    taken_back.readiness = None;
    tell(&mut session, vec![spec("a", app)]).await;
    tell(&mut session, vec![taken_back]).await;
    is_taken_in(&mut session).await;
    interceptor.endpoints(&[(app, "a", false)]);
    assert_eq!(answer(client).await, "HTTP/1.1 200 OK");
}
