//! Counts what goes to the API server: by verb, resource and answer, as the server's own metrics and audit log name them.

use std::{
    sync::LazyLock,
    task::{Context, Poll},
};

use futures::{FutureExt as _, future::BoxFuture};
use http::{Method, Request, Response, StatusCode};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tower::{Layer, Service};

/// Resources that have a name of their own in the metric; what else scale targets are is `other`.
const RESOURCES: &[&str] = &[
    "apiservices",
    "clustertriggerauthentications",
    "configmaps",
    "deployments",
    "endpointslices",
    "events",
    "horizontalpodautoscalers",
    "leases",
    "pods",
    "replicasets",
    "scaledobjects",
    "secrets",
    "serviceaccounts",
    "statefulsets",
    "subjectaccessreviews",
    "tokenreviews",
    "triggerauthentications",
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    verb: &'static str,
    resource: &'static str,
    subresource: &'static str,
    code: String,
}

/// The counts of all clients that share them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests {
    counts: Family<Labels, Counter>,
}

/// How often each kind's watches broke. Of the process, because a watch is started from a client alone.
static WATCH_RESTARTS: LazyLock<Family<[(&'static str, String); 1], Counter>> =
    LazyLock::new(Family::default);

/// A watch of this kind broke and is begun anew.
pub(crate) fn watch_restarted(kind: &str) {
    WATCH_RESTARTS.get_or_create(&[("kind", kind.to_owned())]).inc();
}

impl Requests {
    /// Registers `dormouse_kubernetes_requests_total{verb,resource,subresource,code}` and
    /// `dormouse_watch_restarts_total{kind}`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "dormouse_kubernetes_requests",
            "Requests to the Kubernetes API by verb, resource and status code, or error where there was no answer",
            self.counts.clone(),
        );
        registry.register(
            "dormouse_watch_restarts",
            "How often a watch of each kind broke and was begun anew",
            WATCH_RESTARTS.clone(),
        );
    }
}

impl<S> Layer<S> for Requests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Counted {
            inner,
            requests: self.clone(),
        }
    }
}

/// A service whose requests are counted.
#[derive(Debug, Clone)]
pub(crate) struct Counted<S> {
    inner: S,
    requests: Requests,
}

impl<S, A, B> Service<Request<A>> for Counted<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let (verb, resource, subresource) =
            classify(request.method(), request.uri().path(), request.uri().query());
        let mut pending = Pending {
            requests: self.requests.clone(),
            labels: Labels {
                verb,
                resource,
                subresource,
                code: "error".to_owned(),
            },
        };
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await;
            if let Ok(answer) = &answer {
                pending.answered(answer.status());
            }
            answer
        }
        .boxed()
    }
}

/// A request under way. It is counted when it ends, also where its caller gave up on it.
struct Pending {
    requests: Requests,
    labels: Labels,
}

impl Pending {
    fn answered(&mut self, status: StatusCode) {
        self.labels.code = status.as_u16().to_string();
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.requests.counts.get_or_create(&self.labels).inc();
    }
}

/// Verb, resource and subresource of a request. Every value is from a closed set.
fn classify(method: &Method, path: &str, query: Option<&str>) -> (&'static str, &'static str, &'static str) {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let prefix = match parts.next() {
        Some("api") => 1,
        Some("apis") => 2,
        _ => return (verb(method, false, false), "none", ""),
    };
    let mut parts = parts.skip(prefix).peekable();
    if parts.peek() == Some(&"namespaces") {
        parts.next();
        parts.next();
    }
    let Some(resource) = parts.next() else {
        return (verb(method, false, false), "discovery", "");
    };
    let named = parts.next().is_some();
    let subresource = match parts.next() {
        None => "",
        Some("scale") => "scale",
        Some("status") => "status",
        Some(_) => "other",
    };
    let resource = RESOURCES
        .iter()
        .copied()
        .find(|known| *known == resource)
        .unwrap_or("other");
    let watches = query.is_some_and(|query| {
        query
            .split('&')
            .any(|pair| matches!(pair, "watch=true" | "watch=1"))
    });
    (verb(method, !named, watches), resource, subresource)
}

fn verb(method: &Method, collection: bool, watches: bool) -> &'static str {
    match *method {
        Method::GET if watches => "watch",
        Method::GET if collection => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use dormouse_runtime::{Metrics, metrics::Format};
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[test]
    fn requests_are_named_as_the_api_server_names_them() {
        for (method, target, expected) in [
            (
                Method::GET,
                "/api/v1/namespaces/a/secrets/keys",
                ("get", "secrets", ""),
            ),
            (
                Method::GET,
                "/apis/keda.sh/v1alpha1/scaledobjects?watch=true&x=1",
                ("watch", "scaledobjects", ""),
            ),
            (
                Method::GET,
                "/apis/keda.sh/v1alpha1/namespaces/a/scaledobjects",
                ("list", "scaledobjects", ""),
            ),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/a/deployments/x/scale",
                ("patch", "deployments", "scale"),
            ),
            (
                Method::PATCH,
                "/apis/keda.sh/v1alpha1/namespaces/a/scaledobjects/x/status",
                ("patch", "scaledobjects", "status"),
            ),
            (
                Method::POST,
                "/apis/events.k8s.io/v1/namespaces/a/events",
                ("create", "events", ""),
            ),
            (
                Method::PUT,
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/l",
                ("update", "leases", ""),
            ),
            (
                Method::DELETE,
                "/apis/autoscaling/v2/namespaces/a/horizontalpodautoscalers/h",
                ("delete", "horizontalpodautoscalers", ""),
            ),
            (
                Method::GET,
                "/apis/argoproj.io/v1alpha1/namespaces/a/rollouts/r/scale",
                ("get", "other", "scale"),
            ),
            (Method::GET, "/apis/apps/v1", ("get", "discovery", "")),
            (Method::GET, "/version", ("get", "none", "")),
        ] {
            let (path, query) = target
                .split_once('?')
                .map_or((target, None), |(path, query)| (path, Some(query)));
            assert_eq!(classify(&method, path, query), expected, "{target}");
        }
    }

    #[tokio::test]
    async fn answers_failures_and_given_up_requests_are_counted() {
        let (requests, metrics) = (Requests::default(), Metrics::new());
        metrics.register(|registry| requests.register(registry));
        let serve = |request: Request<()>| async move {
            match request.uri().query() {
                Some("fails") => Err("no connection"),
                Some("hangs") => std::future::pending().await,
                _ => Ok(Response::builder().status(409).body(()).unwrap()),
            }
        };
        let get = |query: &str| {
            let target = format!("/api/v1/namespaces/a/configmaps/m?{query}");
            let request = Request::get(target).body(()).unwrap();
            requests.layer(service_fn(serve)).oneshot(request)
        };
        assert!(get("").await.is_ok());
        assert!(get("fails").await.is_err());
        let mut hangs = Box::pin(get("hangs"));
        assert!(futures::poll!(&mut hangs).is_pending());
        drop(hangs);
        let page = metrics.encode(Format::Classic);
        for (code, count) in [("409", 1), ("error", 2)] {
            let line = format!(
                "dormouse_kubernetes_requests_total{{verb=\"get\",resource=\"configmaps\",subresource=\"\",code=\"{code}\"}} {count}\n"
            );
            assert!(page.contains(&line), "{line}{page}");
        }
    }
}
