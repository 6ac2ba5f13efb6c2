//! What becomes of those that wait when endpoints go to sleep, refuse, leave and come back.

use super::*;

#[tokio::test]
async fn a_hold_stops_new_requests_and_says_what_is_in_flight() {
    let (app, go) = app::patient("ok").await;
    let rig = Rig::serving(app.address);
    assert_eq!(rig.proxy.hold(&key("nobody"), common::PATIENCE), None);
    let mut before = Raw::connect(rig.address()).await;
    before.send(GET).await;
    rig.until_load("web", 0, 1).await;
    let hold = |long| rig.proxy.hold(&key("web"), long);
    let held = |in_flight| {
        Some(Held {
            in_flight,
            pending: 0,
        })
    };
    assert_eq!(hold(common::PATIENCE), held(1));
    let mut after = Raw::connect(rig.address()).await;
    after.send(GET).await;
    rig.until_load("web", 1, 1).await;
    go.send(true).unwrap();
    assert_eq!(before.answer().await.status, 200);
    assert!(after.is_silent(Duration::from_millis(50)).await);
    assert_eq!(
        hold(Duration::from_millis(100)),
        Some(Held {
            in_flight: 0,
            pending: 1
        })
    );
    assert_eq!(after.answer().await.status, 200, "the hold is over by itself");
    assert_eq!(hold(common::PATIENCE), held(0));
    after.send(GET).await;
    rig.until_load("web", 1, 0).await;
    rig.proxy.release(&key("web"), HoldOutcome::CalledOff);
    assert_eq!(after.answer().await.status, 200);
}

#[tokio::test]
async fn what_a_sleep_held_waits_for_new_endpoints() {
    let (old, new) = (app::ok().await, app::ok().await);
    let rig = Rig::serving(old.address);
    let held = rig.proxy.hold(&key("web"), common::PATIENCE).unwrap();
    assert_eq!(held.in_flight, 0);
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    rig.until_load("web", 1, 0).await;
    rig.proxy.release(&key("web"), HoldOutcome::Asleep);
    // Its slice still calls the old one ready, and a probe would find it serving.
    rig.proxy.set_probe(&pod(old.address), Some(by_traffic_port()));
    rig.ready("web", &[old.address]);
    assert!(client.is_silent(Duration::from_millis(200)).await);
    assert_eq!(old.connections(), 0);
    rig.ready("web", &[old.address, new.address]);
    assert_eq!(client.answer().await.status, 200);
    assert_eq!((old.connections(), new.connections()), (0, 1));
}

#[tokio::test]
async fn what_a_sleep_held_does_not_wait_for_an_address_whose_pods_are_others_by_now() {
    let service = app::ok().await;
    let rig = Rig::new();
    rig.routes([settings("web")]);
    // The Service's own address, as it is where pods are not routed to directly.
    let listed = |ready| {
        let conditions = Conditions {
            ready: Some(ready),
            serving: Some(true),
            terminating: Some(!ready),
        };
        let endpoints = EndpointSet::new([Endpoint::new(service.address, None, conditions)], false);
        rig.proxy
            .set_endpoints(&target("web"), Some(&endpoints), Protocol::Http1);
    };
    listed(true);
    assert!(rig.proxy.hold(&key("web"), common::PATIENCE).is_some());
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    rig.until_load("web", 1, 0).await;
    rig.proxy.release(&key("web"), HoldOutcome::Asleep);
    listed(true);
    listed(false);
    assert!(client.is_silent(Duration::from_millis(100)).await);
    let began = tokio::time::Instant::now();
    listed(true);
    assert_eq!(client.answer().await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_left_alone_until_it_takes_connections() {
    let address = app::free_address();
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.ready("web", &[address]);
    let mut client = Raw::connect(rig.address()).await;
    client.send(GET).await;
    rig.until_load("web", 1, 0).await;
    let app = app::serve_at(Some(address), |_| async { app::text("ok") }).await;
    assert_eq!(
        client.answer().await.status,
        200,
        "its slice says ready: a probe of the traffic port is enough"
    );
    drop(app);
}

#[tokio::test]
async fn another_endpoint_takes_what_one_refuses() {
    let (app, gone) = (app::ok().await, app::free_address());
    let rig = Rig::new();
    rig.routes([settings("web")]);
    for _ in 0..10 {
        rig.ready("web", &[gone, app.address]);
        assert_eq!(get(rig.address(), "/").await.status, 200);
    }
}

#[tokio::test]
async fn an_endpoint_that_refused_once_gets_requests_again_although_nobody_waits() {
    let (app, late) = (app::ok().await, app::free_address());
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.ready("web", &[late, app.address]);
    for _ in 0..30 {
        assert_eq!(get(rig.address(), "/").await.status, 200);
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let _late = app::serve_at(Some(late), move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        async { app::text("late") }
    })
    .await;
    let asking = async {
        while asked.load(Ordering::Relaxed) == 0 {
            assert_eq!(get(rig.address(), "/").await.status, 200);
        }
    };
    tokio::time::timeout(common::PATIENCE, asking).await.unwrap();
}

#[tokio::test]
async fn a_fallback_that_refused_once_gets_requests_again() {
    let late = app::free_address();
    let rig = Rig::new();
    let mut route = settings("web");
    route.timeouts.readiness = Timeout::After(Duration::from_millis(20));
    route.cold_start.fallback = Some(target("sorry"));
    rig.routes([route]);
    rig.asleep("web");
    rig.ready("sorry", &[late]);
    assert_eq!(get(rig.address(), "/").await.status, 502);
    let _late = app::serve_at(Some(late), |_| async { app::text("sorry") }).await;
    let asking = async { while get(rig.address(), "/").await.status != 200 {} };
    tokio::time::timeout(common::PATIENCE, asking).await.unwrap();
}

#[tokio::test]
async fn endpoints_that_leave_are_a_last_resort() {
    let (leaving, staying) = (app::ok().await, app::ok().await);
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.endpoints("web", &[(leaving.address, "st"), (staying.address, "rs")]);
    for _ in 0..10 {
        assert_eq!(get(rig.address(), "/").await.status, 200);
    }
    assert_eq!(leaving.connections(), 0);
    rig.endpoints("web", &[(leaving.address, "st")]);
    assert_eq!(get(rig.address(), "/").await.status, 200);
    assert_eq!(leaving.connections(), 1);
    assert!(pod(leaving.address) != pod(staying.address));
}
