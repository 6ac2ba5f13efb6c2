use std::time::Duration;

use dormouse_scalers::error::ReadErrorKind;
use dormouse_test_servers::redis::{ADMIN_PASSWORD, RedisCluster};

use super::{LOOPBACK, failure, reads_until, trigger, value};

const LISTS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

#[tokio::test]
async fn any_node_leads_to_the_one_that_has_the_key() {
    let cluster = RedisCluster::start(LOOPBACK, false, true).await.unwrap();
    let auth = [("password", ADMIN_PASSWORD)];
    let first = cluster.nodes()[0].address().to_string();
    let mut owners = std::collections::BTreeSet::new();
    for (index, list) in LISTS.iter().enumerate() {
        let owner = cluster.owner_of(list).await.unwrap();
        owners.insert(owner);
        cluster.nodes()[owner].push(list, index + 1).await.unwrap();
        let list = trigger("redis-cluster", &first, &[("listName", list)], &auth);
        assert_eq!(value(&list).await, (index + 1) as f64);
    }
    assert!(owners.len() > 1, "the keys must not all be at one node");

    let owner = cluster.owner("stream").await.unwrap();
    owner.add("stream", 3).await.unwrap();
    let metadata = [
        ("stream", "stream"),
        ("consumerGroup", "g"),
        ("lagCount", "1"),
        ("databaseIndex", "7"),
    ];
    let stream = trigger("redis-cluster-streams", &cluster.addresses(), &metadata, &auth);
    assert_eq!(value(&stream).await, 3.0);
    let open = trigger("redis-cluster", &first, &[("listName", "a")], &[]);
    let error = failure(&open).await;
    assert!(error.message.contains("NOAUTH"), "{error}");
}

#[tokio::test]
async fn a_slot_that_moves_is_followed() {
    let cluster = RedisCluster::start(LOOPBACK, false, false).await.unwrap();
    let from = cluster.owner_of("orders").await.unwrap();
    let to = (from + 1) % 3;
    cluster.nodes()[from].push("orders", 4).await.unwrap();
    let address = cluster.nodes()[from].address().to_string();
    let list = trigger("redis-cluster", &address, &[("listName", "orders")], &[]);
    assert_eq!(value(&list).await, 4.0);
    cluster.begin_to_move("orders", from, to).await.unwrap();
    assert_eq!(value(&list).await, 4.0, "it is still at the old node");
    cluster.move_key("orders", from, to).await.unwrap();
    assert_eq!(value(&list).await, 4.0, "the old node says ASK");
    assert_eq!(cluster.nodes()[to].calls_of("asking").await.unwrap(), 1);
    cluster.end_the_move("orders", to).await.unwrap();
    assert_eq!(value(&list).await, 4.0, "the old node says MOVED");
    let before = cluster.nodes()[from].calls_of("llen").await.unwrap();
    assert_eq!(value(&list).await, 4.0);
    assert_eq!(
        cluster.nodes()[from].calls_of("llen").await.unwrap(),
        before,
        "the new node is asked at once"
    );
}

#[tokio::test]
async fn a_node_that_dies_is_replaced_by_its_replica() {
    let mut cluster = RedisCluster::start(LOOPBACK, true, false).await.unwrap();
    let owner = cluster.owner_of("orders").await.unwrap();
    cluster.nodes()[owner].push("orders", 2).await.unwrap();
    cluster.nodes()[owner]
        .command(&["WAIT", "1", "5000"])
        .await
        .unwrap();
    let list = trigger(
        "redis-cluster",
        &cluster.addresses(),
        &[("listName", "orders")],
        &[],
    );
    assert_eq!(value(&list).await, 2.0);
    cluster.node_mut(owner).kill().await.unwrap();
    let error = failure(&list).await;
    assert_eq!(
        error.kind,
        ReadErrorKind::Unreachable,
        "nobody has taken over yet: {error}"
    );
    reads_until(
        &list,
        "the replica's answer",
        Duration::from_secs(20),
        |outcome| outcome.as_ref().is_ok_and(|observed| observed.value == 2.0),
    )
    .await;
}

#[tokio::test]
async fn a_cluster_that_misses_a_node_says_so_and_a_dead_seed_does_no_harm() {
    let mut cluster = RedisCluster::start(LOOPBACK, false, false).await.unwrap();
    let owner = cluster.owner_of("orders").await.unwrap();
    let dead = (owner + 1) % 3;
    let seeds = format!(
        "{},{}",
        cluster.nodes()[dead].address(),
        cluster.nodes()[owner].address()
    );
    let list = trigger("redis-cluster", &seeds, &[("listName", "orders")], &[]);
    cluster.node_mut(dead).kill().await.unwrap();
    assert_eq!(value(&list).await, 0.0, "the other seed answers");
    reads_until(
        &list,
        "the cluster to notice",
        Duration::from_secs(20),
        |outcome| {
            outcome
                .as_ref()
                .is_err_and(|error| error.message.contains("CLUSTERDOWN"))
        },
    )
    .await;
}
