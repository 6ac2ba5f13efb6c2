//! The programs of the cluster and their command lines.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Pace;
use super::layout::{Layout, NODE, NODE_ADDRESS, SERVICE_RANGE};
use crate::daemon::Spec;
use crate::process::{SHORT, output, wait_until};
use crate::setup::Parts;

/// Every process of the cluster, in the order in which they are started.
pub(super) const NAMES: [&str; 7] = [
    "containerd",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
];

/// How many of them can start before the API server answers.
pub(super) const BASE: usize = 3;

pub(super) fn specs(layout: &Layout, parts: &Parts, pace: &Pace) -> [Spec; 7] {
    let arguments: [Vec<String>; 7] = [
        vec![format!("--config={}", layout.text("containerd.toml"))],
        etcd(layout),
        apiserver(layout),
        controller_manager(layout, pace),
        scheduler(layout),
        kubelet(layout),
        vec![format!("--config={}", layout.text("kube-proxy.yaml"))],
    ];
    let mut arguments = arguments.into_iter();
    NAMES.map(|name| {
        let program = match name {
            "containerd" => "/usr/bin/containerd".to_owned(),
            // The etcd command's package is called `server`, and so is the program that Go makes of it.
            "etcd" => parts.control_plane.join("server").display().to_string(),
            _ => parts.control_plane.join(name).display().to_string(),
        };
        let enter = [
            "nsenter".to_owned(),
            format!("--net={}", layout.namespace().display()),
            "--".to_owned(),
            program,
        ];
        let argv = enter
            .into_iter()
            .chain(arguments.next().unwrap_or_default())
            .collect();
        let files: &[&str] = match name {
            "containerd" => &["containerd.toml"],
            "kubelet" => &["kubelet.yaml", "kubelet.kubeconfig"],
            "kube-proxy" => &["kube-proxy.yaml", "kube-proxy.kubeconfig"],
            "kube-apiserver" => &["pki/apiserver.crt", "audit.yaml"],
            "kube-controller-manager" => &["controller-manager.kubeconfig"],
            "kube-scheduler" => &["scheduler.kubeconfig"],
            _ => &[],
        };
        Spec {
            name,
            argv,
            files: files.iter().map(|file| layout.file(file)).collect(),
        }
    })
}

fn flags(list: &[(&str, &str)]) -> Vec<String> {
    list.iter()
        .map(|(name, value)| format!("--{name}={value}"))
        .collect()
}

fn etcd(layout: &Layout) -> Vec<String> {
    let (client, peer) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
    flags(&[
        ("data-dir", &layout.text("etcd")),
        // Nothing in this cluster is worth a disk flush.
        ("unsafe-no-fsync", "true"),
        ("listen-client-urls", client),
        ("advertise-client-urls", client),
        ("listen-peer-urls", peer),
        ("log-level", "warn"),
    ])
}

fn apiserver(layout: &Layout) -> Vec<String> {
    let pki = |file: &str| layout.text(&format!("pki/{file}"));
    flags(&[
        ("etcd-servers", "http://127.0.0.1:2379"),
        ("bind-address", "0.0.0.0"),
        ("advertise-address", NODE_ADDRESS),
        ("secure-port", "6443"),
        ("service-cluster-ip-range", SERVICE_RANGE),
        ("authorization-mode", "Node,RBAC"),
        ("enable-admission-plugins", "NodeRestriction"),
        ("allow-privileged", "true"),
        ("cert-dir", &layout.text("run")),
        ("client-ca-file", &pki("ca.crt")),
        ("tls-cert-file", &pki("apiserver.crt")),
        ("tls-private-key-file", &pki("apiserver.key")),
        ("service-account-issuer", "https://kubernetes.default.svc"),
        ("service-account-key-file", &pki("service-accounts.pub")),
        ("service-account-signing-key-file", &pki("service-accounts.key")),
        ("kubelet-preferred-address-types", "InternalIP"),
        ("kubelet-certificate-authority", &pki("ca.crt")),
        ("kubelet-client-certificate", &pki("apiserver-to-kubelet.crt")),
        ("kubelet-client-key", &pki("apiserver-to-kubelet.key")),
        ("requestheader-client-ca-file", &pki("front-proxy-ca.crt")),
        ("requestheader-allowed-names", "front-proxy-client"),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
        ("requestheader-group-headers", "X-Remote-Group"),
        ("requestheader-username-headers", "X-Remote-User"),
        ("proxy-client-cert-file", &pki("front-proxy.crt")),
        ("proxy-client-key-file", &pki("front-proxy.key")),
        ("enable-aggregator-routing", "true"),
        // On by default in some distributions, and a right of the chart exists for it alone.
        ("enable-admission-plugins", "OwnerReferencesPermissionEnforcement"),
        ("audit-policy-file", &layout.text("audit.yaml")),
        ("audit-log-path", &layout.text("logs/audit.log")),
        ("audit-log-maxsize", "64"),
        ("audit-log-maxbackup", "1"),
    ])
}

fn controller_manager(layout: &Layout, pace: &Pace) -> Vec<String> {
    flags(&[
        ("kubeconfig", &layout.text("controller-manager.kubeconfig")),
        ("leader-elect", "false"),
        ("bind-address", "127.0.0.1"),
        ("cert-dir", &layout.text("run")),
        (
            "service-account-private-key-file",
            &layout.text("pki/service-accounts.key"),
        ),
        ("root-ca-file", &layout.text("pki/ca.crt")),
        ("use-service-account-credentials", "true"),
        ("flex-volume-plugin-dir", &layout.text("volume-plugins")),
        ("kube-api-qps", "200"),
        ("kube-api-burst", "400"),
        ("horizontal-pod-autoscaler-sync-period", &pace.hpa_sync),
        (
            "horizontal-pod-autoscaler-downscale-stabilization",
            &pace.hpa_stabilization,
        ),
    ])
}

fn scheduler(layout: &Layout) -> Vec<String> {
    flags(&[
        ("kubeconfig", &layout.text("scheduler.kubeconfig")),
        ("leader-elect", "false"),
        ("bind-address", "127.0.0.1"),
        ("cert-dir", &layout.text("run")),
    ])
}

fn kubelet(layout: &Layout) -> Vec<String> {
    flags(&[
        ("config", &layout.text("kubelet.yaml")),
        ("kubeconfig", &layout.text("kubelet.kubeconfig")),
        ("root-dir", &layout.text("kubelet")),
        ("cert-dir", &layout.text("kubelet/pki")),
        ("hostname-override", NODE),
        ("node-ip", NODE_ADDRESS),
    ])
}

/// The node's image tool, on the namespace that the kubelet uses.
pub(super) fn ctr(layout: &Layout) -> Command {
    let mut ctr = Command::new("ctr");
    ctr.arg("--address")
        .arg(layout.containerd_socket())
        .args(["--namespace", "k8s.io"]);
    ctr
}

pub(super) fn import(layout: &Layout, archive: &Path) -> Result<()> {
    let imported = output(ctr(layout).args(["images", "import"]).arg(archive), SHORT * 3);
    imported
        .with_context(|| format!("unable to load {}", archive.display()))
        .map(drop)
}

/// Loads the images without which no pod starts, unless these very archives were loaded before.
pub(super) fn load_base_images(layout: &Layout, parts: &Parts) -> Result<()> {
    let record = layout.file("run/images");
    let wanted: BTreeMap<_, _> = parts
        .images
        .iter()
        .map(|(name, path)| (name.clone(), path.clone()))
        .collect();
    let loaded = fs::read(&record)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if loaded.as_ref() == Some(&wanted) {
        return Ok(());
    }
    wait_until("containerd answers", Duration::from_secs(30), || {
        Ok(output(ctr(layout).arg("version"), SHORT))
    })?;
    for archive in wanted.values() {
        import(layout, archive)?;
    }
    let text = serde_json::to_vec(&wanted).context("unable to encode the list of images")?;
    fs::write(record, text).context("unable to record the loaded images")
}
