//! The HTTP client of all scalers.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Method, Request, RequestBuilder, Response};
use rustls::ClientConfig;
use url::Url;

use super::egress::{CONNECT_TIMEOUT, Egress, EgressDenied, For, Judge};
use super::{Redirects, TlsError};
use crate::traffic::sent;

const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
const IDLE_PER_HOST: usize = 8;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const MAX_REDIRECTS: usize = 10;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// It was not sent: its server may not be reached.
    #[error(transparent)]
    Denied(#[from] EgressDenied),
    /// It was sent, or could not be.
    #[error(transparent)]
    Request(#[from] reqwest::Error),
}

/// Sends requests as one TLS identity, to where they may go. It honours `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, and
/// follows redirects on the same host only.
#[derive(Debug)]
pub struct HttpClient {
    /// For all ports but the API servers'.
    general: Client,
    /// For the ports that API servers have; made when it is first needed.
    api_ports: OnceLock<Client>,
    settings: Settings,
}

/// What a client is made of.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) tls: ClientConfig,
    pub(super) redirects: Redirects,
    pub(super) keep_alive: bool,
    /// `None`: wherever it is told to, which is for clients whose servers no manifest names.
    pub(super) egress: Option<Egress>,
}

impl HttpClient {
    pub(super) fn new(settings: Settings) -> Result<Self, TlsError> {
        Ok(Self {
            general: settings.build(For::OtherPorts)?,
            api_ports: OnceLock::new(),
            settings,
        })
    }

    /// A request to be sent by [`send`](Self::send).
    pub fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.general.request(method, url)
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Its server may not be reached, or there is no answer.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, HttpError> {
        self.execute(request.build()?).await
    }

    /// Sends a request that is already complete.
    ///
    /// # Errors
    /// Its server may not be reached, or there is no answer.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that sends, after the address was judged"
    )]
    pub async fn execute(&self, request: Request) -> Result<Response, HttpError> {
        let client = match &self.settings.egress {
            None => &self.general,
            Some(egress) => {
                let port = request.url().port_or_known_default().unwrap_or_default();
                if let Some(host) = request.url().host() {
                    egress.check_literal(&host, port)?;
                }
                if egress.is_api_port(port) {
                    self.api_ports()?
                } else {
                    &self.general
                }
            }
        };
        sent(client.execute(request)).await.map_err(|error| {
            let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
            while let Some(inner) = cause {
                if let Some(denied) = inner.downcast_ref::<EgressDenied>() {
                    return denied.clone().into();
                }
                cause = inner.source();
            }
            error.into()
        })
    }

    fn api_ports(&self) -> Result<&Client, reqwest::Error> {
        if let Some(client) = self.api_ports.get() {
            return Ok(client);
        }
        let client = self.settings.builder(For::ApiServerPorts).build()?;
        Ok(self.api_ports.get_or_init(|| client))
    }
}

impl Settings {
    fn build(&self, port: For) -> Result<Client, TlsError> {
        self.builder(port).build().map_err(|_| TlsError::Client)
    }

    fn builder(&self, port: For) -> reqwest::ClientBuilder {
        let builder = Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .redirect(self.policy())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(if self.keep_alive { IDLE_PER_HOST } else { 0 })
            .tcp_keepalive(KEEP_ALIVE)
            .user_agent(concat!("dormouse/", env!("CARGO_PKG_VERSION")));
        match self.egress.clone() {
            Some(egress) => builder.dns_resolver(Arc::new(Judge { egress, port })),
            None => builder,
        }
    }

    fn policy(&self) -> Policy {
        if self.redirects == Redirects::Never {
            return Policy::none();
        }
        let egress = self.egress.clone();
        Policy::custom(move |attempt| {
            if attempt.previous().len() > MAX_REDIRECTS {
                return attempt.error("too many redirects");
            }
            let same = attempt
                .previous()
                .last()
                .is_some_and(|from| same_host(from, attempt.url()));
            // Plain HTTP may be upgraded to a port that this client does not watch.
            let port = attempt.url().port_or_known_default().unwrap_or_default();
            let moved = attempt.previous().last().and_then(Url::port_or_known_default) != Some(port);
            let api_port = moved && egress.as_ref().is_some_and(|egress| egress.is_api_port(port));
            if same && !api_port {
                attempt.follow()
            } else {
                attempt.stop()
            }
        })
    }
}

/// Whether a redirect stays where it is: the same host and port over the same protocol, or from plain HTTP to HTTPS on
/// the usual ports.
pub(super) fn same_host(from: &Url, to: &Url) -> bool {
    let upgraded = from.scheme() == "http"
        && to.scheme() == "https"
        && from.port_or_known_default() == Some(80)
        && to.port_or_known_default() == Some(443);
    let same = from.scheme() == to.scheme() && from.port_or_known_default() == to.port_or_known_default();
    from.host() == to.host() && (same || upgraded)
}
