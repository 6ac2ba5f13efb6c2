//! A network that swallows every packet between the operator and the API server, and tells neither of them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};

use crate::cluster::{KUBECTL_DEADLINE, NODE_ADDRESS};
use crate::command;

/// Where the API server listens, in the test cluster, and where pods believe it to be.
const API_PORT: u16 = 6443;
const SERVICE: &str = "10.96.0.1";
/// Where the API server calls the operator for metrics.
const METRICS_PORT: u16 = 6443;

const NFT: &str = "/usr/sbin/nft";

/// Packets vanish, both ways, until this value goes.
pub struct BlackHole {
    table: String,
}

impl BlackHole {
    /// Cuts the pods with these addresses off from the API server, connections that are open included. The kubelet's
    /// probes and everything else still get through.
    ///
    /// # Errors
    /// When nftables refuses, as outside the cluster's network.
    pub async fn around(pods: &[String]) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        ensure!(!pods.is_empty(), "there is no pod to cut off");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let table = format!("black_hole_{}_{number}", std::process::id());
        let pods = format!("{{ {} }}", pods.join(", "));
        let rules = format!(
            "table ip {table} {{
                chain from_pods {{
                    type filter hook prerouting priority raw; policy accept;
                    ip saddr {pods} ip daddr {SERVICE} drop
                    ip saddr {pods} ip daddr {NODE_ADDRESS} tcp dport {API_PORT} drop
                    ip saddr {pods} tcp sport {METRICS_PORT} drop
                }}
                chain to_pods {{
                    type filter hook output priority raw; policy accept;
                    ip daddr {pods} tcp sport {API_PORT} drop
                    ip daddr {pods} tcp dport {METRICS_PORT} drop
                }}
            }}"
        );
        // Made before the rules are there: a call that is given up halfway leaves nothing either.
        let this = Self { table };
        command::run(Path::new(NFT), ["-f", "-"], Some(&rules), KUBECTL_DEADLINE)
            .await
            .context("unable to cut the operator off from the API server")?;
        Ok(this)
    }
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        let _ = Command::new(NFT)
            .args(["delete", "table", "ip", &self.table])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}
