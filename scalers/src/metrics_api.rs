//! `metrics-api`: a number in the answer of any HTTP endpoint.

mod aggregate;
mod prometheus;
mod tree;
mod value;

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::clients::Fingerprint;
use crate::connect::{Connect, ServiceEndpoints};
use crate::error::{ConfigError, ReadError, ReadErrorKind};
use crate::http_auth::{HttpAuth, HttpAuthMetadata};
use crate::http_read;
use crate::metadata::{Metadata, TimeSpan};
use crate::scaler::{MetricSpec, Observed, Question, Scaler, Target};
use aggregate::Aggregate;
use value::Locator;

/// How the answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Format {
    #[default]
    Json,
    Prometheus,
    Xml,
    Yaml,
}

/// What is made of the values of several endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Aggregation {
    #[default]
    Average,
    Sum,
    Max,
    Min,
}

/// Scales on a number that an HTTP endpoint answers with, in JSON, YAML, XML or Prometheus' text format.
///
/// ```yaml
/// triggers:
///   - type: metrics-api
///     metadata:
///       url: http://orders.shop.svc:8080/stats
///       valueLocation: queue.waiting
///       targetValue: "10"
/// ```
///
/// - Metric name: `metric-api-<valueLocation>`.
/// - Value: what is found at `valueLocation`. Text there must be a Kubernetes quantity, such as `100m`.
/// - `valueLocation` in JSON is a GJSON path (`queue.waiting`, `list.#`, `items.#(name=="a").size`); in YAML and XML it
///   is made of names joined by dots, where a number picks from a list, `-name` is an attribute and `#text` the text
///   beside child elements; with Prometheus it is a metric name with labels (`waiting{queue="a"}`), and the first
///   untyped, counter or gauge sample that has them counts.
/// - Only the status 200 is an answer, and no more than 1 MiB of it. Redirects are followed on the same host only.
/// - With `aggregateFromKubeServiceEndpoints`, the URL's host names a Service (`<service>.<namespace>...`), and every
///   ready address behind it that has the URL's port is asked, at most five at a time. Those that fail are left out;
///   when all fail, so does the trigger.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MetricsApiMetadata {
    /// Where the answer comes from.
    url: String,
    /// Where the value stands in the answer.
    value_location: String,
    /// Value one replica is meant to carry. Must be given and not be 0.
    target_value: Option<f64>,
    /// The trigger is active above this value.
    #[serde(default)]
    activation_target_value: f64,
    /// How the answer is written.
    #[serde(default)]
    format: Format,
    /// Whether certificates go unchecked.
    #[serde(default)]
    unsafe_ssl: bool,
    /// How long one read may take. Without it, the operator's `KEDA_HTTP_DEFAULT_TIMEOUT`.
    timeout: Option<TimeSpan>,
    /// Whether every endpoint of the Service is asked.
    #[serde(default)]
    aggregate_from_kube_service_endpoints: bool,
    /// What is made of the endpoints' values.
    #[serde(default)]
    aggregation_type: Aggregation,
    #[serde(flatten)]
    auth: HttpAuthMetadata,
}

impl Metadata for MetricsApiMetadata {
    const CONTEXT: &'static str = "error parsing metric API metadata";
    const PARSING: &'static str = "error parsing metrics API metadata";

    fn validate(&self) -> Result<(), String> {
        if self.target_value.unwrap_or_default() == 0.0 {
            return Err("no targetValue given in metadata".to_owned());
        }
        self.auth.validate()
    }
}

/// See [`MetricsApiMetadata`].
pub(crate) struct MetricsApi {
    source: Arc<Source>,
    aggregate: Option<Aggregate>,
    location: String,
    target: f64,
    activation: f64,
    deadline: Duration,
    asks: Fingerprint,
}

/// What is asked, and how its answer is read.
struct Source {
    url: Url,
    auth: HttpAuth,
    locator: Locator,
}

impl Scaler for MetricsApi {
    const TYPE: &'static str = "metrics-api";
    const LABEL: &'static str = "metricsAPIScaler";
    type Metadata = MetricsApiMetadata;

    fn connect(metadata: MetricsApiMetadata, cx: &Connect) -> Result<Self, ConfigError> {
        let error = |message| ConfigError::Metadata {
            context: MetricsApiMetadata::CONTEXT,
            message,
        };
        let url = Url::parse(&metadata.url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| error("parameter \"url\" must be an absolute http or https URL".to_owned()))?;
        let hosts = url.host_str().into_iter().map(str::to_owned);
        for host in hosts.chain(metadata.auth.token_host()) {
            cx.check_host(&host).map_err(error)?;
        }
        let aggregate = if metadata.aggregate_from_kube_service_endpoints {
            let endpoints = cx.endpoints.clone().ok_or_else(|| {
                error("aggregateFromKubeServiceEndpoints needs a Kubernetes cluster".to_owned())
            })?;
            Some(aggregate_of(&url, metadata.aggregation_type, cx, endpoints).map_err(error)?)
        } else {
            None
        };
        let locator = Locator::new(metadata.format, &metadata.value_location).map_err(error)?;
        let auth = HttpAuth::new(metadata.auth, metadata.unsafe_ssl, &cx.clients).map_err(error)?;
        let query = format!(
            "{:?}",
            (metadata.format, aggregate.as_ref().map(Aggregate::place))
        );
        Ok(Self {
            asks: auth
                .fingerprint()
                .and(&[url.as_str(), &metadata.value_location, &query]),
            source: Arc::new(Source { url, auth, locator }),
            aggregate,
            location: metadata.value_location,
            target: metadata.target_value.unwrap_or_default(),
            activation: metadata.activation_target_value,
            deadline: metadata
                .timeout
                .map(TimeSpan::duration)
                .filter(|timeout| !timeout.is_zero())
                .unwrap_or(cx.default_deadline),
        })
    }

    fn metric(&self) -> MetricSpec {
        MetricSpec {
            base_name: format!("metric-api-{}", self.location),
            target: Target::Decimal(self.target),
        }
    }

    fn deadline(&self) -> Duration {
        self.deadline
    }

    async fn read(&self) -> Result<Observed, ReadError> {
        let value = match &self.aggregate {
            Some(aggregate) => aggregate.read(&self.source).await?,
            None => self.source.read(self.source.url.clone()).await?,
        };
        Ok(Observed::above(value, self.activation))
    }

    fn question(&self) -> Option<Question> {
        Some(Question {
            fingerprint: self.asks,
            activation: self.activation,
        })
    }
}

fn aggregate_of(
    url: &Url,
    aggregation: Aggregation,
    cx: &Connect,
    endpoints: Arc<dyn ServiceEndpoints>,
) -> Result<Aggregate, String> {
    let mut labels = url
        .domain()
        .unwrap_or_default()
        .split('.')
        .filter(|label| !label.is_empty());
    let service = labels
        .next()
        .ok_or("parameter \"url\" must name a Service to aggregate from its endpoints")?;
    let namespace = labels.next().unwrap_or(&cx.namespace);
    Ok(Aggregate::new(
        endpoints,
        namespace.to_owned(),
        service.to_owned(),
        aggregation,
    ))
}

impl Source {
    /// The value that `url` answers with.
    async fn read(&self, url: Url) -> Result<f64, ReadError> {
        let place = http_read::shown(&url);
        let what = format!("error requesting metrics endpoint: {place}");
        let request = self.auth.get(url.clone()).await?;
        let response = self.auth.send(request, &what).await?;
        let status = response.status();
        if status.as_u16() != 200 {
            let kind = http_read::kind_of(status, response.headers());
            if kind == ReadErrorKind::Denied {
                self.auth.refused().await;
            }
            let message = format!(
                "error requesting metrics endpoint: {}: api returned {}",
                url.path(),
                status.as_u16()
            );
            return Err(ReadError::new(kind, message));
        }
        let body = http_read::body(response).await?;
        self.locator.find(&body).map_err(|fault| {
            ReadError::new(
                ReadErrorKind::BadAnswer,
                format!("error requesting metrics endpoint: {place}: {fault}"),
            )
        })
    }
}

#[cfg(test)]
mod tests;
