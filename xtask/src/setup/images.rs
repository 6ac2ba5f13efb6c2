//! Image archives for the node, each made of one static program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{built, go};
use crate::cache::{Cache, Digest};
use crate::process::{LONG, SHORT, output, run};
use crate::workspace::Workspace;

/// The image that holds a pod's namespaces.
pub(crate) const PAUSE: &str = "localhost/pause:dev";
/// The cluster's name server.
pub(crate) const COREDNS: &str = "localhost/coredns:dev";
/// What measures pods' CPU and memory.
pub(crate) const METRICS_SERVER: &str = "localhost/metrics-server:dev";

const METRICS_SERVER_PACKAGE: &str = "sigs.k8s.io/metrics-server/cmd/metrics-server";

const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The image reference under which the cluster's pods name a program of this workspace.
pub(crate) fn reference(program: &str) -> String {
    format!("localhost/{program}:dev")
}

/// Builds the pause image; answers the directory with its `image.tar`.
pub(crate) fn pause(workspace: &Workspace, cache: &Cache) -> Result<PathBuf> {
    let source = workspace.path("tests/cluster/pause.c");
    let mut digest = recipe(workspace)?;
    digest.file(&source)?;
    built(
        cache,
        "pause",
        &digest.finish(),
        "building the pause image",
        |dir| {
            let program = dir.join("pause");
            run(
                Command::new("gcc")
                    .args(["-static", "-O2", "-o"])
                    .args([&program, &source]),
                SHORT,
            )?;
            archive(workspace, &program, "pause", &dir.join("image.tar"))
        },
    )
}

/// Builds the CoreDNS image; answers the directory with its `image.tar`.
pub(crate) fn coredns(workspace: &Workspace, cache: &Cache) -> Result<PathBuf> {
    let what = "building CoreDNS and its image (about 1 minute, once)";
    go_image(workspace, cache, "coredns", None, what)
}

/// Builds the metrics-server image; answers the directory with its `image.tar`.
pub(crate) fn metrics_server(workspace: &Workspace, cache: &Cache) -> Result<PathBuf> {
    let what = "building metrics-server and its image (about 2 minutes, once)";
    go_image(
        workspace,
        cache,
        "metrics-server",
        Some(METRICS_SERVER_PACKAGE),
        what,
    )
}

/// The image of a program that the Go module `tests/cluster/<name>` holds, or requires as this package.
fn go_image(
    workspace: &Workspace,
    cache: &Cache,
    name: &str,
    package: Option<&str>,
    what: &str,
) -> Result<PathBuf> {
    let source = workspace.path(&format!("tests/cluster/{name}"));
    let mut digest = recipe(workspace)?;
    digest.add(go::digest(&source, "", package.as_slice())?.as_bytes());
    built(cache, name, &digest.finish(), what, |dir| {
        go::program(&source, package.unwrap_or("."), dir)?;
        archive(workspace, &dir.join(name), name, &dir.join("image.tar"))
    })
}

/// A digest that already knows how images are made.
pub(crate) fn recipe(workspace: &Workspace) -> Result<Digest> {
    let mut digest = Digest::new();
    digest.file(&containerfile(workspace))?;
    Ok(digest)
}

fn containerfile(workspace: &Workspace) -> PathBuf {
    workspace.path("deploy/image/Containerfile")
}

/// Makes an OCI archive of one static program by the Containerfile that users are given; for the other programs
/// of the test cluster only the program's name in it differs.
pub(crate) fn archive(workspace: &Workspace, program: &Path, name: &str, archive: &Path) -> Result<()> {
    let work = Scratch::beside(archive)?;
    let context = work.0.join("context");
    fs::create_dir(&context).context("unable to create an image's build context")?;
    output(
        Command::new("objcopy")
            .arg("--strip-debug")
            .arg(program)
            .arg(context.join(name)),
        SHORT,
    )?;
    fs::copy(AUTHORITIES, context.join("ca-certificates.crt"))
        .with_context(|| format!("unable to copy {AUTHORITIES}"))?;
    let recipe = containerfile(workspace);
    let recipe =
        fs::read_to_string(&recipe).with_context(|| format!("unable to read {}", recipe.display()))?;
    let file = work.0.join("Containerfile");
    fs::write(&file, recipe.replace("dormouse", name)).context("unable to write a Containerfile")?;

    let tag = reference(name);
    let mut build = work.buildah();
    build.args([
        "build",
        "--quiet",
        "--layers=false",
        "--timestamp=0",
        "--tag",
        &tag,
        "--file",
    ]);
    output(build.arg(&file).arg(&context), LONG)?;
    let target = format!("oci-archive:{}:{tag}", archive.display());
    output(work.buildah().args(["push", "--quiet", &tag, &target]), LONG).map(drop)
}

/// A directory for one build's intermediate files and storage; removed with everything in it.
struct Scratch(PathBuf);

impl Scratch {
    fn beside(archive: &Path) -> Result<Self> {
        let dir = archive.with_extension("work");
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("unable to remove an earlier build's files");
            }
            _ => fs::create_dir_all(&dir).context("unable to create a directory for a build")?,
        }
        let scratch = Self(dir);
        // Otherwise even a build without a network leaves a lock file in /etc/cni.
        let text = format!(
            "[network]\nnetwork_config_dir = \"{}\"\n",
            scratch.0.join("networks").display()
        );
        fs::write(scratch.configuration(), text).context("unable to write buildah's configuration")?;
        Ok(scratch)
    }

    fn configuration(&self) -> PathBuf {
        self.0.join("containers.conf")
    }

    /// Its own storage, so that neither a developer's images nor a mount is ever touched.
    fn buildah(&self) -> Command {
        let mut buildah = Command::new("buildah");
        buildah
            .args(["--storage-driver", "vfs", "--root"])
            .arg(self.0.join("storage"));
        buildah
            .arg("--runroot")
            .arg(self.0.join("run"))
            .env("CONTAINERS_CONF", self.configuration());
        buildah
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
