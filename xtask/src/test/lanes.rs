//! The files of tests that need the cluster, as many at a time as there are clusters for them: they mostly wait.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use super::libtest::{self, Outcome};
use super::{Stand, diagnostics};
use crate::build::TestProgram;
use crate::progress::say;

/// For one file: there they wait for real cooldowns and leases.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// Files that take minutes go first, so that no lane is left alone with one at the end.
const LONG: &[&str] = &[
    "soak",
    "http_faults",
    "http_rolling",
    "faults",
    "rbac",
    "scaled_object",
];

/// What all lanes share.
struct Work<'a> {
    waiting: Mutex<VecDeque<&'a TestProgram>>,
    done: Mutex<Vec<(&'a TestProgram, Outcome)>>,
    /// Held while something is printed that belongs together.
    terminal: Mutex<()>,
    flags: &'a [String],
}

/// Runs the tests, each file on one of the clusters, and gives the outcomes in the order of `tests`.
///
/// # Errors
/// The run was interrupted, or a program could not be started.
pub(super) fn run<'a>(
    lanes: &[(&Stand<'_>, Vec<(String, OsString)>)],
    tests: &[&'a TestProgram],
    flags: &'a [String],
) -> Result<Vec<(&'a TestProgram, Outcome)>> {
    let mut waiting: Vec<_> = tests.to_vec();
    waiting.sort_by_key(|test| {
        LONG.iter()
            .position(|long| *long == test.name)
            .unwrap_or(LONG.len())
    });
    let work = Work {
        waiting: Mutex::new(waiting.into()),
        done: Mutex::default(),
        terminal: Mutex::default(),
        flags,
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = lanes
            .iter()
            .map(|(stand, environment)| scope.spawn(|| lane(&work, stand, environment)))
            .collect();
        // The first failure ends its own lane; the others see the interruption by themselves.
        let ends = lanes.into_iter().map(|lane| {
            let end = lane.join();
            end.unwrap_or_else(|_panic| Err(anyhow!("the thread of a lane panicked")))
        });
        ends.collect::<Vec<_>>().into_iter().collect::<Result<()>>()
    })?;
    let mut done = work.done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(test, _)| tests.iter().position(|other| other.name == test.name));
    Ok(done)
}

fn lane(work: &Work<'_>, stand: &Stand<'_>, environment: &[(String, OsString)]) -> Result<()> {
    while let Some(test) = lock(&work.waiting).pop_front() {
        let title = format!("{} on the cluster {:?}", test.name, stand.cluster.layout().name());
        say(format_args!("==> {title}"));
        let mut command = stand.cluster.inside(&test.program);
        command
            .args(work.flags)
            .current_dir(&test.package)
            .env("CARGO_MANIFEST_DIR", &test.package)
            .envs(environment.iter().map(|(name, value)| (name, value)));
        let (outcome, printed) = libtest::run_quietly(&mut command, LIMIT)?;
        let terminal = lock(&work.terminal);
        say(format_args!("<== {title}"));
        let mut stdout = std::io::stdout();
        let shown = stdout.write_all(&printed).and_then(|()| stdout.flush());
        shown.context("the terminal is closed")?;
        if !outcome.is_success() {
            diagnostics::show(stand.cluster, &stand.parts);
        }
        drop(terminal);
        lock(&work.done).push((test, outcome));
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
