//! An API server in memory for tests: objects with resource versions, lists and watches, and a network that delays, loses
//! or hangs as the test says.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What the network does to one request. Delays are in virtual time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fate {
    /// The time until the server acts; `None` is never.
    pub(crate) arrives: Option<Duration>,
    /// The time from then until the answer arrives; `None` is never.
    pub(crate) returns: Option<Duration>,
    /// Instead of acting, the connection breaks.
    pub(crate) refused: bool,
    /// The answer's head arrives, and then nothing.
    pub(crate) silent: bool,
}

impl Fate {
    pub(crate) const PROMPT: Self = Self {
        arrives: Some(Duration::ZERO),
        returns: Some(Duration::ZERO),
        refused: false,
        silent: false,
    };
    pub(crate) const LOST: Self = Self {
        arrives: None,
        ..Self::PROMPT
    };
}

/// One request as the test's network sees it.
pub(crate) struct Seen<'a> {
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) accept: &'a str,
}

#[derive(Clone, Default)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    version: Arc<watch::Sender<u64>>,
    /// How many watch requests were answered.
    pub(crate) watches: Arc<AtomicUsize>,
    /// How many lists were answered.
    pub(crate) lists: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    /// By collection path, then name.
    objects: BTreeMap<(String, String), Value>,
    log: Vec<(u64, &'static str, Value)>,
    /// Answers to any other path.
    documents: BTreeMap<String, (u16, Value)>,
    version: u64,
    streaming_lists: bool,
    no_namespace: bool,
    forbidden: Option<Forbidden>,
}

/// Whether a GET of this path and query is refused.
type Forbidden = Box<dyn Fn(&str, &str) -> bool + Send>;

impl FakeApi {
    pub(crate) fn with_streaming_lists(self) -> Self {
        self.state.lock().unwrap().streaming_lists = true;
        self
    }

    /// Answers POSTs as if the namespace did not exist.
    pub(crate) fn refuse_new_objects(&self, refuse: bool) {
        self.state.lock().unwrap().no_namespace = refuse;
    }

    /// Answers such GETs, by path and query, with 403.
    pub(crate) fn forbid(&self, which: impl Fn(&str, &str) -> bool + Send + 'static) {
        self.state.lock().unwrap().forbidden = Some(Box::new(which));
    }

    /// Answers GETs of `path` with this.
    pub(crate) fn document(&self, path: &str, code: u16, document: Value) {
        self.state
            .lock()
            .unwrap()
            .documents
            .insert(path.into(), (code, document));
    }

    /// Creates or replaces an object, as another client would.
    pub(crate) fn put(&self, collection: &str, mut object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let mut state = self.state.lock().unwrap();
        let known = state.objects.contains_key(&(collection.into(), name.clone()));
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        if let Some((_, rest)) = collection.split_once("/namespaces/") {
            object["metadata"]["namespace"] = rest.split('/').next().unwrap().into();
        }
        state
            .log
            .push((version, if known { "MODIFIED" } else { "ADDED" }, object.clone()));
        state.objects.insert((collection.into(), name), object);
        drop(state);
        self.version.send_replace(version);
    }

    pub(crate) fn delete(&self, collection: &str, name: &str) {
        let mut state = self.state.lock().unwrap();
        let mut object = state.objects.remove(&(collection.into(), name.into())).unwrap();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        state.log.push((version, "DELETED", object));
        drop(state);
        self.version.send_replace(version);
    }

    pub(crate) fn get(&self, collection: &str, name: &str) -> Option<Value> {
        self.state
            .lock()
            .unwrap()
            .objects
            .get(&(collection.into(), name.into()))
            .cloned()
    }

    pub(crate) fn client(&self) -> Client {
        self.client_over(|_| Fate::PROMPT)
    }

    /// A client whose requests meet the fate that `network` decides on as they are sent.
    pub(crate) fn client_over(&self, network: impl Fn(&Seen<'_>) -> Fate + Send + Sync + 'static) -> Client {
        let (api, network) = (self.clone(), Arc::new(network));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (api, network) = (api.clone(), network.clone());
            async move {
                let (head, body) = request.into_parts();
                let seen = Seen {
                    path: head.uri.path(),
                    query: head.uri.query().unwrap_or_default(),
                    accept: head
                        .headers
                        .get("accept")
                        .map_or("", |value| value.to_str().unwrap()),
                };
                let fate = network(&seen);
                let body = body.collect().await.unwrap().to_bytes();
                // What was sent arrives also when the sender has given up on it meanwhile.
                let arrival = tokio::spawn(async move {
                    match fate.arrives {
                        Some(delay) if delay.is_zero() => {}
                        Some(delay) => sleep(delay).await,
                        None => std::future::pending().await,
                    }
                    (!fate.refused).then(|| {
                        api.answer(
                            &head.method,
                            head.uri.path(),
                            head.uri.query().unwrap_or_default(),
                            &body,
                        )
                    })
                });
                let answer = arrival.await.unwrap();
                match fate.returns {
                    Some(delay) if delay.is_zero() => {}
                    Some(delay) => sleep(delay).await,
                    None => std::future::pending().await,
                }
                let mut answer = answer.ok_or_else(|| std::io::Error::other("connection reset"))?;
                if fate.silent && answer.status().is_success() {
                    *answer.body_mut() = StreamBody::new(stream::pending()).boxed_unsync();
                }
                Ok::<_, std::io::Error>(answer)
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &Method, path: &str, query: &str, body: &[u8]) -> Answer {
        let parameter = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.replace("%3D", "=").replace("%2F", "/"))
        };
        let name =
            parameter("fieldSelector").and_then(|f| Some(f.strip_prefix("metadata.name=")?.to_owned()));
        let state = self.state.lock().unwrap();
        if *method == Method::GET
            && let Some((code, document)) = state.documents.get(path)
        {
            return json_answer(*code, document);
        }
        if *method == Method::GET && state.forbidden.as_ref().is_some_and(|which| which(path, query)) {
            return failure(403, "Forbidden", "not allowed");
        }
        drop(state);
        let (parent, last) = path.rsplit_once('/').unwrap();
        let is_object = path
            .split_once("/namespaces/")
            .is_some_and(|(_, rest)| rest.split('/').count() == 3);
        match *method {
            Method::GET if parameter("watch").is_some() => {
                if parameter("sendInitialEvents").is_some() && !self.state.lock().unwrap().streaming_lists {
                    return failure(422, "Invalid", "sendInitialEvents is forbidden");
                }
                self.watches.fetch_add(1, Ordering::Relaxed);
                let initial = parameter("sendInitialEvents").is_some();
                let from = if initial {
                    None
                } else {
                    parameter("resourceVersion").and_then(|v| v.parse().ok())
                };
                let seconds = parameter("timeoutSeconds")
                    .and_then(|v| v.parse().ok())
                    .unwrap_or(300);
                let end = Instant::now() + Duration::from_secs(seconds);
                let events = self.events(path.to_owned(), name, from, initial, end);
                let frames = events.map(|line| Ok::<_, Infallible>(Frame::data(Bytes::from(line))));
                Response::new(StreamBody::new(frames).boxed_unsync())
            }
            Method::GET if is_object => match self.get(parent, last) {
                Some(object) => json_answer(200, &object),
                None => failure(404, "NotFound", &format!("{last:?} not found")),
            },
            Method::GET => {
                self.lists.fetch_add(1, Ordering::Relaxed);
                let state = self.state.lock().unwrap();
                let items: Vec<_> = state
                    .objects
                    .iter()
                    .filter(|((at, object), _)| {
                        in_scope(path, at) && name.as_ref().is_none_or(|n| n == object)
                    })
                    .map(|(_, object)| object)
                    .collect();
                json_answer(
                    200,
                    &json!({"metadata": {"resourceVersion": state.version.to_string()}, "items": items}),
                )
            }
            Method::POST if self.state.lock().unwrap().no_namespace => {
                failure(404, "NotFound", "namespaces \"keda\" not found")
            }
            Method::POST => {
                let object: Value = serde_json::from_slice(body).unwrap();
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                if self.get(path, &name).is_some() {
                    return failure(409, "AlreadyExists", "exists");
                }
                self.put(path, object);
                json_answer(201, &self.get(path, &name).unwrap())
            }
            Method::PUT => {
                let object: Value = serde_json::from_slice(body).unwrap();
                let Some(known) = self.get(parent, last) else {
                    return failure(404, "NotFound", "gone");
                };
                if known["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                    return failure(409, "Conflict", "the object has been modified");
                }
                self.put(parent, object);
                json_answer(200, &self.get(parent, last).unwrap())
            }
            _ => failure(405, "MethodNotAllowed", "no"),
        }
    }

    fn events(
        &self,
        collection: String,
        name: Option<String>,
        from: Option<u64>,
        initial: bool,
        end: Instant,
    ) -> impl Stream<Item = String> + Send + 'static {
        let wanted = move |at: &str, object: &Value| {
            in_scope(&collection, at) && name.as_ref().is_none_or(|n| object["metadata"]["name"] == **n)
        };
        let line = |kind: &str, object: &Value| format!("{}\n", json!({"type": kind, "object": object}));
        let state = self.state.lock().unwrap();
        let mut first = Vec::new();
        if initial {
            for ((at, _), object) in &state.objects {
                if wanted(at, object) {
                    first.push(line("ADDED", object));
                }
            }
            first.push(line(
                "BOOKMARK",
                &json!({"kind": "x", "apiVersion": "v1", "metadata": {
                    "resourceVersion": state.version.to_string(),
                    "annotations": {"k8s.io/initial-events-end": "true"}}}),
            ));
        }
        let from = from.unwrap_or(state.version);
        drop(state);
        let (shared, changed) = (self.state.clone(), self.version.subscribe());
        let rest = stream::unfold((from, changed), move |(from, mut changed)| {
            let (shared, wanted) = (shared.clone(), wanted.clone());
            async move {
                loop {
                    changed.mark_unchanged();
                    {
                        let state = shared.lock().unwrap();
                        let next = state.log.iter().find(|(version, _, object)| {
                            let at = object["metadata"]["namespace"]
                                .as_str()
                                .map_or(String::new(), Into::into);
                            *version > from && wanted(&format!("/namespaces/{at}/"), object)
                        });
                        if let Some((version, kind, object)) = next {
                            return Some((line(kind, object), (*version, changed.clone())));
                        }
                    }
                    tokio::select! {
                        result = changed.changed() => result.ok()?,
                        () = sleep_until(end) => return None,
                    }
                }
            }
        });
        stream::iter(first).chain(rest)
    }
}

/// Whether objects kept at `at` are part of the collection `asked` for: the same, or the same kind in any namespace.
fn in_scope(asked: &str, at: &str) -> bool {
    let namespace = |path: &str| {
        path.split_once("/namespaces/")
            .and_then(|(_, r)| Some(r.split('/').next()?.to_owned()))
    };
    namespace(asked).is_none_or(|asked| namespace(at).as_deref() == Some(&asked))
}

fn json_answer(code: u16, document: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(document.to_string())).boxed_unsync());
    *answer.status_mut() = StatusCode::from_u16(code).unwrap();
    answer
}

fn failure(code: u16, reason: &str, message: &str) -> Answer {
    json_answer(
        code,
        &json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}),
    )
}
