//! Takes a cluster apart so that nothing of it stays: processes, mounts, cgroups, namespaces, files.
//!
//! Nobody needs a graceful end here, since all data goes with the cluster: what would otherwise start things again
//! is killed first, then the pods, then the runtime. Every step works on what it finds, so that half a cluster goes
//! away as well as a whole one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::layout::Layout;
use super::{cgroups, components, network};
use crate::daemon::Identity;
use crate::process::{SHORT, output};

pub(super) fn down(layout: &Layout) -> Result<()> {
    if network::is_inside(layout) {
        bail!("this process runs inside the cluster's own network: leave its shell first");
    }
    let daemons = layout.daemons();
    for name in components::NAMES
        .iter()
        .rev()
        .filter(|name| **name != "containerd")
    {
        daemons.stop(name, Duration::ZERO)?;
    }
    kill(|| cgroups::processes(layout))?;
    daemons.stop("containerd", Duration::ZERO)?;
    kill(|| shims(layout))?;
    let sockets = shim_sockets(layout);
    unmount(layout.state())?;
    if network::exists(layout) {
        kill(|| network::processes(layout))?;
        network::remove(layout)?;
    } else if layout.namespace().exists() {
        fs::remove_file(layout.namespace())
            .context("unable to remove the name of a namespace that is gone")?;
    }
    cgroups::remove(layout)?;
    for file in sockets
        .into_iter()
        .chain(pod_network_results(layout))
        .chain(log_links(layout))
    {
        remove_file(&file)?;
    }
    // The kubelet's one path that no setting moves.
    remove_file(Path::new("/var/lib/kubelet/device-plugins/kubelet.sock"))?;
    remove_all(layout.state())?;
    // Directories that the runtime makes outside of its own; somebody else's contents keep them.
    let shared = [
        layout.home(),
        Path::new("/run/containerd/s"),
        Path::new("/run/containerd"),
        Path::new("/var/lib/cni/results"),
        Path::new("/var/lib/cni"),
        Path::new("/var/lib/kubelet/device-plugins"),
        Path::new("/var/lib/kubelet"),
        Path::new("/var/log/containers"),
    ];
    for dir in shared {
        let _ = fs::remove_dir(dir);
    }
    Ok(())
}

/// Kills what `list` finds until it finds nothing: a process may fork while it is being killed.
fn kill(list: impl Fn() -> Vec<i32>) -> Result<()> {
    for _ in 0..50 {
        let found: Vec<_> = list().into_iter().filter_map(Identity::of).collect();
        if found.is_empty() {
            return Ok(());
        }
        found
            .iter()
            .try_for_each(|process| process.signal(rustix::process::Signal::KILL))?;
        found
            .iter()
            .try_for_each(|process| process.stop(Duration::ZERO))?;
    }
    bail!("new processes keep appearing in the cluster: {:?}", list())
}

/// The runtime's shims, known by the socket of this cluster's containerd on their command line.
fn shims(layout: &Layout) -> Vec<i32> {
    let socket = layout.containerd_socket();
    let pids = entries(Path::new("/proc"))
        .into_iter()
        .filter_map(|dir| dir.file_name()?.to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words
            .next()
            .is_some_and(|program| program.ends_with(b"containerd-shim-runc-v2"))
            && words.any(|word| word == socket.as_os_str().as_encoded_bytes())
    })
    .collect()
}

/// The shims' sockets lie in a directory that all containerds share; each task's directory names its own.
fn shim_sockets(layout: &Layout) -> Vec<PathBuf> {
    let tasks = layout.file("containerd/state/io.containerd.runtime.v2.task/k8s.io");
    let addresses = directories(&tasks)
        .into_iter()
        .filter_map(|task| fs::read_to_string(task.join("address")).ok());
    addresses
        .filter_map(|address| address.strip_prefix("unix://").map(PathBuf::from))
        .collect()
}

/// What the network plugins remembered about pods whose end they did not see; each file names its sandbox.
fn pod_network_results(layout: &Layout) -> Vec<PathBuf> {
    let sandboxes = entries(&layout.file("containerd/root/io.containerd.grpc.v1.cri/sandboxes"));
    let sandboxes: Vec<_> = sandboxes
        .iter()
        .filter_map(|dir| dir.file_name()?.to_str())
        .collect();
    let ours = |path: &PathBuf| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        sandboxes.iter().any(|sandbox| name.contains(sandbox))
    };
    entries(Path::new("/var/lib/cni/results"))
        .into_iter()
        .filter(ours)
        .collect()
}

/// The kubelet links every container's log into one fixed directory.
fn log_links(layout: &Layout) -> Vec<PathBuf> {
    let logs = layout.file("pod-logs");
    let links = entries(Path::new("/var/log/containers"));
    links
        .into_iter()
        .filter(|link| fs::read_link(link).is_ok_and(|target| target.starts_with(&logs)))
        .collect()
}

fn unmount(state: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("unable to list the mounts")?;
    let mut points = mount_points_below(&mounts, state);
    // The innermost first.
    points.sort();
    for point in points.iter().rev() {
        output(
            std::process::Command::new("umount")
                .args(["--lazy", "--"])
                .arg(point),
            SHORT,
        )?;
    }
    // The files below are removed next: nothing of anybody else's may still be mounted among them.
    let mounts = fs::read_to_string("/proc/self/mounts").context("unable to list the mounts")?;
    match mount_points_below(&mounts, state).first() {
        Some(point) => bail!("{} is still mounted", point.display()),
        None => Ok(()),
    }
}

fn mount_points_below(mounts: &str, dir: &Path) -> Vec<PathBuf> {
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    points
        .map(PathBuf::from)
        .filter(|point| point.starts_with(dir))
        .collect()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|item| item.ok().map(|item| item.path()))
        .collect()
}

fn directories(dir: &Path) -> Vec<PathBuf> {
    entries(dir).into_iter().filter(|path| path.is_dir()).collect()
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("unable to remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn remove_all(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("unable to remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_inside_the_state_directory_are_taken() {
        let mounts =
            "a /s/one/x overlay rw 0 0\nb /s/one tmpfs rw 0 0\nc /s/one-more tmpfs rw 0 0\nd / ext4 rw 0 0\n";
        let points = mount_points_below(mounts, Path::new("/s/one"));
        assert_eq!(points, [PathBuf::from("/s/one/x"), PathBuf::from("/s/one")]);
    }
}
