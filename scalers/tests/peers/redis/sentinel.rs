use std::time::Duration;

use dormouse_test_servers::redis::{ADMIN_PASSWORD, MASTER_NAME, RedisSentinel, SENTINEL_PASSWORD};

use super::{LOOPBACK, failure, reads_until, trigger, value};

const MASTER: (&str, &str) = ("sentinelMaster", MASTER_NAME);

#[tokio::test]
async fn a_dead_master_is_left_for_the_one_the_sentinels_name() {
    let mut all = RedisSentinel::start(LOOPBACK, true).await.unwrap();
    let auth = [
        ("password", ADMIN_PASSWORD),
        ("sentinelPassword", SENTINEL_PASSWORD),
    ];
    all.server(0).push("orders", 3).await.unwrap();
    all.server(0).add("events", 2).await.unwrap();
    all.server(0).command(&["WAIT", "1", "5000"]).await.unwrap();
    let list = trigger(
        "redis-sentinel",
        &all.addresses(),
        &[("listName", "orders"), MASTER],
        &auth,
    );
    let stream = trigger(
        "redis-sentinel-streams",
        &all.addresses(),
        &[("stream", "events"), MASTER],
        &auth,
    );
    assert_eq!(value(&list).await, 3.0);
    assert_eq!(value(&stream).await, 2.0);

    all.server_mut(0).kill().await.unwrap();
    all.is_led_by(1).await.unwrap();
    assert_eq!(value(&list).await, 3.0);
    assert_eq!(value(&stream).await, 2.0);

    all.server(1).push("orders", 1).await.unwrap();
    all.sentinel_mut(0).kill().await.unwrap();
    let anew = trigger(
        "redis-sentinel",
        &all.addresses(),
        &[("listName", "orders"), MASTER],
        &auth,
    );
    // They may hear of the failover from the first one a little later.
    reads_until(
        &anew,
        "the other sentinels' answer",
        Duration::from_secs(10),
        |outcome| outcome.as_ref().is_ok_and(|observed| observed.value == 4.0),
    )
    .await;
    for index in 1..3 {
        all.sentinel_mut(index).kill().await.unwrap();
    }
    assert_eq!(value(&list).await, 4.0, "a master that answers needs no sentinel");
    let error = failure(&trigger(
        "redis-sentinel",
        &all.addresses(),
        &[("listName", "orders"), MASTER],
        &auth,
    ))
    .await;
    assert!(
        error
            .message
            .starts_with("connection to redis sentinel failed: unable to connect to 127.0.0.1:"),
        "{error}"
    );
}

#[tokio::test]
async fn a_failover_by_hand_is_followed_within_the_trust() {
    let all = RedisSentinel::start(LOOPBACK, false).await.unwrap();
    let list = trigger(
        "redis-sentinel",
        &all.addresses(),
        &[("listName", "orders"), MASTER],
        &[],
    );
    assert_eq!(value(&list).await, 0.0);
    all.sentinels()[0]
        .command(&["SENTINEL", "FAILOVER", MASTER_NAME])
        .await
        .unwrap();
    all.is_led_by(1).await.unwrap();
    all.server(1).push("orders", 2).await.unwrap();
    // The old master is alive as a replica; what it answers may be old for as long as it is trusted.
    reads_until(
        &list,
        "the new master's answer",
        Duration::from_secs(15),
        |outcome| outcome.as_ref().is_ok_and(|observed| observed.value == 2.0),
    )
    .await;
    let before = all.server(0).calls_of("llen").await.unwrap();
    assert_eq!(value(&list).await, 2.0);
    assert_eq!(
        all.server(0).calls_of("llen").await.unwrap(),
        before,
        "the replica is not asked"
    );
}

#[tokio::test]
async fn what_sentinels_refuse_is_told() {
    let all = RedisSentinel::start(LOOPBACK, true).await.unwrap();
    let addresses = all.addresses();
    let with = |master, auth: &[(&str, &str)]| {
        trigger(
            "redis-sentinel",
            &addresses,
            &[("listName", "orders"), ("sentinelMaster", master)],
            auth,
        )
    };
    let both = [
        ("password", ADMIN_PASSWORD),
        ("sentinelPassword", SENTINEL_PASSWORD),
    ];
    let error = failure(&with("nobody", &both)).await;
    assert!(error.message.contains("knows no master \"nobody\""), "{error}");
    let error = failure(&with(MASTER_NAME, &[("password", ADMIN_PASSWORD)])).await;
    assert!(error.message.contains("NOAUTH"), "{error}");
    let error = failure(&with(MASTER_NAME, &[("sentinelPassword", SENTINEL_PASSWORD)])).await;
    assert!(error.message.contains("NOAUTH"), "{error}");
    assert_eq!(value(&with(MASTER_NAME, &both)).await, 0.0);
}
