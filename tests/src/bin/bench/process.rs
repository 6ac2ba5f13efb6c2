//! What a process of this machine uses, as the kernel counts it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Linux reports processor time to programs in hundredths of a second, whatever its own clock is.
const TICKS_PER_SECOND: f64 = 100.0;

/// One process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// Resident memory now, in MiB.
    pub(crate) fn resident(self) -> Result<f64> {
        self.memory("VmRSS:")
    }

    /// The most that was ever resident, in MiB.
    pub(crate) fn peak(self) -> Result<f64> {
        self.memory("VmHWM:")
    }

    fn memory(self, field: &str) -> Result<f64> {
        let file = format!("/proc/{}/status", self.0);
        let text = fs::read_to_string(&file).with_context(|| format!("unable to read {file}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        kib.map(|kib| kib / 1024.0)
            .with_context(|| format!("{file} has no {field}"))
    }

    /// Open file descriptors.
    pub(crate) fn descriptors(self) -> Result<usize> {
        let dir = format!("/proc/{}/fd", self.0);
        Ok(fs::read_dir(&dir)
            .with_context(|| format!("unable to list {dir}"))?
            .count())
    }

    /// Processor time since its start, in seconds.
    pub(crate) fn processor_time(self) -> Result<f64> {
        let file = format!("/proc/{}/stat", self.0);
        let text = fs::read_to_string(&file).with_context(|| format!("unable to read {file}"))?;
        ticks(&text)
            .map(|ticks| ticks / TICKS_PER_SECOND)
            .with_context(|| format!("{file} is not understood"))
    }

    /// How long its threads have waited for a processor since their start, in seconds.
    fn waiting_time(self) -> Result<f64> {
        let dir = format!("/proc/{}/task", self.0);
        let threads = fs::read_dir(&dir).with_context(|| format!("unable to list {dir}"))?;
        let nanoseconds = threads
            .flatten()
            // A thread that ends meanwhile has no file.
            .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
            .filter_map(|text| text.split_whitespace().nth(1)?.parse::<f64>().ok());
        Ok(nanoseconds.sum::<f64>() / 1e9)
    }
}

/// The processes that a process started and that still run.
pub(crate) fn children(parent: Process) -> Result<Vec<Process>> {
    let file = format!("/proc/{0}/task/{0}/children", parent.0);
    let text = fs::read_to_string(&file).with_context(|| format!("unable to read {file}"))?;
    let numbers = text.split_whitespace().filter_map(|number| number.parse().ok());
    Ok(numbers.map(Process).collect())
}

/// User and system time, the 14th and 15th field; the second may hold spaces, but ends with the last parenthesis.
fn ticks(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// What a process had of the processors over a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Processors kept busy.
    pub(crate) busy: f64,
    /// The average number of its threads that could run and waited for a processor that others had.
    pub(crate) waiting: f64,
}

/// What each of `processes` has of the processors during the next `span`.
pub(crate) async fn usage(processes: &[Process], span: Duration) -> Result<Vec<Usage>> {
    let all = || -> Result<Vec<(f64, f64)>> {
        let times = processes
            .iter()
            .map(|process| Ok((process.processor_time()?, process.waiting_time()?)));
        times.collect()
    };
    let (began, before) = (Instant::now(), all()?);
    tokio::time::sleep(span).await;
    let (passed, after) = (began.elapsed().as_secs_f64(), all()?);
    let pairs = before.iter().zip(&after);
    Ok(pairs
        .map(|(before, after)| Usage {
            busy: (after.0 - before.0) / passed,
            waiting: (after.1 - before.1).max(0.0) / passed,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 99";
        assert_eq!(ticks(stat), Some(300.0));
        assert_eq!(ticks("nonsense"), None);
    }
}
