use std::convert::Infallible;
use std::sync::Arc;

use url::Url;

use super::http::same_host;
use super::{Clients, ClientsConfig, Fingerprint, TlsError, TlsIdentity};
use crate::sensitive::Sensitive;

#[test]
fn one_client_per_key_for_as_long_as_it_is_held() {
    let clients = Clients::new(ClientsConfig::default());
    let key = Fingerprint::of(&["sqs", "eu-west-1", "secret"]);
    let made = |n: u32| move || Ok::<_, Infallible>(n);
    let first = clients.shared(key, made(1)).unwrap();
    let second = clients.shared(key, made(2)).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    let other = clients
        .shared(Fingerprint::of(&["sqs", "eu-west-1", "other"]), made(3))
        .unwrap();
    assert_eq!(*other, 3);
    assert_eq!(
        *clients
            .shared(key, || Ok::<_, Infallible>("another type"))
            .unwrap(),
        "another type"
    );
    drop((first, second));
    assert_eq!(*clients.shared(key, made(4)).unwrap(), 4);
}

#[test]
fn what_nobody_holds_is_swept_out() {
    let clients = Clients::new(ClientsConfig::default());
    let kept = clients
        .shared(Fingerprint::of(&["kept"]), || Ok::<_, Infallible>(0))
        .unwrap();
    for n in 0..10_000 {
        drop(
            clients
                .shared(Fingerprint::of(&[&n.to_string()]), || Ok::<_, Infallible>(n))
                .unwrap(),
        );
    }
    assert!(clients.entries() <= 64, "{} entries", clients.entries());
    let again = clients
        .shared(Fingerprint::of(&["kept"]), || Ok::<_, Infallible>(1))
        .unwrap();
    assert!(Arc::ptr_eq(&kept, &again));
}

#[test]
fn parts_of_a_key_cannot_run_into_each_other() {
    assert_ne!(Fingerprint::of(&["ab", "c"]), Fingerprint::of(&["a", "bc"]));
    assert_ne!(Fingerprint::of(&["a"]), Fingerprint::of(&["a", ""]));
    assert_ne!(Fingerprint::of(&["a"]).and(&["b"]), Fingerprint::of(&["a", "b"]));
    let canary = Fingerprint::of(&["canary"]);
    assert!(!format!("{canary:?}").contains("canary"));
}

#[test]
fn unusable_certificates_are_named() {
    let clients = Clients::new(ClientsConfig::default());
    let error = |identity: TlsIdentity| clients.http(&identity).expect_err("it is unusable");
    let canary = || Sensitive::new("canary");
    assert_eq!(
        error(TlsIdentity {
            ca: Some(canary()),
            ..TlsIdentity::default()
        }),
        TlsError::Ca
    );
    let pair = |certificate: Sensitive, key: Sensitive| TlsIdentity {
        certificate: Some((certificate, key)),
        ..TlsIdentity::default()
    };
    assert_eq!(error(pair(canary(), canary())), TlsError::Certificate);

    let one = rcgen::generate_simple_self_signed(["one.example".to_owned()]).unwrap();
    let two = rcgen::generate_simple_self_signed(["two.example".to_owned()]).unwrap();
    let (certificate, key) = (one.cert.pem(), one.signing_key.serialize_pem());
    assert_eq!(error(pair(Sensitive::new(&certificate), canary())), TlsError::Key);
    let foreign = Sensitive::new(two.signing_key.serialize_pem());
    assert_eq!(
        error(pair(Sensitive::new(&certificate), foreign)),
        TlsError::Mismatch
    );
    assert!(
        clients
            .http(&pair(Sensitive::new(&certificate), Sensitive::new(key)))
            .is_ok()
    );
    assert!(
        clients
            .http(&TlsIdentity {
                ca: Some(Sensitive::new(certificate)),
                ..TlsIdentity::default()
            })
            .is_ok()
    );
}

#[test]
fn redirects_stay_on_their_host() {
    for (from, to, stays) in [
        ("http://a/x", "http://a/y", true),
        ("http://a/x", "https://a/x", true),
        ("https://a/x", "http://a/x", false),
        ("http://a/x", "http://b/x", false),
        ("http://a/x", "http://a:8080/x", false),
        ("http://a:8080/x", "https://a/x", false),
        ("http://a:80/x", "http://a/x", true),
        ("http://a/x", "http://a.b/x", false),
    ] {
        let url = |text: &str| Url::parse(text).unwrap();
        assert_eq!(same_host(&url(from), &url(to)), stays, "{from} -> {to}");
    }
}
