//! A build directory that fresh clones share, on CI machines only.
//!
//! Cargo decides by file times whether a workspace crate must be rebuilt, and it stores paths relative to the
//! workspace: in a shared directory, a clone with older files than the last build would get another clone's code.
//! So one run at a time holds the directory, and a clone that was not the last to use it gets the current time on
//! all its files first. Registry crates are known by version, features and flags, and are shared as they are.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use crate::cache::{Cache, Digest};
use crate::process::{SHORT, output};
use crate::progress::{say, step};
use crate::workspace::Workspace;

/// Old versions of crates stay behind in a directory that is used for long, so it is emptied at this size.
const LARGEST: u64 = 25 << 30;

/// Held for as long as the shared directory is in use.
pub(crate) struct SharedTarget {
    _lock: Option<File>,
}

/// Makes cargo build into the shared directory, if this is a CI machine that does not already say where to build.
pub(crate) fn share(workspace: &mut Workspace, cache: &Cache) -> Result<SharedTarget> {
    let is_ci = env::var_os("CI").is_some_and(|value| value == "true");
    if !is_ci || env::var_os("CARGO_TARGET_DIR").is_some() {
        return Ok(SharedTarget { _lock: None });
    }
    let mut digest = Digest::new();
    for file in ["rust-toolchain.toml", ".cargo/config.toml"] {
        digest.file(&workspace.path(file))?;
    }
    let target = cache.entry("target", &digest.finish(), |_| Ok(()))?;
    let lock = File::create(target.join(".in-use")).context("unable to create the build directory's lock")?;
    if lock.try_lock().is_err() {
        say("    waiting for the build directory, which another run uses");
        lock.lock().context("unable to lock the build directory")?;
    }
    if size(&target) > LARGEST {
        step("emptying the build directory, which has grown too large", || {
            empty(&target)
        })?;
    }
    let (marker, user) = (target.join(".last-user"), identity(workspace.root())?);
    if fs::read_to_string(&marker).ok().as_ref() != Some(&user) {
        touch(workspace)?;
        fs::write(&marker, &user).context("unable to note who uses the build directory")?;
    }
    say(format_args!(
        "    builds go to {}, because CI=true",
        target.display()
    ));
    workspace.build_into(target);
    Ok(SharedTarget { _lock: Some(lock) })
}

/// The bytes of all files below a directory. What cannot be read counts as nothing.
fn size(dir: &Path) -> u64 {
    let items = fs::read_dir(dir).into_iter().flatten().flatten();
    items
        .map(|item| match item.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&item.path()),
            // Cargo links one file under two names.
            Ok(metadata) => metadata.len() / metadata.nlink().max(1),
            Err(_) => 0,
        })
        .sum()
}

/// Removes what cargo made; the files whose names begin with a dot are not cargo's.
fn empty(dir: &Path) -> Result<()> {
    for item in fs::read_dir(dir).context("unable to list the build directory")? {
        let item = item.context("unable to list the build directory")?;
        if item.path().is_dir() && !item.file_name().to_string_lossy().starts_with('.') {
            fs::remove_dir_all(item.path()).context("unable to empty the build directory")?;
        }
    }
    Ok(())
}

/// Names this clone and no later one at the same path.
fn identity(root: &Path) -> Result<String> {
    let metadata = fs::metadata(root.join("Cargo.toml")).context("unable to look at the work tree")?;
    let (born, inode) = (metadata.created().ok(), metadata.ino());
    Ok(format!("{} {}:{inode} {born:?}", root.display(), metadata.dev()))
}

fn touch(workspace: &Workspace) -> Result<()> {
    let mut git = Command::new("git");
    let list = output(
        git.args(["ls-files", "-co", "--exclude-standard", "-z"])
            .current_dir(workspace.root()),
        SHORT,
    )?;
    let now = SystemTime::now();
    for name in list.split('\0').filter(|name| !name.is_empty()) {
        // A file that is listed may have been deleted.
        if let Ok(file) = File::options().append(true).open(workspace.path(name)) {
            file.set_modified(now)
                .with_context(|| format!("unable to set the time of {name}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cargo_made_is_measured_once_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("ci/deps");
        fs::create_dir_all(&made).unwrap();
        fs::write(made.join("a"), [0; 100]).unwrap();
        fs::hard_link(made.join("a"), dir.path().join("ci/a")).unwrap();
        fs::write(dir.path().join(".in-use"), b"").unwrap();
        assert_eq!(size(dir.path()), 100);
        empty(dir.path()).unwrap();
        assert_eq!(size(dir.path()), 0);
        assert!(dir.path().join(".in-use").exists());
    }

    #[test]
    fn a_clone_made_anew_at_the_same_path_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = dir.path().join("Cargo.toml");
        fs::write(&manifest, "").unwrap();
        let first = identity(dir.path()).unwrap();
        assert_eq!(first, identity(dir.path()).unwrap());
        // Both exist for a moment, so that the new file cannot get the old one's number.
        fs::write(dir.path().join("new"), "").unwrap();
        fs::rename(dir.path().join("new"), &manifest).unwrap();
        assert_ne!(first, identity(dir.path()).unwrap());
    }
}
