//! A request that is being answered, and what is written down of it when it is done.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use dormouse_core::routes::RouteKey;
use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, request};
use tokio::time::Instant;

use crate::access::{AccessLog, Entry};
use crate::client::Client;
use crate::failure::Failure;
use crate::route::{Route, RouteNumber};
use crate::stats::{MethodLabel, Status};
use crate::trace::{About, Tracing};

const COLD_START: HeaderName = HeaderName::from_static("x-keda-http-cold-start");

/// A request that is being answered, until this is dropped: that is when its response has ended.
#[derive(Debug)]
pub(crate) struct Exchange {
    client: Rc<Client>,
    began: Instant,
    method: MethodLabel,
    route: Option<RouteNumber>,
    /// `None` until there is an answer; a request that ends without one has a client that left.
    status: Option<Status>,
    /// Whether it had to wait for an endpoint of its route, once it has one.
    cold: Option<bool>,
    record: Option<Box<Record>>,
}

/// What the access log and traces want to know besides.
#[derive(Debug)]
struct Record {
    log: Option<AccessLog>,
    tracing: Option<Tracing>,
    method: Method,
    host: String,
    path: String,
    version: Version,
    user_agent: String,
    trace: Option<String>,
    status: u16,
    bytes: u64,
    held: Duration,
    route: Option<RouteKey>,
    endpoint: Option<SocketAddr>,
    failure: Option<String>,
}

impl Exchange {
    /// Begins with a request as its client sent it.
    pub(crate) fn begin(client: Rc<Client>, head: &request::Parts) -> Self {
        client.activity.begin();
        let record = Record::of(&client, head).map(Box::new);
        Self {
            began: Instant::now(),
            method: MethodLabel::of(&head.method),
            route: None,
            status: None,
            cold: None,
            record,
            client,
        }
    }

    /// Who sent it.
    pub(crate) fn client(&self) -> &Rc<Client> {
        &self.client
    }

    /// It belongs to this route.
    pub(crate) fn belongs_to(&mut self, route: &Route) {
        self.route = Some(route.state().number());
        if let Some(record) = &mut self.record {
            record.route = Some(route.state().key().clone());
        }
    }

    /// Whether it is written down when it waits: its wait has to be timed.
    pub(crate) fn is_recorded(&self) -> bool {
        self.record.is_some()
    }

    /// It has waited for so long by now, the last time since `began`.
    pub(crate) fn held(&mut self, held: Duration, began: Option<SystemTime>) {
        let Some(record) = &mut self.record else { return };
        if held > record.held
            && let (Some(tracing), Some(began)) = (&mut record.tracing, began)
        {
            tracing.held(began, &self.client.worker.random);
        }
        record.held = held;
    }

    /// It is about to be sent to this endpoint.
    pub(crate) fn send(&mut self, endpoint: SocketAddr, headers: &mut HeaderMap) {
        let Some(record) = &mut self.record else { return };
        if let Some(tracing) = &mut record.tracing {
            tracing.send(endpoint, headers, &self.client.worker.random);
        }
    }

    /// It has an endpoint, for which it had to wait or not; `None` where that is no matter of a cold start.
    pub(crate) fn passes(&mut self, cold: Option<bool>) {
        self.cold = cold;
    }

    /// What its client is told of that, whatever comes of it; nothing where that is not wanted.
    pub(crate) fn tell_cold(&self, headers: &mut HeaderMap) {
        if let Some(cold) = self
            .cold
            .filter(|_| self.client.worker.shared.config.cold_start_header)
        {
            let value = if cold { "true" } else { "false" };
            headers.insert(COLD_START, HeaderValue::from_static(value));
        }
    }

    /// This endpoint answers it.
    pub(crate) fn answered_by(&mut self, endpoint: SocketAddr) {
        if let Some(record) = &mut self.record {
            record.endpoint = Some(endpoint);
        }
    }

    /// Its client gets an answer.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(Status::of(status));
        if let Some(record) = &mut self.record {
            record.status = status.as_u16();
        }
    }

    /// It failed, whatever status the client can read.
    pub(crate) fn failed(&mut self, failure: &Failure) {
        self.answered(failure.status());
        if let Some(record) = &mut self.record {
            record.failure = Some(failure.to_string());
        }
    }

    /// So many bytes of the response's body went out.
    pub(crate) fn sent(&mut self, bytes: usize) {
        if let Some(record) = &mut self.record {
            record.bytes += bytes as u64;
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.client.activity.end();
        let took = self.began.elapsed();
        let status = self.status.unwrap_or(Status::of(Failure::ClientGone.status()));
        self.client
            .worker
            .tally
            .request(self.route, self.method, status, took);
        if let Some(record) = self.record.take() {
            record.write(self.client.address, took);
        }
    }
}

impl Record {
    /// `None` if nobody wants to know.
    fn of(client: &Client, head: &request::Parts) -> Option<Self> {
        let config = &client.worker.shared.config;
        let log = config.access_log.clone();
        let sink = config.traces.as_ref();
        let tracing = sink.and_then(|sink| Tracing::of(sink, &head.headers, &client.worker.random));
        if log.is_none() && tracing.is_none() {
            return None;
        }
        let told = || trace_id(&head.headers).map(str::to_owned);
        let trace = tracing.as_ref().map(Tracing::id).or_else(told);
        let authority = head.uri.authority().map(|authority| authority.as_str());
        Some(Self {
            log,
            tracing,
            method: head.method.clone(),
            host: authority.unwrap_or_else(|| text(&head.headers, &HOST)).to_owned(),
            path: head.uri.path().to_owned(),
            version: head.version,
            user_agent: text(&head.headers, &USER_AGENT).to_owned(),
            trace,
            status: Failure::ClientGone.status().as_u16(),
            bytes: 0,
            held: Duration::ZERO,
            route: None,
            endpoint: None,
            failure: None,
        })
    }

    fn write(self, client: SocketAddr, duration: Duration) {
        if let Some(log) = &self.log {
            self.write_line(log, client, duration);
        }
        if let Some(tracing) = self.tracing {
            tracing.end(About {
                method: self.method,
                host: self.host,
                path: self.path,
                status: self.status,
                failure: self.failure,
                route: self.route,
                client,
            });
        }
    }

    fn write_line(&self, log: &AccessLog, client: SocketAddr, duration: Duration) {
        let route = self.route.as_ref().map(ToString::to_string);
        log.write(&Entry {
            time: SystemTime::now(),
            client,
            method: self.method.as_str(),
            host: &self.host,
            path: &self.path,
            protocol: match self.version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2",
                _ => "HTTP/1.1",
            },
            status: self.status,
            bytes: self.bytes,
            duration,
            held: self.held,
            route: route.as_deref(),
            endpoint: self.endpoint,
            failure: self.failure.as_deref(),
            user_agent: &self.user_agent,
            trace: self.trace.as_deref(),
        });
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> &'h str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// The second part of `traceparent` (W3C Trace Context).
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let parent = headers.get("traceparent")?.to_str().ok()?;
    parent.split('-').nth(1).filter(|id| id.len() == 32)
}
