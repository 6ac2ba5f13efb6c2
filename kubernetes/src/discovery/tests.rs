use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::*;
use crate::{
    calls::Throttle,
    fake_api::{FakeApi, Fate},
};

const PATH: &str = "/apis/example.com/v1";

fn resource(name: &str, kind: &str) -> serde_json::Value {
    json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["get", "list", "watch"]})
}

fn discovery(api: &FakeApi) -> (Discovery, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let client = api.client_over(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Fate {
            returns: Some(Duration::from_millis(5)),
            ..Fate::PROMPT
        }
    });
    (Discovery::new(client, Calls::new(Throttle::new())), asked)
}

fn serve(api: &FakeApi, resources: &[serde_json::Value]) {
    let document =
        json!({"kind": "APIResourceList", "groupVersion": "example.com/v1", "resources": resources});
    api.document(PATH, 200, document);
}

#[tokio::test(start_paused = true)]
async fn a_custom_kind_is_asked_for_once_however_many_want_it() {
    let api = FakeApi::default();
    serve(
        &api,
        &[
            resource("widgets", "Widget"),
            resource("widgets/scale", "Scale"),
            resource("gears", "Gear"),
        ],
    );
    let (discovery, asked) = discovery(&api);
    let all = (0..100).map(|_| discovery.resolve("example.com/v1", "Widget"));
    for found in futures::future::join_all(all).await {
        let found = found.unwrap();
        assert_eq!(found.resource.plural, "widgets");
        assert!(found.scalable && found.namespaced);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(
        !discovery
            .resolve("example.com/v1", "Gear")
            .await
            .unwrap()
            .scalable
    );

    tokio::time::sleep(FOUND_FOR + Duration::from_secs(1)).await;
    let before = asked.load(Ordering::SeqCst);
    discovery.resolve("example.com/v1", "Widget").await.unwrap();
    assert_eq!(
        asked.load(Ordering::SeqCst),
        before + 1,
        "a kind is not remembered for ever"
    );
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_comes_later_is_found_within_seconds() {
    let api = FakeApi::default();
    let (discovery, asked) = discovery(&api);
    let missing = discovery.resolve("example.com/v1", "Widget").await.unwrap_err();
    assert_eq!(
        missing.to_string(),
        "the API server serves no kind \"Widget\" in \"example.com/v1\""
    );
    serve(&api, &[resource("widgets", "Widget")]);
    assert!(discovery.resolve("example.com/v1", "Widget").await.is_err());
    assert_eq!(
        asked.load(Ordering::SeqCst),
        1,
        "a missing kind is asked for again at once"
    );
    tokio::time::sleep(MISSING_FOR).await;
    assert!(discovery.resolve("example.com/v1", "Widget").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn deployments_need_no_question_and_nonsense_gets_none() {
    let (discovery, asked) = discovery(&FakeApi::default());
    for (kind, plural) in [("Deployment", "deployments"), ("StatefulSet", "statefulsets")] {
        let found = discovery.resolve("apps/v1", kind).await.unwrap();
        assert_eq!((found.resource.plural.as_str(), found.scalable), (plural, true));
    }
    for wrong in ["", "/v1", "a/b/c", "apps/v1/../../secrets", "Apps/v1", "apps/"] {
        let error = discovery.resolve(wrong, "Deployment").await.unwrap_err();
        assert!(
            matches!(error, DiscoveryFailure::BadApiVersion { .. }),
            "{wrong:?}: {error}"
        );
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded() {
    let api = FakeApi::default();
    let (discovery, _) = discovery(&api);
    for n in 0..MAX_KINDS * 2 {
        let _ = discovery.resolve("example.com/v1", &format!("Kind{n}")).await;
    }
    assert!(discovery.known.lock().unwrap().len() <= MAX_KINDS);
}
