//! A build directory that fresh clones share, on CI machines only.
//!
//! Cargo decides by file times whether a workspace crate must be rebuilt, and it stores paths relative to the
//! workspace: in a shared directory, a clone with older files than the last build would get another clone's code.
//! So one run at a time holds the directory, and a clone that was not the last to use it gets the current time on
//! all its files first. Registry crates are known by version and checksum and are shared as they are.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use crate::cache::{Cache, Digest};
use crate::process::{SHORT, output};
use crate::progress::say;
use crate::workspace::Workspace;

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
    for file in ["Cargo.lock", "rust-toolchain.toml", ".cargo/config.toml"] {
        digest.file(&workspace.path(file))?;
    }
    let target = cache.entry("target", &digest.finish(), |_| Ok(()))?;
    let lock = File::create(target.join(".in-use")).context("unable to create the build directory's lock")?;
    if lock.try_lock().is_err() {
        say("    waiting for the build directory, which another run uses");
        lock.lock().context("unable to lock the build directory")?;
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

/// Names this clone and no later one at the same path.
fn identity(root: &Path) -> Result<String> {
    let metadata = fs::metadata(root.join("Cargo.toml")).context("unable to look at the work tree")?;
    Ok(format!(
        "{} {}:{}",
        root.display(),
        metadata.dev(),
        metadata.ino()
    ))
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
