use std::convert::Infallible;
use std::sync::Mutex;

use dormouse_kubernetes::calls::Throttle;
use http::{Method, Request, Response, header};
use http_body_util::BodyExt as _;
use kube::client::Body;

use super::*;
use crate::leadership::tests::Leads;

/// An API server with one scale, which it changes as the real one does.
struct ApiServer {
    scale: Value,
    writes: u32,
    /// Why it refuses all changes, if it does.
    policy: Option<&'static str>,
}

impl ApiServer {
    fn answer(&mut self, request: &http::request::Parts, body: &[u8]) -> (u16, Value) {
        assert_eq!(
            request.uri.path(),
            "/apis/apps/v1/namespaces/web/deployments/shop/scale"
        );
        if request.method == Method::GET {
            return (200, self.scale.clone());
        }
        assert_eq!(request.method, Method::PATCH);
        self.writes += 1;
        let mut changed = self.scale.clone();
        if request.headers[header::CONTENT_TYPE] == "application/json-patch+json" {
            let operations: json_patch::Patch = serde_json::from_slice(body).unwrap();
            if json_patch::patch(&mut changed, &operations).is_err() {
                return failure(422, "Invalid", "the request is invalid");
            }
        } else {
            let sent: Value = serde_json::from_slice(body).unwrap();
            let version = &sent["metadata"]["resourceVersion"];
            if !version.is_null() && *version != changed["metadata"]["resourceVersion"] {
                return failure(409, "Conflict", "the object has been modified");
            }
            json_patch::merge(&mut changed, &sent);
        }
        if let Some(policy) = self.policy {
            return failure(422, "Invalid", policy);
        }
        if changed["spec"]["replicas"] == 0 {
            changed["spec"] = json!({});
        }
        self.scale = changed;
        self.moves_on();
        (200, self.scale.clone())
    }

    /// The target changed in what its scale does not tell, as it does while its pods go.
    fn moves_on(&mut self) {
        let version = &self.scale["metadata"]["resourceVersion"];
        let next: u32 = version.as_str().unwrap().parse::<u32>().unwrap() + 1;
        self.scale["metadata"]["resourceVersion"] = next.to_string().into();
    }
}

fn failure(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code,
    });
    (code, status)
}

struct Stage {
    server: Arc<Mutex<ApiServer>>,
    target: ScaleTarget,
}

impl Stage {
    fn new(spec: Value) -> Self {
        let scale = json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {"name": "shop", "namespace": "web", "resourceVersion": "7"}, "spec": spec,
        });
        let server = Arc::new(Mutex::new(ApiServer {
            scale,
            writes: 0,
            policy: None,
        }));
        let serving = server.clone();
        let serve = tower::service_fn(move |request: Request<Body>| {
            let server = serving.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let (code, answer) = server.lock().unwrap().answer(&head, &body);
                let answer = Body::from(answer.to_string().into_bytes());
                Ok::<_, Infallible>(Response::builder().status(code).body(answer).unwrap())
            }
        });
        let leads: Arc<dyn Leadership> = Arc::new(Leads::always(true));
        let deployments = GroupVersionKindResource {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            resource: "deployments".into(),
        };
        let (client, calls) = (Client::new(serve, "web"), Calls::new(Throttle::new()));
        let target = ScaleTarget::new(&client, &calls, &leads, "web", "shop", &deployments);
        Self { server, target }
    }

    fn with_server<R>(&self, what: impl FnOnce(&mut ApiServer) -> R) -> R {
        what(&mut self.server.lock().unwrap())
    }

    /// The replicas that the server has, and how many writes it was sent.
    fn is(&self) -> (Value, u32) {
        self.with_server(|server| (server.scale["spec"]["replicas"].clone(), server.writes))
    }
}

#[tokio::test]
async fn a_target_whose_pods_just_go_is_woken_with_one_write() {
    let stage = Stage::new(json!({"replicas": 3}));
    let seen = stage.target.observe(Urgency::Routine).await.unwrap();
    let asleep = stage
        .target
        .set_replicas(0, &seen, Urgency::Routine)
        .await
        .unwrap();
    assert_eq!((asleep.replicas, stage.is()), (0, (Value::Null, 1)));
    stage.with_server(ApiServer::moves_on);

    let left = stage
        .target
        .set_replicas(3, &asleep, Urgency::Wake)
        .await
        .unwrap();

    assert_eq!((left.replicas, left.version.as_deref()), (3, Some("10")));
    assert_eq!(stage.is(), (json!(3), 2));
}

#[tokio::test]
async fn a_target_with_pods_is_changed_as_it_was_seen_or_not_at_all() {
    let stage = Stage::new(json!({"replicas": 1}));
    let seen = stage.target.observe(Urgency::Routine).await.unwrap();
    stage.with_server(ApiServer::moves_on);

    let refused = stage.target.set_replicas(0, &seen, Urgency::Routine).await;

    assert_eq!(refused.unwrap_err().category, CHANGED);
    assert_eq!(stage.is(), (json!(1), 1));
}

#[tokio::test]
async fn replicas_that_somebody_else_changed_are_left_as_they_are() {
    for (spec, seen_as) in [(json!({}), 0), (json!({"replicas": 2}), 2)] {
        let stage = Stage::new(spec);
        let seen = stage.target.observe(Urgency::Soon).await.unwrap();
        assert_eq!(seen.replicas, seen_as);
        stage.with_server(|server| {
            server.scale["spec"]["replicas"] = 5.into();
            server.moves_on();
        });

        let refused = stage
            .target
            .set_replicas(1, &seen, Urgency::Soon)
            .await
            .unwrap_err();

        assert_eq!(refused.category, CHANGED, "{refused}");
        assert_eq!(stage.is().0, 5);
    }
}

#[tokio::test]
async fn a_zero_that_is_spelled_out_is_a_zero() {
    let stage = Stage::new(json!({"replicas": 0}));
    let seen = stage.target.observe(Urgency::Wake).await.unwrap();

    let left = stage.target.set_replicas(1, &seen, Urgency::Wake).await.unwrap();

    assert_eq!((left.replicas, stage.is()), (1, (json!(1), 2)));
}

#[tokio::test]
async fn what_the_server_has_against_a_wake_is_told() {
    let stage = Stage::new(json!({}));
    let seen = stage.target.observe(Urgency::Wake).await.unwrap();
    stage.with_server(|server| server.policy = Some("no work on Sundays"));

    let refused = stage
        .target
        .set_replicas(1, &seen, Urgency::Wake)
        .await
        .unwrap_err();

    assert_eq!(refused.category, "invalid");
    assert!(refused.message.contains("no work on Sundays"), "{refused}");
}

#[tokio::test]
async fn what_was_not_looked_at_is_overwritten() {
    let stage = Stage::new(json!({"replicas": 4}));
    let whatever = TargetState {
        replicas: 0,
        version: None,
    };

    stage
        .target
        .set_replicas(2, &whatever, Urgency::Soon)
        .await
        .unwrap();

    assert_eq!(stage.is(), (json!(2), 1));
}
