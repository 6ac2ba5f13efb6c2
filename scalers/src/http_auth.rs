//! How a scaler that speaks HTTP authenticates: the block of parameters all of them share.

mod oauth;

use std::sync::Arc;

use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backpressure::Account;
use crate::clients::{Clients, Fingerprint, HttpClient, TlsIdentity};
use crate::error::ReadError;
use crate::http_read;
use crate::sensitive::Sensitive;
use oauth::OAuth;

/// A way to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum AuthMode {
    ApiKey,
    Basic,
    Tls,
    Bearer,
    Custom,
    Oauth,
}

/// Where an API key goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum KeyPlace {
    #[default]
    Header,
    Query,
}

/// The parameters; flatten them into a scaler's own.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpAuthMetadata {
    /// How to authenticate; at most one of `bearer`, `basic` and `oauth`. Without it no credentials are sent.
    #[serde(default)]
    #[schemars(extend("x-sources" = ["metadata", "auth"], "x-aliases" = ["authMode"]))]
    auth_modes: Vec<AuthMode>,
    /// Key for `apiKey`.
    #[schemars(extend("x-sources" = ["auth", "metadata"]))]
    api_key: Option<Sensitive>,
    /// Whether the API key is sent in a header or in the query.
    #[serde(default)]
    #[schemars(extend("x-sources" = ["metadata", "auth"]))]
    method: KeyPlace,
    /// Name of the API key's header (`X-API-KEY` if not given) or query parameter (`api_key`).
    #[schemars(extend("x-sources" = ["metadata", "auth"]))]
    key_param_name: Option<String>,
    /// Token for `bearer`.
    #[schemars(extend("x-sources" = ["auth"], "x-aliases" = ["token"]))]
    bearer_token: Option<Sensitive>,
    /// User for `basic`.
    #[schemars(extend("x-sources" = ["auth"]))]
    username: Option<Sensitive>,
    /// Password for `basic`; may be empty.
    #[schemars(extend("x-sources" = ["auth"]))]
    password: Option<Sensitive>,
    /// PEM of CA certificates to trust besides the system's, whatever the modes.
    #[schemars(extend("x-sources" = ["auth"]))]
    ca: Option<Sensitive>,
    /// PEM of the client certificate for `tls`.
    #[schemars(extend("x-sources" = ["auth"]))]
    cert: Option<Sensitive>,
    /// PEM of its private key.
    #[schemars(extend("x-sources" = ["auth"]))]
    key: Option<Sensitive>,
    /// Header for `custom`.
    #[schemars(extend("x-sources" = ["auth"]))]
    custom_auth_header: Option<String>,
    /// Value of that header.
    #[schemars(extend("x-sources" = ["auth"]))]
    custom_auth_value: Option<Sensitive>,
    /// URL that gives tokens for `oauth`, by the client credentials grant.
    #[serde(rename = "oauthTokenURI")]
    #[schemars(extend("x-sources" = ["auth"]))]
    oauth_token_uri: Option<String>,
    /// Client for `oauth`.
    #[serde(rename = "clientID")]
    #[schemars(extend("x-sources" = ["auth"]))]
    client_id: Option<Sensitive>,
    /// Secret of that client.
    #[schemars(extend("x-sources" = ["auth"]))]
    client_secret: Option<Sensitive>,
    /// Scopes to ask for with `oauth`.
    #[serde(default)]
    #[schemars(extend("x-sources" = ["auth"], "x-aliases" = ["scope"]))]
    scopes: Vec<String>,
    /// Further parameters of the token request, URL-encoded: `audience=a&resource=b`.
    #[schemars(extend("x-sources" = ["auth"]))]
    endpoint_params: Option<Sensitive>,
}

impl HttpAuthMetadata {
    fn uses(&self, mode: AuthMode) -> bool {
        self.auth_modes.contains(&mode)
    }

    fn fingerprint(&self, tls: Fingerprint) -> Fingerprint {
        let modes = format!("{:?}", (&self.auth_modes, self.method, &self.scopes));
        tls.and(&[
            &modes,
            secret(self.api_key.as_ref()),
            self.key_param_name.as_deref().unwrap_or_default(),
            secret(self.bearer_token.as_ref()),
            secret(self.username.as_ref()),
            secret(self.password.as_ref()),
            self.custom_auth_header.as_deref().unwrap_or_default(),
            secret(self.custom_auth_value.as_ref()),
            self.oauth_token_uri.as_deref().unwrap_or_default(),
            secret(self.client_id.as_ref()),
            secret(self.client_secret.as_ref()),
            secret(self.endpoint_params.as_ref()),
        ])
    }

    /// Whether no credentials are to be sent.
    pub(crate) fn is_disabled(&self) -> bool {
        self.auth_modes.is_empty()
    }

    /// Whether everything the modes need is there.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let exclusive = [AuthMode::Bearer, AuthMode::Basic, AuthMode::Oauth];
        if exclusive.iter().filter(|mode| self.uses(**mode)).count() > 1 {
            return Err("at most one of bearer, basic and oauth can be in authModes".to_owned());
        }
        for (mode, name, present, text) in [
            (
                AuthMode::Bearer,
                "bearer token",
                self.bearer_token.is_some(),
                "bearer",
            ),
            (AuthMode::Basic, "username", self.username.is_some(), "basic"),
            (AuthMode::ApiKey, "apiKey", self.api_key.is_some(), "apiKey"),
            (AuthMode::Tls, "cert", self.cert.is_some(), "tls"),
            (AuthMode::Tls, "key", self.key.is_some(), "tls"),
            (
                AuthMode::Custom,
                "customAuthHeader",
                self.custom_auth_header.is_some(),
                "custom",
            ),
            (
                AuthMode::Custom,
                "customAuthValue",
                self.custom_auth_value.is_some(),
                "custom",
            ),
            (
                AuthMode::Oauth,
                "oauthTokenURI",
                self.oauth_token_uri.is_some(),
                "oauth",
            ),
            (AuthMode::Oauth, "clientID", self.client_id.is_some(), "oauth"),
            (
                AuthMode::Oauth,
                "clientSecret",
                self.client_secret.is_some(),
                "oauth",
            ),
        ] {
            if self.uses(mode) && !present {
                return Err(format!("{name}=<empty> is required when {text} auth is enabled"));
            }
        }
        Ok(())
    }
}

impl HttpAuthMetadata {
    /// The host that is asked for tokens, if any is.
    pub(crate) fn token_host(&self) -> Option<String> {
        let url = self
            .oauth_token_uri
            .as_deref()
            .filter(|_| self.uses(AuthMode::Oauth))?;
        Some(url::Url::parse(url).ok()?.host_str()?.to_owned())
    }
}

/// A header or query parameter that carries a secret.
enum Credential {
    Header(HeaderName, HeaderValue),
    Query(String, Sensitive),
    Basic(Sensitive, Option<Sensitive>),
    OAuth(Arc<OAuth>),
}

/// A client that authenticates each request.
pub(crate) struct HttpAuth {
    fingerprint: Fingerprint,
    client: Arc<HttpClient>,
    credentials: Vec<Credential>,
    account: Account,
}

impl HttpAuth {
    /// Takes over validated parameters.
    ///
    /// # Errors
    /// One sentence about the parameter that cannot be used.
    pub(crate) fn new(
        metadata: HttpAuthMetadata,
        unsafe_ssl: bool,
        clients: &Clients,
    ) -> Result<Self, String> {
        let certificate = if metadata.uses(AuthMode::Tls) {
            metadata.cert.clone().zip(metadata.key.clone())
        } else {
            None
        };
        let identity = TlsIdentity {
            ca: metadata.ca.clone(),
            certificate,
            unsafe_ssl,
        };
        let client = clients.http(&identity).map_err(|error| error.to_string())?;
        let fingerprint = metadata.fingerprint(identity.fingerprint());
        let mut credentials = Vec::new();
        for mode in &metadata.auth_modes {
            match mode {
                AuthMode::Tls => {}
                AuthMode::ApiKey => {
                    if let Some(key) = &metadata.api_key {
                        credentials.push(api_key(&metadata, key)?);
                    }
                }
                AuthMode::Basic => {
                    if let Some(username) = &metadata.username {
                        credentials.push(Credential::Basic(username.clone(), metadata.password.clone()));
                    }
                }
                AuthMode::Bearer => {
                    if let Some(token) = &metadata.bearer_token {
                        let value = Sensitive::new(format!("Bearer {}", token.reveal()));
                        credentials.push(header("authorization", &value, "bearerToken")?);
                    }
                }
                AuthMode::Custom => {
                    if let (Some(name), Some(value)) =
                        (&metadata.custom_auth_header, &metadata.custom_auth_value)
                    {
                        credentials.push(header(name, value, "customAuthHeader and customAuthValue")?);
                    }
                }
                AuthMode::Oauth => {
                    let (oauth, own) = OAuth::new(&metadata, identity.fingerprint())?;
                    credentials.push(Credential::OAuth(clients.shared(own, || Ok::<_, String>(oauth))?));
                }
            }
        }
        Ok(Self {
            account: clients.account(fingerprint),
            fingerprint,
            client,
            credentials,
        })
    }

    /// As whom requests are made: the TLS identity and all credentials.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// A GET request with everything the authentication adds. May have to fetch a token first, and fails while the server
    /// wants to be left alone.
    pub(crate) async fn get(&self, url: url::Url) -> Result<RequestBuilder, ReadError> {
        let account = self.at(&url);
        account.admit(&format!("error requesting {}", http_read::shown(&url)))?;
        let mut request = self.client.request(Method::GET, url);
        for credential in &self.credentials {
            request = match credential {
                Credential::Header(name, value) => request.header(name.clone(), value.clone()),
                Credential::Query(name, value) => request.query(&[(name.as_str(), value.reveal())]),
                Credential::Basic(username, password) => {
                    request.basic_auth(username.reveal(), password.as_ref().map(Sensitive::reveal))
                }
                Credential::OAuth(oauth) => {
                    let authorization = oauth.authorization(&self.client).await;
                    if let Err(failure) = &authorization {
                        account.obey(failure);
                    }
                    request.header("authorization", authorization?)
                }
            };
        }
        Ok(request)
    }

    /// Sends a request; `what` begins the sentence of a failure. A server that asks for patience gets it from every trigger
    /// with these credentials.
    pub(crate) async fn send(&self, request: RequestBuilder, what: &str) -> Result<Response, ReadError> {
        let sent = self.client.send(request).await;
        let response = sent.map_err(|error| http_read::failure(what, error))?;
        if let Some(wait) = http_read::patience(response.status(), response.headers()) {
            self.at(response.url()).pause(wait);
        }
        Ok(response)
    }

    fn at(&self, url: &url::Url) -> Account {
        let host = url.host_str().unwrap_or_default();
        self.account.at(url.scheme(), host, url.port_or_known_default())
    }

    /// Tells that a request was refused, so that a token that was withdrawn is not used until it expires.
    pub(crate) async fn refused(&self) {
        for credential in &self.credentials {
            if let Credential::OAuth(oauth) = credential {
                oauth.forget().await;
            }
        }
    }
}

fn api_key(metadata: &HttpAuthMetadata, key: &Sensitive) -> Result<Credential, String> {
    match metadata.method {
        KeyPlace::Query => {
            let name = metadata
                .key_param_name
                .clone()
                .unwrap_or_else(|| "api_key".to_owned());
            Ok(Credential::Query(name, key.clone()))
        }
        KeyPlace::Header => header(
            metadata.key_param_name.as_deref().unwrap_or("X-API-KEY"),
            key,
            "keyParamName and apiKey",
        ),
    }
}

fn header(name: &str, value: &Sensitive, parameters: &str) -> Result<Credential, String> {
    let unusable = || format!("{parameters} cannot be sent as an HTTP header");
    let name: HeaderName = name.parse().map_err(|_| unusable())?;
    let mut value: HeaderValue = value.reveal().parse().map_err(|_| unusable())?;
    value.set_sensitive(true);
    Ok(Credential::Header(name, value))
}

/// The part of a client's key that tells identities apart.
fn secret(part: Option<&Sensitive>) -> &str {
    part.map_or("", Sensitive::reveal)
}

impl OAuth {
    fn new(metadata: &HttpAuthMetadata, tls: Fingerprint) -> Result<(Self, Fingerprint), String> {
        let uri = metadata.oauth_token_uri.as_deref().unwrap_or_default();
        let url = url::Url::parse(uri)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or("oauthTokenURI must be an absolute http or https URL")?;
        let scopes = metadata.scopes.join(" ");
        let key = tls.and(&[
            uri,
            &scopes,
            secret(metadata.client_id.as_ref()),
            secret(metadata.client_secret.as_ref()),
            secret(metadata.endpoint_params.as_ref()),
        ]);
        let further = url::form_urlencoded::parse(secret(metadata.endpoint_params.as_ref()).as_bytes())
            .into_owned()
            .map(|(name, value)| (name, Sensitive::new(value)))
            .collect();
        let id = metadata.client_id.clone().unwrap_or_else(|| Sensitive::new(""));
        let client_secret = metadata
            .client_secret
            .clone()
            .unwrap_or_else(|| Sensitive::new(""));
        Ok((Self::client(url, id, client_secret, scopes, further), key))
    }
}

#[cfg(test)]
mod tests;
