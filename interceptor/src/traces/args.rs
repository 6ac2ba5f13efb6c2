//! What the interceptor is told about traces, by the add-on's names and OpenTelemetry's.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueEnum};

/// Traces of the interceptor.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// Tell a trace of each request, with its wait for a pod.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_TRACES_ENABLED", action = ArgAction::Set, value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub otlp_traces_enabled: bool,
    /// How: to standard output, or to a collector.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", value_enum, default_value_t = TraceProtocol::Console)]
    pub otlp_traces_protocol: TraceProtocol,
    /// The collector, such as http://collector:4317; OTEL_EXPORTER_OTLP_ENDPOINT unless given.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")]
    pub otlp_traces_endpoint: Option<String>,
    /// File with the only authorities whose certificates the collector may have, where it is spoken to by https; those of the
    /// system unless given.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE")]
    pub otlp_traces_certificate: Option<PathBuf>,
    /// The same for all that OpenTelemetry tells.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_CERTIFICATE", hide = true)]
    pub otlp_certificate: Option<PathBuf>,
    /// Name of this service in traces.
    #[arg(long, env = "OTEL_SERVICE_NAME", default_value = "keda-http-interceptor")]
    pub otel_service_name: String,
}

/// How traces are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TraceProtocol {
    /// A line of JSON for each span, on standard output.
    Console,
    /// OTLP over HTTP.
    #[value(name = "http/protobuf")]
    HttpProtobuf,
    /// OTLP over gRPC.
    Grpc,
}
