//! Credentials that have to be fetched, at the first read and then before they end.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_sdk_sts::Client;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use tokio::sync::OnceCell;

use super::failure::{Failure, of};
use super::http::SdkHttp;
use crate::sensitive::Sensitive;

/// How CloudTrail shows whose session it is; KEDA's name, which policies may ask for.
const SESSION: &str = "KEDA";
const WEB_IDENTITY_DEADLINE: Duration = Duration::from_secs(5);
/// A projected token is a few KiB.
const MAX_TOKEN_FILE: u64 = 1 << 20;

/// The SDK's default chain, put together when it is first needed: making it must not do any I/O.
pub(super) struct DefaultChain {
    chain: OnceCell<DefaultCredentialsChain>,
    region: Region,
    http: SdkHttp,
}

impl DefaultChain {
    pub(super) fn new(region: Region, http: SdkHttp) -> Self {
        Self {
            chain: OnceCell::new(),
            region,
            http,
        }
    }

    async fn credentials(&self) -> provider::Result {
        let chain = self
            .chain
            .get_or_init(|| async {
                let config = ProviderConfig::without_region()
                    .with_region(Some(self.region.clone()))
                    .with_http_client(self.http.clone());
                DefaultCredentialsChain::builder()
                    .configure(config)
                    .region(self.region.clone())
                    .build()
                    .await
            })
            .await;
        chain.provide_credentials().await
    }
}

impl fmt::Debug for DefaultChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DefaultChain")
    }
}

impl ProvideCredentials for DefaultChain {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.credentials())
    }
}

/// A role of STS.
pub(super) struct Role {
    sts: Client,
    arn: Sensitive,
    external_id: Option<String>,
    token_file: Option<PathBuf>,
}

impl Role {
    /// With a token file the role is first assumed by web identity, and by the credentials of `sts` when that fails.
    pub(super) fn new(
        sts: &SdkConfig,
        arn: Sensitive,
        external_id: Option<String>,
        token_file: Option<PathBuf>,
    ) -> Self {
        Self {
            sts: Client::new(sts),
            arn,
            external_id,
            token_file,
        }
    }

    async fn credentials(&self) -> provider::Result {
        if let Some(file) = &self.token_file {
            match tokio::time::timeout(WEB_IDENTITY_DEADLINE, self.by_web_identity(file)).await {
                Ok(Ok(credentials)) => return Ok(credentials),
                Ok(Err(error)) => tracing::debug!(%error, "role not assumed by web identity"),
                Err(_) => tracing::debug!("role not assumed by web identity in time"),
            }
        }
        let answer = self
            .sts
            .assume_role()
            .role_arn(self.arn.reveal())
            .role_session_name(SESSION)
            .set_external_id(self.external_id.clone())
            .send()
            .await
            .map_err(|error| failed(&error))?;
        credentials(answer.credentials)
    }

    async fn by_web_identity(&self, file: &PathBuf) -> provider::Result {
        let invalid = |what: &'static str| CredentialsError::invalid_configuration(what);
        let size = tokio::fs::metadata(file)
            .await
            .map_err(|_| invalid("the web identity token file cannot be read"))?
            .len();
        if size > MAX_TOKEN_FILE {
            return Err(invalid("the web identity token file is too large"));
        }
        let token = tokio::fs::read_to_string(file)
            .await
            .map_err(|_| invalid("the web identity token file cannot be read"))?;
        let answer = self
            .sts
            .assume_role_with_web_identity()
            .role_arn(self.arn.reveal())
            .role_session_name(SESSION)
            .web_identity_token(token.trim())
            .send()
            .await
            .map_err(|error| failed(&error))?;
        credentials(answer.credentials)
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Role")
    }
}

impl ProvideCredentials for Role {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.credentials())
    }
}

fn credentials(given: Option<aws_sdk_sts::types::Credentials>) -> provider::Result {
    let given = given.ok_or_else(|| CredentialsError::unhandled("STS gave no credentials"))?;
    let end = SystemTime::try_from(given.expiration)
        .map_err(|_| CredentialsError::unhandled("STS gave credentials without a usable end"))?;
    Ok(Credentials::new(
        given.access_key_id,
        given.secret_access_key,
        Some(given.session_token),
        Some(end),
        "assumed role",
    ))
}

/// What STS said, cut down to what may be shown.
fn failed<E>(error: &SdkError<E>) -> CredentialsError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let Failure { kind, text } = of(error);
    CredentialsError::provider_error(Failure {
        kind,
        text: format!("assuming the role: {text}"),
    })
}
