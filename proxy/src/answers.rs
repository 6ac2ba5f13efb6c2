//! Answers that a route gives by itself: static ones and placeholders.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dormouse_core::routes::Destination;
use dormouse_core::routes::settings::{self, ResponseMode, StaticResponse, StaticRoute};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::body::ResponseBody;
use crate::failure::Failure;

type Page = Arc<BTreeMap<String, Bytes>>;

/// The ConfigMaps that answers come from, by namespace and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pages {
    pages: BTreeMap<(Arc<str>, Arc<str>), Page>,
}

impl Pages {
    /// These with one of them replaced or removed.
    pub(crate) fn with(&self, namespace: &str, name: &str, values: Option<&BTreeMap<String, Bytes>>) -> Self {
        let mut pages = self.pages.clone();
        let key = (namespace.into(), name.into());
        match values {
            Some(values) => pages.insert(key, Arc::new(values.clone())),
            None => pages.remove(&key),
        };
        Self { pages }
    }

    fn get(&self, namespace: &Arc<str>, name: &Arc<str>) -> Option<&Page> {
        self.pages.get(&(Arc::clone(namespace), Arc::clone(name)))
    }
}

/// Whether a static route answers itself.
pub(crate) fn is_given(route: &StaticRoute, available: bool) -> bool {
    match route.mode {
        ResponseMode::Always => true,
        ResponseMode::WhenUnavailable => !available,
    }
}

/// The answer in full, for a route of `namespace`.
///
/// # Errors
/// It comes from a ConfigMap that is not there, or lacks the key that the route names.
pub(crate) fn answer(
    answer: &StaticResponse,
    namespace: &Arc<str>,
    destination: &Destination<'_>,
    pages: &Pages,
) -> Result<Response<ResponseBody>, Failure> {
    let (body, content_type) = body(answer, namespace, destination, pages)?;
    let mut response = Response::new(ResponseBody::full(body));
    *response.status_mut() = StatusCode::from_u16(answer.status).map_err(|_| Failure::PageMissing)?;
    if let Some(content_type) = content_type {
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    for (name, value) in &answer.headers {
        // They were checked when the route was read.
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(value),
        ) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

fn body(
    answer: &StaticResponse,
    namespace: &Arc<str>,
    destination: &Destination<'_>,
    pages: &Pages,
) -> Result<(Bytes, Option<&'static str>), Failure> {
    match &answer.body {
        settings::ResponseBody::Empty => Ok((Bytes::new(), None)),
        settings::ResponseBody::Text(text) => Ok((
            Bytes::copy_from_slice(text.as_bytes()),
            Some("text/plain; charset=utf-8"),
        )),
        settings::ResponseBody::ConfigMap(wanted) => {
            let page = pages.get(namespace, &wanted.name).ok_or(Failure::PageMissing)?;
            let key = wanted.key_for(destination);
            match page.get(key.as_ref()) {
                Some(body) => Ok((body.clone(), Some(content_type(&key)))),
                // The request named the key: there is no such page, which is no fault of the route.
                None if wanted.key.is_none() => Ok((Bytes::new(), None)),
                None => Err(Failure::PageMissing),
            }
        }
    }
}

/// By the extension of a key.
fn content_type(key: &str) -> &'static str {
    match key.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("gif") => "image/gif",
        Some("ico") => "image/x-icon",
        Some("xml") => "application/xml",
        _ => "text/plain; charset=utf-8",
    }
}
