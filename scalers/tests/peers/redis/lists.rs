use std::sync::Arc;

use dormouse_scalers::connect;
use dormouse_scalers::error::ReadErrorKind;
use dormouse_test_servers::redis::RedisServer;

use super::{LOOPBACK, failure, list_of, trigger, value};
use crate::support::{context, params, read};

#[tokio::test]
async fn counts_what_a_key_holds_whatever_it_is() {
    let server = RedisServer::start_open(LOOPBACK).await.unwrap();
    let trigger = list_of(&server);
    assert_eq!(value(&trigger).await, 0.0, "there is no such key");
    assert!(!read(&trigger).await.unwrap().active);
    server.push("orders", 7).await.unwrap();
    assert_eq!(value(&trigger).await, 7.0);
    assert!(read(&trigger).await.unwrap().active);
    for (filling, count) in [
        (&["SADD", "orders", "a", "b", "c"][..], 3.0),
        (&["ZADD", "orders", "1", "a", "2", "b"], 2.0),
        (&["HSET", "orders", "a", "1"], 1.0),
        (&["RPUSH", "orders", "a", "b", "c", "d"], 4.0),
    ] {
        server.command(&["DEL", "orders"]).await.unwrap();
        server.command(filling).await.unwrap();
        assert_eq!(value(&trigger).await, count, "{filling:?}");
    }
    server.command(&["DEL", "orders"]).await.unwrap();
    assert_eq!(value(&trigger).await, 0.0);
}

#[tokio::test]
async fn what_cannot_be_counted_is_an_error_and_no_zero() {
    let server = RedisServer::start_open(LOOPBACK).await.unwrap();
    let trigger = list_of(&server);
    server.command(&["SET", "orders", "12"]).await.unwrap();
    let error = failure(&trigger).await;
    assert_eq!(error.kind, ReadErrorKind::BadAnswer);
    assert!(error.message.contains("key \"orders\" holds a string"), "{error}");
    server.command(&["DEL", "orders"]).await.unwrap();
    server.add("orders", 1).await.unwrap();
    let error = failure(&trigger).await;
    assert!(error.message.contains("holds a stream"), "{error}");
}

#[tokio::test]
async fn a_steady_list_costs_one_command_a_read() {
    let server = RedisServer::start_open(LOOPBACK).await.unwrap();
    server.command(&["SADD", "orders", "a"]).await.unwrap();
    let trigger = list_of(&server);
    for _ in 0..10 {
        assert_eq!(value(&trigger).await, 1.0);
    }
    assert_eq!(server.calls_of("scard").await.unwrap(), 10);
    assert_eq!(server.calls_of("type").await.unwrap(), 1);
}

#[tokio::test]
async fn activation_is_strictly_above_its_threshold() {
    let server = RedisServer::start_open(LOOPBACK).await.unwrap();
    let address = server.address().to_string();
    let metadata = [("listName", "orders"), ("activationListLength", "3")];
    let trigger = trigger("redis", &address, &metadata, &[]);
    server.push("orders", 3).await.unwrap();
    assert!(!read(&trigger).await.unwrap().active);
    server.push("orders", 1).await.unwrap();
    assert!(read(&trigger).await.unwrap().active);
}

#[tokio::test]
async fn databases_are_apart() {
    let server = RedisServer::start_open(LOOPBACK).await.unwrap();
    let address = server.address().to_string();
    server.push("orders", 1).await.unwrap();
    server
        .command(&["-n", "3", "RPUSH", "orders", "a", "b"])
        .await
        .unwrap();
    let of = |index| {
        trigger(
            "redis",
            &address,
            &[("listName", "orders"), ("databaseIndex", index)],
            &[],
        )
    };
    assert_eq!(value(&of("0")).await, 1.0);
    assert_eq!(value(&of("3")).await, 2.0);
    let error = failure(&of("99")).await;
    assert!(
        error.message.contains("no database of this databaseIndex"),
        "{error}"
    );
}

#[tokio::test]
async fn triggers_on_the_same_server_share_one_connection() {
    let server = RedisServer::start_open(LOOPBACK).await.unwrap();
    let address = server.address().to_string();
    let clients = context(params("redis", &[], &[])).clients;
    let on = |list: &str, database: &str| {
        let metadata = [
            ("address", address.as_str()),
            ("listName", list),
            ("databaseIndex", database),
        ];
        let mut cx = context(params("redis", &metadata, &[]));
        cx.clients = Arc::clone(&clients);
        connect(&cx).unwrap()
    };
    let lists: Vec<_> = (0..50).map(|n| on(&format!("list-{n}"), "0")).collect();
    let reads = lists.iter().map(read);
    assert!(futures::future::join_all(reads).await.iter().all(Result::is_ok));
    let connections = async || server.connections_of("default").await.unwrap();
    // One is that of the command that counts them.
    assert_eq!(connections().await, 2);
    let other = on("list-0", "1");
    value(&other).await;
    assert_eq!(connections().await, 3);
    drop((lists, other));
    for _ in 0..50 {
        if connections().await == 1 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("connections that no trigger holds stay open");
}
