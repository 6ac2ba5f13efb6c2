//! Child processes with a deadline and with errors that say which command failed and why.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_default};

/// For commands that only touch this machine.
pub(crate) const SHORT: Duration = Duration::from_secs(60);
/// For downloads and compilers.
pub(crate) const LONG: Duration = Duration::from_secs(45 * 60);

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on Ctrl-C (or a termination) ends the child processes and lets this one tidy up. A second one ends this
/// one as well.
pub(crate) fn watch_for_interruption() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The order matters: the first signal finds the flag down, sets it, and leaves the default to the second.
        register_conditional_default(signal, Arc::clone(flag)).context("unable to watch for signals")?;
        register(signal, Arc::clone(flag)).context("unable to watch for signals")?;
    }
    Ok(())
}

/// Fails once the run was interrupted.
pub(crate) fn check_interruption() -> Result<()> {
    match INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
        true => bail!("interrupted"),
        false => Ok(()),
    }
}

/// Lets child processes run again, for tidying up.
pub(crate) fn forget_interruption() {
    if let Some(flag) = INTERRUPTED.get() {
        flag.store(false, Ordering::Relaxed);
    }
}

const STDERR_SHOWN: usize = 2_000;

/// Runs a command with its output on the terminal. Fails when it fails or outlives `limit`.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<()> {
    let mut child = spawn(command.stdin(Stdio::null()))?;
    let status = wait(&mut child, limit).with_context(|| describe(command))?;
    if !status.success() {
        bail!("`{}` failed: {status}", describe(command));
    }
    Ok(())
}

/// Runs a command and returns its standard output. The error carries the end of its standard error.
pub(crate) fn output(command: &mut Command, limit: Duration) -> Result<String> {
    let input: &[u8] = &[];
    output_with_input(command, input, limit)
}

/// As [`output`], with `input` on the command's standard input.
pub(crate) fn output_with_input(command: &mut Command, input: &[u8], limit: Duration) -> Result<String> {
    let mut child = spawn(
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )?;
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (status, stdout, stderr) = thread::scope(|scope| {
        let stdout = scope.spawn(move || read_all(stdout));
        let stderr = scope.spawn(move || read_all(stderr));
        // A child may end without reading all of its input; its exit status then says more than the broken pipe.
        scope.spawn(move || stdin.as_mut().map(|pipe| pipe.write_all(input)));
        let status = wait(&mut child, limit);
        (
            status,
            stdout.join().unwrap_or_default(),
            stderr.join().unwrap_or_default(),
        )
    });
    let status = status.with_context(|| describe(command))?;
    if !status.success() {
        let text = stderr.trim();
        let start = text.ceil_char_boundary(text.len().saturating_sub(STDERR_SHOWN));
        bail!("`{}` failed: {status}: {}", describe(command), &text[start..]);
    }
    Ok(stdout)
}

/// Whether a command succeeds; its output is thrown away.
pub(crate) fn succeeds(command: &mut Command, limit: Duration) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    spawn(quiet).is_ok_and(|mut child| wait(&mut child, limit).is_ok_and(|status| status.success()))
}

/// Starts a command; a missing program is named in the error.
pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    command
        .spawn()
        .map_err(|error| anyhow!("unable to start `{}`: {error}", describe(command)))
}

/// Waits for a child, and kills it when `limit` has passed.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait().context("unable to wait for the child process")? {
            return Ok(status);
        }
        let interruption = check_interruption();
        if interruption.is_err() || Instant::now() >= deadline {
            let killed = child.kill().and_then(|()| child.wait());
            killed.context("unable to kill the child process that has to end")?;
            interruption?;
            bail!("stopped after its limit of {} s", limit.as_secs());
        }
        nap(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Polls until `probe` answers. Its inner error means "not yet", and is told if that never changes; its outer
/// error ends the wait at once.
pub(crate) fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Result<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        check_interruption()?;
        match probe()? {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("{what}: not so within {} s", limit.as_secs())));
            }
            Err(_) => nap(Duration::from_millis(50)),
        }
    }
}

/// Blocks this thread.
#[expect(
    clippy::disallowed_methods,
    reason = "this program has threads and no async runtime"
)]
pub(crate) fn nap(duration: Duration) {
    thread::sleep(duration);
}

/// The command as a person would type it.
pub(crate) fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

fn read_all(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // A read error ends the text early; the exit status still decides.
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_command_and_its_last_words() {
        let error = output(Command::new("sh").args(["-c", "echo lost >&2; exit 3"]), SHORT).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("exit 3") && text.contains("lost"), "{text}");
    }

    #[test]
    fn a_child_that_outlives_its_limit_is_killed() {
        let start = Instant::now();
        let error = run(Command::new("sleep").arg("30"), Duration::from_millis(100)).unwrap_err();
        assert!(format!("{error:#}").contains("its limit"), "{error:#}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn waiting_goes_on_past_a_not_yet_and_ends_with_a_hopeless_one() {
        let mut calls = 0;
        let mut probe = |last: Result<Result<u32>>| {
            calls += 1;
            if calls < 3 {
                Ok(Err(anyhow!("not yet")))
            } else {
                last
            }
        };
        assert_eq!(wait_until("it", SHORT, || probe(Ok(Ok(7)))).unwrap(), 7);
        assert_eq!(
            wait_until::<u32>("it", SHORT, || Err(anyhow!("dead")))
                .unwrap_err()
                .to_string(),
            "dead"
        );
        let error = wait_until::<u32>("it", Duration::ZERO, || Ok(Err(anyhow!("not yet")))).unwrap_err();
        assert_eq!(format!("{error:#}"), "it: not so within 0 s: not yet");
    }

    #[test]
    fn input_reaches_the_child() {
        let text = output_with_input(&mut Command::new("cat"), b"to and fro", SHORT).unwrap();
        assert_eq!(text, "to and fro");
    }
}
