//! What the person in front of the terminal sees while a long step runs.
//!
//! Everything goes to standard error, so that a command's own answer (`cluster status`) can be piped.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Prints one line of progress.
pub(crate) fn say(message: impl Display) {
    eprintln!("{message}");
}

/// Runs a step, says that it starts and how long it took.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    say(format_args!("==> {name}"));
    let start = Instant::now();
    let outcome = work();
    let verb = if outcome.is_ok() { "done" } else { "FAILED" };
    say(format_args!("    {verb} in {}: {name}", seconds(start.elapsed())));
    outcome
}

/// A duration as people read it: `0.4 s`, `12 s`, `3 min 05 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    match whole {
        0..=9 => format!("{:.1} s", duration.as_secs_f64()),
        10..=119 => format!("{whole} s"),
        _ => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short_and_exact_enough() {
        assert_eq!(seconds(Duration::from_millis(440)), "0.4 s");
        assert_eq!(seconds(Duration::from_secs(61)), "61 s");
        assert_eq!(seconds(Duration::from_secs(245)), "4 min 05 s");
    }
}
