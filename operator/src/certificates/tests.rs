//! Rotation against a scripted API server.

pub(crate) mod fake_api;

use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use self::fake_api::{FakeApi, Mood};
use super::material::Material;
use super::*;

pub(crate) const SECRET: &str = "/api/v1/namespaces/keda/secrets/kedaorg-certs";
pub(crate) const API_SERVICE: &str =
    "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.external.metrics.k8s.io";

/// An APIService as the chart installs it.
pub(crate) fn api_service(namespace: &str) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": { "name": "v1beta1.external.metrics.k8s.io" },
        "spec": {
            "group": "external.metrics.k8s.io", "version": "v1beta1",
            "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": { "name": "keda-metrics-apiserver", "namespace": namespace, "port": 443 },
        },
    })
}

pub(crate) fn settings() -> RotationSettings {
    RotationSettings {
        check_every: Duration::from_millis(20),
        propagation: Duration::from_millis(300),
        ..RotationSettings::new("keda", Duration::from_secs(60))
    }
}

/// A replica that rotates until dropped.
pub(crate) struct Replica {
    pub(crate) serving: ServingCertificate,
    pub(crate) leads: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn replica(api: &FakeApi, settings: RotationSettings, leads: bool) -> Replica {
    let serving = ServingCertificate::new();
    let leads = Arc::new(AtomicBool::new(leads));
    let (certificate, client, leader) = (serving.clone(), api.client(), Arc::clone(&leads));
    let task = tokio::spawn(async move {
        certificate
            .rotate(client, settings, move || leader.load(Ordering::SeqCst))
            .await;
    });
    Replica { serving, leads, task }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn content(api: &FakeApi) -> Option<Material> {
    let secret = api.get(SECRET)?;
    let data = serde_json::from_value(secret["data"].clone()).ok()?;
    Material::parse(&data, Timestamp::now()).ok()
}

fn served(replica: &Replica) -> Option<CertificateDer<'static>> {
    Some(replica.serving.0.key.load_full()?.cert[0].clone())
}

/// The authorities in the APIService, in its order.
pub(crate) fn bundle(api: &FakeApi) -> Vec<CertificateDer<'static>> {
    use rustls_pki_types::pem::PemObject;
    let service = api.get(API_SERVICE).unwrap_or_default();
    let text = service["spec"]["caBundle"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    CertificateDer::pem_slice_iter(&STANDARD.decode(text).unwrap())
        .map(Result::unwrap)
        .collect()
}

#[tokio::test]
async fn the_leader_makes_what_followers_serve() {
    let api = FakeApi::default();
    api.put(API_SERVICE, api_service("keda"));
    let follower = replica(&api, settings(), false);
    sleep(Duration::from_millis(100)).await;
    assert!(
        !follower.serving.is_ready(),
        "there is nothing to serve and no right to make it"
    );
    assert!(api.state().writes.is_empty());

    let leader = replica(&api, settings(), true);
    until("both serve", || {
        served(&leader).is_some() && served(&follower).is_some()
    })
    .await;
    follower.serving.ready().await;
    assert_eq!(served(&leader), served(&follower));
    until("the bundle is published", || !bundle(&api).is_empty()).await;
    let authorities = follower.serving.authorities().borrow().to_vec();
    assert_eq!(bundle(&api), authorities);

    let material = content(&api).unwrap();
    let names = &material.leaf.unwrap().names;
    assert_eq!(names.len(), 12);
    for name in [
        "keda-operator",
        "keda-metrics-apiserver.keda",
        "keda-admission-webhooks.keda.svc",
        "keda-metrics-apiserver.keda.svc.cluster.local",
    ] {
        assert!(names.contains(name), "{name}");
    }
    sleep(Duration::from_millis(200)).await;
    assert_eq!(
        api.state().writes,
        [
            "POST /api/v1/namespaces/keda/secrets".to_owned(),
            format!("PATCH {API_SERVICE}")
        ],
        "nothing is written when nothing changes"
    );
}

#[tokio::test]
async fn garbage_is_replaced_and_what_was_served_goes_on_under_its_own_authority() {
    let api = FakeApi::default();
    api.put(API_SERVICE, api_service("keda"));
    let leader = replica(&api, settings(), true);
    until("the bundle is published", || !bundle(&api).is_empty()).await;
    let (old_leaf, old_bundle) = (served(&leader).unwrap(), bundle(&api));

    let mut garbage = api.get(SECRET).unwrap();
    garbage["data"] =
        json!({ "ca.crt": STANDARD.encode("not a certificate"), "other": STANDARD.encode("kept") });
    api.put(SECRET, garbage);
    until("a new authority is published beside the old", || {
        bundle(&api).len() == 2
    })
    .await;
    assert!(bundle(&api).contains(&old_bundle[0]));
    assert_eq!(
        served(&leader).unwrap(),
        old_leaf,
        "the new one has not had its time to spread"
    );
    until("a new leaf follows", || served(&leader).unwrap() != old_leaf).await;
    assert_eq!(content(&api).unwrap().leaf.unwrap().issuer, 0);
    assert_eq!(api.get(SECRET).unwrap()["data"]["other"], STANDARD.encode("kept"));
}

#[tokio::test]
async fn a_deleted_secret_renews_everything_in_the_same_order() {
    let api = FakeApi::default();
    api.put(API_SERVICE, api_service("keda"));
    let leader = replica(&api, settings(), true);
    until("the bundle is published", || !bundle(&api).is_empty()).await;
    let old = served(&leader).unwrap();
    api.remove(SECRET);
    until("a new leaf follows", || served(&leader).unwrap() != old).await;
    assert_eq!(bundle(&api).len(), 2);
}

#[tokio::test]
async fn another_ones_api_service_is_left_alone() {
    for service in [api_service("elsewhere"), {
        let mut unverified = api_service("keda");
        unverified["spec"]["insecureSkipTLSVerify"] = json!(true);
        unverified
    }] {
        let api = FakeApi::default();
        api.put(API_SERVICE, service);
        let leader = replica(&api, settings(), true);
        leader.serving.ready().await;
        sleep(Duration::from_millis(200)).await;
        assert_eq!(api.state().writes, ["POST /api/v1/namespaces/keda/secrets"]);
    }
}

#[tokio::test]
async fn a_bundle_taken_away_comes_back_and_patching_can_be_turned_off() {
    let api = FakeApi::default();
    api.put(API_SERVICE, api_service("keda"));
    let leader = replica(&api, settings(), true);
    until("the bundle is published", || !bundle(&api).is_empty()).await;
    api.put(API_SERVICE, api_service("keda"));
    until("the bundle comes back", || !bundle(&api).is_empty()).await;
    drop(leader);

    api.put(API_SERVICE, api_service("keda"));
    let settings = RotationSettings {
        patch_api_service: false,
        ..settings()
    };
    let leader = replica(&api, settings, true);
    leader.serving.ready().await;
    sleep(Duration::from_millis(200)).await;
    assert!(bundle(&api).is_empty());
}

#[tokio::test]
async fn a_replica_that_lost_the_lead_writes_nothing() {
    let api = FakeApi::default();
    api.put(API_SERVICE, api_service("keda"));
    let replica = replica(&api, settings(), true);
    until("the bundle is published", || !bundle(&api).is_empty()).await;
    replica.leads.store(false, Ordering::SeqCst);
    sleep(Duration::from_millis(60)).await;
    let writes = api.state().writes.len();
    api.remove(SECRET);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(api.state().writes.len(), writes);
    assert!(served(&replica).is_some(), "what it has is served on");
}

#[tokio::test]
async fn two_who_think_they_lead_end_with_one_authority() {
    let api = FakeApi::default();
    api.put(API_SERVICE, api_service("keda"));
    let replicas = [0; 4].map(|_| replica(&api, settings(), true));
    until("all serve the same", || {
        let served = replicas.iter().map(served).collect::<Vec<_>>();
        served[0].is_some() && served.iter().all(|one| *one == served[0])
    })
    .await;
    until("the bundle is published", || !bundle(&api).is_empty()).await;
    let material = content(&api).unwrap();
    assert_eq!(material.authorities.len(), 1);
    assert_eq!(bundle(&api), [material.authorities[0].certificate.clone()]);
}

#[tokio::test]
async fn a_silent_api_server_takes_nothing_away() {
    let api = FakeApi::default();
    api.put(API_SERVICE, api_service("keda"));
    let leader = replica(&api, settings(), true);
    until("the bundle is published", || !bundle(&api).is_empty()).await;
    let before = served(&leader);
    api.state().mood = Mood::Silent;
    sleep(Duration::from_millis(200)).await;
    assert_eq!(served(&leader), before);
}

#[tokio::test]
async fn files_are_served_and_their_replacements_too() {
    let directory = Directory::new();
    let serving = ServingCertificate::new();
    let following = serving.clone();
    let path = directory.0.clone();
    let task = tokio::spawn(async move { following.follow_files(path, Duration::from_millis(20)).await });
    sleep(Duration::from_millis(100)).await;
    assert!(!serving.is_ready());
    let current = || Some(serving.0.key.load_full()?.cert[0].clone());

    directory.fill(Timestamp::now());
    until("the files are served", || current().is_some()).await;
    assert_eq!(serving.authorities().borrow().len(), 1);
    let first = current();
    std::fs::write(directory.0.join("tls.key"), "garbage").unwrap();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(current(), first);
    directory.fill(Timestamp::now());
    until("the new files are served", || current() != first).await;
    task.abort();
}

struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("dormouse-certificates-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn fill(&self, now: Timestamp) {
        let validity = Duration::from_secs(60);
        let authority = issue::authority(now, validity).unwrap();
        let missing = Err(material::MaterialError {
            key: material::CERTIFICATE,
            problem: "is missing",
        });
        let made = Material::from_pem(&authority.certificate, &authority.key, missing, now).unwrap();
        let first = &made.authorities[0];
        let names = vec!["keda-metrics-apiserver.keda.svc".to_owned()];
        let signer = made.signer().unwrap();
        let leaf = issue::leaf(&first.certificate, first.life.until, signer, names, now, validity).unwrap();
        for (name, text) in [
            ("ca.crt", authority.certificate),
            ("tls.crt", leaf.certificate),
            ("tls.key", leaf.key),
        ] {
            std::fs::write(self.0.join(name), text).unwrap();
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
