//! An API server with what the interceptor watches, and nothing else: some routes, the Service of each, and its slice.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use dormouse_tests::Served;
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How long one watch lasts where the client does not say.
const WATCH: Duration = Duration::from_secs(40);
const NAMESPACE: &str = "bench";

/// The host that route `number` takes.
pub(crate) fn host(number: usize) -> String {
    format!("route-{number}.bench.example.com")
}

/// What all watches show: what there was at first, and the changes since.
#[derive(Default)]
struct Objects {
    routes: Vec<String>,
    services: Vec<String>,
    slices: Vec<String>,
    /// Of the slices alone: nothing else changes.
    changes: watch::Sender<Vec<String>>,
}

/// A running API server; it ends with this value.
pub(crate) struct ApiServer {
    objects: Arc<Objects>,
    served: Served,
}

impl ApiServer {
    /// With so many routes, each with a Service whose one pod is `pod`, or with none.
    pub(crate) async fn start(routes: usize, pod: Option<SocketAddr>) -> Result<Self> {
        let objects = Arc::new(Objects {
            routes: (0..routes).map(|number| added(&route(number))).collect(),
            services: (0..routes).map(|number| added(&service(number))).collect(),
            slices: (0..routes).map(|number| added(&slice(number, 1, pod))).collect(),
            changes: watch::Sender::default(),
        });
        let router = Router::new()
            .route("/{*path}", axum::routing::get(follow))
            .with_state(objects.clone());
        let served = Served::at(&Ipv4Addr::LOCALHOST.to_string(), router).await?;
        Ok(Self { objects, served })
    }

    /// The kubeconfig that leads here.
    pub(crate) fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {"server": format!("http://{}", self.served.address())}}],
            "users": [{"name": "bench", "user": {}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        })
        .to_string()
    }

    /// Gives the first route's Service this pod, or none.
    pub(crate) fn set_pod(&self, pod: Option<SocketAddr>) {
        self.objects.changes.send_modify(|changes| {
            let version = changes.len() + 2;
            changes.push(event("MODIFIED", &slice(0, version, pod)));
        });
    }
}

/// A watch that begins with all that there is, which is what the interceptor asks for.
async fn follow(
    State(objects): State<Arc<Objects>>,
    Path(path): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Body {
    let (kind, at_first) = match path.rsplit('/').next() {
        Some("interceptorroutes") => ("InterceptorRoute", &objects.routes[..]),
        Some("services") => ("Service", &objects.services[..]),
        Some("endpointslices") => ("EndpointSlice", &objects.slices[..]),
        _ => ("ConfigMap", &[][..]),
    };
    let changes = objects.changes.subscribe();
    let mut text = String::new();
    let mut seen = 0;
    if query
        .get("sendInitialEvents")
        .is_some_and(|value| value == "true")
    {
        text.extend(at_first.iter().map(String::as_str));
        if kind == "EndpointSlice" {
            let changed = changes.borrow();
            text.extend(changed.iter().map(String::as_str));
            seen = changed.len();
        }
        text.push_str(&end_of_list(kind, seen));
    } else if let Some(version) = query.get("resourceVersion") {
        seen = version.parse().unwrap_or(1_usize).saturating_sub(1);
    }
    let lasts = query
        .get("timeoutSeconds")
        .and_then(|seconds| seconds.parse().ok());
    let end = Instant::now() + lasts.map_or(WATCH, Duration::from_secs);
    let slices = kind == "EndpointSlice";
    let events = stream::unfold(
        (text, changes, seen),
        move |(text, mut changes, seen)| async move {
            let next = |text: String, changes, seen| {
                Some((
                    Ok::<_, Infallible>(Bytes::from(text)),
                    (String::new(), changes, seen),
                ))
            };
            if !text.is_empty() {
                return next(text, changes, seen);
            }
            let is_new = |changes: &Vec<String>| slices && changes.len() > seen;
            let (text, seen) = match timeout_at(end, changes.wait_for(is_new)).await {
                Ok(Ok(changes)) => (changes[seen..].concat(), changes.len()),
                _ => return None,
            };
            next(text, changes, seen)
        },
    );
    Body::from_stream(events)
}

fn added(object: &Value) -> String {
    event("ADDED", object)
}

fn event(change: &str, object: &Value) -> String {
    json!({"type": change, "object": object}).to_string() + "\n"
}

fn end_of_list(kind: &str, changes: usize) -> String {
    let object = json!({
        "kind": kind, "apiVersion": api_version(kind),
        "metadata": {"resourceVersion": (changes + 1).to_string(), "annotations": {"k8s.io/initial-events-end": "true"}},
    });
    event("BOOKMARK", &object)
}

fn api_version(kind: &str) -> &'static str {
    match kind {
        "InterceptorRoute" => "http.keda.sh/v1beta1",
        "EndpointSlice" => "discovery.k8s.io/v1",
        _ => "v1",
    }
}

/// An object with the metadata that a real one has, what its managers noted included.
fn object(kind: &str, name: &str, version: usize, rest: Value) -> Value {
    let managed = json!([{
        "apiVersion": api_version(kind), "fieldsType": "FieldsV1", "manager": "bench", "operation": "Update",
        "time": "2026-01-01T00:00:00Z",
        "fieldsV1": {"f:metadata": {"f:labels": {".": {}}}, "f:spec": {"f:ports": {".": {}}, "f:selector": {}}},
    }]);
    let mut object = rest;
    object["kind"] = kind.into();
    object["apiVersion"] = api_version(kind).into();
    let metadata = json!({
        "name": name, "namespace": NAMESPACE, "uid": format!("6f8f2c1e-0000-4000-8000-{:0>12}", name.len()),
        "resourceVersion": version.to_string(), "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": managed, "labels": {"kubernetes.io/service-name": name},
    });
    object["metadata"] = metadata;
    object
}

fn name(number: usize) -> String {
    format!("app-{number}")
}

fn route(number: usize) -> Value {
    let name = name(number);
    let spec = json!({
        "target": {"service": name, "port": 80}, "rules": [{"hosts": [host(number)]}],
        "scalingMetric": {"concurrency": {"targetValue": 100}},
    });
    let mut route = object("InterceptorRoute", &name, 1, json!({"spec": spec}));
    route["metadata"]["uid"] = format!("route-{number}").into();
    route
}

fn service(number: usize) -> Value {
    let name = name(number);
    let address =
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 1).to_bits() + u32::try_from(number).unwrap_or(0));
    let spec = json!({
        "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
        "selector": {"app": name}, "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
    });
    object("Service", &name, 1, json!({"spec": spec}))
}

fn slice(number: usize, version: usize, pod: Option<SocketAddr>) -> Value {
    let name = name(number);
    let endpoint = |pod: SocketAddr| {
        json!({
            "addresses": [pod.ip()], "nodeName": "node", "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": format!("{name}-0"), "uid": format!("pod-{number}")},
        })
    };
    let port = pod.map_or(8080, |pod| pod.port());
    let rest = json!({
        "addressType": "IPv4", "endpoints": pod.into_iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    });
    object("EndpointSlice", &name, version, rest)
}
