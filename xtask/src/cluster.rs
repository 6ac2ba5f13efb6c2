//! The real test cluster: one node with everything a Kubernetes has, in one network namespace of this machine.
//!
//! ```text
//! host ── network namespace "dormouse" ─────────────────────────────────────────────────────┐
//!   etcd ─ kube-apiserver ─┬─ kube-controller-manager, kube-scheduler    (10.10.0.1 on node0) │
//!                          └─ kubelet ─ containerd ─ pods (10.244.0.0/24 on cni0), kube-proxy │
//! └────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! `up` states what should run and starts what does not; a cluster that cannot be mended is taken down and made
//! anew. `down` leaves nothing. State is the machine's, not the user's or the work tree's, because the namespace,
//! the mounts and the cgroups are the machine's as well.

mod cgroups;
mod components;
mod configuration;
mod down;
mod layout;
mod network;
mod pki;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

pub(crate) use self::layout::Layout;
use crate::process::{SHORT, output, wait_until};
use crate::progress::{say, seconds, step};
use crate::setup::Parts;
use crate::workspace::Workspace;

/// How quickly the HPA controller of the cluster works.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Pace {
    /// How often the HPA controller looks at each HPA.
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    hpa_sync: String,
    /// For how long an HPA remembers a higher wish before it scales down.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    hpa_stabilization: String,
}

impl Pace {
    /// As on clusters that nobody configured.
    pub(crate) fn ordinary() -> Self {
        Self {
            hpa_sync: "15s".into(),
            hpa_stabilization: "300s".into(),
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            hpa_sync: "5s".into(),
            hpa_stabilization: "10s".into(),
        }
    }
}

/// A cluster on this machine, running or not.
pub(crate) struct Cluster {
    layout: Layout,
}

impl Cluster {
    /// The cluster of this name. One name is enough unless two work trees test at the same time.
    pub(crate) fn named(name: &str) -> Result<Self> {
        Ok(Self {
            layout: Layout::new(name)?,
        })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Brings the cluster up, or makes sure that it is.
    pub(crate) fn up(&self, workspace: &Workspace, parts: &Parts, pace: &Pace) -> Result<()> {
        let _lock = Lock::take(&self.layout.lock("cluster"))?;
        let start = Instant::now();
        if self.layout.state().exists() && !network::exists(&self.layout) {
            step("removing what an earlier cluster left", || {
                down::down(&self.layout)
            })?;
        }
        let fresh = !self.layout.state().exists();
        let outcome = self.converge(workspace, parts, pace);
        match outcome {
            Ok(changed) => {
                let verb = if changed {
                    "is up after"
                } else {
                    "was up already, seen in"
                };
                say(format_args!(
                    "    the cluster {verb} {}",
                    seconds(start.elapsed())
                ));
                Ok(())
            }
            Err(error) if fresh => Err(error),
            Err(error) => {
                say(format_args!(
                    "    the cluster cannot be mended, so it is made anew: {error:#}"
                ));
                down::down(&self.layout)?;
                step("starting the cluster", || self.converge(workspace, parts, pace)).map(drop)
            }
        }
    }

    /// Starts whatever is not running as it should. Answers whether there was anything to do.
    fn converge(&self, workspace: &Workspace, parts: &Parts, pace: &Pace) -> Result<bool> {
        let layout = &self.layout;
        layout.create()?;
        network::ensure(layout)?;
        cgroups::ensure(layout)?;
        pki::ensure(layout)?;
        configuration::write(layout)?;
        let daemons = layout.daemons();
        let specs = components::specs(layout, parts, pace);
        let mut changed = false;
        let (base, dependents) = specs.split_at(components::BASE);
        for spec in base {
            changed |= daemons.ensure(spec)?;
        }
        thread::scope(|scope| {
            let images = scope.spawn(|| components::load_base_images(layout, parts));
            let ready = wait_until("the API server is ready", Duration::from_secs(60), || {
                self.expect_alive(base.iter().map(|spec| spec.name))?;
                Ok(output(
                    self.kubectl(parts).args(["get", "--raw", "/readyz"]),
                    SHORT,
                ))
            });
            let images = images
                .join()
                .unwrap_or_else(|_| bail!("the thread that loads images panicked"));
            ready.and(images)
        })?;
        for spec in dependents {
            changed |= daemons.ensure(spec)?;
        }
        let manifest = workspace.path("tests/cluster/coredns.yaml");
        output(
            self.kubectl(parts)
                .args(["apply", "--server-side", "--force-conflicts", "-f"])
                .arg(manifest),
            SHORT,
        )?;
        wait_until("the node is ready", Duration::from_secs(60), || {
            self.expect_alive(specs.iter().map(|spec| spec.name))?;
            Ok(self.node_is_ready(parts))
        })?;
        let mut rollout = self.kubectl(parts);
        output(
            rollout.args([
                "-n",
                "kube-system",
                "rollout",
                "status",
                "deployment/coredns",
                "--timeout=60s",
            ]),
            SHORT * 2,
        )?;
        wait_until(
            "the default service account exists",
            Duration::from_secs(30),
            || {
                Ok(output(
                    self.kubectl(parts).args(["get", "serviceaccount", "default"]),
                    SHORT,
                ))
            },
        )?;
        Ok(changed)
    }

    fn node_is_ready(&self, parts: &Parts) -> Result<()> {
        let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        let status = output(
            self.kubectl(parts)
                .args(["get", "node", layout::NODE, "-o", ready]),
            SHORT,
        )?;
        if status != "True" {
            bail!("its Ready condition is {status:?}");
        }
        Ok(())
    }

    fn expect_alive(&self, names: impl Iterator<Item = &'static str>) -> Result<()> {
        let daemons = self.layout.daemons();
        for name in names {
            if daemons.alive(name).is_none() {
                bail!(
                    "{name} has ended; the end of its log:{}",
                    daemons.last_words(name)
                );
            }
        }
        Ok(())
    }

    /// Takes the cluster down, whatever state it is in.
    pub(crate) fn down(&self) -> Result<()> {
        let _lock = Lock::take(&self.layout.lock("cluster"))?;
        if !self.layout.state().exists() && !network::exists(&self.layout) {
            say("    there is no cluster");
            return Ok(());
        }
        step("taking the cluster down", || down::down(&self.layout))
    }

    /// Whether a cluster of this name was started and not taken down.
    pub(crate) fn exists(&self) -> bool {
        self.layout.state().exists() && network::exists(&self.layout)
    }

    /// Fails with the way out unless the cluster answers.
    pub(crate) fn expect_up(&self, parts: &Parts) -> Result<()> {
        let ready = self.exists() && self.node_is_ready(parts).is_ok();
        anyhow::ensure!(
            ready,
            "the cluster {} is not up; `cargo xtask cluster up` starts it",
            self.layout.name()
        );
        Ok(())
    }

    /// One line per process, then what Kubernetes says of itself. The second value tells whether all is well.
    pub(crate) fn status(&self, parts: &Parts) -> (String, bool) {
        let daemons = self.layout.daemons();
        let mut well = true;
        let mut text = format!(
            "cluster {}: {}\n",
            self.layout.name(),
            self.layout.state().display()
        );
        for name in components::NAMES {
            let alive = daemons.alive(name);
            well &= alive.is_some();
            let state = alive.map_or("not running".to_owned(), |identity| {
                format!("pid {}", identity.pid())
            });
            text += &format!("  {name:<26} {state}\n");
        }
        for arguments in [
            "get nodes -o wide --no-headers",
            "get pods --all-namespaces --no-headers",
        ] {
            match output(self.kubectl(parts).args(arguments.split(' ')), SHORT) {
                Ok(answer) => text += &answer,
                Err(error) => {
                    well = false;
                    text += &format!("  {error:#}\n");
                }
            }
        }
        (text, well)
    }

    /// kubectl, inside the cluster's network, as its administrator.
    pub(crate) fn kubectl(&self, parts: &Parts) -> Command {
        let mut kubectl = self.inside(&parts.kubectl);
        kubectl
            .arg("--request-timeout=10s")
            .env("KUBECONFIG", self.layout.admin());
        kubectl
    }

    /// A program that runs inside the cluster's network.
    pub(crate) fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.layout.namespace().display()))
            .arg("--")
            .arg(program);
        command
    }

    /// Loads an image archive into the node.
    pub(crate) fn load(&self, archive: &std::path::Path) -> Result<()> {
        components::import(&self.layout, archive)
    }

    /// An interactive shell (or one command) inside the cluster's network, with kubectl and helm at hand.
    pub(crate) fn shell(
        &self,
        environment: &[(String, std::ffi::OsString)],
        command: &[String],
    ) -> Result<()> {
        let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
        let (program, arguments) = command
            .split_first()
            .map_or((shell, &[][..]), |(first, rest)| (first.clone(), rest));
        let status = self
            .inside(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .status()
            .context("unable to enter the cluster's network")?;
        if !status.success() {
            bail!("the command ended with {status}");
        }
        Ok(())
    }

    /// Keeps other test runs away from this cluster until the answer is dropped.
    pub(crate) fn reserve(&self) -> Result<Lock> {
        Lock::take(&self.layout.lock("test"))
    }
}

/// A lock file, removed when the lock is given back.
pub(crate) struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    fn take(path: &std::path::Path) -> Result<Self> {
        loop {
            let file = File::create(path).with_context(|| format!("unable to create {}", path.display()))?;
            if file.try_lock().is_err() {
                say(format_args!(
                    "    waiting for {}, which another run holds",
                    path.display()
                ));
                file.lock()
                    .with_context(|| format!("unable to lock {}", path.display()))?;
            }
            // Its last holder removes the file: a lock on a removed file keeps nobody out.
            let ours = file.metadata().context("unable to look at a lock file")?.ino();
            if fs::metadata(path).is_ok_and(|current| current.ino() == ours) {
                return Ok(Self {
                    path: path.to_owned(),
                    file,
                });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}
