//! What the API server was asked by service accounts and how it answered, by its own account. The audit policy of the test
//! cluster notes the accounts of Dormouse's namespaces.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The audit log from a moment on.
pub struct AuditLog {
    file: PathBuf,
    from: u64,
}

impl AuditLog {
    /// From now on.
    ///
    /// # Errors
    /// Not run by `cargo xtask test`, which says where the cluster is.
    pub fn from_now() -> Result<Self> {
        let kubeconfig = std::env::var_os("KUBECONFIG").map(PathBuf::from);
        let state = kubeconfig.as_deref().and_then(|file| file.parent());
        let file = state
            .context("KUBECONFIG is not set; run this through `cargo xtask test`")?
            .join("logs/audit.log");
        let from = file.metadata().map_or(0, |data| data.len());
        Ok(Self { file, from })
    }

    /// Its events since, as `audit.k8s.io/v1` has them. One that is written just now is left out.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn events(&self) -> Result<Vec<Value>> {
        let mut text = String::new();
        let mut file = std::fs::File::open(&self.file)
            .with_context(|| format!("unable to open {}", self.file.display()))?;
        file.seek(SeekFrom::Start(self.from)).context("seeking")?;
        file.read_to_string(&mut text).context("reading the audit log")?;
        Ok(text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }
}
