//! What the API server refused, by its own account.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::permission::Right;

/// The audit log from a moment on.
pub(crate) struct Audit {
    file: PathBuf,
    from: u64,
}

impl Audit {
    /// From now on.
    pub(crate) fn from_now() -> Result<Self> {
        let kubeconfig = std::env::var_os("KUBECONFIG").map(PathBuf::from);
        let state = kubeconfig.as_deref().and_then(|file| file.parent());
        let file = state
            .context("KUBECONFIG is not set; run this through `cargo xtask test`")?
            .join("logs/audit.log");
        let from = file.metadata().map_or(0, |data| data.len());
        Ok(Self { file, from })
    }

    /// Whether `user` was refused this right since.
    pub(crate) fn shows_refusal(&self, user: &str, right: &Right) -> Result<bool> {
        let mut text = String::new();
        let mut file = std::fs::File::open(&self.file)
            .with_context(|| format!("unable to open {}", self.file.display()))?;
        file.seek(SeekFrom::Start(self.from)).context("seeking")?;
        file.read_to_string(&mut text).context("reading the audit log")?;
        let refused = |line: &str| {
            let Ok(event) = serde_json::from_str::<Value>(line) else {
                return false;
            };
            let object = &event["objectRef"];
            let mut resource = object["resource"].as_str().unwrap_or_default().to_owned();
            if let Some(part) = object["subresource"].as_str() {
                resource = format!("{resource}/{part}");
            }
            // Setting an owner reference that blocks is not a request of its own: the answer to another one tells.
            let blocks = resource_blocks(&event, user, right);
            blocks
                || event["annotations"]["authorization.k8s.io/decision"] == "forbid"
                    && event["user"]["username"] == user
                    && event["verb"] == *right.verb
                    && object["apiGroup"].as_str().unwrap_or_default() == right.group
                    && resource == right.resource
        };
        Ok(text.lines().any(refused))
    }
}

fn resource_blocks(event: &Value, user: &str, right: &Right) -> bool {
    let told = event["responseStatus"]["message"].as_str().unwrap_or_default();
    right.resource.ends_with("/finalizers")
        && event["user"]["username"] == user
        && event["responseStatus"]["code"] == 403
        && told.contains("blockOwnerDeletion")
}
