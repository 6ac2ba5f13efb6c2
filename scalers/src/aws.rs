//! AWS: as whom a trigger acts, and what all its AWS clients share.
//!
//! ```text
//! parameters + pod identity ──> Identity ──> SdkParts, shared by all triggers of that identity and region
//!                                              ├─ credentials: given keys, the operator's own, or a role by STS
//!                                              ├─ identity cache: one set of credentials, renewed before it ends
//!                                              └─ HTTP: the one connector of clients.rs
//! ```

mod credentials;
mod failure;
mod http;
mod retry;
mod sign;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::SystemTimeSource;
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::clients::{Clients, Fingerprint, Reach, Redirects, TlsIdentity};
use crate::connect::{Connect, PodIdentity};
use crate::sensitive::Sensitive;
use credentials::{DefaultChain, Role};
pub(crate) use failure::read_error;
use http::SdkHttp;
pub(crate) use retry::PatientServer;
pub(crate) use sign::Signer;

/// How long one read of an AWS source may take, as in KEDA.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);
/// Getting credentials must leave time for the read itself.
const CREDENTIALS_DEADLINE: Duration = Duration::from_secs(12);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// Parameters of all AWS triggers; flatten them into a scaler's own.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AwsMetadata {
    /// Region of the source.
    #[schemars(extend("x-sources" = ["metadata", "auth"]))]
    pub(crate) aws_region: String,
    /// URL to use instead of the region's own endpoint. Never used for STS.
    pub(crate) aws_endpoint: Option<String>,
    #[serde(flatten)]
    pub(crate) identity: AwsIdentityMetadata,
}

/// The parameters that say as whom to act; for triggers that are asked by AWS rules only sometimes.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AwsIdentityMetadata {
    /// Whose identity is used without a pod identity: `operator` for the operator's own; `pod`, or nothing, for what
    /// the authentication or the container's environment gives.
    identity_owner: Option<String>,
    /// Role to assume.
    #[schemars(extend("x-sources" = ["auth"]))]
    aws_role_arn: Option<Sensitive>,
    /// Access key, if no role is given.
    #[serde(rename = "awsAccessKeyID")]
    #[schemars(extend("x-sources" = ["auth", "metadata", "env"], "x-aliases" = ["awsAccessKeyId"]))]
    aws_access_key_id: Option<Sensitive>,
    /// Secret of the access key.
    #[schemars(extend("x-sources" = ["auth", "env"]))]
    aws_secret_access_key: Option<Sensitive>,
    /// Session token of temporary keys.
    #[schemars(extend("x-sources" = ["auth"]))]
    aws_session_token: Option<Sensitive>,
}

/// As whom a trigger acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The keys that were given.
    Keys {
        id: Sensitive,
        secret: Sensitive,
        token: Option<Sensitive>,
    },
    /// The SDK's default chain in the operator's process.
    Operator,
    /// A role, by the operator's web identity token if `web_identity` and there is one, else by its own credentials.
    Role {
        arn: Sensitive,
        external_id: Option<String>,
        web_identity: bool,
    },
}

impl AwsIdentityMetadata {
    /// Picks the identity.
    ///
    /// # Errors
    /// Keys are needed and missing.
    pub(crate) fn pick(&self, pod_identity: Option<&PodIdentity>) -> Result<Identity, String> {
        if let Some(pod) = pod_identity.filter(|pod| pod.provider == "aws") {
            let arn = pod
                .role_arn
                .as_ref()
                .map(Sensitive::new)
                .or_else(|| self.aws_role_arn.clone());
            return Ok(arn.map_or(Identity::Operator, |arn| Identity::Role {
                arn,
                external_id: pod.external_id.clone(),
                web_identity: true,
            }));
        }
        if !matches!(self.identity_owner.as_deref(), None | Some("pod")) {
            return Ok(Identity::Operator);
        }
        if let Some(arn) = &self.aws_role_arn {
            return Ok(Identity::Role {
                arn: arn.clone(),
                external_id: None,
                web_identity: false,
            });
        }
        Ok(Identity::Keys {
            id: self.aws_access_key_id.clone().ok_or("awsAccessKeyID not found")?,
            secret: self
                .aws_secret_access_key
                .clone()
                .ok_or("awsSecretAccessKey not found")?,
            token: self.aws_session_token.clone(),
        })
    }
}

impl Identity {
    fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Keys { id, secret, token } => Fingerprint::of(&[
                "keys",
                id.reveal(),
                secret.reveal(),
                token.as_ref().map(Sensitive::reveal).unwrap_or_default(),
            ]),
            Self::Operator => Fingerprint::of(&["operator"]),
            Self::Role {
                arn,
                external_id,
                web_identity,
            } => Fingerprint::of(&[
                "role",
                arn.reveal(),
                external_id.as_deref().unwrap_or_default(),
                if *web_identity { "web" } else { "" },
            ]),
        }
    }
}

/// Whether `endpoint` may be asked as this identity.
///
/// A signature for a stranger's host is of little use to it, but a session token goes with it. So an identity that the
/// operator holds signs for AWS' own endpoints and for those on the allow-list; a trigger's own keys go where it says.
///
/// # Errors
/// One sentence about `parameter`.
pub(crate) fn check_endpoint(
    identity: &Identity,
    service: &str,
    (parameter, endpoint): (&str, &str),
    cx: &Connect,
) -> Result<(), String> {
    let host = url::Url::parse(endpoint)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .and_then(|url| url.host_str().map(str::to_owned))
        .ok_or_else(|| format!("parameter {parameter:?} must be an absolute http or https URL"))?;
    cx.check_host(&host)?;
    if matches!(identity, Identity::Keys { .. })
        || is_own_endpoint(&host, service)
        || cx.clients.aws_endpoints().contains(&host)
    {
        return Ok(());
    }
    Err(format!(
        "parameter {parameter:?} names {host:?}, for which the operator's own AWS identity does not sign: AWS' endpoints of the service and the hosts of --aws-endpoint-allow are accepted"
    ))
}

/// Whether a host is the service's own at AWS: `sqs.eu-west-1.amazonaws.com`, `vpce-1.sqs.eu-west-1.vpce.amazonaws.com`.
/// Other names below these domains belong to customers.
fn is_own_endpoint(host: &str, service: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let rest = [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"]
        .iter()
        .find_map(|domain| host.strip_suffix(domain));
    let labels: Vec<&str> = rest.into_iter().flat_map(|rest| rest.split('.')).collect();
    let is_service = |label: &str| label == service || label.strip_suffix("-fips") == Some(service);
    match labels[..] {
        [first, _region] => is_service(first),
        [_endpoint, middle, _region, "vpce"] => is_service(middle),
        _ => false,
    }
}

/// What the process environment says to AWS clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsEnvironment {
    /// `AWS_WEB_IDENTITY_TOKEN_FILE`.
    pub web_identity_token_file: Option<PathBuf>,
    /// `AWS_ENDPOINT_URL` and `AWS_ENDPOINT_URL_<SERVICE>`, by name.
    pub endpoint_urls: BTreeMap<String, String>,
}

impl Default for AwsEnvironment {
    /// What this process's environment holds.
    fn default() -> Self {
        Self {
            web_identity_token_file: std::env::var_os("AWS_WEB_IDENTITY_TOKEN_FILE").map(PathBuf::from),
            endpoint_urls: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .filter(|(name, value)| name.starts_with("AWS_ENDPOINT_URL") && !value.is_empty())
                .collect(),
        }
    }
}

impl LoadServiceConfig for AwsEnvironment {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        let service = key.service_id().to_uppercase().replace(' ', "_");
        let own = self.endpoint_urls.get(&format!("{}_{service}", key.env()));
        own.or_else(|| self.endpoint_urls.get(key.env())).cloned()
    }
}

/// What all AWS clients of one identity in one region share.
pub(crate) struct SdkParts {
    config: SdkConfig,
    pub(crate) fingerprint: Fingerprint,
}

impl SdkParts {
    /// The parts for an identity, without any I/O.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub(crate) fn shared(identity: &Identity, region: &str, cx: &Connect) -> Result<Arc<Self>, String> {
        let fingerprint = identity.fingerprint().and(&[region]);
        cx.clients.shared(fingerprint, || {
            Self::new(identity, region, fingerprint, &cx.clients)
        })
    }

    fn new(
        identity: &Identity,
        region: &str,
        fingerprint: Fingerprint,
        clients: &Clients,
    ) -> Result<Self, String> {
        // A signed request is for one host and path, so that no redirect of it can succeed.
        let http = |reach| {
            let client = clients.connector(&TlsIdentity::default(), Redirects::Never, reach);
            client.map(SdkHttp::new).map_err(|error| error.to_string())
        };
        let region = Region::new(region.to_owned());
        let environment = clients.aws();
        let base = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region.clone())
            .http_client(http(Reach::Egress)?)
            .sleep_impl(TokioSleep::new())
            .time_source(SystemTimeSource::new())
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(2)
                    .with_initial_backoff(FIRST_BACKOFF),
            )
            // The engine's deadline ends the whole read, retry included.
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .service_config(environment.clone())
            .identity_cache(IdentityCache::lazy().load_timeout(CREDENTIALS_DEADLINE).build())
            .build();
        // The servers of the operator's own credentials, metadata services among them, are named by its environment alone.
        let own = http(Reach::Everywhere)?;
        let operator = || SharedCredentialsProvider::new(DefaultChain::new(region.clone(), own.clone()));
        let credentials = match identity {
            Identity::Keys { id, secret, token } => SharedCredentialsProvider::new(Credentials::new(
                id.reveal(),
                secret.reveal(),
                token.as_ref().map(|token| token.reveal().to_owned()),
                None,
                "parameters of the trigger",
            )),
            Identity::Operator => operator(),
            Identity::Role {
                arn,
                external_id,
                web_identity,
            } => {
                let sts = base
                    .clone()
                    .into_builder()
                    .http_client(own.clone())
                    .credentials_provider(operator())
                    .build();
                let token_file = environment
                    .web_identity_token_file
                    .clone()
                    .filter(|_| *web_identity);
                SharedCredentialsProvider::new(Role::new(&sts, arn.clone(), external_id.clone(), token_file))
            }
        };
        Ok(Self {
            config: base.into_builder().credentials_provider(credentials).build(),
            fingerprint,
        })
    }

    /// The configuration to build a service's client from.
    pub(crate) fn config(&self) -> &SdkConfig {
        &self.config
    }
}

#[cfg(test)]
mod tests;
