//! `cargo xtask soak`: the long tests, for as long as somebody cares to watch.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::build::{self, Tests};
use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::progress::say;
use crate::test::{Stand, libtest};
use crate::workspace::{PROFILE, Workspace};

/// The file of tests/tests/ that holds them.
const FILE: &str = "soak";
/// How many of them run, one after another.
const TESTS: u32 = 3;
/// What each needs besides, to set up and to settle.
const BESIDE: Duration = Duration::from_secs(5 * 60);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long each test watches, such as 90s, 10m or 1h
    #[arg(long = "for", value_name = "DURATION", default_value = "10m", value_parser = duration)]
    watched: Duration,
    /// What the random faults follow from; another one each time if not given
    #[arg(long)]
    seed: Option<u64>,
    /// Only tests with this in their names
    name: Option<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let known = [("s", 1), ("m", 60), ("h", 3600)];
    let parsed = known.iter().find_map(|(unit, seconds)| {
        let number: u32 = text.strip_suffix(unit)?.parse().ok()?;
        Some(Duration::from_secs(u64::from(number) * seconds))
    });
    parsed
        .filter(|time| !time.is_zero())
        .ok_or_else(|| format!("{text:?} is no duration: forms such as 90s, 10m and 1h are accepted"))
}

/// Runs them. The answer tells whether no rule was broken.
pub(crate) fn soak(
    workspace: &Workspace,
    cache: &Cache,
    cluster: &Cluster,
    arguments: &Arguments,
) -> Result<bool> {
    let seed = arguments.seed.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::from(since.subsec_micros())
    });
    say(format_args!("==> soak with seed {seed}"));
    let stand = Stand::prepare(workspace, cache, cluster, false)?;
    let built = build::build(workspace, PROFILE, Tests::Files(&[FILE.to_owned()]))?;
    stand.start(workspace, cache, &built)?;
    let environment = stand.environment(workspace)?;
    let mut is_clean = true;
    for test in built.tests.iter().filter(|test| test.on_cluster) {
        let mut command = stand.cluster.inside(&test.program);
        command
            .args(arguments.name.iter())
            .args(["--nocapture", "--test-threads=1"])
            .current_dir(&test.package)
            .env("CARGO_MANIFEST_DIR", &test.package)
            .env("DORMOUSE_SOAK_SECONDS", arguments.watched.as_secs().to_string())
            .env("DORMOUSE_SOAK_SEED", seed.to_string())
            .envs(environment.iter().map(|(name, value)| (name, value)));
        let outcome = libtest::run(&mut command, (arguments.watched + BESIDE) * TESTS)?;
        is_clean &= outcome.is_success() && outcome.passed > 0;
    }
    let verdict = if is_clean { "clean" } else { "NOT clean" };
    say(format_args!("==> soak with seed {seed}: {verdict}"));
    Ok(is_clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_one_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for bad in ["", "10", "m", "0s", "-1m", "1d"] {
            assert!(duration(bad).unwrap_err().contains("are accepted"), "{bad}");
        }
    }
}
