//! Redis on the node's address, where the operator's pods reach it as well as the test.

use std::net::IpAddr;

use anyhow::{Context as _, Result};

pub use dormouse_test_servers::redis::{
    ADMIN_PASSWORD, MASTER_NAME, RedisCluster, RedisSentinel, RedisServer, SENTINEL_PASSWORD,
};

use crate::cluster::NODE_ADDRESS;

/// The node's address, to start servers on.
///
/// # Errors
/// Never, as long as it is written as one.
pub fn node() -> Result<IpAddr> {
    NODE_ADDRESS
        .parse()
        .context("the node's address is not an IP address")
}
