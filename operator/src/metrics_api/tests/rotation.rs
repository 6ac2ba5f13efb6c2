//! A rotation fails no read.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use super::super::{Gatekeeper, Limits, serve};
use super::fixture::{Authority, Client, HPA, OWN_USER, Orders, READ, TRUST, trust};
use crate::certificates::RotationSettings;
use crate::certificates::tests::fake_api::FakeApi;
use crate::certificates::tests::{API_SERVICE, api_service, bundle, replica};

/// What the API server is behind in using a new caBundle; less than the propagation time below.
const BEHIND: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(14);

fn hasty() -> RotationSettings {
    RotationSettings {
        check_every: Duration::from_millis(50),
        propagation: Duration::from_millis(500),
        overlap: Duration::from_millis(300),
        authority_validity: Duration::from_secs(120),
        // About two seconds after a leaf is made, about four after an authority.
        rotate_at: 0.13,
        ..RotationSettings::new("keda", Duration::from_secs(60))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_fails_while_leaf_and_authority_rotate() {
    let api = FakeApi::default();
    api.put(API_SERVICE, api_service("keda"));
    let (front_proxy, clients) = (Authority::new("front-proxy-ca"), Authority::new("cluster-ca"));
    api.put(TRUST, trust(&front_proxy, &clients));
    api.state().allowed.push((HPA, "", "*"));
    let identity = front_proxy.issue("front-proxy-client", "");
    let replicas = [replica(&api, hasty(), true), replica(&api, hasty(), false)];
    let mut addresses = Vec::new();
    for replica in &replicas {
        replica.serving.ready().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(listener.local_addr().unwrap());
        tokio::spawn(serve(
            listener,
            replica.serving.resolver(),
            Arc::new(Gatekeeper::new(api.client(), OWN_USER.to_owned())),
            Arc::<Orders>::default(),
            Limits::default(),
            std::future::pending(),
        ));
    }
    while bundle(&api).is_empty() {
        sleep(Duration::from_millis(10)).await;
    }

    let mut published = VecDeque::from([(Instant::now(), bundle(&api))]);
    let (mut authorities, mut leaves) = (BTreeSet::new(), BTreeSet::new());
    let mut largest = 0;
    let mut reads = 0;
    let begun = Instant::now();
    while begun.elapsed() < LONG {
        let current = bundle(&api);
        if published.back().unwrap().1 != current {
            published.push_back((Instant::now(), current));
        }
        while published.len() > 1 && published[1].0.elapsed() >= BEHIND {
            published.pop_front();
        }
        let used = &published[0].1;
        largest = largest.max(used.len());
        authorities.extend(used.iter().map(|one| one.to_vec()));
        for address in &addresses {
            let client = Client::new(*address, used, Some(&identity));
            let answer = client
                .try_send(Method::GET, READ, &[("x-remote-user", HPA)])
                .await
                .unwrap_or_else(|error| panic!("read {reads} after {:?}: {error:?}", begun.elapsed()));
            assert_eq!(answer.code, 200);
            reads += 1;
        }
        leaves.insert(leaf(&api));
        sleep(Duration::from_millis(10)).await;
    }
    assert!(reads > 200, "{reads} reads");
    assert!(leaves.len() >= 5, "{} leaves", leaves.len());
    assert!(authorities.len() >= 3, "{} authorities", authorities.len());
    assert!((2..=4).contains(&largest), "{largest} authorities at once");
}

fn leaf(api: &FakeApi) -> Vec<u8> {
    let secret = api.get(crate::certificates::tests::SECRET).unwrap();
    let text = secret["data"]["tls.crt"].as_str().unwrap().to_owned();
    CertificateDer::from(text.into_bytes()).to_vec()
}
