//! The cluster's network namespace. Private address ranges belong to the test run only inside it.
//!
//! It is entered with `nsenter`, never with `ip netns exec`: that one remounts /sys and so hides the cgroup mounts
//! that the container runtime needs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::layout::{Layout, NODE_ADDRESS};
use crate::process::{SHORT, output, succeeds};

pub(super) fn exists(layout: &Layout) -> bool {
    // A file alone may be left from a namespace that is gone; `ip` can only enter a real one.
    layout.namespace().exists() && succeeds(ip(layout).args(["link", "show", "lo"]), SHORT)
}

/// Creates the namespace with the node's address in it.
pub(super) fn ensure(layout: &Layout) -> Result<()> {
    if !exists(layout) {
        output(Command::new("ip").args(["netns", "add", layout.name()]), SHORT)?;
    }
    ip_run(layout, "link set lo up")?;
    // The node's address needs a device, and this may be a kernel without dummy devices: a bridge does as well.
    if !succeeds(ip(layout).args(["link", "show", "node0"]), SHORT) {
        ip_run(layout, "link add node0 type bridge")?;
        ip_run(layout, &format!("addr add {NODE_ADDRESS}/24 dev node0"))?;
        ip_run(layout, "link set node0 up")?;
        ip_run(layout, &format!("route add default via {NODE_ADDRESS} dev node0"))?;
    }
    Ok(())
}

/// Whether this very process is in the namespace.
pub(super) fn is_inside(layout: &Layout) -> bool {
    let inode = |path: &Path| {
        fs::metadata(path)
            .map(|namespace| (namespace.dev(), namespace.ino()))
            .ok()
    };
    let own = inode(Path::new("/proc/self/ns/net"));
    own.is_some() && own == inode(&layout.namespace())
}

/// The processes that are in the namespace now.
pub(super) fn processes(layout: &Layout) -> Vec<i32> {
    let list = output(Command::new("ip").args(["netns", "pids", layout.name()]), SHORT).unwrap_or_default();
    list.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

pub(super) fn remove(layout: &Layout) -> Result<()> {
    output(Command::new("ip").args(["netns", "del", layout.name()]), SHORT).map(drop)
}

fn ip(layout: &Layout) -> Command {
    let mut ip = Command::new("ip");
    ip.args(["-n", layout.name()]);
    ip
}

fn ip_run(layout: &Layout, arguments: &str) -> Result<()> {
    let outcome = output(ip(layout).args(arguments.split(' ')), SHORT);
    outcome
        .context("unable to set up the cluster's network")
        .map(drop)
}
