//! Programs run with a deadline; what they printed is the answer, or part of the error.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Runs `program` and answers its standard output. The program is killed at the deadline.
///
/// # Errors
/// When it cannot be started, ends with anything but 0, or is not done in time; with what it wrote to standard error.
pub async fn run<A: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
    input: Option<&str>,
    deadline: Duration,
) -> Result<String> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .kill_on_drop(true)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.stdin(if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    });
    let shown = format!("{:?}", command.as_std());
    let mut child = command
        .spawn()
        .with_context(|| format!("unable to start {shown}"))?;
    if let (Some(mut pipe), Some(text)) = (child.stdin.take(), input) {
        let text = text.to_owned();
        tokio::spawn(async move { pipe.write_all(text.as_bytes()).await });
    }
    let Ok(ended) = tokio::time::timeout(deadline, child.wait_with_output()).await else {
        bail!("{shown} was not done after {deadline:?}");
    };
    let ended = ended.with_context(|| format!("unable to wait for {shown}"))?;
    if !ended.status.success() {
        bail!(
            "{shown} ended with {}: {}",
            ended.status,
            String::from_utf8_lossy(&ended.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}
