//! What service accounts asked of the API server and how it answered, by its own account. The audit policy of the test
//! cluster says what of that is noted: all writes of namespace `keda`, with the bodies of those that change a Deployment's scale.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

const CURRENT: &str = "audit.log";

/// The audit log from a moment on.
pub struct AuditLog {
    folder: PathBuf,
    from: u64,
}

impl AuditLog {
    /// From now on.
    ///
    /// # Errors
    /// Not run by `cargo xtask test`, which says where the cluster is.
    pub fn from_now() -> Result<Self> {
        let kubeconfig = std::env::var_os("KUBECONFIG").map(PathBuf::from);
        let state = kubeconfig.as_deref().and_then(Path::parent);
        let folder = state
            .context("KUBECONFIG is not set; run this through `cargo xtask test`")?
            .join("logs");
        let from = folder.join(CURRENT).metadata().map_or(0, |data| data.len());
        Ok(Self { folder, from })
    }

    /// Those of its events since that are `wanted`, as `audit.k8s.io/v1` has them. One that is written just now is left out.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn events(&self, wanted: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
        let text = self.text()?;
        let events = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        Ok(events.filter(wanted).collect())
    }

    fn text(&self) -> Result<String> {
        let current = self.folder.join(CURRENT);
        let length = current.metadata().map_or(0, |data| data.len());
        if length >= self.from {
            return read(&current, self.from);
        }
        // It was full and has got another name, and a new one was begun.
        let mut text = String::new();
        if let Some(former) = self.former()? {
            text = read(&former, self.from)?;
        }
        Ok(text + &read(&current, 0)?)
    }

    fn former(&self) -> Result<Option<PathBuf>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).context("listing the logs")? {
            let name = entry.context("listing the logs")?.file_name();
            // audit-<when>.log
            if name.to_str().is_some_and(|name| name.starts_with("audit-")) {
                names.push(name);
            }
        }
        Ok(names.into_iter().max().map(|name| self.folder.join(name)))
    }
}

fn read(file: &Path, from: u64) -> Result<String> {
    let mut text = String::new();
    let mut open = File::open(file).with_context(|| format!("unable to open {}", file.display()))?;
    open.seek(SeekFrom::Start(from)).context("seeking")?;
    open.read_to_string(&mut text).context("reading the audit log")?;
    Ok(text)
}
