//! Runs a test program, shows what it prints and reads its verdict from it.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::process::{spawn, wait};

/// How a test program ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) ignored: usize,
    /// Whether the program said how many tests it has; one with a harness of its own may not.
    pub(crate) counted: bool,
    pub(crate) took: Duration,
    /// Why the program counts as failed, whatever it said of its tests.
    pub(crate) trouble: Option<String>,
}

impl Outcome {
    pub(crate) fn is_success(&self) -> bool {
        self.failed == 0 && self.trouble.is_none()
    }
}

/// Runs a command that prints as Rust's test programs do. Only an interruption of the whole run is an error.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<Outcome> {
    run_into(command, limit, std::io::stdout())
}

fn run_into(command: &mut Command, limit: Duration, sink: impl Write + Send + 'static) -> Result<Outcome> {
    let start = Instant::now();
    // Where a test failed is in its error's own words; frames of the runtime only bury them.
    command.env("RUST_LIB_BACKTRACE", "0");
    let mut child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let output = child
        .stdout
        .take()
        .context("the test program's output cannot be read")?;
    let reader = thread::spawn(move || pass_on(output, sink));
    let status = wait(&mut child, limit);
    crate::process::check_interruption()?;
    let mut outcome = match &status {
        // What a killed program started may hold its output open for longer than anybody wants to wait.
        Err(_) => Outcome::default(),
        Ok(_) => reader
            .join()
            .ok()
            .context("the thread that reads the test program's output panicked")?,
    };
    outcome.took = start.elapsed();
    outcome.trouble = match status {
        Err(error) => Some(format!("{error:#}")),
        Ok(status) if !status.success() && outcome.failed == 0 => Some(status.to_string()),
        Ok(_) => None,
    };
    Ok(outcome)
}

fn pass_on(output: impl Read, mut sink: impl Write) -> Outcome {
    let mut outcome = Outcome::default();
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        // A closed terminal is no reason to lose the verdict.
        let _ = sink
            .write_all(&line)
            .and_then(|()| sink.write_all(b"\n"))
            .and_then(|()| sink.flush());
        if let Some([passed, failed, ignored]) = verdict(&String::from_utf8_lossy(&line)) {
            outcome.counted = true;
            outcome.passed += passed;
            outcome.failed += failed;
            outcome.ignored += ignored;
        }
    }
    outcome
}

/// Reads `test result: ok. 5 passed; 0 failed; 1 ignored; ...`.
fn verdict(line: &str) -> Option<[usize; 3]> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |unit: &str| {
        let part = counts.split(';').find(|part| part.trim().ends_with(unit))?;
        part.trim().strip_suffix(unit)?.trim().parse().ok()
    };
    Some([count("passed")?, count("failed")?, count("ignored")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    // Not to the real output: this file's own tests are read in the same way.
    fn silent(command: &mut Command, limit: Duration) -> Outcome {
        run_into(command, limit, std::io::sink()).unwrap()
    }

    fn shell(script: &str) -> Outcome {
        silent(Command::new("sh").args(["-c", script]), Duration::from_secs(30))
    }

    #[test]
    fn the_verdicts_of_several_programs_add_up() {
        let one = "echo 'test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s'";
        let outcome = shell(&format!("{one}; echo noise; {one}"));
        assert_eq!((outcome.passed, outcome.failed, outcome.ignored), (10, 0, 2));
        assert!(outcome.is_success() && outcome.counted);
        assert!(!shell("echo done").counted);
    }

    #[test]
    fn a_failed_test_and_a_crash_are_failures() {
        let outcome =
            shell("echo 'test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured'; exit 101");
        assert_eq!((outcome.failed, outcome.trouble.as_deref()), (2, None));
        assert!(!outcome.is_success());
        let crash = shell("exit 134");
        assert!(crash.trouble.as_deref().unwrap().contains("134") && !crash.is_success());
    }

    #[test]
    fn a_program_that_hangs_is_a_failure() {
        let outcome = silent(Command::new("sleep").arg("30"), Duration::from_millis(50));
        assert!(!outcome.is_success() && outcome.took < Duration::from_secs(10));
    }
}
