//! Programs that come from the distribution. Their versions are those of the distribution's release: a pinned
//! version would disappear from the mirrors with the next security update.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::is_root;
use crate::process::{LONG, SHORT, run, succeeds};
use crate::progress::step;

/// A Debian package and a file that shows that it is there.
pub(crate) type Package = (&'static str, &'static [&'static str]);

/// What the node and the making of images need.
pub(crate) const CLUSTER: &[Package] = &[
    ("containerd", &["/usr/bin/containerd", "/usr/bin/ctr"]),
    ("runc", &["/usr/sbin/runc", "/usr/bin/runc"]),
    ("containernetworking-plugins", &["/usr/lib/cni/bridge"]),
    ("nftables", &["/usr/sbin/nft", "/sbin/nft"]),
    ("iproute2", &["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"]),
    ("buildah", &["/usr/bin/buildah"]),
    ("openssl", &["/usr/bin/openssl"]),
    ("util-linux", &["/usr/bin/nsenter"]),
    ("ca-certificates", &["/etc/ssl/certs/ca-certificates.crt"]),
    ("gcc", &["/usr/bin/gcc"]),
    ("make", &["/usr/bin/make"]),
    ("binutils", &["/usr/bin/objcopy"]),
    (
        "libc6-dev",
        &[
            "/usr/lib/x86_64-linux-gnu/libc.a",
            "/usr/lib/aarch64-linux-gnu/libc.a",
        ],
    ),
];

/// The servers that triggers read in tests; moto, the SQS server, is no Debian package.
pub(crate) const SOURCES: &[Package] = &[
    ("prometheus", &["/usr/bin/prometheus"]),
    ("redis-server", &["/usr/bin/redis-server"]),
    ("redis-tools", &["/usr/bin/redis-cli"]),
];

/// What benches compare with.
pub(crate) const PEERS: &[Package] = &[("nginx-light", &["/usr/sbin/nginx"])];

/// Installs the packages that are missing.
pub(crate) fn ensure(packages: &[Package]) -> Result<()> {
    let missing = missing(packages, |file| Path::new(file).exists());
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !is_root() || !succeeds(Command::new("apt-get").arg("--version"), SHORT) {
        bail!("missing on this machine: {names}. On Debian: apt-get install --no-install-recommends {names}");
    }
    step(&format!("installing {names}"), || {
        let apt = || {
            let mut apt = Command::new("apt-get");
            apt.args(["-qq", "-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=300"]);
            apt.env("DEBIAN_FRONTEND", "noninteractive");
            apt
        };
        run(apt().arg("update"), LONG)?;
        let mut install = apt();
        // No service may start by itself: the cluster runs its own.
        install
            .args(["install", "--yes", "--no-install-recommends"])
            .env("RUNLEVEL", "1")
            .args(&missing);
        run(&mut install, LONG).with_context(|| format!("unable to install {names}"))
    })
}

fn missing(packages: &[Package], exists: impl Fn(&str) -> bool) -> Vec<&'static str> {
    packages
        .iter()
        .filter(|(_, files)| !files.iter().any(|file| exists(file)))
        .map(|(name, _)| *name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_of_its_places_shows_a_package() {
        let packages: &[Package] = &[("a", &["/x/a", "/y/a"]), ("b", &["/x/b"])];
        assert_eq!(missing(packages, |file| file == "/y/a"), ["b"]);
        assert_eq!(missing(packages, |_| false), ["a", "b"]);
    }
}
