//! Builds the workspace and learns from cargo what came of it.
//!
//! Every build names the whole workspace and at least one kind of target that takes development dependencies
//! (`--examples`): cargo unites features over what a call selects, and two selections with different features
//! would build most dependencies twice.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::process::{LONG, spawn, wait};
use crate::progress::step;
use crate::workspace::{PROFILE, Workspace};

/// What to build besides the programs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tests<'a> {
    None,
    /// Only these files of `tests/tests/`.
    Files(&'a [String]),
    All,
}

/// An executable full of tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestProgram {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    /// The package's directory: where the tests run.
    pub(crate) package: PathBuf,
    /// One of the files of `tests/tests/`, which need the cluster.
    pub(crate) on_cluster: bool,
}

/// What a build made.
#[derive(Debug, Default)]
pub(crate) struct Built {
    programs: BTreeMap<String, PathBuf>,
    pub(crate) tests: Vec<TestProgram>,
}

impl Built {
    /// Puts another executable in the place of one that was built.
    pub(crate) fn replace(&mut self, name: &str, program: PathBuf) {
        self.programs.insert(name.to_owned(), program);
    }

    /// The executable of a binary target.
    pub(crate) fn program(&self, name: &str) -> Result<&Path> {
        let program = self.programs.get(name).map(PathBuf::as_path);
        program.with_context(|| {
            let known: Vec<_> = self.programs.keys().map(String::as_str).collect();
            format!("the workspace has no binary {name}; it has {}", known.join(", "))
        })
    }
}

/// Builds all programs, and the tests that are asked for.
pub(crate) fn build(workspace: &Workspace, profile: &str, tests: Tests<'_>) -> Result<Built> {
    let what = match tests {
        Tests::None => "building the programs",
        _ => "building the programs and tests",
    };
    step(what, || {
        let mut cargo = workspace.cargo("build");
        cargo.args([
            "--workspace",
            "--profile",
            profile,
            "--bins",
            "--examples",
            "--locked",
        ]);
        match tests {
            Tests::None => &mut cargo,
            Tests::All => cargo.arg("--tests"),
            Tests::Files(names) => cargo.args(names.iter().map(|name| format!("--test={name}"))),
        };
        cargo
            .arg("--message-format=json-render-diagnostics")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        Ok(sort(workspace.root(), messages(&mut cargo)?))
    })
}

/// Runs a build, and collects what it says it made.
fn messages(cargo: &mut Command) -> Result<Vec<Artifact>> {
    let mut child = spawn(cargo)?;
    let messages = child.stdout.take().context("cargo's messages cannot be read")?;
    let reader = std::thread::spawn(move || collect(BufReader::new(messages).lines().map_while(Result::ok)));
    let status = wait(&mut child, LONG).context("cargo build")?;
    let artifacts = reader
        .join()
        .ok()
        .context("the thread that reads cargo's messages panicked")?;
    if !status.success() {
        bail!("the build failed");
    }
    Ok(artifacts)
}

/// Builds one program as its release is built: its package alone, optimised.
pub(crate) fn release(workspace: &Workspace, package: &str, program: &str) -> Result<PathBuf> {
    step("building the release", || {
        let mut cargo = workspace.cargo("build");
        cargo.args(["--release", "--package", package, "--bin", program, "--locked"]);
        cargo
            .arg("--message-format=json-render-diagnostics")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let built = sort(workspace.root(), messages(&mut cargo)?);
        built.program(program).map(Path::to_owned)
    })
}

/// The profile of checks, tests and pods, or the one of releases.
pub(crate) fn profile(release: bool) -> &'static str {
    if release { "release" } else { PROFILE }
}

#[derive(Deserialize)]
struct Artifact {
    manifest_path: PathBuf,
    target: Target,
    profile: ProfileOf,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    name: String,
    src_path: PathBuf,
}

#[derive(Deserialize)]
struct ProfileOf {
    test: bool,
}

fn collect(lines: impl Iterator<Item = String>) -> Vec<Artifact> {
    let artifacts = lines.filter(|line| line.starts_with(r#"{"reason":"compiler-artifact""#));
    artifacts
        .filter_map(|line| serde_json::from_str(&line).ok())
        .collect()
}

fn sort(root: &Path, artifacts: Vec<Artifact>) -> Built {
    let mut built = Built::default();
    for artifact in artifacts {
        let (target, package) = (
            artifact.target,
            artifact.manifest_path.parent().unwrap_or(root).to_owned(),
        );
        let Some(program) = artifact.executable else {
            continue;
        };
        if artifact.profile.test {
            let on_cluster = target.src_path.starts_with(root.join("tests/tests"));
            let name = match (
                on_cluster,
                package.strip_prefix(root),
                target.src_path.strip_prefix(&package),
            ) {
                (false, Ok(package), Ok(source)) => package.join(source).display().to_string(),
                _ => target.name,
            };
            built.tests.push(TestProgram {
                name,
                program,
                package,
                on_cluster,
            });
        } else if target.kind.iter().any(|kind| kind == "bin") {
            built.programs.insert(target.name, program);
        }
    }
    built.tests.sort_by(|left, right| left.name.cmp(&right.name));
    built
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(package: &str, kind: &str, name: &str, source: &str, test: bool) -> String {
        serde_json::json!({
            "reason": "compiler-artifact", "manifest_path": format!("/w/{package}/Cargo.toml"),
            "target": {"kind": [kind], "name": name, "src_path": format!("/w/{package}/{source}")},
            "profile": {"test": test}, "executable": format!("/t/{name}-{test}"),
        })
        .to_string()
    }

    // serde_json sorts keys, cargo puts the reason first.
    fn reordered(message: String) -> String {
        let rest = message.replace(r#""reason":"compiler-artifact","#, "");
        format!(r#"{{"reason":"compiler-artifact",{}"#, &rest[1..])
    }

    #[test]
    fn programs_unit_tests_and_cluster_tests_are_told_apart() {
        let lines = [
            message("cli", "bin", "dormouse", "src/main.rs", false),
            message("cli", "bin", "dormouse", "src/main.rs", true),
            message("tests", "test", "sqs_worker", "tests/sqs_worker.rs", true),
            message("core", "example", "e", "examples/e.rs", false),
        ];
        let lines = lines.into_iter().map(reordered).chain(["noise".to_owned()]);
        let built = sort(Path::new("/w"), collect(lines));
        assert_eq!(built.program("dormouse").unwrap(), Path::new("/t/dormouse-false"));
        assert!(
            built
                .program("e")
                .unwrap_err()
                .to_string()
                .contains("it has dormouse")
        );
        let names: Vec<_> = built
            .tests
            .iter()
            .map(|test| (test.name.as_str(), test.on_cluster))
            .collect();
        assert_eq!(names, [("cli/src/main.rs", false), ("sqs_worker", true)]);
    }
}
