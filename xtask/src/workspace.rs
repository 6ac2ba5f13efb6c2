//! The source tree this program works on, and how cargo is called in it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// The one profile of tests, checks and the test cluster's pods.
pub(crate) const PROFILE: &str = "ci";

/// The root of the work tree.
#[derive(Clone)]
pub(crate) struct Workspace {
    root: PathBuf,
    target: Option<PathBuf>,
}

impl Workspace {
    /// The work tree that cargo runs this program for, or the one around the current directory. Asked at run time:
    /// a path that was compiled in would be wrong wherever a target directory is shared.
    pub(crate) fn find() -> Result<Self> {
        let from_cargo = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let start = match from_cargo {
            Some(package) => package,
            None => env::current_dir().context("unable to tell the current directory")?,
        };
        let root = start
            .ancestors()
            .find(|dir| dir.join("xtask/Cargo.toml").is_file());
        let root = root.with_context(|| format!("{} is not inside a Dormouse work tree", start.display()))?;
        Ok(Self {
            root: root.to_owned(),
            target: None,
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Lets every later cargo call build into this directory, which other clones use as well.
    pub(crate) fn build_into(&mut self, target: PathBuf) {
        self.target = Some(target);
    }

    /// A cargo call at the root. The flags come from `.cargo/config.toml`, so that each call agrees with what a
    /// developer types; what cargo set for this program's own run is taken away.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.arg(subcommand).current_dir(&self.root);
        let own = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for name in own.filter(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
        if let Some(target) = &self.target {
            // What incremental compilation saved is of no use to the next clone, and a run that was killed can leave it
            // in a state that no longer links.
            cargo
                .env("CARGO_TARGET_DIR", target)
                .env("CARGO_INCREMENTAL", "0");
        }
        cargo
    }
}
