//! The configuration files of the cluster's programs.

use std::fs;

use anyhow::{Context as _, Result};

use super::cgroups;
use super::layout::{DNS_ADDRESS, Layout, NODE, NODE_ADDRESS, POD_RANGE};
use crate::setup::images::PAUSE;

/// What the operator wrote, where its chart installs it, how it changed scales, and all that the operators asked for whose rights are tried;
/// nothing else is noted.
const AUDIT: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: Request
    userGroups: [\"system:serviceaccounts:keda\"]
    verbs: [patch]
    resources: [{group: apps, resources: [deployments/scale]}]
  - level: Metadata
    userGroups: [\"system:serviceaccounts:keda\"]
    verbs: [create, update, patch, delete, deletecollection]
  - level: Metadata
    userGroups:
      - system:serviceaccounts:dormouse-rbac-0
      - system:serviceaccounts:dormouse-rbac-1
      - system:serviceaccounts:dormouse-rbac-2
      - system:serviceaccounts:dormouse-rbac-3
  - level: None
";

/// Writes those that are missing or different: kube-proxy ends when its file is written to, whatever is in it.
pub(super) fn write(layout: &Layout) -> Result<()> {
    let put = |name: &str, text: String| {
        let file = layout.file(name);
        if fs::read_to_string(&file).is_ok_and(|current| current == text) {
            return Ok(());
        }
        fs::write(&file, text).with_context(|| format!("unable to write {}", file.display()))
    };
    put("containerd.toml", containerd(layout))?;
    put("cni/10-pods.conflist", pod_network(layout))?;
    put("kubelet.yaml", kubelet(layout))?;
    put("kube-proxy.yaml", kube_proxy(layout))?;
    put("audit.yaml", AUDIT.to_owned())?;
    // Pods without cluster DNS must not inherit this machine's name servers and search domains.
    put("resolv.conf", format!("nameserver {NODE_ADDRESS}\n"))
}

fn containerd(layout: &Layout) -> String {
    let file = |name: &str| layout.text(name);
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{opt}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # Lowering a score takes CAP_SYS_RESOURCE, which root may lack in a container.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{runc}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
"#,
        root = file("containerd/root"),
        state = file("containerd/state"),
        socket = layout.containerd_socket().display(),
        opt = file("containerd/opt"),
        runc = file("containerd/runc"),
        cni = file("cni"),
    )
}

fn pod_network(layout: &Layout) -> String {
    format!(
        r#"{{
  "cniVersion": "1.0.0",
  "name": "{name}-pods",
  "plugins": [
    {{
      "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
      "ipam": {{
        "type": "host-local", "dataDir": "{addresses}",
        "ranges": [[{{"subnet": "{POD_RANGE}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]
      }}
    }},
    {{"type": "portmap", "capabilities": {{"portMappings": true}}}}
  ]
}}
"#,
        name = layout.name(),
        addresses = layout.text("addresses"),
    )
}

fn kubelet(layout: &Layout) -> String {
    let file = |name: &str| layout.text(name);
    // With cgroup v1 the kubelet has to be told that this is no mistake.
    let legacy = if cgroups::is_unified() {
        ""
    } else {
        "failCgroupV1: false
"
    };
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
{legacy}cgroupDriver: cgroupfs
cgroupRoot: {cgroup}
enforceNodeAllocatable: []
failSwapOn: false
oomScoreAdj: 0
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {authority}}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {certificate}
tlsPrivateKeyFile: {key}
containerRuntimeEndpoint: unix://{socket}
podCIDR: {POD_RANGE}
clusterDNS: [{DNS_ADDRESS}]
clusterDomain: cluster.local
resolvConf: {resolver}
podLogsDir: {logs}
volumePluginDir: {volume_plugins}
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
maxPods: 250
",
        cgroup = layout.cgroup(),
        authority = file("pki/ca.crt"),
        certificate = file("pki/kubelet.crt"),
        key = file("pki/kubelet.key"),
        socket = layout.containerd_socket().display(),
        resolver = file("resolv.conf"),
        logs = file("pod-logs"),
        volume_plugins = file("volume-plugins"),
    )
}

fn kube_proxy(layout: &Layout) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {{kubeconfig: {kubeconfig}}}
clusterCIDR: {POD_RANGE}
hostnameOverride: {NODE}
conntrack: {{maxPerCore: 0}}
",
        kubeconfig = layout.text("kube-proxy.kubeconfig"),
    )
}
