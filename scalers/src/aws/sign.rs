//! Signature Version 4 for requests that no SDK client makes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use reqwest::header::{HeaderMap, HeaderValue};
use tokio::sync::Mutex;
use url::Url;

use super::{Identity, SdkParts, failure};
use crate::clients::Fingerprint;
use crate::connect::Connect;
use crate::error::{ReadError, ReadErrorKind};

/// Credentials are renewed this long before they end.
const MARGIN: Duration = Duration::from_secs(300);
/// Credentials without an end, such as a key pair in a file of the operator, are looked up again after this.
const LOOKED_UP: Duration = Duration::from_secs(900);

/// Signs GET requests to one service as one identity; shared by all triggers of that identity and region.
pub(crate) struct Signer {
    parts: Arc<SdkParts>,
    fingerprint: Fingerprint,
    region: String,
    service: &'static str,
    // Held over the renewal, so that many readers renew once.
    held: Mutex<Option<Held>>,
}

struct Held {
    credentials: Credentials,
    until: SystemTime,
}

impl Signer {
    /// A signer for `service` in `region`, without any I/O.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub(crate) fn shared(
        identity: &Identity,
        region: &str,
        service: &'static str,
        cx: &Connect,
    ) -> Result<Arc<Self>, String> {
        let parts = SdkParts::shared(identity, region, cx)?;
        let key = parts.fingerprint.and(&["sign", service]);
        cx.clients.shared(key, || {
            Ok(Self {
                parts,
                fingerprint: key,
                region: region.to_owned(),
                service,
                held: Mutex::new(None),
            })
        })
    }

    /// The headers that make a GET of `url` with these `headers` a signed one. `what` begins the error.
    pub(crate) async fn headers(
        &self,
        what: &str,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<HeaderMap, ReadError> {
        let credentials = self
            .credentials()
            .await
            .map_err(|error| failure::credentials_error(what, &error))?;
        self.signed(credentials, url, headers)
            .ok_or_else(|| ReadError::new(ReadErrorKind::Internal, format!("{what}: cannot be signed")))
    }

    /// As whom it signs, for which service and region.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Forgets the credentials: the service refused them.
    pub(crate) async fn refused(&self) {
        *self.held.lock().await = None;
    }

    async fn credentials(&self) -> Result<Credentials, CredentialsError> {
        let mut held = self.held.lock().await;
        let now = SystemTime::now();
        if let Some(held) = held.as_ref().filter(|held| now < held.until) {
            return Ok(held.credentials.clone());
        }
        let provider = self
            .parts
            .config()
            .credentials_provider()
            .ok_or_else(|| CredentialsError::not_loaded("there is no provider"))?;
        let fresh = tokio::time::timeout(super::CREDENTIALS_DEADLINE, provider.provide_credentials())
            .await
            .map_err(|_| CredentialsError::provider_timed_out(super::CREDENTIALS_DEADLINE))??;
        let until = fresh.expiry().map_or(now + LOOKED_UP, |end| end - MARGIN);
        *held = Some(Held {
            credentials: fresh.clone(),
            until,
        });
        Ok(fresh)
    }

    fn signed(&self, credentials: Credentials, url: &Url, headers: &HeaderMap) -> Option<HeaderMap> {
        let identity = credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.service)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .ok()?
            .into();
        let also = headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let request = SignableRequest::new("GET", url.as_str(), also, SignableBody::Bytes(&[])).ok()?;
        let (instructions, _) = sign(request, &parameters).ok()?.into_parts();
        instructions
            .headers()
            .map(|(name, value)| {
                let mut value: HeaderValue = value.parse().ok()?;
                value.set_sensitive(true);
                Some((name.parse().ok()?, value))
            })
            .collect()
    }
}
