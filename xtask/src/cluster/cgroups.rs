//! The cgroup below which all pods run: one directory in each hierarchy, so that two clusters on a machine never
//! clean up after each other, and so that everything in it may be killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::layout::Layout;
use crate::process::nap;

const BASE: &str = "/sys/fs/cgroup";

/// Whether this machine has only the one hierarchy of cgroup version 2.
pub(super) fn is_unified() -> bool {
    Path::new(BASE).join("cgroup.controllers").exists()
}

/// Creates the directories.
pub(super) fn ensure(layout: &Layout) -> Result<()> {
    for dir in directories(layout) {
        fs::create_dir_all(&dir).with_context(|| format!("unable to create the cgroup {}", dir.display()))?;
        // A new cpuset is empty, and nothing can run in an empty one.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (parent, own) = (dir.with_file_name(file), dir.join(file));
            if !is_unified() && own.exists() {
                let value =
                    fs::read(&parent).with_context(|| format!("unable to read {}", parent.display()))?;
                fs::write(&own, value).with_context(|| format!("unable to write {}", own.display()))?;
            }
        }
    }
    Ok(())
}

/// The processes in it and below it.
pub(super) fn processes(layout: &Layout) -> Vec<i32> {
    directories(layout).iter().flat_map(|dir| members(dir)).collect()
}

/// Removes the directories; every process must have left.
pub(super) fn remove(layout: &Layout) -> Result<()> {
    directories(layout)
        .iter()
        .filter(|dir| dir.exists())
        .try_for_each(|dir| remove_tree(dir))
}

/// The cluster's directory in each hierarchy: many with version 1, one with version 2.
fn directories(layout: &Layout) -> Vec<PathBuf> {
    let base = Path::new(BASE);
    let hierarchies = if is_unified() {
        vec![base.to_owned()]
    } else {
        below(base)
    };
    // Links such as cpu,cpuacct lead to hierarchies that are listed anyway.
    let real = hierarchies
        .into_iter()
        .filter(|dir| !dir.is_symlink() && dir.join("cgroup.procs").exists());
    real.map(|dir| dir.join(layout.cgroup().trim_start_matches('/')))
        .collect()
}

fn members(cgroup: &Path) -> Vec<i32> {
    let own = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let inner = below(cgroup).into_iter().flat_map(|dir| members(&dir));
    own.lines()
        .filter_map(|line| line.parse().ok())
        .chain(inner)
        .collect()
}

fn remove_tree(cgroup: &Path) -> Result<()> {
    below(cgroup).iter().try_for_each(|dir| remove_tree(dir))?;
    // The kernel counts a dead process for a moment longer.
    for attempt in 0.. {
        match fs::remove_dir(cgroup) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy && attempt < 50 => {
                nap(Duration::from_millis(20));
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error)
                    .with_context(|| format!("unable to remove the cgroup {}", cgroup.display()));
            }
            _ => break,
        }
    }
    Ok(())
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let items = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|item| item.ok().map(|item| item.path()));
    items.filter(|path| path.is_dir()).collect()
}
