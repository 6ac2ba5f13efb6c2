//! Background processes that outlive this program: started once, recorded, and stopped only if the recorded
//! process is still the one that was started.
//!
//! A pid alone is not an identity, because the kernel hands it out again. The record therefore keeps the start
//! time that the kernel counted for it and the boot it belongs to, and a signal goes through a pidfd that was
//! opened before the comparison: between the look and the signal nothing can slip in.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::process::nap;
use crate::progress::say;

/// Which process this is, and no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pid: i32,
    /// Clock ticks between boot and the process's start.
    start: u64,
    boot: String,
}

impl Identity {
    /// The process that has this pid now; `None` when there is none, or only its zombie.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let start = start_of_live(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self {
            pid,
            start,
            boot: boot.trim().to_owned(),
        })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal to this very process. A process that is gone, or whose pid belongs to another one now, is
    /// left in peace.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(());
        };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
            return Ok(());
        };
        if !self.is_alive() {
            return Ok(());
        }
        match pidfd_send_signal(handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => bail!("unable to signal process {}: {error}", self.pid),
        }
    }

    /// Asks the process to end, and kills it when it has not within `grace`.
    pub(crate) fn stop(&self, grace: Duration) -> Result<()> {
        if !grace.is_zero() {
            self.signal(Signal::TERM)?;
            if self.is_gone_within(grace) {
                return Ok(());
            }
        }
        self.signal(Signal::KILL)?;
        if !self.is_gone_within(Duration::from_secs(10)) {
            bail!("process {} is still there 10 s after it was killed", self.pid);
        }
        Ok(())
    }

    fn is_gone_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            nap(Duration::from_millis(10));
        }
        true
    }
}

/// Field 22 of /proc/PID/stat, unless the state (field 3) says that the process is dead. The second field is the
/// program's name in parentheses and may itself hold spaces and parentheses.
fn start_of_live(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<_> = rest.split_ascii_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// A process that should run, with everything that would call for a restart when it changes.
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// Configuration files whose contents count as part of the command line.
    pub(crate) files: Vec<PathBuf>,
}

impl Spec {
    fn digest(&self) -> Result<String> {
        let mut digest = crate::cache::Digest::new();
        for word in &self.argv {
            digest.add(word.as_bytes());
        }
        for file in &self.files {
            digest.add(&fs::read(file).with_context(|| format!("unable to read {}", file.display()))?);
        }
        Ok(digest.finish())
    }
}

#[derive(Serialize, Deserialize)]
struct Record {
    identity: Identity,
    digest: String,
}

/// The records and logs of one set of background processes.
pub(crate) struct Daemons {
    records: PathBuf,
    logs: PathBuf,
}

impl Daemons {
    pub(crate) fn new(records: PathBuf, logs: PathBuf) -> Self {
        Self { records, logs }
    }

    /// Makes sure that the process runs as specified; restarts it when its command line or one of its files
    /// changed. Answers whether it had to be started.
    pub(crate) fn ensure(&self, spec: &Spec) -> Result<bool> {
        let digest = spec.digest()?;
        if let Some(record) = self.read(spec.name) {
            if record.digest == digest && record.identity.is_alive() {
                return Ok(false);
            }
            let why = if record.identity.is_alive() {
                "is out of date"
            } else {
                "has ended"
            };
            say(format_args!("    {} {why} and is started again", spec.name));
            record.identity.stop(Duration::from_secs(5))?;
        }
        let identity = self.start(spec)?;
        let record = serde_json::to_vec(&Record { identity, digest }).context("unable to encode a record")?;
        fs::write(self.record(spec.name), record).context("unable to record a started process")?;
        Ok(true)
    }

    fn start(&self, spec: &Spec) -> Result<Identity> {
        let (program, arguments) = spec.argv.split_first().context("a command line has a program")?;
        let log = File::create(self.log(spec.name)).context("unable to create a log file")?;
        // A session of its own: a Ctrl-C for this program is none of the daemon's business.
        let child = Command::new("setsid")
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("unable to share a log file")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("unable to start {}", spec.name))?;
        let pid = i32::try_from(child.id()).context("a pid that is too large")?;
        Identity::of(pid)
            .with_context(|| format!("{} ended at once{}", spec.name, self.last_words(spec.name)))
    }

    /// Stops the process, if the recorded one still runs, and forgets it.
    pub(crate) fn stop(&self, name: &str, grace: Duration) -> Result<()> {
        if let Some(record) = self.read(name) {
            record
                .identity
                .stop(grace)
                .with_context(|| format!("unable to stop {name}"))?;
            fs::remove_file(self.record(name)).context("unable to remove a process's record")?;
        }
        Ok(())
    }

    /// The recorded process, if it is alive.
    pub(crate) fn alive(&self, name: &str) -> Option<Identity> {
        self.read(name)
            .map(|record| record.identity)
            .filter(Identity::is_alive)
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// The end of the process's log, to be appended to an error.
    pub(crate) fn last_words(&self, name: &str) -> String {
        let text = fs::read_to_string(self.log(name)).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..]
            .iter()
            .fold(String::new(), |all, line| all + "\n  | " + line)
    }

    fn record(&self, name: &str) -> PathBuf {
        self.records.join(format!("{name}.json"))
    }

    fn read(&self, name: &str) -> Option<Record> {
        read_record(&self.record(name))
    }
}

fn read_record(path: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemons() -> (tempfile::TempDir, Daemons) {
        let dir = tempfile::tempdir().unwrap();
        let daemons = Daemons::new(dir.path().to_owned(), dir.path().to_owned());
        (dir, daemons)
    }

    fn sleeper(seconds: &str) -> Spec {
        Spec {
            name: "sleeper",
            argv: vec!["sleep".into(), seconds.into()],
            files: vec![],
        }
    }

    #[test]
    fn the_start_time_is_read_past_a_hostile_name_and_a_zombie_has_none() {
        let stat =
            |state: &str| format!("7 (a) b (c) {state} 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0");
        assert_eq!(start_of_live(&stat("S")), Some(4711));
        assert_eq!(start_of_live(&stat("Z")), None);
        assert_eq!(start_of_live("garbage"), None);
    }

    #[test]
    fn a_recycled_pid_is_not_the_recorded_process() {
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut recycled = Identity::of(pid).unwrap();
        recycled.start -= 1;
        recycled.stop(Duration::from_secs(1)).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "a stranger was killed");
        Identity::of(pid).unwrap().stop(Duration::from_secs(5)).unwrap();
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn starting_twice_keeps_the_process_and_a_new_command_line_replaces_it() {
        let (_dir, daemons) = daemons();
        assert!(daemons.ensure(&sleeper("30")).unwrap());
        let first = daemons.alive("sleeper").unwrap();
        assert!(!daemons.ensure(&sleeper("30")).unwrap());
        assert_eq!(daemons.alive("sleeper"), Some(first.clone()));
        assert!(daemons.ensure(&sleeper("31")).unwrap());
        assert!(!first.is_alive());
        daemons.stop("sleeper", Duration::from_secs(5)).unwrap();
        assert_eq!(daemons.alive("sleeper"), None);
    }

    #[test]
    fn a_killed_process_is_started_again() {
        let (_dir, daemons) = daemons();
        daemons.ensure(&sleeper("30")).unwrap();
        daemons.alive("sleeper").unwrap().stop(Duration::ZERO).unwrap();
        assert!(daemons.ensure(&sleeper("30")).unwrap());
        daemons.stop("sleeper", Duration::ZERO).unwrap();
    }
}
