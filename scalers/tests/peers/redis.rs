//! The redis triggers against real servers on loopback, and against scripted ones for what no real one does on demand.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a server that cannot be set up or a read that fails is the end of its test"
)]

mod cluster;
mod faults;
mod lists;
mod secured;
mod sentinel;
mod streams;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dormouse_scalers::{Observed, ReadError, Trigger};
use dormouse_test_servers::redis::RedisServer;

use crate::support::{connected, params, read};

pub(super) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A `redis` trigger on the list `orders` of an open server.
pub(super) fn list_of(server: &RedisServer) -> Arc<dyn Trigger> {
    trigger(
        "redis",
        &server.address().to_string(),
        &[("listName", "orders")],
        &[],
    )
}

pub(super) fn trigger(
    trigger_type: &str,
    addresses: &str,
    metadata: &[(&str, &str)],
    auth: &[(&str, &str)],
) -> Arc<dyn Trigger> {
    let metadata = [metadata, &[("address", addresses)]].concat();
    connected(params(trigger_type, &metadata, auth))
}

/// The value of a read that succeeds.
pub(super) async fn value(trigger: &Arc<dyn Trigger>) -> f64 {
    match read(trigger).await {
        Ok(observed) => observed.value,
        Err(error) => panic!("the read failed: {error}"),
    }
}

/// The failure of a read.
pub(super) async fn failure(trigger: &Arc<dyn Trigger>) -> ReadError {
    read(trigger).await.expect_err("nothing could be read")
}

/// Reads, once a tick of 200 ms, until a read is as wanted.
pub(super) async fn reads_until(
    trigger: &Arc<dyn Trigger>,
    what: &str,
    deadline: Duration,
    wanted: impl Fn(&Result<Observed, ReadError>) -> bool,
) {
    let began = Instant::now();
    loop {
        let outcome = read(trigger).await;
        if wanted(&outcome) {
            return;
        }
        assert!(
            began.elapsed() < deadline,
            "waited {deadline:?} for {what}; the last read: {outcome:?}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
