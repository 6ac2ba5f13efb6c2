//! Which path answers what.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Path, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, Uri};
use serde::Serialize;
use tokio::time::timeout;

use super::gatekeeper::Gatekeeper;
use super::peer::Peer;
use super::source::{MetricQuery, MetricSource};
use super::status::{Failure, json};
use super::user::Identity;
use super::{discovery, openapi, selector};

/// The label that names the ScaledObject.
const SCALED_OBJECT: &str = "scaledobject.keda.sh/name";
/// Longer names than this are no object's.
const MAX_NAME: usize = 253;

#[derive(Clone)]
struct Api {
    gatekeeper: Arc<Gatekeeper>,
    source: Arc<dyn MetricSource>,
    deadline: Duration,
}

#[derive(Serialize)]
struct ValueList<'a> {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    metadata: Metadata,
    items: [Value<'a>; 1],
}

#[derive(Serialize)]
struct Metadata {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Value<'a> {
    metric_name: &'a str,
    metric_labels: (),
    timestamp: String,
    value: String,
}

/// All routes. Requests carry their [`Peer`] as an extension; each is answered within `deadline`.
pub(crate) fn router(
    gatekeeper: Arc<Gatekeeper>,
    source: Arc<dyn MetricSource>,
    deadline: Duration,
) -> Router {
    let api = Api {
        gatekeeper,
        source,
        deadline,
    };
    let documents = Router::new()
        .route("/apis", get(discovery::groups))
        .route("/apis/external.metrics.k8s.io", get(discovery::group))
        .route("/apis/external.metrics.k8s.io/v1beta1", get(discovery::resources))
        .route("/openapi/v2", get(openapi::version_2))
        .route("/openapi/v3", get(openapi::version_3_index))
        .route(
            "/openapi/v3/apis/external.metrics.k8s.io/v1beta1",
            get(openapi::version_3),
        )
        .route("/version", get(discovery::version))
        .fallback(async || Failure::not_found())
        .method_not_allowed_fallback(async || Failure::method_not_allowed())
        .layer(middleware::from_fn_with_state(api.clone(), admit_document));
    let metrics = Router::new()
        .route(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}",
            get(metric),
        )
        .method_not_allowed_fallback(async || Failure::method_not_allowed());
    let health = Router::new()
        .route("/healthz", get(health))
        .route("/livez", get(health))
        .route("/readyz", get(health));
    documents
        .merge(metrics)
        .merge(health)
        .layer(middleware::from_fn_with_state(api.clone(), within_deadline))
        .with_state(api)
}

async fn within_deadline(State(api): State<Api>, request: Request, next: Next) -> Response {
    timeout(api.deadline, next.run(request))
        .await
        .unwrap_or_else(|_| Failure::timeout().into_response())
}

async fn admit_document(
    State(api): State<Api>,
    Extension(peer): Extension<Arc<Peer>>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let identity = api.gatekeeper.identify(&peer, request.headers()).await?;
    api.gatekeeper
        .admit_document(&identity, request.uri().path())
        .await?;
    Ok(next.run(request).await)
}

async fn health() -> &'static str {
    "ok"
}

async fn metric(
    State(api): State<Api>,
    Extension(peer): Extension<Arc<Peer>>,
    Path((namespace, metric)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let identity = api.gatekeeper.identify(&peer, &headers).await?;
    if namespace.len() > MAX_NAME || metric.len() > MAX_NAME {
        return Err(Failure::not_found());
    }
    read(&api, &identity, &namespace, &metric, &uri, &headers).await
}

async fn read(
    api: &Api,
    identity: &Identity,
    namespace: &str,
    metric: &str,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let caller = api.gatekeeper.admit_read(identity, namespace, metric).await?;
    if !discovery::accepts_json(headers) {
        return Err(Failure::not_acceptable("application/json"));
    }
    let selector = label_selector(uri)?;
    let labels = selector::parse(&selector).map_err(|error| Failure::bad_request(error.to_string()))?;
    let scaled_object = labels
        .get(SCALED_OBJECT)
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Failure::plain("scaledObject name is not specified"))?;
    let found = api
        .source
        .external_metric(MetricQuery {
            namespace,
            scaled_object,
            metric,
            caller,
        })
        .await?;
    Ok(json(&ValueList {
        kind: "ExternalMetricValueList",
        api_version: "external.metrics.k8s.io/v1beta1",
        metadata: Metadata {},
        items: [Value {
            metric_name: metric,
            metric_labels: (),
            timestamp: found.timestamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            value: found.value.to_string(),
        }],
    }))
}

fn label_selector(uri: &Uri) -> Result<String, Failure> {
    let Query(parameters) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|_| Failure::bad_request("the query is not made of key=value pairs joined by '&'"))?;
    let selector = parameters.into_iter().find(|(name, _)| name == "labelSelector");
    Ok(selector.map(|(_, value)| value).unwrap_or_default())
}
