//! What whoever reports demand is told, and of which routes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is test code"
)]

mod common;

use common::raw::{Raw, get};
use common::{Rig, app, settings};
use dormouse_proxy::RouteLoad;

const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

/// Name, waiting, in flight, ever started.
fn told(loads: &[RouteLoad]) -> Vec<(&str, u32, u32, u64)> {
    loads
        .iter()
        .map(|load| (&*load.route.name, load.pending, load.in_flight, load.started))
        .collect()
}

#[tokio::test]
async fn changes_are_those_of_routes_that_had_requests_and_of_those_that_are_asked_for() {
    let app = app::ok().await;
    let rig = Rig::new();
    rig.routes(["a.test", "b.test", "web"].map(settings));
    rig.asleep("a.test");
    rig.asleep("b.test");
    rig.ready("web", &[app.address]);
    let demand = rig.proxy.demand();
    assert_eq!(told(&demand.changes([])), []);

    assert_eq!(get(rig.address(), "/").await.status, 200);
    rig.until_load("web", 0, 0).await;
    assert_eq!(told(&demand.changes([])), [("web", 0, 0, 1)]);
    assert_eq!(told(&demand.changes([])), [], "it was told");

    let mut held = Raw::connect(rig.address()).await;
    held.send(&GET.replace("web", "b.test")).await;
    rig.until_load("b.test", 1, 0).await;
    let waits = demand.changes([]);
    assert_eq!(told(&waits), [("b.test", 1, 0, 1)]);
    assert_eq!(told(&demand.changes([])), [], "no other request came");
    assert_eq!(get(rig.address(), "/").await.status, 200);
    rig.until_load("web", 0, 0).await;
    let those = waits.iter().map(|load| load.route.clone());
    assert_eq!(
        told(&demand.changes(those.clone())),
        [("b.test", 1, 0, 1), ("web", 0, 0, 2)]
    );

    rig.ready("b.test", &[app.address]);
    assert_eq!(held.answer().await.status, 200);
    rig.until_load("b.test", 0, 0).await;
    assert_eq!(told(&demand.changes(those.clone())), [("b.test", 0, 0, 1)]);

    let mut left = Raw::connect(rig.address()).await;
    left.send(&GET.replace("web", "a.test")).await;
    rig.until_load("a.test", 1, 0).await;
    rig.routes([settings("web")]);
    assert_eq!(told(&demand.changes(those)), [], "both have gone");
}

#[tokio::test]
async fn a_route_that_comes_back_is_told_with_what_is_still_under_way() {
    let app = app::serve(|_| std::future::pending()).await;
    let rig = Rig::serving(app.address);
    let mut under_way = Raw::connect(rig.address()).await;
    under_way.send(GET).await;
    rig.until_load("web", 0, 1).await;
    let demand = rig.proxy.demand();
    let busy = demand.changes([]);
    assert_eq!(told(&busy), [("web", 0, 1, 1)]);
    rig.routes([]);
    let those = busy.iter().map(|load| load.route.clone());
    assert_eq!(told(&demand.changes(those)), []);
    rig.routes([settings("web")]);
    assert_eq!(told(&demand.changes([])), [("web", 0, 1, 1)]);
}
