//! What clients are shown, and what endpoints have to show.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use clap::Parser;

use super::*;

const NAMES: &[&str] = &["shop.example.com", "*.wild.example.com"];

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    tls: TlsArgs,
}

fn args(flags: &[&str]) -> TlsArgs {
    let flags = ["dormouse"].iter().chain(flags);
    Cli::try_parse_from(flags).unwrap().tls
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Writes a certificate for `names` and its key.
    fn issue(&self, names: &[&str], certificate: &Path, key: &Path) -> CertificateDer<'static> {
        let own = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let issued = CertificateParams::new(names)
            .unwrap()
            .signed_by(&own, &self.issuer)
            .unwrap();
        fs::write(certificate, issued.pem()).unwrap();
        fs::write(key, own.serialize_pem()).unwrap();
        issued.der().clone()
    }

    fn client(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }
}

/// The certificate that a client is shown who asks for `name`, if it believes it.
async fn shown(listener: &TlsListener, authority: &Authority, name: &str) -> Option<CertificateDer<'static>> {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = socket.accept().await.unwrap();
    let acceptor = TlsAcceptor::from(listener.server.clone());
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = authority.client();
    let (_, client) = tokio::join!(acceptor.accept(accepted), connector.connect(name, stream));
    let client = client.ok()?;
    let chain = client.get_ref().1.peer_certificates().unwrap();
    Some(chain[0].clone())
}

#[tokio::test]
async fn clients_are_shown_the_certificate_for_the_name_that_they_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("store")).unwrap();
    let authority = Authority::new();
    let main = authority.issue(&["main.example.com"], &at("tls.crt"), &at("tls.key"));
    let own = authority.issue(NAMES, &at("store/a.crt"), &at("store/a.key"));
    let pem = authority.issue(&["pem.example.com"], &at("store/b.pem"), &at("store/b-key.pem"));
    fs::write(at("store/README"), "no certificate").unwrap();
    let path = |name| at(name).to_str().unwrap().to_owned();
    let args = args(&[
        "--proxy-tls-enabled",
        &format!("--proxy-tls-cert-path={}", path("tls.crt")),
        &format!("--proxy-tls-key-path={}", path("tls.key")),
        &format!("--proxy-tls-cert-store-paths={}", path("store")),
    ]);
    let (listener, _) = args.listener([127, 0, 0, 1].into()).unwrap().unwrap();
    assert_eq!(listener.listen.port(), 8443);
    for (name, expected) in [
        ("main.example.com", Some(&main)),
        ("shop.example.com", Some(&own)),
        ("SHOP.example.com", Some(&own)),
        ("a.wild.example.com", Some(&own)),
        ("pem.example.com", Some(&pem)),
        ("other.example.com", None),
    ] {
        assert_eq!(
            shown(&listener, &authority, name).await.as_ref(),
            expected,
            "{name}"
        );
    }
}

#[tokio::test]
async fn certificates_are_renewed_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let authority = Authority::new();
    let first = authority.issue(&["a.example.com"], &at("tls.crt"), &at("tls.key"));
    let path = |name| at(name).to_str().unwrap().to_owned();
    let args = args(&[
        "--proxy-tls-enabled",
        &format!("--proxy-tls-cert-path={}", path("tls.crt")),
        &format!("--proxy-tls-key-path={}", path("tls.key")),
    ]);
    let (listener, keyring) = args.listener([127, 0, 0, 1].into()).unwrap().unwrap();
    tokio::time::pause();
    let following = tokio::spawn(keyring.follow());
    let wait = async || {
        // The files are read on a thread that has no part in the paused time.
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(11)).await;
            tokio::task::spawn_blocking(|| ()).await.unwrap();
        }
    };
    wait().await;
    let other = Authority::new();
    fs::write(at("tls.key"), "no key").unwrap();
    wait().await;
    assert_eq!(
        shown(&listener, &authority, "a.example.com").await,
        Some(first.clone())
    );
    let second = other.issue(&["a.example.com"], &at("tls.crt"), &at("tls.key"));
    wait().await;
    assert_eq!(shown(&listener, &authority, "a.example.com").await, None);
    assert_eq!(shown(&listener, &other, "a.example.com").await, Some(second));
    following.abort();
}

#[test]
fn what_cannot_be_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let path = |name| at(name).to_str().unwrap().to_owned();
    let authority = Authority::new();
    authority.issue(&["a"], &at("a.crt"), &at("a.key"));
    authority.issue(&["b"], &at("b.crt"), &at("b.key"));
    fs::create_dir(at("empty")).unwrap();
    let (crt, key) = ("--proxy-tls-cert-path=", "--proxy-tls-key-path=");
    for (flags, expected) in [
        (
            vec![
                format!("{crt}{}", path("a.crt")),
                format!("{key}{}", path("b.key")),
            ],
            "unable to use the certificate",
        ),
        (
            vec![
                format!("{crt}{}", path("a.key")),
                format!("{key}{}", path("a.key")),
            ],
            "holds no certificate",
        ),
        (vec![format!("{crt}{}", path("none.crt"))], "unable to read"),
        (
            vec![
                format!("{crt}{}", path("none.crt")),
                format!("--proxy-tls-cert-store-paths={}", path("empty")),
            ],
            "there is no certificate",
        ),
        (vec!["--tls-min-version=1.1".to_owned()], "known are 1.2, 1.3"),
        (
            vec!["--tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA".to_owned()],
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        ),
        (vec!["--tls-curve-preferences=P1".to_owned()], "X25519"),
    ] {
        let mut all = vec![
            "--proxy-tls-enabled".to_owned(),
            format!("{crt}{}", path("a.crt")),
            format!("{key}{}", path("a.key")),
        ];
        // The later of two is refused by clap, so each replaces the first of its name.
        all.retain(|flag| {
            !flags
                .iter()
                .any(|other| other.split('=').next() == flag.split('=').next())
        });
        all.extend(flags);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let error = args(&all)
            .listener([127, 0, 0, 1].into())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(args(&[]).listener([127, 0, 0, 1].into()).unwrap().is_none());
}

#[test]
fn suites_groups_and_versions_have_the_add_ons_names() {
    let args = args(&[
        "--tls-min-version=1.3",
        "--tls-cipher-suites=TLS_AES_128_GCM_SHA256",
        "--tls-curve-preferences=CurveP256,X25519",
    ]);
    let provider = args.provider().unwrap();
    assert_eq!((provider.cipher_suites.len(), provider.kx_groups.len()), (1, 2));
    let versions = args.versions().unwrap();
    assert_eq!(versions.len(), 1);
    assert_eq!(versions[0].version, rustls::ProtocolVersion::TLSv1_3);
}

#[test]
fn every_group_that_is_named_as_known_can_be_had() {
    for (name, _) in super::options::GROUPS {
        let args = args(&[&format!("--tls-curve-preferences={name}")]);
        assert!(args.provider().is_ok(), "{name}");
    }
}

/// Whether an endpoint with a certificate for `names` is believed to be the Service `web` in `shop`.
async fn believed(config: &Arc<ClientConfig>, authority: &Authority, names: &[&str]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    authority.issue(names, &at("tls.crt"), &at("tls.key"));
    let path = |name| at(name).to_str().unwrap().to_owned();
    let args = args(&[
        "--proxy-tls-enabled",
        &format!("--proxy-tls-cert-path={}", path("tls.crt")),
        &format!("--proxy-tls-key-path={}", path("tls.key")),
    ]);
    let (listener, _) = args.listener([127, 0, 0, 1].into()).unwrap().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = socket.accept().await.unwrap();
    let acceptor = TlsAcceptor::from(listener.server.clone());
    let name = ServerName::try_from("web.shop.svc").unwrap();
    let connector = TlsConnector::from(config.clone());
    let connecting = async {
        let mut stream = connector.connect(name, stream).await.ok()?;
        stream.write_all(b"hello").await.ok()
    };
    let accepting = async {
        let mut stream = acceptor.accept(accepted).await.ok()?;
        stream.read_exact(&mut [0; 5]).await.ok()
    };
    let (connected, accepted) = tokio::join!(connecting, accepting);
    connected.and(accepted).is_some()
}

#[tokio::test]
async fn endpoints_need_a_certificate_for_their_service() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    fs::write(folder.path().join("ca.crt"), &authority.pem).unwrap();
    let directory = format!("--tls-ca-dirs={}", folder.path().to_str().unwrap());
    let strict = args(&[&directory]).endpoints().unwrap().unwrap();
    for (names, expected) in [
        (&["web.shop.svc"][..], true),
        (&["web.shop"], true),
        (&["x", "web.shop.svc.cluster.local"], true),
        (&["*.shop.svc"], true),
        (&["web.bank.svc"], false),
        (&["web"], false),
    ] {
        assert_eq!(believed(&strict, &authority, names).await, expected, "{names:?}");
    }
    assert!(!believed(&strict, &Authority::new(), &["web.shop.svc"]).await);
    let lenient = args(&["--tls-skip-verify"]).endpoints().unwrap().unwrap();
    assert!(believed(&lenient, &Authority::new(), &["anything"]).await);
}
