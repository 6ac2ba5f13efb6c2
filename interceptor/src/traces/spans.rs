//! A request's trace as spans: one of its own, one for each wait for an endpoint, one for what the endpoint had to do.

use dormouse_proxy::{RequestTrace, Span};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::SpanData;
use serde_json::{Map, Value, json};

/// The spans of a request, its own first.
pub(super) fn of(trace: RequestTrace) -> Vec<SpanData> {
    let scope = InstrumentationScope::builder("dormouse").with_version(env!("CARGO_PKG_VERSION"));
    let scope = scope.build();
    let own = SpanId::from_bytes(trace.span);
    let span = |id: [u8; 8], name: String, kind, time: Span, attributes| SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(trace.trace_id),
            SpanId::from_bytes(id),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: own,
        parent_span_is_remote: false,
        span_kind: kind,
        name: name.into(),
        start_time: time.began,
        end_time: time.ended,
        attributes,
        dropped_attributes_count: 0,
        events: Default::default(),
        links: Default::default(),
        status: Status::Unset,
        instrumentation_scope: scope.clone(),
    };
    let method = trace.method.to_string();
    let mut request = span(
        trace.span,
        method.clone(),
        SpanKind::Server,
        trace.time,
        about(&trace),
    );
    request.parent_span_id = trace.parent.map_or(SpanId::INVALID, SpanId::from_bytes);
    request.parent_span_is_remote = trace.parent.is_some();
    if trace.status >= 500 {
        request.status = Status::error(trace.failure.clone().unwrap_or_default());
    }
    let mut spans = vec![request];
    for hold in &trace.holds {
        spans.push(span(
            hold.span,
            "hold".to_owned(),
            SpanKind::Internal,
            hold.time,
            Vec::new(),
        ));
    }
    if let Some(upstream) = &trace.upstream {
        let attributes = vec![
            KeyValue::new("http.request.method", method.clone()),
            KeyValue::new("server.address", upstream.endpoint.ip().to_string()),
            KeyValue::new("server.port", i64::from(upstream.endpoint.port())),
            KeyValue::new("http.request.resend_count", i64::from(upstream.attempts) - 1),
        ];
        let client = SpanKind::Client;
        spans.push(span(upstream.span, method, client, upstream.time, attributes));
    }
    spans
}

/// By the names of OpenTelemetry's conventions for HTTP.
fn about(trace: &RequestTrace) -> Vec<KeyValue> {
    let mut about = vec![
        KeyValue::new("http.request.method", trace.method.to_string()),
        KeyValue::new("server.address", trace.host.clone()),
        KeyValue::new("url.path", trace.path.clone()),
        KeyValue::new("http.response.status_code", i64::from(trace.status)),
        KeyValue::new("client.address", trace.client.ip().to_string()),
        KeyValue::new("dormouse.cold_start", !trace.holds.is_empty()),
    ];
    if let Some(route) = &trace.route {
        about.push(KeyValue::new("dormouse.route", route.to_string()));
    }
    about
}

/// A span as a line of JSON.
pub(super) fn line(span: &SpanData) -> Vec<u8> {
    let attributes = span.attributes.iter();
    let attributes: Map<String, Value> = attributes
        .map(|attribute| (attribute.key.to_string(), attribute.value.as_str().into()))
        .collect();
    let took = span.end_time.duration_since(span.start_time).unwrap_or_default();
    let began = span.start_time.duration_since(std::time::SystemTime::UNIX_EPOCH);
    let line = json!({
        "trace": span.span_context.trace_id().to_string(),
        "span": span.span_context.span_id().to_string(),
        "parent": (span.parent_span_id != SpanId::INVALID).then(|| span.parent_span_id.to_string()),
        "name": span.name,
        "kind": format!("{:?}", span.span_kind),
        "time": u64::try_from(began.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
        "duration": took.as_secs_f64(),
        "attributes": attributes,
    });
    let mut line = line.to_string().into_bytes();
    line.push(b'\n');
    line
}
