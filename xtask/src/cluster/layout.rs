//! Names, addresses and files of a cluster.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::daemon::Daemons;

/// The one node.
pub(crate) const NODE: &str = "node0";
/// The node's address, on a bridge of its own: the API server refuses loopback addresses in EndpointSlices.
pub(crate) const NODE_ADDRESS: &str = "10.10.0.1";
/// Where pods get their addresses from.
pub(crate) const POD_RANGE: &str = "10.244.0.0/24";
/// Where Services get theirs from; the first one is the API server's.
pub(crate) const SERVICE_RANGE: &str = "10.96.0.0/16";
/// The API server's Service address, the first of [`SERVICE_RANGE`].
pub(crate) const API_SERVICE: &str = "10.96.0.1";
/// The name server's Service address; tests/cluster/coredns.yaml has it too.
pub(crate) const DNS_ADDRESS: &str = "10.96.0.10";

const HOME: &str = "/var/lib/dormouse-cluster";
const NAME_LIMIT: usize = 15;

/// Where a cluster keeps what.
pub(crate) struct Layout {
    name: String,
    state: PathBuf,
}

impl Layout {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > NAME_LIMIT || name.starts_with('-') || !name.chars().all(fits) {
            bail!(
                "{name:?} is no cluster name: accepted are 1 to {NAME_LIMIT} of a-z, 0-9 and -, not - first"
            );
        }
        Ok(Self {
            name: name.to_owned(),
            state: Path::new(HOME).join(name),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// The directory that all clusters of this machine share; empty when there is none.
    pub(crate) fn home(&self) -> &Path {
        Path::new(HOME)
    }

    pub(crate) fn file(&self, relative: &str) -> PathBuf {
        self.state.join(relative)
    }

    /// A file's path, where a program wants it as text.
    pub(crate) fn text(&self, relative: &str) -> String {
        self.file(relative).display().to_string()
    }

    /// The kubeconfig of the cluster's administrator.
    pub(crate) fn admin(&self) -> PathBuf {
        self.file("admin.kubeconfig")
    }

    pub(crate) fn containerd_socket(&self) -> PathBuf {
        self.file("containerd.sock")
    }

    pub(crate) fn namespace(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// The cgroup below which all pods run, in each hierarchy of /sys/fs/cgroup.
    pub(crate) fn cgroup(&self) -> String {
        format!("/{}-cluster", self.name)
    }

    pub(crate) fn lock(&self, purpose: &str) -> PathBuf {
        Path::new("/run").join(format!("{}.{purpose}.lock", self.name))
    }

    pub(crate) fn daemons(&self) -> Daemons {
        Daemons::new(self.file("run"), self.file("logs"))
    }

    /// Creates the directories; what is there stays.
    pub(crate) fn create(&self) -> Result<()> {
        for dir in [
            "run",
            "logs",
            "pki",
            "cni",
            "volume-plugins",
            "kubelet",
            "containerd",
        ] {
            fs::create_dir_all(self.file(dir))
                .with_context(|| format!("unable to create {}", self.text(dir)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_enough_for_a_network_device_and_has_no_path_in_it() {
        assert!(Layout::new("dormouse").is_ok());
        for bad in ["", "-x", "../etc", "A", "a-name-that-is-too-long"] {
            assert!(Layout::new(bad).is_err(), "{bad}");
        }
    }
}
