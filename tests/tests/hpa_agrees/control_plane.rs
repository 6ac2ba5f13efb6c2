//! A control plane of this test's own, made of the cluster's own programs: etcd, kube-apiserver and, of
//! kube-controller-manager, the HPA controller.
//!
//! It is apart from the cluster's because it needs three things that cannot be shared: an audit log of everything that
//! the HPA controller reads and writes, metrics that are plain objects (no aggregated API serves their groups here), and
//! pods that no kubelet touches, so that their status is what the test says.

use std::env;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use dormouse_tests::{cluster::NODE_ADDRESS, until};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// A busy machine takes its time over this.
const START: Duration = Duration::from_secs(240);

/// What is written to the audit log: the HPA controller's reads of scales and metrics, its writes of scales and
/// status. The test itself never does any of these.
const AUDIT: &str = r#"apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: RequestResponse
  verbs: [get, update]
  resources: [{group: hpa.dormouse.dev, resources: [targets/scale]}]
- level: RequestResponse
  verbs: [list]
  resources: [{group: external.metrics.k8s.io}, {group: metrics.k8s.io}]
- level: RequestResponse
  verbs: [update]
  resources: [{group: autoscaling, resources: [horizontalpodautoscalers/status]}]
- level: None
"#;

/// The running control plane; it ends with this value, and nothing is left of it.
pub(crate) struct ControlPlane {
    client: Client,
    controller: Child,
    _base: [Child; 2],
    directory: TempDir,
}

impl ControlPlane {
    /// Starts it, with `flags` for the HPA controller.
    pub(crate) async fn start(flags: &[String]) -> Result<Self> {
        let directory = tempfile::tempdir().context("unable to make a directory")?;
        let ports = free_ports()?;
        let [etcd_port, peer_port, api_port, controller_port] = ports;
        let state = variable("DORMOUSE_CLUSTER_STATE")?;
        let pki = |file: &str| state.join("pki").join(file).display().to_string();
        let own = |file: &str| directory.path().join(file).display().to_string();
        let (etcd, peer) = (
            format!("http://127.0.0.1:{etcd_port}"),
            format!("http://127.0.0.1:{peer_port}"),
        );
        let database = spawn(
            directory.path(),
            "server",
            &[
                format!("--data-dir={}", own("etcd")),
                "--unsafe-no-fsync=true".into(),
                format!("--listen-client-urls={etcd}"),
                format!("--advertise-client-urls={etcd}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
                "--log-level=warn".into(),
            ],
        )?;

        std::fs::write(own("audit.yaml"), AUDIT).context("unable to write the audit policy")?;
        let api = spawn(
            directory.path(),
            "kube-apiserver",
            &[
                format!("--etcd-servers={etcd}"),
                "--bind-address=127.0.0.1".into(),
                format!("--advertise-address={NODE_ADDRESS}"),
                format!("--secure-port={api_port}"),
                "--service-cluster-ip-range=10.96.0.0/16".into(),
                "--authorization-mode=AlwaysAllow".into(),
                // Pods get by without the controller that makes ServiceAccounts.
                "--disable-admission-plugins=ServiceAccount".into(),
                "--feature-gates=HPAScaleToZero=true".into(),
                format!("--cert-dir={}", own("run")),
                format!("--client-ca-file={}", pki("ca.crt")),
                format!("--tls-cert-file={}", pki("apiserver.crt")),
                format!("--tls-private-key-file={}", pki("apiserver.key")),
                "--service-account-issuer=https://kubernetes.default.svc".into(),
                format!("--service-account-key-file={}", pki("service-accounts.pub")),
                format!(
                    "--service-account-signing-key-file={}",
                    pki("service-accounts.key")
                ),
                format!("--audit-policy-file={}", own("audit.yaml")),
                format!("--audit-log-path={}", own("audit.log")),
            ],
        )?;

        let admin = std::fs::read_to_string(state.join("admin.kubeconfig"))
            .context("unable to read the administrator's kubeconfig")?
            .replace(":6443", &format!(":{api_port}"));
        std::fs::write(own("kubeconfig"), &admin).context("unable to write the kubeconfig")?;
        let client = client(&admin).await?;
        until("the test's own API server is ready", START, async || {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok(client.request_text(request).await?)
        })
        .await
        .with_context(|| log_of(directory.path(), "kube-apiserver"))?;

        let mut arguments = vec![
            format!("--kubeconfig={}", own("kubeconfig")),
            "--leader-elect=false".into(),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={controller_port}"),
            format!("--cert-dir={}", own("run")),
            "--controllers=horizontal-pod-autoscaler-controller".into(),
            "--feature-gates=HPAScaleToZero=true".into(),
            "--kube-api-qps=1000".into(),
            "--kube-api-burst=2000".into(),
            "--concurrent-horizontal-pod-autoscaler-syncs=20".into(),
        ];
        arguments.extend_from_slice(flags);
        // Not before the groups of the metrics and of the targets are there: what it does not find, it looks for again
        // only after half a minute.
        super::world::define(&client).await?;
        let controller = spawn(directory.path(), "kube-controller-manager", &arguments)?;
        Ok(Self {
            client,
            controller,
            _base: [api, database],
            directory,
        })
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Ends the HPA controller and answers the audit log.
    pub(crate) async fn finish(mut self) -> Result<String> {
        if let Some(status) = self.controller.try_wait().context("asking for the controller")? {
            let log = log_of(self.directory.path(), "kube-controller-manager");
            return Err(anyhow!("the HPA controller ended with {status}: {log}"));
        }
        self.controller
            .kill()
            .await
            .context("unable to end the HPA controller")?;
        let path = self.directory.path().join("audit.log");
        tokio::fs::read_to_string(path)
            .await
            .context("unable to read the audit log")
    }
}

fn variable(name: &str) -> Result<PathBuf> {
    let value =
        env::var_os(name).ok_or_else(|| anyhow!("{name} is not set; run this through `cargo xtask test`"))?;
    Ok(value.into())
}

/// Ports that were free a moment ago.
fn free_ports() -> Result<[u16; 4]> {
    let mut ports = [0; 4];
    let mut held = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("unable to find a free port")?;
        *port = listener.local_addr().context("reading a port")?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn spawn(directory: &Path, program: &str, arguments: &[String]) -> Result<Child> {
    let log = File::create(directory.join(program).with_extension("log")).context("unable to make a log")?;
    Command::new(variable("DORMOUSE_CONTROL_PLANE")?.join(program))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("unable to share a log")?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("unable to start {program}"))
}

fn log_of(directory: &Path, program: &str) -> String {
    let text = std::fs::read_to_string(directory.join(program).with_extension("log"))
        .unwrap_or_else(|e| e.to_string());
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

async fn client(kubeconfig: &str) -> Result<Client> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).context("unable to read the kubeconfig")?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .context("unable to use the kubeconfig")?;
    Client::try_from(config).context("unable to make a client")
}
