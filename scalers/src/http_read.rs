//! What all scalers that read over HTTP share: bounded bodies, and failures that name no secret.

use std::error::Error;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use url::Url;

use crate::clients::HttpError;
use crate::error::{ReadError, ReadErrorKind};

/// The longest answer that is read.
pub(crate) const MAX_BODY: usize = 1 << 20;
const MAX_CAUSE_CHARS: usize = 200;

/// The body of an answer, if it is not longer than [`MAX_BODY`]. What goes wrong names the place that was read.
pub(crate) async fn body(response: Response) -> Result<Vec<u8>, ReadError> {
    let place = shown(response.url());
    unnamed_body(response).await.map_err(|error| ReadError {
        message: format!("error reading {place}: {error}"),
        ..error
    })
}

/// As [`body`], for callers that say themselves what they read.
pub(crate) async fn unnamed_body(mut response: Response) -> Result<Vec<u8>, ReadError> {
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| failure("the answer broke off", error.into()))?
    {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(ReadError::new(
                ReadErrorKind::BadAnswer,
                "the answer is longer than 1 MiB",
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The failure of a request: `what` and the innermost cause, without the URL, which may hold a key.
pub(crate) fn failure(what: &str, error: HttpError) -> ReadError {
    let error = match error {
        HttpError::Denied(denied) => {
            return ReadError::new(ReadErrorKind::EgressDenied, format!("{what}: {denied}"));
        }
        HttpError::Request(error) => error,
    };
    let kind = if error.is_timeout() {
        ReadErrorKind::Timeout
    } else if error.is_builder() {
        ReadErrorKind::Internal
    } else if error.is_redirect() || error.is_decode() {
        ReadErrorKind::BadAnswer
    } else {
        ReadErrorKind::Unreachable
    };
    ReadError::new(kind, format!("{what}: {}", innermost(&error)))
}

/// The last of an error's causes, which for the network is the operating system's or the TLS library's word.
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = match cause.downcast_ref::<reqwest::Error>() {
        // Only this library's own errors repeat the URL.
        Some(own) if own.is_timeout() => "timed out".to_owned(),
        Some(_) => "the request failed".to_owned(),
        None => cause.to_string(),
    };
    text.chars().take(MAX_CAUSE_CHARS).collect()
}

/// What a status other than the hoped for one says.
pub(crate) fn kind_of(status: StatusCode, headers: &HeaderMap) -> ReadErrorKind {
    match status.as_u16() {
        401 | 403 | 407 => ReadErrorKind::Denied,
        404 | 410 => ReadErrorKind::NotFound,
        429 => ReadErrorKind::Throttled {
            retry_after: retry_after(headers),
        },
        408 | 504 => ReadErrorKind::Timeout,
        502 | 503 => ReadErrorKind::Unreachable,
        _ => ReadErrorKind::BadAnswer,
    }
}

/// How long the server wants to be left alone, if that is what its answer says.
pub(crate) fn patience(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    matches!(status.as_u16(), 429 | 503)
        .then(|| retry_after(headers))
        .flatten()
}

/// `Retry-After` in either of its forms.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO))
}

/// A URL for people: no user, password or query, any of which may be secret.
pub(crate) fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme(), url.path())
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn a_shown_url_holds_no_secret() {
        let url = Url::parse("https://user:canary@host:8443/a/b?api_key=canary#canary").unwrap();
        assert_eq!(shown(&url), "https://host:8443/a/b");
    }

    #[test]
    fn retry_after_in_seconds_or_as_a_date() {
        let parse = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            retry_after(&headers)
        };
        assert_eq!(parse("120"), Some(Duration::from_secs(120)));
        assert_eq!(parse("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let far = parse("Fri, 21 Oct 2095 07:28:00 GMT").unwrap();
        assert!(far > Duration::from_secs(60 * 365 * 24 * 3600), "{far:?}");
        assert_eq!(parse("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("7"))]);
        for (status, wait) in [
            (429, Some(7)),
            (503, Some(7)),
            (200, None),
            (301, None),
            (500, None),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                patience(status, &headers),
                wait.map(Duration::from_secs),
                "{status}"
            );
        }
    }
}
