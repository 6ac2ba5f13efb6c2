//! Keys, certificates and kubeconfigs, made with the openssl program and thrown away with the cluster.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::layout::{API_SERVICE, Layout, NODE, NODE_ADDRESS};
use crate::process::{SHORT, output};

const DAYS: &str = "365";

/// A certificate that an authority of the cluster signs.
struct Leaf {
    file: &'static str,
    authority: &'static str,
    subject: String,
    /// Names and addresses it serves under; empty for a client.
    names: String,
    usage: &'static str,
}

fn leaves() -> Vec<Leaf> {
    let client = |file, subject: &str| Leaf {
        file,
        authority: "ca",
        subject: subject.to_owned(),
        names: String::new(),
        usage: "clientAuth",
    };
    vec![
        Leaf {
            file: "apiserver",
            authority: "ca",
            subject: "/CN=kube-apiserver".into(),
            names: format!(
                "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
                 DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:{NODE_ADDRESS},IP:{API_SERVICE}"
            ),
            usage: "serverAuth",
        },
        Leaf {
            file: "kubelet",
            authority: "ca",
            subject: format!("/O=system:nodes/CN=system:node:{NODE}"),
            names: format!("DNS:{NODE},IP:127.0.0.1,IP:{NODE_ADDRESS}"),
            usage: "serverAuth,clientAuth",
        },
        client("admin", "/O=system:masters/CN=admin"),
        client("apiserver-to-kubelet", "/O=system:masters/CN=kube-apiserver"),
        client("controller-manager", "/CN=system:kube-controller-manager"),
        client("scheduler", "/CN=system:kube-scheduler"),
        client("kube-proxy", "/CN=system:kube-proxy"),
        Leaf {
            authority: "front-proxy-ca",
            ..client("front-proxy", "/CN=front-proxy-client")
        },
    ]
}

/// The certificates that come with a kubeconfig, `<name>.kubeconfig` in the state directory.
const KUBECONFIGS: &[&str] = &[
    "admin",
    "controller-manager",
    "scheduler",
    "kubelet",
    "kube-proxy",
];

/// Makes everything, unless it was made before.
pub(super) fn ensure(layout: &Layout) -> Result<()> {
    let marker = layout.file("pki/complete");
    if marker.exists() {
        return Ok(());
    }
    // An empty configuration: the distribution's would add extensions of its own.
    fs::write(
        layout.file("pki/openssl.cnf"),
        "[req]\ndistinguished_name = dn\n[dn]\n",
    )
    .context("unable to write openssl's configuration")?;
    for authority in ["ca", "front-proxy-ca"] {
        let constraints = [
            "basicConstraints=critical,CA:TRUE",
            "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
        ];
        certificate(layout, authority, &format!("/CN={authority}"), &constraints, None)?;
    }
    for leaf in leaves() {
        let usage = format!("extendedKeyUsage={}", leaf.usage);
        let names = format!("subjectAltName={}", leaf.names);
        let mut extensions = vec![
            "basicConstraints=critical,CA:FALSE",
            "keyUsage=critical,digitalSignature",
            &usage,
        ];
        if !leaf.names.is_empty() {
            extensions.push(&names);
        }
        certificate(
            layout,
            leaf.file,
            &leaf.subject,
            &extensions,
            Some(leaf.authority),
        )?;
    }
    let key = layout.text("pki/service-accounts.key");
    openssl(&[
        "ecparam",
        "-name",
        "prime256v1",
        "-genkey",
        "-noout",
        "-out",
        &key,
    ])?;
    openssl(&[
        "ec",
        "-in",
        &key,
        "-pubout",
        "-out",
        &layout.text("pki/service-accounts.pub"),
    ])?;
    for name in KUBECONFIGS {
        kubeconfig(layout, name)?;
    }
    fs::write(marker, b"").context("unable to mark the certificates as complete")
}

fn certificate(
    layout: &Layout,
    file: &str,
    subject: &str,
    extensions: &[&str],
    authority: Option<&str>,
) -> Result<()> {
    let path = |name: &str, kind: &str| layout.text(&format!("pki/{name}.{kind}"));
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-sha256",
    ]);
    command.args([
        "-config",
        &layout.text("pki/openssl.cnf"),
        "-days",
        DAYS,
        "-subj",
        subject,
    ]);
    command.args(["-keyout", &path(file, "key"), "-out", &path(file, "crt")]);
    command.args(["-addext", "subjectKeyIdentifier=hash"]);
    for extension in extensions {
        command.args(["-addext", extension]);
    }
    if let Some(authority) = authority {
        command.args(["-CA", &path(authority, "crt"), "-CAkey", &path(authority, "key")]);
        command.args(["-addext", "authorityKeyIdentifier=keyid"]);
    }
    output(&mut command, SHORT)
        .with_context(|| format!("unable to make the certificate {file}"))
        .map(drop)
}

fn openssl(arguments: &[&str]) -> Result<()> {
    output(Command::new("openssl").args(arguments), SHORT).map(drop)
}

fn kubeconfig(layout: &Layout, name: &str) -> Result<()> {
    let data = |file: &str| -> Result<String> {
        let path = layout.file(&format!("pki/{file}"));
        Ok(STANDARD.encode(fs::read(&path).with_context(|| format!("unable to read {}", path.display()))?))
    };
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {cluster}\n\
         clusters:\n- name: {cluster}\n  cluster:\n    server: https://127.0.0.1:6443\n    \
         certificate-authority-data: {authority}\n\
         users:\n- name: {name}\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n\
         contexts:\n- name: {cluster}\n  context:\n    cluster: {cluster}\n    user: {name}\n",
        cluster = layout.name(),
        authority = data("ca.crt")?,
        certificate = data(&format!("{name}.crt"))?,
        key = data(&format!("{name}.key"))?,
    );
    let path = layout.file(&format!("{name}.kubeconfig"));
    fs::write(&path, text).context("unable to write a kubeconfig")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).context("unable to protect a kubeconfig")
}
