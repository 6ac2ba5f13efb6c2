//! `metrics-api` against scripted servers.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dormouse_scalers::error::ReadErrorKind;
use dormouse_scalers::{
    Observed, ReadError, ReadyEndpoint, Sensitive, ServiceEndpoints, TriggerParams, connect,
};
use futures::future::BoxFuture;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{Peer, RawPeer, Seen, answer, connected, context, params, read};

fn api(url: &str, metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> TriggerParams {
    let mut all = vec![("url", url), ("valueLocation", "v"), ("targetValue", "2")];
    all.extend_from_slice(metadata);
    params("metrics-api", &all, auth)
}

fn fifteen(_: &Seen) -> axum::response::Response {
    answer(200, &[], r#"{"v":15}"#)
}

#[tokio::test]
async fn each_way_to_authenticate() {
    let peer = Peer::start(fifteen).await;
    for (metadata, auth, header, expected, target) in [
        (
            &[][..],
            &[("token", "t")][..],
            "authorization",
            None,
            "/stats?a=b",
        ),
        (
            &[("authMode", "bearer")],
            &[("token", "t")],
            "authorization",
            Some("Bearer t"),
            "/stats?a=b",
        ),
        (
            &[("authModes", "basic")],
            &[("username", "u"), ("password", "p")],
            "authorization",
            Some("Basic dTpw"),
            "/stats?a=b",
        ),
        (
            &[("authModes", "basic")],
            &[("username", "u")],
            "authorization",
            Some("Basic dTo="),
            "/stats?a=b",
        ),
        (
            &[("authModes", "apiKey")],
            &[("apiKey", "k")],
            "x-api-key",
            Some("k"),
            "/stats?a=b",
        ),
        (
            &[("authModes", "apiKey"), ("keyParamName", "X-Mine")],
            &[("apiKey", "k")],
            "x-mine",
            Some("k"),
            "/stats?a=b",
        ),
        (
            &[("authModes", "apiKey"), ("method", "query")],
            &[("apiKey", "k&")],
            "x-api-key",
            None,
            "/stats?a=b&api_key=k%26",
        ),
        (
            &[("authModes", "apiKey, bearer")],
            &[
                ("apiKey", "k"),
                ("bearerToken", "t"),
                ("method", "query"),
                ("keyParamName", "q"),
            ],
            "authorization",
            Some("Bearer t"),
            "/stats?a=b&q=k",
        ),
        (
            &[("authModes", "custom")],
            &[("customAuthHeader", "X-Custom"), ("customAuthValue", "c")],
            "x-custom",
            Some("c"),
            "/stats?a=b",
        ),
    ] {
        let trigger = connected(api(&peer.url("/stats?a=b"), metadata, auth));
        assert_eq!(
            read(&trigger).await,
            Ok(Observed {
                value: 15.0,
                active: true
            }),
            "{metadata:?}"
        );
        let seen = peer.seen().pop().unwrap();
        assert_eq!(
            (seen.header(header), seen.target.as_str()),
            (expected, target),
            "{metadata:?}"
        );
        assert_eq!(seen.method, "GET");
    }
}

#[tokio::test]
async fn statuses_become_kinds_and_show_no_body() {
    let after = Some(Duration::from_secs(9));
    for (status, kind) in [
        (204, ReadErrorKind::BadAnswer),
        (401, ReadErrorKind::Denied),
        (403, ReadErrorKind::Denied),
        (404, ReadErrorKind::NotFound),
        (429, ReadErrorKind::Throttled { retry_after: after }),
        (500, ReadErrorKind::BadAnswer),
        (503, ReadErrorKind::Unreachable),
    ] {
        let body = if status == 204 { "" } else { "canary" };
        let peer = Peer::start(move |_: &Seen| answer(status, &[("retry-after", "9")], body)).await;
        let trigger = connected(api(
            &peer.url("/stats?key=canary"),
            &[("authModes", "apiKey"), ("method", "query")],
            &[("apiKey", "canary")],
        ));
        let failure = read(&trigger).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{status}");
        assert_eq!(
            failure.message,
            format!("error requesting metrics endpoint: /stats: api returned {status}")
        );
    }
}

#[tokio::test]
async fn broken_answers() {
    for (bytes, kind) in [
        (
            &b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"v\":15"[..],
            ReadErrorKind::BadAnswer,
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n{\"v\":15", ReadErrorKind::BadAnswer),
        (b"\x00\x01canary\r\n\r\n", ReadErrorKind::Unreachable),
        (b"", ReadErrorKind::Unreachable),
        (b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe", ReadErrorKind::BadAnswer),
    ] {
        let peer = RawPeer::start(bytes, false).await;
        let url = format!("http://canary:canary@{}/stats?canary", peer.address);
        let failure = read(&connected(api(&url, &[], &[]))).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{bytes:?}: {failure}");
        let place = format!(
            "error requesting metrics endpoint: http://{}/stats: ",
            peer.address
        );
        assert!(
            failure.message.starts_with(&place) || failure.message.starts_with("error reading"),
            "{failure}"
        );
    }
    let endless = Peer::start(|_: &Seen| {
        let stream = futures::stream::repeat_with(|| Ok::<_, std::io::Error>("x".repeat(64 << 10)));
        answer(200, &[], axum::body::Body::from_stream(stream))
    })
    .await;
    let failure = read(&connected(api(&endless.url("/"), &[], &[])))
        .await
        .unwrap_err();
    let place = endless.url("/");
    assert_eq!(
        failure,
        ReadError::new(
            ReadErrorKind::BadAnswer,
            format!("error reading {place}: the answer is longer than 1 MiB")
        )
    );
    let address = endless.address;
    drop(endless);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let failure = read(&connected(api(&format!("http://{address}/none"), &[], &[])))
        .await
        .unwrap_err();
    assert_eq!(failure.kind, ReadErrorKind::Unreachable);
    assert_eq!(
        failure.message,
        format!(
            "error requesting metrics endpoint: http://{address}/none: Connection refused (os error 111)"
        )
    );
}

#[tokio::test]
async fn a_read_that_is_given_up_ends_its_connection() {
    for bytes in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"] {
        let mut peer = RawPeer::start(bytes, true).await;
        let trigger = connected(api(
            &format!("http://{}/", peer.address),
            &[("timeout", "200")],
            &[],
        ));
        let given_up = tokio::time::timeout(trigger.deadline(), trigger.read()).await;
        assert!(given_up.is_err());
        tokio::time::timeout(Duration::from_secs(5), peer.ended.recv())
            .await
            .expect("the connection ends")
            .unwrap();
    }
}

#[tokio::test]
async fn redirects_stay_on_their_host() {
    let other = Peer::start(fifteen).await;
    let elsewhere = other.url("/stats");
    let peer = Peer::start(move |seen: &Seen| match seen.target.as_str() {
        "/here" => answer(302, &[("location", "/there")], ""),
        "/away" => answer(302, &[("location", &elsewhere)], ""),
        "/loop" => answer(302, &[("location", "/loop")], ""),
        _ => fifteen(seen),
    })
    .await;
    let bearer = |path: &str| {
        connected(api(
            &peer.url(path),
            &[("authModes", "bearer")],
            &[("token", "canary")],
        ))
    };
    assert_eq!(
        read(&bearer("/here")).await,
        Ok(Observed {
            value: 15.0,
            active: true
        })
    );
    let failure = read(&bearer("/away")).await.unwrap_err();
    assert_eq!(
        failure.message,
        "error requesting metrics endpoint: /away: api returned 302"
    );
    assert!(
        other.seen().is_empty(),
        "a credential must not follow to another host"
    );
    let before = peer.seen().len();
    let failure = read(&bearer("/loop")).await.unwrap_err();
    assert_eq!(failure.kind, ReadErrorKind::BadAnswer, "{failure}");
    assert!(peer.seen().len() - before <= 11);
}

#[tokio::test]
async fn oauth_tokens_are_fetched_once_and_renewed_when_refused() {
    let issued = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&issued);
    let tokens = Peer::start(move |seen: &Seen| {
        if seen.header("authorization").is_some() {
            return answer(401, &[], "canary");
        }
        let n = count.fetch_add(1, Ordering::SeqCst);
        answer(
            200,
            &[],
            format!(r#"{{"access_token":"t{n}","token_type":"Bearer","expires_in":3600}}"#),
        )
    })
    .await;
    let peer = Peer::start(|seen: &Seen| match seen.header("authorization") {
        Some("Bearer t0") if seen.target == "/stats" => fifteen(seen),
        Some("Bearer t1") => answer(200, &[], r#"{"v":16}"#),
        _ => answer(401, &[], ""),
    })
    .await;
    let auth = [
        ("oauthTokenURI", &*tokens.url("/token")),
        ("clientID", "canary id"),
        ("clientSecret", "canary/secret"),
        ("scope", "read, write"),
        ("endpointParams", "audience=a%20b"),
    ];
    let cx = context(api(&peer.url("/stats"), &[("authModes", "oauth")], &auth));
    let clients = Arc::clone(&cx.clients);
    let trigger = connect(&cx).unwrap();
    assert_eq!(read(&trigger).await.map(|o| o.value), Ok(15.0));
    assert_eq!(read(&trigger).await.map(|o| o.value), Ok(15.0));
    assert_eq!(issued.load(Ordering::SeqCst), 1);
    let seen = tokens.seen();
    assert_eq!(
        seen[0].header("authorization"),
        Some("Basic Y2FuYXJ5K2lkOmNhbmFyeSUyRnNlY3JldA==")
    );
    let pairs = [
        ("grant_type", "client_credentials"),
        ("scope", "read write"),
        ("audience", "a b"),
        ("client_id", "canary id"),
        ("client_secret", "canary/secret"),
    ];
    assert_eq!(seen[1].form(), pairs.map(|(k, v)| (k.to_owned(), v.to_owned())));

    let mut again = context(api(&peer.url("/moved"), &[("authModes", "oauth")], &auth));
    again.clients = clients;
    let moved = connect(&again).unwrap();
    assert_eq!(read(&moved).await.unwrap_err().kind, ReadErrorKind::Denied);
    assert_eq!(read(&moved).await.map(|o| o.value), Ok(16.0));
}

#[tokio::test]
async fn an_oauth_server_that_refuses_or_babbles() {
    for (status, body, kind, text) in [
        (403, "canary", ReadErrorKind::Denied, "token request returned 403"),
        (
            200,
            "{\"canary\":1}",
            ReadErrorKind::BadAnswer,
            "the answer holds no usable token",
        ),
        (
            200,
            "{\"access_token\":\"canary\",\"token_type\":\"mac\"}",
            ReadErrorKind::BadAnswer,
            "the answer holds no usable token",
        ),
        (
            200,
            "{\"access_token\":\"cana\\nry\"}",
            ReadErrorKind::BadAnswer,
            "the answer holds no usable token",
        ),
    ] {
        let tokens = Peer::start(move |_: &Seen| answer(status, &[], body)).await;
        let uri = tokens.url("/token");
        let auth = [
            ("oauthTokenURI", uri.as_str()),
            ("clientID", "i"),
            ("clientSecret", "canary"),
        ];
        let failure = read(&connected(api(
            "http://127.0.0.1:1/",
            &[("authModes", "oauth")],
            &auth,
        )))
        .await
        .unwrap_err();
        assert_eq!((failure.kind, failure.message), (kind, format!("{uri}: {text}")));
    }
}

struct Slices(Vec<ReadyEndpoint>);

impl ServiceEndpoints for Slices {
    fn ready<'a>(
        &'a self,
        namespace: &'a str,
        service: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ReadyEndpoint>, ReadError>> {
        assert_eq!((namespace, service), ("shop", "orders"));
        let ready = self.0.clone();
        Box::pin(async move { Ok(ready) })
    }
}

#[tokio::test]
async fn all_endpoints_of_a_service() {
    let first = Peer::start(|_: &Seen| answer(200, &[], r#"{"v":10}"#)).await;
    let port = first.address.port();
    let second = Peer::start_on(("127.0.0.2", port), |_: &Seen| answer(200, &[], r#"{"v":20}"#)).await;
    let third = Peer::start_on(("127.0.0.3", port), |_: &Seen| answer(500, &[], "")).await;
    let endpoint = |address: &str, port| ReadyEndpoint {
        address: address.to_owned(),
        ports: vec![port],
    };
    let url = format!("http://orders.shop.svc:{port}/stats");
    let with = |aggregation: &'static str, ready: Vec<ReadyEndpoint>| {
        let metadata = [
            ("aggregateFromKubeServiceEndpoints", "true"),
            ("aggregationType", aggregation),
        ];
        let mut cx = context(api(&url, &metadata, &[]));
        cx.endpoints = Some(Arc::new(Slices(ready)));
        connect(&cx).unwrap()
    };
    let three = || {
        ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
            .map(|address| endpoint(address, port))
            .to_vec()
    };
    for (aggregation, expected) in [
        ("", 15.0),
        ("average", 15.0),
        ("sum", 30.0),
        ("max", 20.0),
        ("min", 10.0),
    ] {
        assert_eq!(
            read(&with(aggregation, three())).await.map(|o| o.value),
            Ok(expected),
            "{aggregation}"
        );
    }
    assert_eq!(second.seen().len(), 5);
    let failure = read(&with("sum", vec![endpoint("127.0.0.3", port)]))
        .await
        .unwrap_err();
    assert_eq!(
        failure.message,
        "all 1 endpoints of Service shop/orders failed, the last one with: \
         error requesting metrics endpoint: /stats: api returned 500"
    );
    let failure = read(&with("sum", vec![endpoint("127.0.0.1", port.wrapping_add(1))]))
        .await
        .unwrap_err();
    assert_eq!(failure.kind, ReadErrorKind::NotFound);
    assert_eq!(
        failure.message,
        format!("Service shop/orders has no ready endpoint with port {port}")
    );
    assert_eq!(third.seen().len(), 6);
}

/// A server over TLS that asks for a client certificate of the same authority if told to.
async fn tls_peer(authority: &CertifiedIssuer<'_, KeyPair>, ask: bool) -> Result<u16, Box<dyn Error>> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, authority)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = if ask {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone())?;
        builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?,
        )
    } else {
        builder.with_no_client_auth()
    };
    let config = builder.with_single_cert(
        vec![CertificateDer::from_pem_slice(certificate.pem().as_bytes())?],
        PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?,
    )?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{\"v\":15}")
                .await;
            let _ = stream.shutdown().await;
        }
    });
    Ok(port)
}

#[tokio::test]
async fn tls_with_own_authority_client_certificate_or_none_at_all() {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let ca = authority.pem();
    let key = KeyPair::generate().unwrap();
    let client = CertificateParams::new(vec!["client".to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let (certificate, key) = (client.pem(), key.serialize_pem());
    let plain = tls_peer(&authority, false).await.unwrap();
    let mutual = tls_peer(&authority, true).await.unwrap();
    let value = |port: u16, metadata: &[(&str, &str)], auth: &[(&str, &str)]| {
        let trigger = connected(api(&format!("https://localhost:{port}/"), metadata, auth));
        async move { read(&trigger).await.map(|observed| observed.value) }
    };

    let failure = value(plain, &[], &[]).await.unwrap_err();
    assert_eq!(failure.kind, ReadErrorKind::Unreachable);
    assert!(
        failure
            .message
            .contains("invalid peer certificate: UnknownIssuer"),
        "{failure}"
    );
    assert_eq!(value(plain, &[("unsafeSsl", "true")], &[]).await, Ok(15.0));
    assert_eq!(value(plain, &[], &[("ca", &ca)]).await, Ok(15.0));

    assert_eq!(
        value(mutual, &[], &[("ca", &ca)]).await.unwrap_err().kind,
        ReadErrorKind::Unreachable
    );
    let identity = [("ca", ca.as_str()), ("cert", &certificate), ("key", &key)];
    assert_eq!(value(mutual, &[("authModes", "tls")], &identity).await, Ok(15.0));
}

#[test]
fn nothing_shows_a_secret() {
    let mut params = api(
        "http://h/",
        &[("authModes", "bearer")],
        &[
            ("token", "canary"),
            ("password", "canary"),
            ("cert", "canary"),
            ("key", "canary"),
        ],
    );
    params.env.insert("NAME".to_owned(), Sensitive::new("canary"));
    assert!(!format!("{params:?}").contains("canary"));
    let cx = context(params);
    assert!(connect(&cx).is_ok());
    assert!(!format!("{:?}", cx.clients).contains("canary"));
    for (metadata, auth) in [
        (
            &[("authModes", "oauth")][..],
            &[
                ("oauthTokenURI", "canary"),
                ("clientID", "canary"),
                ("clientSecret", "canary"),
            ][..],
        ),
        (&[("authModes", "tls")], &[("cert", "canary"), ("key", "canary")]),
        (
            &[("authModes", "custom")],
            &[
                ("customAuthHeader", "canary canary"),
                ("customAuthValue", "canary"),
            ],
        ),
        (&[], &[("authMode", "canary")]),
        (&[], &[("method", "canary")]),
    ] {
        let Err(error) = connect(&context(api("http://h/", metadata, auth))) else {
            panic!("it is wrong")
        };
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
}
