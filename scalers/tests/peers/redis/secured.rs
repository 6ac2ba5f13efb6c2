use dormouse_scalers::connect;
use dormouse_scalers::error::ReadErrorKind;
use dormouse_test_servers::redis::{ADMIN_PASSWORD, Options, RedisServer, TlsFiles, free_address};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::{LOOPBACK, failure, trigger, value};
use crate::support::{context, params};

const LIST: (&str, &str) = ("listName", "orders");

#[tokio::test]
async fn users_and_passwords() {
    let server = RedisServer::start(LOOPBACK).await.unwrap();
    let address = server.address().to_string();
    server.push("orders", 2).await.unwrap();
    let with = |auth: &[(&str, &str)]| trigger("redis", &address, &[LIST], auth);

    assert_eq!(
        value(&with(&[("password", ADMIN_PASSWORD)])).await,
        2.0,
        "the server's own password"
    );
    let error = failure(&with(&[])).await;
    assert_eq!(error.kind, ReadErrorKind::Denied);
    assert!(error.message.contains("asks for a password (NOAUTH)"), "{error}");
    let error = failure(&with(&[("password", "canary-wrong")])).await;
    assert_eq!(error.kind, ReadErrorKind::Denied);
    assert!(error.message.contains("(WRONGPASS)"), "{error}");

    let reader = [("username", "canary-reader"), ("password", "canary-1")];
    server
        .user("canary-reader", &["reset", "on", ">canary-1", "~orders", "+llen"])
        .await
        .unwrap();
    assert_eq!(value(&with(&reader)).await, 2.0, "LLEN is all that a list needs");
    server.user("canary-reader", &["-llen"]).await.unwrap();
    let error = failure(&with(&reader)).await;
    assert_eq!(error.kind, ReadErrorKind::Denied);
    assert!(
        error
            .message
            .contains("does not let this user run LLEN on this key (NOPERM)"),
        "{error}"
    );
    server
        .user("canary-reader", &["+llen", "resetkeys", "~other"])
        .await
        .unwrap();
    assert!(failure(&with(&reader)).await.message.contains("NOPERM"));
}

#[tokio::test]
async fn a_server_without_a_password_lets_in_who_brings_one() {
    let server = RedisServer::start_open(LOOPBACK).await.unwrap();
    server.push("orders", 1).await.unwrap();
    let auth = [("password", "canary")];
    assert_eq!(
        value(&trigger("redis", &server.address().to_string(), &[LIST], &auth)).await,
        1.0
    );
}

#[tokio::test]
async fn a_password_out_of_the_environment_or_the_metadata() {
    let server = RedisServer::start(LOOPBACK).await.unwrap();
    server.push("orders", 3).await.unwrap();
    let address = server.address().to_string();
    let plain = trigger("redis", &address, &[LIST, ("password", ADMIN_PASSWORD)], &[]);
    assert_eq!(value(&plain).await, 3.0);
    let mut given = params(
        "redis",
        &[LIST, ("addressFromEnv", "AT"), ("passwordFromEnv", "WORD")],
        &[],
    );
    for (name, text) in [("AT", address.as_str()), ("WORD", ADMIN_PASSWORD)] {
        given
            .env
            .insert(name.to_owned(), dormouse_scalers::Sensitive::new(text));
    }
    let from_environment = connect(&context(given)).unwrap();
    assert_eq!(value(&from_environment).await, 3.0);
    drop(server);
    let error = failure(&from_environment).await;
    assert!(
        !error.message.contains("127.0.0.1"),
        "it came from the environment: {error}"
    );
}

#[tokio::test]
async fn a_revoked_password_is_noticed_and_the_next_one_works_at_once() {
    let server = RedisServer::start(LOOPBACK).await.unwrap();
    server.push("orders", 2).await.unwrap();
    server.set_user("reader", "canary-old").await.unwrap();
    let address = server.address().to_string();
    let with = |password| {
        trigger(
            "redis",
            &address,
            &[LIST],
            &[("username", "reader"), ("password", password)],
        )
    };
    let old = with("canary-old");
    assert_eq!(value(&old).await, 2.0);
    server.add_password("reader", "canary-new").await.unwrap();
    let new = with("canary-new");
    assert_eq!(value(&new).await, 2.0);
    server.revoke_password("reader", "canary-old").await.unwrap();
    assert_eq!(failure(&old).await.kind, ReadErrorKind::Denied);
    assert_eq!(
        value(&new).await,
        2.0,
        "its connection was cut, and it logged in again"
    );
}

struct Pki {
    ca: String,
    files: TlsFiles,
    client: (String, String),
    _directory: tempfile::TempDir,
}

fn pki(clients_must_authenticate: bool) -> Pki {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "CA of this test");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &ca).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let server = issue("127.0.0.1");
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let files = TlsFiles {
        ca: write("ca.pem", &ca.pem()),
        certificate: write("cert.pem", &server.0),
        key: write("key.pem", &server.1),
        clients_must_authenticate,
    };
    Pki {
        ca: ca.pem(),
        files,
        client: issue("client"),
        _directory: directory,
    }
}

async fn tls_server(pki: &Pki) -> RedisServer {
    let options = Options {
        open: true,
        tls: Some(pki.files.clone()),
        ..Options::default()
    };
    let server = RedisServer::start_with(free_address(LOOPBACK).await.unwrap(), options)
        .await
        .unwrap();
    server.push("orders", 2).await.unwrap();
    server
}

#[tokio::test]
async fn tls_with_the_right_ca_only() {
    let pki = pki(false);
    let server = tls_server(&pki).await;
    let address = server.address().to_string();
    let with = |metadata: &[(&str, &str)], auth: &[(&str, &str)]| {
        trigger("redis", &address, &[&[LIST], metadata].concat(), auth)
    };
    assert_eq!(
        value(&with(&[("enableTLS", "true")], &[("ca", &pki.ca)])).await,
        2.0
    );
    assert_eq!(
        value(&with(&[], &[("tls", "enable"), ("ca", &pki.ca)])).await,
        2.0
    );
    assert_eq!(
        value(&with(&[("enableTLS", "true"), ("unsafeSsl", "true")], &[])).await,
        2.0
    );

    let error = failure(&with(&[("enableTLS", "true")], &[])).await;
    assert_eq!(error.kind, ReadErrorKind::Unreachable);
    assert!(
        error
            .message
            .starts_with("connection to redis failed: 127.0.0.1:"),
        "{error}"
    );
    assert!(
        error.message.contains("TLS: ") && error.message.contains("certificate"),
        "{error}"
    );
    let error = failure(&with(&[], &[])).await;
    assert!(
        error.message.contains("the connection broke"),
        "plain text to a TLS port: {error}"
    );
    let by_name = trigger(
        "redis",
        &address.replace("127.0.0.1", "localhost"),
        &[LIST],
        &[("tls", "enable"), ("ca", &pki.ca)],
    );
    assert!(
        failure(&by_name).await.message.contains("TLS: "),
        "the certificate is for 127.0.0.1"
    );
}

#[tokio::test]
async fn a_client_certificate_where_the_server_asks_for_one() {
    let pki = pki(true);
    let server = tls_server(&pki).await;
    let address = server.address().to_string();
    let base = [("tls", "enable"), ("ca", pki.ca.as_str())];
    let certificate = [("cert", pki.client.0.as_str()), ("key", pki.client.1.as_str())];
    assert_eq!(
        value(&trigger(
            "redis",
            &address,
            &[LIST],
            &[base, certificate].concat()
        ))
        .await,
        2.0
    );
    let old_name = [("Cert", pki.client.0.as_str()), ("key", pki.client.1.as_str())];
    assert_eq!(
        value(&trigger("redis", &address, &[LIST], &[base, old_name].concat())).await,
        2.0
    );
    let error = failure(&trigger("redis", &address, &[LIST], &base)).await;
    assert_eq!(error.kind, ReadErrorKind::Unreachable, "{error}");
}

#[tokio::test]
async fn no_tls_to_a_server_that_speaks_none() {
    let server = RedisServer::start_open(LOOPBACK).await.unwrap();
    let trigger = trigger(
        "redis",
        &server.address().to_string(),
        &[LIST, ("enableTLS", "true")],
        &[],
    );
    let error = failure(&trigger).await;
    assert!(error.message.contains("no connection over TLS within"), "{error}");
}
