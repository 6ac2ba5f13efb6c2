//! Things that take long to make and depend only on known inputs: made once per machine, outside the work tree.
//!
//! An entry is a directory under `$XDG_CACHE_HOME/dormouse` (or `~/.cache/dormouse`), named by what it is and by
//! a digest of everything that went into it. It counts only once its marker is there, which is written last, under
//! a lock: an interrupted build leaves nothing that looks finished. Entries are built in place because a Python
//! environment cannot be moved.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

const MARKER: &str = ".complete";
const KEPT_PER_KIND: usize = 2;

/// A digest over parts, each length-prefixed, so that two different lists never give the same bytes.
pub(crate) struct Digest(Sha256);

impl Digest {
    pub(crate) fn new() -> Self {
        Self(Sha256::new())
    }

    pub(crate) fn add(&mut self, part: &[u8]) -> &mut Self {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    pub(crate) fn file(&mut self, path: &Path) -> Result<&mut Self> {
        let content = fs::read(path).with_context(|| format!("unable to read {}", path.display()))?;
        Ok(self.add(&content))
    }

    /// Sixteen hexadecimal digits: short enough for a socket's path, long enough for a handful of entries.
    pub(crate) fn finish(self) -> String {
        self.0
            .finalize()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// Where this machine keeps what is worth keeping.
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The user's cache directory; nothing is created yet.
    pub(crate) fn open() -> Result<Self> {
        let absolute = |name: &str| {
            env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let base = absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .context(
                "neither XDG_CACHE_HOME nor HOME is an absolute path: one of them must say where to cache",
            )?;
        Ok(Self {
            root: base.join("dormouse"),
        })
    }

    #[cfg(test)]
    fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Returns the entry's directory, after `build` filled it if it was not there.
    pub(crate) fn entry(
        &self,
        kind: &str,
        digest: &str,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let home = self.root.join(kind);
        let entry = home.join(digest);
        fs::create_dir_all(&home).with_context(|| format!("unable to create {}", home.display()))?;
        let lock = File::create(home.join(".lock")).context("unable to create a lock file in the cache")?;
        lock.lock().context("unable to lock the cache")?;
        let marker = entry.join(MARKER);
        if !marker.exists() {
            remove_if_there(&entry)?;
            fs::create_dir(&entry).with_context(|| format!("unable to create {}", entry.display()))?;
            build(&entry)?;
        }
        // Rewritten on each use: its time says which entries are out of use.
        fs::write(&marker, b"").context("unable to mark a cache entry as complete")?;
        prune(&home, &entry)?;
        Ok(entry)
    }
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("unable to remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Keeps the entries that were used last.
fn prune(home: &Path, keep: &Path) -> Result<()> {
    let mut entries: Vec<(SystemTime, PathBuf)> = Vec::new();
    for item in fs::read_dir(home).with_context(|| format!("unable to list {}", home.display()))? {
        let path = item.context("unable to list the cache")?.path();
        if path.is_dir() && path != keep {
            let used = fs::metadata(path.join(MARKER)).and_then(|marker| marker.modified());
            entries.push((used.unwrap_or(SystemTime::UNIX_EPOCH), path));
        }
    }
    entries.sort_by(|left, right| right.cmp(left));
    entries
        .iter()
        .skip(KEPT_PER_KIND - 1)
        .try_for_each(|(_, path)| remove_if_there(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_depends_on_where_one_part_ends() {
        let of = |parts: &[&str]| {
            let mut digest = Digest::new();
            for part in parts {
                digest.add(part.as_bytes());
            }
            digest.finish()
        };
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_eq!(of(&[]).len(), 16);
    }

    #[test]
    fn an_entry_is_built_once_and_an_unfinished_one_again() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path());
        let mut builds = 0;
        let mut build = |dir: &Path, text: &str| {
            builds += 1;
            fs::write(dir.join("part"), text).unwrap();
            anyhow::ensure!(text == "good", "interrupted");
            Ok(())
        };
        assert!(cache.entry("kind", "k", |dir| build(dir, "bad")).is_err());
        let entry = cache.entry("kind", "k", |dir| build(dir, "good")).unwrap();
        cache.entry("kind", "k", |dir| build(dir, "again")).unwrap();
        assert_eq!(builds, 2);
        assert_eq!(fs::read_to_string(entry.join("part")).unwrap(), "good");
    }

    #[test]
    fn old_entries_go() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path());
        for key in ["a", "b", "c", "d", "e"] {
            cache.entry("kind", key, |_| Ok(())).unwrap();
        }
        let left = fs::read_dir(root.path().join("kind"))
            .unwrap()
            .filter(|item| item.as_ref().unwrap().path().is_dir());
        assert_eq!(left.count(), KEPT_PER_KIND);
    }
}
