//! The AWS SDK on the HTTP stack of all other scalers.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use reqwest::{Method, Request, Url};

use crate::clients;
use crate::error::ReadError;
use crate::http_read::unnamed_body;

type BoxError = Box<dyn Error + Send + Sync>;

/// An SDK connector that sends with a client of [`Clients`](crate::clients::Clients).
#[derive(Clone, Debug)]
pub(super) struct SdkHttp {
    client: Arc<clients::HttpClient>,
    /// Only the metadata services are asked with a timeout of their own.
    timeout: Option<Duration>,
}

impl SdkHttp {
    pub(super) fn new(client: Arc<clients::HttpClient>) -> Self {
        Self {
            client,
            timeout: None,
        }
    }
}

impl HttpClient for SdkHttp {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let connect = settings.connect_timeout().unwrap_or_default();
        let timeout = settings.read_timeout().map(|read| connect + read);
        SharedHttpConnector::new(Self {
            client: Arc::clone(&self.client),
            timeout,
        })
    }
}

impl HttpConnector for SdkHttp {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let this = self.clone();
        HttpConnectorFuture::new(async move {
            let request = translated(&request, this.timeout).map_err(ConnectorError::user)?;
            let answer = this.client.execute(request).await.map_err(connector_error)?;
            let status = answer
                .status()
                .as_u16()
                .try_into()
                .map_err(|error| ConnectorError::other(Box::new(error), None))?;
            let headers = answer.headers().clone();
            let bytes = unnamed_body(answer)
                .await
                .map_err(|error: ReadError| ConnectorError::io(Box::new(error)))?;
            let mut response = HttpResponse::new(status, SdkBody::from(bytes));
            for (name, value) in &headers {
                // Headers that are no text mean nothing to the SDK.
                if let Ok(value) = value.to_str() {
                    response
                        .headers_mut()
                        .append(name.as_str().to_owned(), value.to_owned());
                }
            }
            Ok(response)
        })
    }
}

fn translated(request: &HttpRequest, timeout: Option<Duration>) -> Result<Request, BoxError> {
    let method: Method = request.method().parse()?;
    let mut translated = Request::new(method, Url::parse(request.uri())?);
    for (name, value) in request.headers() {
        let name: reqwest::header::HeaderName = name.parse()?;
        translated.headers_mut().append(name, value.parse()?);
    }
    let bytes = request.body().bytes().ok_or("a streaming body")?;
    *translated.body_mut() = Some(bytes.to_vec().into());
    *translated.timeout_mut() = timeout;
    Ok(translated)
}

fn connector_error(error: clients::HttpError) -> ConnectorError {
    let error = match error {
        clients::HttpError::Denied(denied) => return ConnectorError::user(Box::new(denied)),
        clients::HttpError::Request(error) => error.without_url(),
    };
    if error.is_timeout() {
        ConnectorError::timeout(Box::new(error))
    } else if error.is_builder() {
        ConnectorError::user(Box::new(error))
    } else {
        ConnectorError::io(Box::new(error))
    }
}
