//! TLS towards clients and endpoints.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is test code"
)]

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use common::raw::{Raw, get};
use common::{PATIENCE, Rig, app, by_traffic_port, pod, settings};
use dormouse_proxy::{Check, HttpCheck, Probe, ProbeSpec, Protocol, Scheme, TlsListener};
use http::Request;
use http::uri::PathAndQuery;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A server with a certificate for `name`, and the certificate.
fn server(name: &str, alpn: &[&str]) -> (Arc<ServerConfig>, CertificateDer<'static>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    (Arc::new(config), cert.der().clone())
}

fn client(trusted: &CertificateDer<'static>, alpn: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A proxy that speaks TLS as `proxy.test`, and its certificate.
fn secure() -> (Rig, CertificateDer<'static>) {
    let (server, certificate) = server("proxy.test", &["h2", "http/1.1"]);
    let rig = Rig::with(|config| {
        config.timeouts.first_byte = Duration::from_millis(300);
        config.tls = Some(TlsListener {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            server,
        });
    });
    rig.routes([settings("web")]);
    (rig, certificate)
}

async fn connect(rig: &Rig, config: Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(rig.proxy.tls_address().unwrap())
        .await
        .unwrap();
    let name = ServerName::try_from("proxy.test").unwrap();
    TlsConnector::from(config).connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn a_client_chooses_its_version_of_http_and_endpoints_hear_of_https() {
    let app = app::mirror().await;
    let (rig, certificate) = secure();
    rig.ready("web", &[app.address]);
    let request = || {
        Request::get("https://web/")
            .header("host", "web")
            .body(Empty::<Bytes>::new())
    };
    for (alpn, expected) in [
        (&["http/1.1"][..], None),
        (&[], None),
        (&["h2", "http/1.1"], Some(&b"h2"[..])),
    ] {
        let stream = connect(&rig, client(&certificate, alpn)).await;
        let chosen = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let response = if chosen.as_deref() == Some(b"h2") {
            let io = TokioIo::new(stream);
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request().unwrap()).await.unwrap()
        } else {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request().unwrap()).await.unwrap()
        };
        if expected.is_some() {
            assert_eq!(chosen.as_deref(), expected);
        }
        assert_eq!(response.status(), 200, "{alpn:?}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(text.contains("x-forwarded-proto: https"), "{text}");
    }
    // The other listener is in the clear as before.
    assert!(
        get(rig.address(), "/")
            .await
            .text()
            .contains("x-forwarded-proto: http\n")
    );
}

#[tokio::test]
async fn a_held_client_that_leaves_counts_no_longer_over_tls_either() {
    let (rig, certificate) = secure();
    rig.asleep("web");
    let mut stream = connect(&rig, client(&certificate, &["http/1.1"])).await;
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 9\r\n\r\nhalf")
        .await
        .unwrap();
    rig.until_load("web", 1, 0).await;
    drop(stream);
    rig.until_load("web", 0, 0).await;
}

/// The socket stays open until the other side has said goodbye too.
#[tokio::test]
async fn a_held_client_that_only_ends_its_session_counts_no_longer() {
    let (rig, certificate) = secure();
    rig.asleep("web");
    let mut stream = connect(&rig, client(&certificate, &["http/1.1"])).await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        .await
        .unwrap();
    rig.until_load("web", 1, 0).await;
    let (socket, session) = stream.get_mut();
    session.send_close_notify();
    let mut goodbye = Vec::new();
    session.write_tls(&mut goodbye).unwrap();
    socket.write_all(&goodbye).await.unwrap();
    rig.until_load("web", 0, 0).await;
}

#[tokio::test]
async fn who_does_not_shake_hands_is_let_go() {
    let (rig, _) = secure();
    for said in [&b""[..], b"\x16\x03", b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"] {
        let mut client = Raw::connect(rig.proxy.tls_address().unwrap()).await;
        client.send(said).await;
        let mut rest = Vec::new();
        let end = tokio::time::timeout(PATIENCE, client.stream.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "{said:?}");
        assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    }
}

#[tokio::test]
async fn a_drain_lets_requests_over_tls_end() {
    let (app, go) = app::patient("ok").await;
    let (rig, certificate) = secure();
    rig.ready("web", &[app.address]);
    let mut stream = connect(&rig, client(&certificate, &["http/1.1"])).await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        .await
        .unwrap();
    rig.until_load("web", 0, 1).await;
    let address = rig.proxy.tls_address().unwrap();
    let draining = rig.proxy.drain(PATIENCE);
    go.send(true).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"),
        "{answer}"
    );
    assert_eq!(draining.await.cut, 0);
    assert!(TcpStream::connect(address).await.is_err());
}

/// An application that speaks HTTP/1.1 over TLS with a certificate for `name`.
async fn https_app(
    name: &str,
) -> (
    SocketAddr,
    CertificateDer<'static>,
    Arc<std::sync::atomic::AtomicUsize>,
) {
    let (config, certificate) = server(name, &[]);
    let plain = app::mirror().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shaken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&shaken);
    tokio::spawn(async move {
        let plain = plain;
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, to, counter) = (
                TlsAcceptor::from(Arc::clone(&config)),
                plain.address,
                Arc::clone(&counter),
            );
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                counter.fetch_add(1, Ordering::SeqCst);
                let mut inner = TcpStream::connect(to).await.unwrap();
                tokio::io::copy_bidirectional(&mut stream, &mut inner).await.ok();
            });
        }
    });
    (address, certificate, shaken)
}

#[tokio::test]
async fn a_probe_over_tls_takes_any_certificate() {
    let (address, _, shaken) = https_app("nobody.test").await;
    let app = app::ok().await;
    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.endpoints("web", &[(app.address, "")]);
    let check = |scheme| {
        let readiness = Probe {
            check: Check::Http(HttpCheck {
                port: address.port(),
                scheme,
                path: PathAndQuery::from_static("/ready"),
                headers: Vec::new(),
            }),
            delay: Duration::ZERO,
            timeout: Duration::from_secs(1),
        };
        ProbeSpec {
            readiness: Some(readiness),
            ..by_traffic_port()
        }
    };
    let mut client = Raw::connect(rig.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    rig.until_load("web", 1, 0).await;
    rig.proxy.set_probe(&pod(app.address), Some(check(Scheme::Http)));
    assert!(client.is_silent(Duration::from_millis(100)).await);
    assert_eq!(
        shaken.load(Ordering::SeqCst),
        0,
        "in the clear there is no answer"
    );
    // Another way to probe it takes the place of that.
    rig.proxy.set_probe(&pod(app.address), Some(check(Scheme::Https)));
    assert_eq!(client.answer().await.status, 200);
    assert!(shaken.load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn an_endpoint_that_speaks_tls_needs_the_certificate_of_its_service() {
    let (right, certificate, shaken) = https_app("web.shop.svc").await;
    let trusting = |certificate: &CertificateDer<'static>| {
        let config = client(certificate, &[]);
        let rig = Rig::with(|rig| {
            rig.upstream_tls = Some(config);
            rig.threads = std::num::NonZeroUsize::MIN;
        });
        rig.routes([settings("web"), settings("other")]);
        rig
    };
    let rig = trusting(&certificate);
    rig.asleep("web");
    let mut held = Raw::connect(rig.address()).await;
    held.send("GET /a HTTP/1.1\r\nHost: web\r\n\r\n").await;
    rig.until_load("web", 1, 0).await;
    rig.endpoints_of("web", &[(right, "rs")], Protocol::Https);
    let answer = held.answer().await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().starts_with("GET /a HTTP/1.1"), "{}", answer.text());
    assert_eq!(get(rig.address(), "/").await.status, 200);
    assert_eq!(shaken.load(Ordering::SeqCst), 1, "the connection is kept");

    // The same pod behind another Service, whose name its certificate does not have.
    rig.endpoints_of("other", &[(right, "rs")], Protocol::Https);
    let mut client = Raw::connect(rig.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: other\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("TLS"), "{}", answer.text());

    let (_, stranger, _) = https_app("web.shop.svc").await;
    let rig = trusting(&stranger);
    rig.endpoints_of("web", &[(right, "rs")], Protocol::Https);
    assert_eq!(get(rig.address(), "/").await.status, 502);

    let rig = Rig::new();
    rig.routes([settings("web")]);
    rig.endpoints_of("web", &[(right, "rs")], Protocol::Https);
    assert_eq!(
        get(rig.address(), "/").await.status,
        502,
        "there is no authority to know it by"
    );
}
