use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dormouse_api::ScaledObjectSpec;
use dormouse_core::{Pause, ReplicaRange};
use dormouse_kubernetes::Watch;
use dormouse_kubernetes::calls::Throttle;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::leadership::tests::Leads;

/// An API server with at most one HPA, to which ScaledObjects are new until `knows` is set.
#[derive(Default)]
struct ApiServer {
    knows: AtomicBool,
    hpa: Mutex<Option<Value>>,
    writes: AtomicUsize,
}

impl ApiServer {
    fn answer(&self, method: &Method, body: &[u8]) -> (u16, Value) {
        let failure = |code: u16, reason: &str, message: &str| {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure",
                "message": message, "reason": reason, "code": code,
            });
            (code, status)
        };
        let mut hpa = self.hpa.lock().unwrap();
        if method == Method::GET {
            return match &*hpa {
                Some(hpa) => (200, hpa.clone()),
                None => failure(404, "NotFound", "not found"),
            };
        }
        let sent: Value = serde_json::from_slice(body).unwrap();
        let blocks = sent["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] == true;
        if blocks && !self.knows.load(Ordering::Relaxed) {
            return failure(
                403,
                "Forbidden",
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion \
                 keda.sh/v1alpha1 Kind ScaledObject",
            );
        }
        if method == Method::POST && hpa.is_some() {
            return failure(409, "AlreadyExists", "it is there");
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
        *hpa = Some(sent.clone());
        (200, sent)
    }

    fn blocks(&self) -> bool {
        let hpa = self.hpa.lock().unwrap();
        hpa.as_ref().unwrap()["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] == true
    }
}

#[tokio::test]
async fn an_api_server_that_has_just_heard_of_scaled_objects_gets_the_hpa_at_once_and_its_mark_later() {
    let server = Arc::new(ApiServer::default());
    let serving = server.clone();
    let serve = tower::service_fn(move |request: Request<Body>| {
        let server = serving.clone();
        async move {
            let method = request.method().clone();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let (code, answer) = server.answer(&method, &body);
            let answer = Body::from(answer.to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(code).body(answer).unwrap())
        }
    });
    let client = Client::new(serve, "shop");
    let mut object = ScaledObject::new("orders", ScaledObjectSpec::default());
    object.metadata.namespace = Some("shop".into());
    object.metadata.uid = Some("u".into());
    let again = Arc::new(AtomicBool::new(false));
    let asked = again.clone();
    let autoscaler = HpaAutoscaler {
        hpas: Watch::all(&client).start().0,
        client,
        calls: Calls::new(Throttle::new()),
        leadership: Arc::new(Leads::always(true)),
        seen: Seen::default(),
        object: Arc::new(object),
        target: GroupVersionKindResource::default(),
        known_name: None,
        version: "1",
        look_again: Arc::new(move |key, delay| {
            assert_eq!((key.to_string(), delay), ("shop/orders".into(), UNTIL_KNOWN));
            asked.store(true, Ordering::Relaxed);
        }),
    };
    let spec = AutoscalerSpec {
        replicas: ReplicaRange::try_new(None, 5, None).unwrap(),
        metrics: Vec::new(),
        resources: Vec::new(),
        pause: Pause::No,
    };
    let counts = || {
        let writes = server.writes.load(Ordering::Relaxed);
        (writes, again.swap(false, Ordering::Relaxed))
    };

    autoscaler.make(&spec).await.unwrap();
    assert!(!server.blocks());
    assert_eq!(counts(), (1, true), "it is there, and will be looked at again");
    autoscaler.make(&spec).await.unwrap();
    assert_eq!(counts(), (1, true), "nothing is written in vain");
    server.knows.store(true, Ordering::Relaxed);
    autoscaler.make(&spec).await.unwrap();
    assert!(server.blocks());
    assert_eq!(counts(), (2, false));
    autoscaler.make(&spec).await.unwrap();
    assert_eq!(counts(), (2, false), "and all is as it should be");
}
