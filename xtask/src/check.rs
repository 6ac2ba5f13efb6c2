//! `cargo xtask check`: everything that can be said about the work tree without running its tests.

mod arrows;
mod modules;
mod text;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::build::{self, Tests};
use crate::cache::{Cache, Digest};
use crate::process::{LONG, SHORT, output, run};
use crate::progress::{say, step};
use crate::workspace::{PROFILE, Workspace};

const CARGO_DENY: &str = "0.20.2";

/// Runs every check, the quick ones first; a failure does not keep the later ones from running.
pub(crate) fn check(workspace: &Workspace, cache: &Cache) -> Result<bool> {
    let checks: [(&str, &dyn Fn() -> Result<()>); 8] = [
        ("formatting", &|| {
            run(workspace.cargo("fmt").args(["--all", "--check"]), SHORT)
        }),
        ("texts: size, ignored tests, machine paths", &|| {
            text::check(workspace.root(), &files(workspace)?)
        }),
        ("modules: every file is part of a crate", &|| {
            modules::check(workspace, &files(workspace)?)
        }),
        ("arrows between crates", &|| arrows::check(workspace)),
        ("dependencies: bans, licences, sources", &|| {
            deny(workspace, cache)
        }),
        ("lints", &|| {
            let mut clippy = workspace.cargo("clippy");
            clippy.args([
                "--workspace",
                "--all-targets",
                "--profile",
                PROFILE,
                "--locked",
                "--",
                "-D",
                "warnings",
            ]);
            run(&mut clippy, LONG)
        }),
        ("documentation", &|| {
            let mut doc = workspace.cargo("doc");
            // The examples are there for their features: see the module `build`.
            doc.args([
                "--workspace",
                "--lib",
                "--bins",
                "--examples",
                "--no-deps",
                "--profile",
                PROFILE,
                "--locked",
            ]);
            run(doc.env("RUSTDOCFLAGS", "-D warnings"), LONG)
        }),
        ("generated files", &|| {
            let built = build::build(workspace, PROFILE, Tests::None)?;
            let mut generate = Command::new(built.program("generate")?);
            run(generate.arg("--check").current_dir(workspace.root()), SHORT)
        }),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        if let Err(error) = step(name, check) {
            crate::process::check_interruption()?;
            say(format_args!("error: {error:#}"));
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        say(format_args!("\nfailed: {}", failed.join("; ")));
    }
    Ok(failed.is_empty())
}

/// The files of the work tree that belong to it: those in git, and new ones that are not ignored.
fn files(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-co", "--exclude-standard", "-z"])
        .current_dir(workspace.root());
    let list = output(&mut git, SHORT)?;
    let files = list
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from);
    Ok(files
        .filter(|file| workspace.root().join(file).is_file())
        .collect())
}

fn deny(workspace: &Workspace, cache: &Cache) -> Result<()> {
    let mut digest = Digest::new();
    digest.add(CARGO_DENY.as_bytes());
    let entry = cache.entry("cargo-deny", &digest.finish(), |dir| {
        step(
            &format!("installing cargo-deny {CARGO_DENY} (about 5 minutes on 2 cores, once)"),
            || {
                let mut cargo = workspace.cargo("install");
                cargo
                    .args([
                        "cargo-deny",
                        "--locked",
                        "--quiet",
                        "--version",
                        CARGO_DENY,
                        "--root",
                    ])
                    .arg(dir);
                // Not at the workspace: its configuration is no business of this program.
                cargo.current_dir(dir).env("CARGO_TARGET_DIR", dir.join("build"));
                run(&mut cargo, LONG)?;
                std::fs::remove_dir_all(dir.join("build")).context("unable to tidy up after an installation")
            },
        )
    })?;
    let program = entry.join("bin/cargo-deny");
    if !program.exists() {
        bail!(
            "{} is missing; remove {} and try again",
            program.display(),
            entry.display()
        );
    }
    let mut deny = Command::new(program);
    deny.args([
        "--workspace",
        "--all-features",
        "check",
        "bans",
        "licenses",
        "sources",
    ]);
    run(deny.current_dir(workspace.root()), LONG)
}
