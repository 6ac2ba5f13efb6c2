//! OAuth 2.0 client credentials (RFC 6749, section 4.4).

use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use crate::clients::HttpClient;
use crate::error::{ReadError, ReadErrorKind};
use crate::http_read::{body, failure, kind_of, shown};
use crate::sensitive::Sensitive;

/// A token is not used in its last seconds, so that it does not expire on the way.
const MARGIN: Duration = Duration::from_secs(10);
/// Longest time a token is kept, whatever the server says.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// One client of one token endpoint, with the token it holds.
pub(super) struct OAuth {
    url: Url,
    id: Sensitive,
    secret: Sensitive,
    scopes: String,
    further: Vec<(String, Sensitive)>,
    // Held while a token is fetched, so that all triggers of one identity wait for one request.
    token: Mutex<Option<Token>>,
}

struct Token {
    authorization: HeaderValue,
    /// `None`: the server named no end.
    good_until: Option<Instant>,
}

#[derive(Deserialize)]
struct Answer {
    access_token: Sensitive,
    #[serde(default)]
    token_type: String,
    #[serde(default)]
    expires_in: Option<f64>,
}

impl OAuth {
    pub(super) fn client(
        url: Url,
        id: Sensitive,
        secret: Sensitive,
        scopes: String,
        further: Vec<(String, Sensitive)>,
    ) -> Self {
        Self {
            url,
            id,
            secret,
            scopes,
            further,
            token: Mutex::new(None),
        }
    }

    /// The `Authorization` header of a valid token.
    pub(super) async fn authorization(&self, client: &HttpClient) -> Result<HeaderValue, ReadError> {
        let mut token = self.token.lock().await;
        if let Some(token) = &*token
            && token.good_until.is_none_or(|end| Instant::now() < end)
        {
            return Ok(token.authorization.clone());
        }
        let fresh = self.fetch(client).await?;
        let authorization = fresh.authorization.clone();
        *token = Some(fresh);
        Ok(authorization)
    }

    /// Drops the token.
    pub(super) async fn forget(&self) {
        *self.token.lock().await = None;
    }

    async fn fetch(&self, client: &HttpClient) -> Result<Token, ReadError> {
        // Servers must take the client's identity from the Authorization header; some only look into the body.
        let mut answer = self.ask(client, true).await?;
        if matches!(answer.status().as_u16(), 400 | 401) {
            answer = self.ask(client, false).await?;
        }
        let status = answer.status();
        let place = shown(&self.url);
        if !status.is_success() {
            let kind = kind_of(status, answer.headers());
            return Err(ReadError::new(
                kind,
                format!("{place}: token request returned {}", status.as_u16()),
            ));
        }
        let bad = || {
            ReadError::new(
                ReadErrorKind::BadAnswer,
                format!("{place}: the answer holds no usable token"),
            )
        };
        let answer: Answer = serde_json::from_slice(&body(answer).await?).map_err(|_| bad())?;
        if !(answer.token_type.is_empty() || answer.token_type.eq_ignore_ascii_case("bearer")) {
            return Err(bad());
        }
        let mut authorization: HeaderValue = format!("Bearer {}", answer.access_token.reveal())
            .parse()
            .map_err(|_| bad())?;
        authorization.set_sensitive(true);
        let lifetime = answer.expires_in.filter(|seconds| *seconds > 0.0).map(|seconds| {
            Duration::try_from_secs_f64(seconds)
                .unwrap_or(LONGEST)
                .min(LONGEST)
        });
        let good_until = lifetime.map(|lifetime| Instant::now() + lifetime.saturating_sub(MARGIN));
        Ok(Token {
            authorization,
            good_until,
        })
    }

    async fn ask(&self, client: &HttpClient, in_header: bool) -> Result<reqwest::Response, ReadError> {
        let mut form = vec![("grant_type", "client_credentials")];
        if !self.scopes.is_empty() {
            form.push(("scope", &self.scopes));
        }
        form.extend(
            self.further
                .iter()
                .map(|(name, value)| (name.as_str(), value.reveal())),
        );
        let mut request = client.request(Method::POST, self.url.clone());
        if in_header {
            let encoded = |part: &Sensitive| {
                url::form_urlencoded::byte_serialize(part.reveal().as_bytes()).collect::<String>()
            };
            request = request.basic_auth(encoded(&self.id), Some(encoded(&self.secret)));
        } else {
            form.extend([
                ("client_id", self.id.reveal()),
                ("client_secret", self.secret.reveal()),
            ]);
        }
        let what = format!("error requesting a token from {}", shown(&self.url));
        client
            .send(request.form(&form))
            .await
            .map_err(|error| failure(&what, error))
    }
}
