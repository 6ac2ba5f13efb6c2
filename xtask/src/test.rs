//! `cargo xtask test`: sets everything up and runs every test, those that need the real cluster inside its network.

mod diagnostics;
pub(crate) mod libtest;
mod summary;

use std::ffi::OsString;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use self::summary::Summary;
use crate::build::{self, Built, TestProgram, Tests};
use crate::cache::Cache;
use crate::cluster::{Cluster, Lock, Pace};
use crate::process::{self, LONG};
use crate::progress::{say, step};
use crate::setup::{self, Parts};
use crate::workspace::{PROFILE, Workspace};
use crate::{environment, image};

/// For one test program.
const LIMIT: Duration = Duration::from_secs(5 * 60);
/// For one on the cluster: there they wait for real cooldowns and leases.
const CLUSTER_LIMIT: Duration = Duration::from_secs(20 * 60);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these files of tests/tests/ (names without .rs); without a name, every test of the workspace
    names: Vec<String>,
    /// How many tests of one file run at the same time, instead of as many as there are processors
    #[arg(long)]
    threads: Option<usize>,
    /// For the test programs themselves, such as --exact or part of a test's name
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs the tests. The answer tells whether all of them ran and passed.
pub(crate) fn test(
    workspace: &Workspace,
    cache: &Cache,
    cluster: &Cluster,
    arguments: &Arguments,
) -> Result<bool> {
    check_names(workspace, &arguments.names)?;
    let on_cluster = setup::is_root();
    if !on_cluster && !arguments.names.is_empty() {
        bail!(
            "{} need the test cluster, and that needs root",
            arguments.names.join(", ")
        );
    }
    let stand = on_cluster
        .then(|| Stand::prepare(workspace, cache, cluster, true))
        .transpose()?;
    let selection = if arguments.names.is_empty() {
        Tests::All
    } else {
        Tests::Files(&arguments.names)
    };
    let built = build::build(workspace, PROFILE, selection)?;

    let mut summary = Summary::default();
    let flags = flags(arguments);
    let (for_cluster, plain): (Vec<_>, Vec<_>) = built.tests.iter().partition(|test| test.on_cluster);
    if arguments.names.is_empty() {
        plain_tests(workspace, cache, &plain, &flags, &mut summary)?;
    }
    match &stand {
        Some(stand) => cluster_tests(
            stand,
            workspace,
            cache,
            &built,
            &for_cluster,
            &flags,
            &mut summary,
        )?,
        None => for_cluster.iter().for_each(|test| summary.leave_out(&test.name)),
    }
    say(&summary);
    if !on_cluster {
        say(
            "error: this is an ordinary user, and the test cluster needs root: the files above were left out",
        );
    }
    Ok(summary.is_clean())
}

fn flags(arguments: &Arguments) -> Vec<String> {
    let threads = arguments
        .threads
        .map(|threads| format!("--test-threads={threads}"));
    threads
        .into_iter()
        .chain(arguments.arguments.iter().cloned())
        .collect()
}

fn check_names(workspace: &Workspace, names: &[String]) -> Result<()> {
    let dir = workspace.path("tests/tests");
    let items = std::fs::read_dir(&dir).with_context(|| format!("unable to list {}", dir.display()))?;
    let files = items
        .filter_map(|item| item.ok().map(|item| item.path()))
        .filter(|path| path.is_file());
    let mut known: Vec<_> = files
        .filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned()))
        .collect();
    known.sort();
    match names.iter().find(|name| !known.contains(name)) {
        Some(name) => bail!("tests/tests/ has no {name}.rs; it has {}", known.join(", ")),
        None => Ok(()),
    }
}

fn plain_tests(
    workspace: &Workspace,
    cache: &Cache,
    tests: &[&TestProgram],
    flags: &[String],
    summary: &mut Summary,
) -> Result<()> {
    let h2spec = setup::h2spec(workspace, cache)?;
    for test in tests {
        say(format_args!("==> {}", test.name));
        let mut command = Command::new(&test.program);
        command
            .args(flags)
            .current_dir(&test.package)
            .env("DORMOUSE_H2SPEC", &h2spec)
            .env("CARGO_MANIFEST_DIR", &test.package);
        summary.add(&test.name, libtest::run(&mut command, LIMIT)?);
    }
    // Examples in the documentation have no program of their own.
    say("==> examples in the documentation");
    let mut cargo = workspace.cargo("test");
    cargo
        .args(["--workspace", "--profile", PROFILE, "--doc", "--locked", "--"])
        .args(flags);
    summary.add("documentation", libtest::run(&mut cargo, LONG)?);
    Ok(())
}

fn cluster_tests(
    stand: &Stand<'_>,
    workspace: &Workspace,
    cache: &Cache,
    built: &Built,
    tests: &[&TestProgram],
    flags: &[String],
    summary: &mut Summary,
) -> Result<()> {
    if tests.is_empty() {
        return Ok(());
    }
    stand.start(workspace, cache, built)?;
    let environment = stand.environment(workspace)?;
    for test in tests {
        say(format_args!("==> {} on the cluster", test.name));
        let mut command = stand.cluster.inside(&test.program);
        command
            .args(flags)
            .current_dir(&test.package)
            .env("CARGO_MANIFEST_DIR", &test.package);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let outcome = libtest::run(&mut command, CLUSTER_LIMIT)?;
        if !outcome.is_success() {
            diagnostics::show(stand.cluster, &stand.parts);
        }
        summary.add(&test.name, outcome);
    }
    Ok(())
}

/// The cluster for as long as tests or the demo need it: reserved, and taken down afterwards unless it was up
/// before.
pub(crate) struct Stand<'a> {
    pub(crate) cluster: &'a Cluster,
    parts: Parts,
    moto: Option<std::path::PathBuf>,
    was_up: bool,
    _reservation: Lock,
}

impl<'a> Stand<'a> {
    /// Makes or finds everything that the cluster and its tests consist of; starts nothing.
    pub(crate) fn prepare(
        workspace: &Workspace,
        cache: &Cache,
        cluster: &'a Cluster,
        with_sources: bool,
    ) -> Result<Self> {
        let reservation = cluster.reserve()?;
        setup::debian::ensure(setup::debian::CLUSTER)?;
        if with_sources {
            setup::debian::ensure(setup::debian::SOURCES)?;
        }
        // Downloads wait for the network while the compilers wait for the processors.
        let (parts, moto, fetched) = thread::scope(|scope| {
            let moto = scope.spawn(|| with_sources.then(|| setup::moto(workspace, cache)).transpose());
            let fetch = scope.spawn(|| {
                let mut cargo = workspace.cargo("fetch");
                process::run(cargo.args(["--locked", "--quiet"]), LONG)
            });
            let parts = setup::cluster_parts(workspace, cache);
            (parts, moto.join(), fetch.join())
        });
        fetched.unwrap_or_else(|_| bail!("the thread that fetches crates panicked"))?;
        let moto = moto.unwrap_or_else(|_| bail!("the thread that installs moto panicked"))?;
        let was_up = cluster.exists();
        Ok(Self {
            cluster,
            parts: parts?,
            moto,
            was_up,
            _reservation: reservation,
        })
    }

    /// Brings the cluster up, with the images of what was built in it.
    pub(crate) fn start(&self, workspace: &Workspace, cache: &Cache, built: &Built) -> Result<()> {
        self.start_at(workspace, cache, built, &Pace::default())
    }

    /// The same with an HPA controller of another pace.
    pub(crate) fn start_at(
        &self,
        workspace: &Workspace,
        cache: &Cache,
        built: &Built,
        pace: &Pace,
    ) -> Result<()> {
        step("starting the cluster", || {
            self.cluster.up(workspace, &self.parts, pace)
        })?;
        image::load(workspace, cache, self.cluster, built)
    }

    /// Whether the cluster stays when this goes.
    pub(crate) fn was_up(&self) -> bool {
        self.was_up
    }

    /// What programs on the cluster are told.
    pub(crate) fn environment(&self, workspace: &Workspace) -> Result<Vec<(String, OsString)>> {
        let mut environment = environment::of_cluster(workspace, self.cluster, &self.parts)?;
        if let Some(moto) = &self.moto {
            environment.push(("DORMOUSE_MOTO".into(), moto.into()));
        }
        Ok(environment)
    }
}

impl Drop for Stand<'_> {
    fn drop(&mut self) {
        // Whoever interrupted the run wants it to end in good order.
        process::forget_interruption();
        if !self.was_up
            && let Err(error) = self.cluster.down()
        {
            say(format_args!(
                "error: the cluster could not be taken down: {error:#}"
            ));
        }
    }
}
