//! A scripted API server behind a `kube::Client`: a few objects with optimistic locking, and the two reviews.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use kube::client::Body;
use serde_json::{Value, json};

/// How the server treats requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Answering,
    Refusing,
    Silent,
}

/// A cheap handle.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<State>>);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) mood: Mood,
    /// Objects by path.
    pub(crate) objects: BTreeMap<String, Value>,
    version: u64,
    /// Writes, as method and path.
    pub(crate) writes: Vec<String>,
    /// Users by token.
    pub(crate) tokens: BTreeMap<String, Value>,
    /// What is allowed, as user, namespace, resource; a `*` in the last is the literal resource `*`.
    pub(crate) allowed: Vec<(&'static str, &'static str, &'static str)>,
    pub(crate) token_reviews: usize,
    /// The specs of all access reviews.
    pub(crate) access_reviews: Vec<Value>,
}

impl FakeApi {
    pub(crate) fn client(&self) -> kube::Client {
        let state = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let state = state.clone();
            async move { state.answer(request).await }
        });
        kube::Client::new(service, "default")
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state().store(path, object);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    pub(crate) fn remove(&self, path: &str) {
        self.state().objects.remove(path);
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Full<bytes::Bytes>>, std::io::Error> {
        let mood = self.state().mood;
        match mood {
            Mood::Answering => {}
            Mood::Refusing => return Err(std::io::Error::other("connection refused")),
            Mood::Silent => std::future::pending().await,
        }
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let sent = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        let (code, answer) = self.state().handle(&parts.method, parts.uri.path(), sent);
        Ok(Response::builder()
            .status(code)
            .header("content-type", "application/json")
            .body(Full::from(answer.to_string()))
            .unwrap())
    }
}

impl State {
    fn handle(&mut self, method: &Method, path: &str, sent: Value) -> (StatusCode, Value) {
        match path {
            "/apis/authentication.k8s.io/v1/tokenreviews" => {
                return (StatusCode::CREATED, self.token_review(sent));
            }
            "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
                return (StatusCode::CREATED, self.access_review(sent));
            }
            _ => {}
        }
        if *method != Method::GET {
            self.writes.push(format!("{method} {path}"));
        }
        match *method {
            Method::GET => match self.objects.get(path) {
                Some(object) => (StatusCode::OK, object.clone()),
                None => status(StatusCode::NOT_FOUND, "NotFound"),
            },
            Method::POST => {
                let name = sent["metadata"]["name"].as_str().unwrap().to_owned();
                let path = format!("{path}/{name}");
                if self.objects.contains_key(&path) {
                    return status(StatusCode::CONFLICT, "AlreadyExists");
                }
                self.store(&path, sent);
                (StatusCode::CREATED, self.objects[&path].clone())
            }
            Method::PATCH => {
                let Some(mut object) = self.objects.get(path).cloned() else {
                    return status(StatusCode::NOT_FOUND, "NotFound");
                };
                let version = &sent["metadata"]["resourceVersion"];
                if !version.is_null() && *version != object["metadata"]["resourceVersion"] {
                    return status(StatusCode::CONFLICT, "Conflict");
                }
                merge(&mut object, sent);
                self.store(path, object);
                (StatusCode::OK, self.objects[path].clone())
            }
            _ => status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    fn store(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object);
    }

    fn token_review(&mut self, mut review: Value) -> Value {
        self.token_reviews += 1;
        let token = review["spec"]["token"].as_str().unwrap();
        review["status"] = match self.tokens.get(token) {
            Some(user) => json!({ "authenticated": true, "user": user }),
            None => json!({ "authenticated": false, "error": "invalid token" }),
        };
        review
    }

    fn access_review(&mut self, mut review: Value) -> Value {
        let spec = review["spec"].clone();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let attributes = &spec["resourceAttributes"];
        let asked = (
            text(&spec["user"]),
            text(&attributes["namespace"]),
            text(&attributes["resource"]),
        );
        let allowed = self.allowed.iter().any(|(user, namespace, resource)| {
            (*user, *namespace, *resource) == (&*asked.0, &*asked.1, &*asked.2)
        });
        self.access_reviews.push(spec);
        review["status"] = json!({ "allowed": allowed });
        review
    }
}

fn status(code: StatusCode, reason: &str) -> (StatusCode, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code.as_u16(),
    });
    (code, status)
}

/// RFC 7386.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(&key);
        } else {
            merge(&mut target[&key], value);
        }
    }
}
