use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::*;
use crate::fake_api::{FakeApi, Fate};

const PODS: &str = "/api/v1/namespaces/team-a/configmaps";
const OTHERS: &str = "/api/v1/namespaces/team-b/configmaps";

/// A kind of which only one field is read, and that one strictly.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct Slim {
    metadata: kube::api::ObjectMeta,
    replicas: u32,
}

impl Resource for Slim {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;
    fn kind((): &()) -> std::borrow::Cow<'_, str> {
        "ConfigMap".into()
    }
    fn group((): &()) -> std::borrow::Cow<'_, str> {
        "".into()
    }
    fn version((): &()) -> std::borrow::Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> std::borrow::Cow<'_, str> {
        "configmaps".into()
    }
    fn meta(&self) -> &kube::api::ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut kube::api::ObjectMeta {
        &mut self.metadata
    }
}

fn object(name: &str, replicas: impl Into<Value>) -> Value {
    json!({"metadata": {"name": name, "uid": format!("uid-{name}")}, "replicas": replicas.into()})
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn take(&self) -> Vec<String> {
        let mut heard = std::mem::take(&mut *self.0.lock().unwrap());
        heard.sort();
        heard
    }
}

fn follow(watch: Watch<Slim>) -> (Watched<Slim>, Heard) {
    let heard = Heard::default();
    let (changes, unreadable) = (heard.clone(), heard.clone());
    let (watched, task) = watch
        .on_change(move |key, change| {
            let what = match change {
                Change::Applied(object) => format!("{key}={}", object.replicas),
                Change::Deleted(object) => format!("{key} gone at {}", object.replicas),
            };
            changes.0.lock().unwrap().push(what);
        })
        .on_undecodable(move |bad| {
            if bad.gone {
                return;
            }
            unreadable
                .0
                .lock()
                .unwrap()
                .push(format!("{} {} {}: {}", bad.kind, bad.key, bad.uid, bad.error));
        })
        .start();
    tokio::spawn(task);
    (watched, heard)
}

async fn settled() {
    sleep(Duration::from_millis(50)).await;
}

#[test]
fn who_set_which_field_is_not_kept() {
    let mut value = object("a", 1);
    value["metadata"]["managedFields"] = json!([{"manager": "kubectl", "fieldsV1": {"f:replicas": {}}}]);
    value["metadata"]["annotations"] = json!({"kept": "yes"});
    let kept = serde_json::from_value::<Guard<Slim, Slim>>(value.clone())
        .unwrap()
        .into_result()
        .unwrap();
    assert_eq!(kept.metadata.managed_fields, None);
    assert_eq!(kept.metadata.annotations.unwrap()["kept"], "yes");
    value["replicas"] = json!("many");
    let bad = serde_json::from_value::<Guard<Slim, Slim>>(value).unwrap();
    assert_eq!(bad.meta().managed_fields, None);
    assert!(bad.into_result().unwrap_err().starts_with("replicas: "));
}

#[tokio::test(start_paused = true)]
async fn a_bad_object_is_reported_and_the_good_ones_go_on() {
    for api in [FakeApi::default(), FakeApi::default().with_streaming_lists()] {
        api.put(PODS, object("good", 1));
        api.put(PODS, object("bad", "many"));
        let (watched, heard) = follow(Watch::all(&api.client()));
        watched.synced().await;
        let key = |name: &str| ObjectKey::new("team-a", name);
        let first = heard.take();
        assert!(
            first[0].starts_with("ConfigMap team-a/bad uid-bad: replicas: ") && first[1] == "team-a/good=1",
            "{first:?}"
        );
        assert!(watched.get(&key("bad")).is_none());

        api.put(PODS, object("late", 3));
        api.put(PODS, object("bad", -1));
        api.put(PODS, object("good", 2));
        settled().await;
        assert_eq!(watched.get(&key("good")).unwrap().replicas, 2);
        assert_eq!(watched.len(), 2);
        assert_eq!(heard.take().len(), 3);

        // One that was readable keeps its last readable form, and is heard of again when it is mended or gone.
        api.put(PODS, object("good", "none"));
        settled().await;
        assert_eq!(watched.get(&key("good")).unwrap().replicas, 2);
        assert!(heard.take()[0].starts_with("ConfigMap team-a/good"));
        api.put(PODS, object("bad", 7));
        api.delete(PODS, "good");
        settled().await;
        assert_eq!(heard.take(), ["team-a/bad=7", "team-a/good gone at 2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn several_namespaces_make_one_store_that_is_synced_when_all_are() {
    let api = FakeApi::default();
    api.put(PODS, object("x", 1));
    api.put(OTHERS, object("x", 2));
    api.put("/api/v1/namespaces/elsewhere/configmaps", object("x", 3));
    let network = api.client_over(|seen| {
        let slow = seen.path.contains("team-b");
        Fate {
            arrives: Some(Duration::from_millis(if slow { 5_000 } else { 1 })),
            ..Fate::PROMPT
        }
    });
    let namespaces = "team-a,team-b".parse().unwrap();
    let (watched, heard) = follow(Watch::within(&network, &namespaces));
    sleep(Duration::from_secs(1)).await;
    assert!(!watched.is_synced() && watched.len() == 1);
    watched.synced().await;
    assert_eq!(heard.take(), ["team-a/x=1", "team-b/x=2"]);
    assert_eq!(watched.get(&ObjectKey::new("team-b", "x")).unwrap().replicas, 2);
}

#[tokio::test(start_paused = true)]
async fn what_happened_while_the_network_was_gone_is_told_afterwards() {
    let api = FakeApi::default();
    for name in ["stays", "changes", "goes"] {
        api.put(PODS, object(name, 1));
    }
    let gone = Arc::new(AtomicBool::new(false));
    let cut = gone.clone();
    let network = api.client_over(move |_| match cut.load(Ordering::SeqCst) {
        // A connection that breaks, as the client's own deadlines make of a black hole.
        true => Fate {
            returns: Some(Duration::from_secs(3)),
            refused: true,
            ..Fate::PROMPT
        },
        false => Fate::PROMPT,
    });
    let (watched, heard) = follow(Watch::all(&network));
    watched.synced().await;
    heard.take();

    gone.store(true, Ordering::SeqCst);
    // The open watch ends by itself; every new one fails for three minutes.
    sleep(Duration::from_secs(60)).await;
    api.put(PODS, object("changes", 2));
    api.delete(PODS, "goes");
    api.put(PODS, object("comes", 1));
    sleep(Duration::from_secs(120)).await;
    assert_eq!(heard.take(), Vec::<String>::new());
    assert!(
        watched.is_synced() && watched.len() == 3,
        "what was known is no longer shown"
    );

    gone.store(false, Ordering::SeqCst);
    let back = Instant::now();
    let mut told = Vec::new();
    while told.len() < 3 {
        sleep(Duration::from_millis(10)).await;
        told.extend(heard.take());
        assert!(
            back.elapsed() < Duration::from_secs(10),
            "not told within 10 s of the recovery"
        );
    }
    told.sort();
    assert_eq!(
        told,
        ["team-a/changes=2", "team-a/comes=1", "team-a/goes gone at 1"]
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_long_outage_a_watch_says_that_it_works_though_nothing_has_changed() {
    let api = FakeApi::default();
    api.put(PODS, object("x", 1));
    let gone = Arc::new(AtomicBool::new(false));
    let cut = gone.clone();
    let network = api.client_over(move |_| Fate {
        refused: cut.load(Ordering::SeqCst),
        ..Fate::PROMPT
    });
    let recoveries = Arc::new(Mutex::new(0));
    let count = recoveries.clone();
    let watch = Watch::<Slim>::all(&network).on_recovery(move || *count.lock().unwrap() += 1);
    let (watched, heard) = follow(watch);
    watched.synced().await;
    heard.take();
    // The server knows no streaming lists, which is a failure too.
    *recoveries.lock().unwrap() = 0;
    gone.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(120)).await;
    assert_eq!(*recoveries.lock().unwrap(), 0);
    gone.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(*recoveries.lock().unwrap(), 1);
    assert_eq!(
        heard.take(),
        Vec::<String>::new(),
        "what is as it was is no change"
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_falls_silent_is_replaced_within_a_minute() {
    let api = FakeApi::default();
    api.put(PODS, object("x", 1));
    let silent = Arc::new(AtomicBool::new(true));
    let mute = silent.clone();
    let network = api.client_over(move |seen| Fate {
        // The stream opens and never says anything, not even its end.
        silent: seen.query.contains("watch=") && mute.load(Ordering::SeqCst),
        ..Fate::PROMPT
    });
    let (watched, _) = follow(Watch::all(&network));
    watched.synced().await;
    settled().await;
    silent.store(false, Ordering::SeqCst);
    let start = Instant::now();
    api.put(PODS, object("x", 2));
    while watched.get(&ObjectKey::new("team-a", "x")).unwrap().replicas != 2 {
        sleep(Duration::from_millis(100)).await;
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "the dead watch was kept"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_neither_lists_again_nor_forgets() {
    let api = FakeApi::default();
    api.put(PODS, object("x", 1));
    let (watched, heard) = follow(Watch::all(&api.client()));
    watched.synced().await;
    let lists = api.lists.load(Ordering::Relaxed);
    heard.take();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(api.lists.load(Ordering::Relaxed), lists);
    assert!(
        api.watches.load(Ordering::Relaxed) <= 14,
        "{:?} watches in ten minutes",
        api.watches
    );
    assert_eq!(heard.take(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_metadata_watch_asks_for_metadata_only() {
    let api = FakeApi::default();
    api.put(
        "/api/v1/namespaces/team-a/secrets",
        json!({"metadata": {"name": "s"}, "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1"}),
    );
    let asked = Arc::new(AtomicBool::new(true));
    let all = asked.clone();
    let network = api.client_over(move |seen| {
        all.fetch_and(seen.accept.contains("as=PartialObjectMetadata"), Ordering::SeqCst);
        Fate::PROMPT
    });
    let (watched, task) = Watch::<PartialObjectMeta<Secret>>::within(&network, &"team-a".parse().unwrap())
        .fields("metadata.name=s")
        .start();
    tokio::spawn(task);
    watched.synced().await;
    assert_eq!(watched.len(), 1);
    assert!(asked.load(Ordering::SeqCst), "the secret itself was asked for");
}

#[tokio::test(start_paused = true)]
async fn a_bad_object_that_is_deleted_says_so_and_then_that_it_is_gone() {
    let api = FakeApi::default();
    let seen: Arc<Mutex<Vec<Undecodable>>> = Arc::default();
    let heard = seen.clone();
    let (watched, task) = Watch::<Slim>::all(&api.client())
        .on_undecodable(move |bad| heard.lock().unwrap().push(bad.clone()))
        .start();
    tokio::spawn(task);
    watched.synced().await;
    let mut bad = object("bad", "many");
    bad["metadata"]["finalizers"] = json!(["a", "b"]);
    api.put(PODS, bad.clone());
    settled().await;
    bad["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    api.put(PODS, bad);
    settled().await;
    api.delete(PODS, "bad");
    settled().await;
    let seen = seen.lock().unwrap();
    let told: Vec<_> = seen.iter().map(|bad| (bad.deleting, bad.gone)).collect();
    assert_eq!(told, [(false, false), (true, false), (true, true)]);
    assert_eq!(seen[1].finalizers, ["a", "b"]);
    assert!(seen[1].version.is_some() && seen[0].version != seen[1].version);
}
