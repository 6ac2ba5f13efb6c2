//! A request's place in a trace (W3C Trace Context), and what is told of it when it is done.
//!
//! ```text
//! traceparent of the client ──> server span ─┬─ hold spans, one for each wait for an endpoint
//!                                            └─ client span ──> traceparent of the endpoint
//! ```
//!
//! Without a sink nothing of this exists, and `traceparent` is passed on as it came.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use dormouse_core::routes::RouteKey;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::random::Random;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Waits of one request that are told.
const MOST_HOLDS: usize = 16;

/// Takes what is to be told of a request. It must not wait.
#[derive(Clone)]
pub struct TraceSink(Arc<dyn Fn(RequestTrace) + Send + Sync>);

impl TraceSink {
    /// Has `take` called for each request that is done and sampled.
    pub fn new(take: impl Fn(RequestTrace) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// Tells of one.
    pub fn take(&self, trace: RequestTrace) {
        (self.0)(trace);
    }
}

impl fmt::Debug for TraceSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceSink").finish_non_exhaustive()
    }
}

/// What is told of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestTrace {
    /// The trace that it belongs to.
    pub trace_id: [u8; 16],
    /// The span of its client, if it told one.
    pub parent: Option<[u8; 8]>,
    /// Its own span.
    pub span: [u8; 8],
    /// From its head to the end of its response.
    pub time: Span,
    /// Its waits for an endpoint.
    pub holds: Vec<Hold>,
    /// What an endpoint had to do with it.
    pub upstream: Option<Upstream>,
    /// Its method.
    pub method: Method,
    /// Its host.
    pub host: String,
    /// Its path, without the query.
    pub path: String,
    /// The status that its client got; 499 if it left before.
    pub status: u16,
    /// Why no endpoint answered.
    pub failure: Option<String>,
    /// Its route.
    pub route: Option<RouteKey>,
    /// Who sent it.
    pub client: SocketAddr,
}

/// A time from its beginning to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When it began.
    pub began: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
}

/// One wait for an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Its span.
    pub span: [u8; 8],
    /// How long it was.
    pub time: Span,
}

/// What an endpoint had to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The span that the endpoint knows as its parent.
    pub span: [u8; 8],
    /// From the first attempt to the end of the response.
    pub time: Span,
    /// The endpoint that answered, or was tried last.
    pub endpoint: SocketAddr,
    /// How often the request was sent to one.
    pub attempts: u32,
}

/// A request's place in a trace, while it is being answered.
#[derive(Debug)]
pub(crate) struct Tracing {
    sink: TraceSink,
    trace_id: [u8; 16],
    parent: Option<[u8; 8]>,
    span: [u8; 8],
    began: SystemTime,
    holds: Vec<Hold>,
    upstream: Option<Upstream>,
}

/// What [`Tracing`] does not know by itself.
pub(crate) struct About {
    pub(crate) method: Method,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) status: u16,
    pub(crate) failure: Option<String>,
    pub(crate) route: Option<RouteKey>,
    pub(crate) client: SocketAddr,
}

impl Tracing {
    /// The place that a request's client gave it, or one at the beginning of a new trace. `None` if its client does not
    /// want to know.
    pub(crate) fn of(sink: &TraceSink, headers: &HeaderMap, random: &Random) -> Option<Self> {
        let told = headers.get(TRACEPARENT).and_then(parse);
        let (trace_id, parent) = match told {
            Some((_, _, sampled)) if !sampled => return None,
            Some((trace_id, parent, _)) => (trace_id, Some(parent)),
            None => (random.trace_id(), None),
        };
        Some(Self {
            sink: sink.clone(),
            trace_id,
            parent,
            span: random.span_id(),
            began: SystemTime::now(),
            holds: Vec::new(),
            upstream: None,
        })
    }

    /// The trace, as text.
    pub(crate) fn id(&self) -> String {
        hex(&self.trace_id)
    }

    /// It waited for an endpoint since `began`, and does so no longer.
    pub(crate) fn held(&mut self, began: SystemTime, random: &Random) {
        if self.holds.len() < MOST_HOLDS {
            let ended = SystemTime::now();
            self.holds.push(Hold {
                span: random.span_id(),
                time: Span { began, ended },
            });
        }
    }

    /// It is about to be sent to `endpoint`: lets it know its place.
    pub(crate) fn send(&mut self, endpoint: SocketAddr, headers: &mut HeaderMap, random: &Random) {
        let now = SystemTime::now();
        let upstream = self.upstream.get_or_insert_with(|| Upstream {
            span: random.span_id(),
            time: Span {
                began: now,
                ended: now,
            },
            endpoint,
            attempts: 0,
        });
        upstream.endpoint = endpoint;
        upstream.attempts += 1;
        let text = format!("00-{}-{}-01", hex(&self.trace_id), hex(&upstream.span));
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(TRACEPARENT, value);
        }
    }

    /// It is done.
    pub(crate) fn end(mut self, about: About) {
        let ended = SystemTime::now();
        if let Some(upstream) = &mut self.upstream {
            upstream.time.ended = ended;
        }
        self.sink.take(RequestTrace {
            trace_id: self.trace_id,
            parent: self.parent,
            span: self.span,
            time: Span {
                began: self.began,
                ended,
            },
            holds: self.holds,
            upstream: self.upstream,
            method: about.method,
            host: about.host,
            path: about.path,
            status: about.status,
            failure: about.failure,
            route: about.route,
            client: about.client,
        });
    }
}

/// The trace, the span and whether it is sampled, of a `traceparent` that is in order.
pub(crate) fn parse(value: &HeaderValue) -> Option<([u8; 16], [u8; 8], bool)> {
    let text = value.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let [version] = bytes(version)?;
    // Later versions may have more parts, this one has none.
    if version == 0xff || (version == 0 && parts.next().is_some()) {
        return None;
    }
    let (trace, span): ([u8; 16], [u8; 8]) = (bytes(trace)?, bytes(span)?);
    let [flags] = bytes(flags)?;
    let is_valid = trace.iter().any(|byte| *byte != 0) && span.iter().any(|byte| *byte != 0);
    is_valid.then_some((trace, span, flags & 1 == 1))
}

/// Lower-case hexadecimal digits, exactly as many as there have to be.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// The same as text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_by_its_letter() {
        const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
        let read = |text: String| {
            let (trace, span, sampled) = parse(&HeaderValue::try_from(text).unwrap())?;
            Some((hex(&trace), hex(&span), sampled))
        };
        let expected = |sampled| Some((TRACE.to_owned(), "b7ad6b7169203331".to_owned(), sampled));
        assert_eq!(read(format!("00-{TRACE}-b7ad6b7169203331-01")), expected(true));
        assert_eq!(read(format!("00-{TRACE}-b7ad6b7169203331-00")), expected(false));
        assert_eq!(
            read(format!("cc-{TRACE}-b7ad6b7169203331-01-more")),
            expected(true)
        );
        for bad in [
            format!("00-{TRACE}-b7ad6b7169203331-01-more"),
            format!("ff-{TRACE}-b7ad6b7169203331-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{}-b7ad6b7169203331-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-b7ad6b7169203331"),
            "00".to_owned(),
            String::new(),
        ] {
            assert_eq!(read(bad.clone()), None, "{bad}");
        }
    }
}
