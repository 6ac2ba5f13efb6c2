//! `prometheus`: the one number that a PromQL query has now.

mod answer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{Timestamp, Unit};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use crate::aws::{self, AwsIdentityMetadata, Signer};
use crate::clients::{Fingerprint, HttpClient, Reach, Redirects, TlsIdentity};
use crate::connect::Connect;
use crate::error::{ConfigError, ReadError, ReadErrorKind};
use crate::http_auth::{HttpAuth, HttpAuthMetadata};
use crate::http_read;
use crate::metadata::{Metadata, TimeSpan};
use crate::scaler::{MetricSpec, Observed, Question, Scaler, Target};
use crate::sensitive::Sensitive;
use crate::traffic;
use answer::Found;

/// Amazon's managed Prometheus, as signatures name it.
const AWS_SERVICE: &str = "aps";
/// The same, as its hosts begin.
const AWS_HOST: &str = "aps-workspaces";

/// Scales on the result of a PromQL query, asked of Prometheus or of anything with its HTTP API (Thanos, Cortex, Mimir,
/// VictoriaMetrics, Amazon Managed Service for Prometheus).
///
/// ```yaml
/// triggers:
///   - type: prometheus
///     metadata:
///       serverAddress: http://prometheus.monitoring.svc:9090
///       query: sum(rate(http_requests_total{deployment="shop"}[2m]))
///       threshold: "100"
/// ```
///
/// - Metric name: `prometheus`.
/// - Value: the query must give an instant vector of one element, or a scalar. A vector of several elements fails.
/// - With `ignoreNullValues`, no element, an element without a value, `NaN` and the infinities count as 0; without it
///   they fail.
/// - The query is sent as a GET of `<serverAddress>/api/v1/query` with the time of the read. Redirects are followed on
///   the same host only.
/// - Without `authModes`, requests are signed for Amazon's service (Signature Version 4) when there is an `awsRegion` or
///   the pod identity is `aws`. Signed requests follow no redirect, and have 15 s where no `timeout` is given. An
///   identity that the operator holds signs for `aps-workspaces.<region>.amazonaws.com` and the hosts of
///   `--aws-endpoint-allow` only. The identities of Azure and Google are refused.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PrometheusMetadata {
    /// URL of the server, with a path if the API is below one.
    server_address: String,
    /// The PromQL query.
    query: String,
    /// Value one replica is meant to carry. Must be greater than 0.
    threshold: f64,
    /// The trigger is active above this value.
    #[serde(default)]
    activation_threshold: f64,
    /// Sent as the parameter `namespace`, as the Thanos Querier takes it.
    namespace: Option<String>,
    /// Further headers: `X-Scope-OrgID=tenant,X-Other=b`.
    #[serde(default)]
    #[schemars(extend("x-sensitive" = true))]
    custom_headers: BTreeMap<String, Sensitive>,
    /// Further parameters of the request: `dedup=true,max_source_resolution=5m`.
    #[serde(default)]
    #[schemars(extend("x-sensitive" = true))]
    query_parameters: BTreeMap<String, Sensitive>,
    /// Whether a result without a number counts as 0 instead of failing.
    #[serde(default = "default_ignore_null_values")]
    ignore_null_values: bool,
    /// Whether certificates go unchecked.
    #[serde(default)]
    unsafe_ssl: bool,
    /// How long one read may take. Without it, the operator's `KEDA_HTTP_DEFAULT_TIMEOUT`.
    timeout: Option<TimeSpan>,
    /// No longer accepted: use `customHeaders` with `X-Scope-OrgID=<tenant>`.
    #[serde(rename = "cortexOrgID")]
    cortex_org_id: Option<Sensitive>,
    /// Region of Amazon's service.
    #[schemars(extend("x-sources" = ["metadata", "auth"]))]
    aws_region: Option<String>,
    #[serde(flatten)]
    identity: AwsIdentityMetadata,
    #[serde(flatten)]
    auth: HttpAuthMetadata,
}

fn default_ignore_null_values() -> bool {
    true
}

impl Metadata for PrometheusMetadata {
    const CONTEXT: &'static str = "error parsing prometheus metadata";
    const PARSING: &'static str = "error parsing prometheus metadata";

    fn validate(&self) -> Result<(), String> {
        if self.threshold.is_nan() || self.threshold <= 0.0 {
            return Err("parameter \"threshold\" must be greater than 0".to_owned());
        }
        if self.cortex_org_id.is_some() {
            return Err(
                "cortexOrgID is no longer accepted: use customHeaders: X-Scope-OrgID=<tenant>".to_owned(),
            );
        }
        self.auth.validate()
    }
}

/// See [`PrometheusMetadata`].
pub(crate) struct Prometheus {
    access: Access,
    url: Url,
    query: String,
    parameters: Vec<(String, Sensitive)>,
    headers: HeaderMap,
    ignore_null_values: bool,
    asks: Fingerprint,
    target: f64,
    activation: f64,
    deadline: Duration,
}

/// How the server knows who asks.
enum Access {
    Http(HttpAuth),
    Signed {
        client: Arc<HttpClient>,
        signer: Arc<Signer>,
    },
}

impl Scaler for Prometheus {
    const TYPE: &'static str = "prometheus";
    const LABEL: &'static str = "prometheusScaler";
    type Metadata = PrometheusMetadata;

    fn connect(metadata: PrometheusMetadata, cx: &Connect) -> Result<Self, ConfigError> {
        let error = |message: String| ConfigError::Metadata {
            context: PrometheusMetadata::CONTEXT,
            message,
        };
        let url = endpoint(&metadata.server_address).ok_or_else(|| {
            error(
                "parameter \"serverAddress\" must be an absolute http or https URL without a query"
                    .to_owned(),
            )
        })?;
        let hosts = url.host_str().into_iter().map(str::to_owned);
        for host in hosts.chain(metadata.auth.token_host()) {
            cx.check_host(&host).map_err(error)?;
        }
        let headers = headers(&metadata.custom_headers).map_err(error)?;
        let mut parameters: Vec<(String, Sensitive)> = metadata.query_parameters.into_iter().collect();
        if let Some(namespace) = metadata.namespace {
            parameters.insert(0, ("namespace".to_owned(), Sensitive::new(namespace)));
        }
        let provider = cx
            .params
            .auth
            .pod_identity
            .as_ref()
            .map(|pod| pod.provider.as_str());
        let signed = match (metadata.auth.is_disabled(), provider) {
            (false, Some(_)) => {
                return Err(error(
                    "pod identity cannot be enabled with other auth types".to_owned(),
                ));
            }
            (true, Some(other)) if !matches!(other, "aws" | "aws-eks") => {
                return Err(error(format!(
                    "pod identity {other} is not supported for prometheus: aws, or authModes, is accepted"
                )));
            }
            (true, Some(_)) => true,
            (true, None) => metadata.aws_region.is_some(),
            (false, None) => false,
        };
        let access = if signed {
            let region = metadata
                .aws_region
                .as_deref()
                .ok_or_else(|| error("no awsRegion given".to_owned()))?;
            let identity = metadata
                .identity
                .pick(cx.params.auth.pod_identity.as_ref())
                .map_err(error)?;
            let server = ("serverAddress", metadata.server_address.as_str());
            aws::check_endpoint(&identity, AWS_HOST, server, cx).map_err(error)?;
            let tls = TlsIdentity {
                unsafe_ssl: metadata.unsafe_ssl,
                ..TlsIdentity::default()
            };
            Access::Signed {
                client: cx
                    .clients
                    .connector(&tls, Redirects::Never, Reach::Egress)
                    .map_err(|fault| error(fault.to_string()))?,
                signer: Signer::shared(&identity, region, AWS_SERVICE, cx).map_err(error)?,
            }
        } else {
            Access::Http(HttpAuth::new(metadata.auth, metadata.unsafe_ssl, &cx.clients).map_err(error)?)
        };
        let tls = if metadata.unsafe_ssl { "unverified" } else { "" };
        let identity = match &access {
            Access::Http(auth) => auth.fingerprint(),
            Access::Signed { signer, .. } => signer.fingerprint().and(&[tls]),
        };
        let nothing = if metadata.ignore_null_values { "0" } else { "fails" };
        let asks = identity
            .and(&[url.as_str(), &metadata.query, nothing])
            .and(&pairs(parameters.iter().map(|(name, value)| (name, value))))
            .and(&pairs(&metadata.custom_headers));
        let usual = if signed {
            aws::DEADLINE
        } else {
            cx.default_deadline
        };
        Ok(Self {
            access,
            url,
            query: metadata.query,
            parameters,
            headers,
            asks,
            ignore_null_values: metadata.ignore_null_values,
            target: metadata.threshold,
            activation: metadata.activation_threshold,
            deadline: metadata
                .timeout
                .map(TimeSpan::duration)
                .filter(|timeout| !timeout.is_zero())
                .unwrap_or(usual),
        })
    }

    fn metric(&self) -> MetricSpec {
        MetricSpec {
            base_name: "prometheus".to_owned(),
            target: Target::Decimal(self.target),
        }
    }

    fn deadline(&self) -> Duration {
        self.deadline
    }

    fn question(&self) -> Option<Question> {
        Some(Question {
            fingerprint: self.asks,
            activation: self.activation,
        })
    }

    async fn read(&self) -> Result<Observed, ReadError> {
        let place = http_read::shown(&self.url);
        let what = format!("error executing prometheus query at {place}");
        let response = self.ask(&what).await?;
        let status = response.status();
        if !status.is_success() {
            let kind = http_read::kind_of(status, response.headers());
            if kind == ReadErrorKind::Denied {
                match &self.access {
                    Access::Http(auth) => auth.refused().await,
                    Access::Signed { signer, .. } => signer.refused().await,
                }
            }
            let message = format!(
                "prometheus query api returned error. status: {} ({place})",
                status.as_u16()
            );
            return Err(ReadError::new(kind, message));
        }
        let body = http_read::body(response).await?;
        let found = answer::value(&body, &self.query)
            .map_err(|message| ReadError::new(ReadErrorKind::BadAnswer, message))?;
        if let Found::Nothing(_) = found {
            traffic::empty_answer(self.ignore_null_values);
        }
        let value = match found {
            Found::Number(number) => number,
            Found::Nothing(_) if self.ignore_null_values => 0.0,
            Found::Nothing(sentence) => return Err(ReadError::new(ReadErrorKind::BadAnswer, sentence)),
        };
        Ok(Observed::above(value, self.activation))
    }
}

impl Prometheus {
    /// Asks for the value now; `what` begins the sentence of a failure.
    async fn ask(&self, what: &str) -> Result<Response, ReadError> {
        let now = Timestamp::now();
        let now = now.round(Unit::Second).unwrap_or(now).to_string();
        let mut url = self.url.clone();
        {
            let mut pairs = url.query_pairs_mut();
            pairs.append_pair("query", &self.query).append_pair("time", &now);
            for (name, value) in &self.parameters {
                pairs.append_pair(name, value.reveal());
            }
        }
        match &self.access {
            Access::Http(auth) => {
                let request = auth.get(url).await?.headers(self.headers.clone());
                auth.send(request, what).await
            }
            Access::Signed { client, signer } => {
                let signature = signer.headers(what, &url, &self.headers).await?;
                let request = client
                    .request(Method::GET, url)
                    .headers(self.headers.clone())
                    .headers(signature);
                let sent = client.send(request).await;
                sent.map_err(|error| http_read::failure(what, error))
            }
        }
    }
}

/// The API's address below that of the server.
fn endpoint(server: &str) -> Option<Url> {
    let mut url = Url::parse(server)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .filter(|url| url.query().is_none() && url.fragment().is_none())?;
    let path = format!("{}/api/v1/query", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Some(url)
}

fn pairs<'a>(all: impl IntoIterator<Item = (&'a String, &'a Sensitive)>) -> Vec<&'a str> {
    let each = |(name, value): (&'a String, &'a Sensitive)| [name.as_str(), value.reveal()];
    all.into_iter().flat_map(each).collect()
}

fn headers(custom: &BTreeMap<String, Sensitive>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in custom {
        let unusable = || format!("customHeaders: {name:?} with its value cannot be sent as an HTTP header");
        let header: HeaderName = name.parse().map_err(|_| unusable())?;
        let mut value: HeaderValue = value.reveal().parse().map_err(|_| unusable())?;
        value.set_sensitive(true);
        headers.append(header, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests;
