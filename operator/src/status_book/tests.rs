use std::convert::Infallible;

use dormouse_api::ScaledObjectSpec;
use dormouse_core::Pause;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use tokio::sync::watch;

use super::*;
use crate::leadership::tests::Leads;
use crate::status;

/// A book over an API server that takes every patch, counts versions up from 100 and remembers what it was sent.
struct Desk {
    book: StatusBook,
    patches: Arc<Mutex<Vec<Value>>>,
    object: ScaledObject,
    _leads: watch::Sender<bool>,
}

impl Desk {
    fn new() -> Self {
        let patches: Arc<Mutex<Vec<Value>>> = Arc::default();
        let seen = patches.clone();
        let serve = tower::service_fn(move |request: Request<Body>| {
            let seen = seen.clone();
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let patch: Value = serde_json::from_slice(&body).unwrap();
                let count = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(patch);
                    seen.len()
                };
                let answer = json!({
                    "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
                    "metadata": {"name": "orders", "namespace": "shop", "resourceVersion": (100 + count).to_string()},
                });
                Ok::<_, Infallible>(Response::new(Body::from(answer.to_string().into_bytes())))
            }
        });
        let (leads, following) = watch::channel(true);
        let calls = Calls::new(dormouse_kubernetes::calls::Throttle::new());
        let book = StatusBook::new(Client::new(serve, "shop"), calls, Arc::new(Leads(following)));
        let mut object = ScaledObject::new("orders", ScaledObjectSpec::default());
        object.metadata.uid = Some("u".into());
        object.metadata.resource_version = Some("100".into());
        book.open(&key(), "u", Some("100"), &ScaledObjectStatus::default());
        Self {
            book,
            patches,
            object,
            _leads: leads,
        }
    }

    async fn check(&self) {
        let changed = self
            .book
            .update(&key(), |status| status::set_checked(status, Pause::No))
            .await;
        assert!(changed.unwrap().failed.is_none());
    }

    /// The object as a watch shows it.
    fn shown(&self, version: &str, status: Option<&ScaledObjectStatus>) -> ScaledObject {
        let mut object = self.object.clone();
        object.metadata.resource_version = Some(version.into());
        object.status = status.cloned();
        object
    }

    async fn take_in(&self, object: &ScaledObject) -> Option<Duration> {
        self.book.take_in(&key(), object).await.unwrap()
    }

    fn writes(&self) -> usize {
        self.patches.lock().unwrap().len()
    }
}

fn key() -> ObjectKey {
    ObjectKey::new("shop", "orders")
}

#[tokio::test(start_paused = true)]
async fn our_own_echo_and_what_is_older_are_not_answered() {
    let desk = Desk::new();
    desk.check().await;
    let ours = desk.book.wanted(&key()).await.unwrap();
    assert_eq!(desk.writes(), 1);
    // The watch is behind, then shows our write, then a change of somebody's that is not about the status.
    assert_eq!(desk.take_in(&desk.shown("99", None)).await, None);
    assert_eq!(desk.take_in(&desk.shown("101", Some(&ours))).await, None);
    assert_eq!(desk.take_in(&desk.shown("150", Some(&ours))).await, None);
    assert_eq!(desk.writes(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_changed_is_written_again_and_only_that() {
    let desk = Desk::new();
    desk.check().await;
    assert_eq!(desk.take_in(&desk.shown("120", None)).await, None);
    assert_eq!(desk.writes(), 2);
    let patch = desk.patches.lock().unwrap()[1].clone();
    let conditions_again = patch
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .unwrap()
        .clone();
    assert!(
        conditions_again
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True"),
        "{patch}"
    );

    // A field that somebody else changed while ours was under way is seen in our own echo.
    let mut odd = desk.book.wanted(&key()).await.unwrap();
    odd.hpa_name = Some("theirs".into());
    tokio::time::advance(REPAIR).await;
    assert_eq!(desk.take_in(&desk.shown("102", Some(&odd))).await, None);
    let patch = desk.patches.lock().unwrap()[2].clone();
    assert_eq!(patch, json!({"status": {"hpaName": null}}));
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_never_agrees_is_answered_at_a_bounded_rate() {
    let desk = Desk::new();
    desk.check().await;
    let mut version = 1000;
    for _ in 0..600 {
        version += 1;
        desk.take_in(&desk.shown(&version.to_string(), None)).await;
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    // A minute of it.
    assert!((6..=8).contains(&desk.writes()), "{} writes", desk.writes());
    desk.take_in(&desk.shown("9998", None)).await;
    let wait = desk.take_in(&desk.shown("9999", None)).await;
    assert!(wait.is_some_and(|wait| wait <= REPAIR), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn another_object_of_that_name_and_one_without_a_page_are_left_alone() {
    let desk = Desk::new();
    desk.check().await;
    let mut other = desk.shown("200", None);
    other.metadata.uid = Some("v".into());
    assert_eq!(desk.take_in(&other).await, None);
    desk.book.close(&key());
    assert_eq!(desk.take_in(&desk.shown("201", None)).await, None);
    assert_eq!(desk.writes(), 1);
}
