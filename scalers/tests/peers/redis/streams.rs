use dormouse_scalers::error::ReadErrorKind;
use dormouse_test_servers::redis::RedisServer;

use super::{LOOPBACK, failure, trigger, value};
use crate::support::read;

const STREAM: (&str, &str) = ("stream", "orders");
const GROUP: (&str, &str) = ("consumerGroup", "workers");
const LAG: (&str, &str) = ("lagCount", "2");

#[tokio::test]
async fn without_a_group_the_length_counts() {
    let server = RedisServer::start_open(LOOPBACK).await.unwrap();
    let length = trigger("redis-streams", &server.address().to_string(), &[STREAM], &[]);
    assert_eq!(value(&length).await, 0.0, "there is no such stream");
    server.add("orders", 4).await.unwrap();
    assert_eq!(value(&length).await, 4.0);
    server.push("list", 1).await.unwrap();
    let list = trigger(
        "redis-streams",
        &server.address().to_string(),
        &[("stream", "list")],
        &[],
    );
    let error = failure(&list).await;
    assert!(error.message.contains("WRONGTYPE"), "{error}");
}

#[tokio::test]
async fn pending_entries_are_those_read_and_not_acknowledged() {
    let server = RedisServer::start_open(LOOPBACK).await.unwrap();
    let metadata = [STREAM, GROUP, ("activationLagCount", "1")];
    let pending = trigger("redis-streams", &server.address().to_string(), &metadata, &[]);
    let error = failure(&pending).await;
    assert_eq!(error.kind, ReadErrorKind::NotFound, "{error}");
    assert!(
        error
            .message
            .contains("\"orders\" with a consumer group \"workers\""),
        "{error}"
    );
    server.add("orders", 5).await.unwrap();
    server
        .command(&["XGROUP", "CREATE", "orders", "workers", "0"])
        .await
        .unwrap();
    assert_eq!(value(&pending).await, 0.0, "none was read yet");
    for (count, active) in [(1.0, false), (2.0, true)] {
        let once = [
            "XREADGROUP",
            "GROUP",
            "workers",
            "me",
            "COUNT",
            "1",
            "STREAMS",
            "orders",
            ">",
        ];
        server.command(&once).await.unwrap();
        let observed = read(&pending).await.unwrap();
        assert_eq!((observed.value, observed.active), (count, active));
    }
}

#[tokio::test]
async fn the_lag_is_what_the_group_has_not_read() {
    let server = RedisServer::start_open(LOOPBACK).await.unwrap();
    let lag = trigger(
        "redis-streams",
        &server.address().to_string(),
        &[STREAM, GROUP, LAG],
        &[],
    );
    assert_eq!(value(&lag).await, 0.0, "there is no such stream");
    server.add("orders", 5).await.unwrap();
    assert_eq!(
        value(&lag).await,
        5.0,
        "there is no such group: the stream's length"
    );
    server
        .command(&["XGROUP", "CREATE", "orders", "other", "$"])
        .await
        .unwrap();
    assert_eq!(value(&lag).await, 5.0, "another group is not this one");
    server
        .command(&["XGROUP", "CREATE", "orders", "workers", "0"])
        .await
        .unwrap();
    assert_eq!(value(&lag).await, 5.0);
    let two = [
        "XREADGROUP",
        "GROUP",
        "workers",
        "me",
        "COUNT",
        "2",
        "STREAMS",
        "orders",
        ">",
    ];
    server.command(&two).await.unwrap();
    assert_eq!(
        value(&lag).await,
        3.0,
        "those read are no lag, acknowledged or not"
    );
}

#[tokio::test]
async fn a_lag_that_redis_cannot_tell_is_never_a_zero_while_entries_wait() {
    let server = RedisServer::start_open(LOOPBACK).await.unwrap();
    let lag = trigger(
        "redis-streams",
        &server.address().to_string(),
        &[STREAM, GROUP, LAG],
        &[],
    );
    for id in ["1-1", "2-1", "3-1", "4-1", "5-1"] {
        server.command(&["XADD", "orders", id, "f", "v"]).await.unwrap();
    }
    server
        .command(&["XGROUP", "CREATE", "orders", "workers", "0"])
        .await
        .unwrap();
    let one = [
        "XREADGROUP",
        "GROUP",
        "workers",
        "me",
        "COUNT",
        "1",
        "STREAMS",
        "orders",
        ">",
    ];
    server.command(&one).await.unwrap();
    server.command(&["XDEL", "orders", "3-1"]).await.unwrap();
    let told = server.command(&["XINFO", "GROUPS", "orders"]).await.unwrap();
    assert_eq!(told.lines().last(), Some("lag"), "redis says no number:\n{told}");
    assert_eq!(value(&lag).await, 4.0, "at most what the stream holds");
    for id in ["2-1", "4-1", "5-1"] {
        server.command(&["XDEL", "orders", id]).await.unwrap();
    }
    assert_eq!(
        value(&lag).await,
        0.0,
        "nothing is left to be read, though 1-1 is there still"
    );
}
