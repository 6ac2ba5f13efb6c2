//! Against a collector on loopback.

use std::net::SocketAddr;
use std::time::SystemTime;

use clap::Parser;
use dormouse_core::routes::RouteKey;
use dormouse_proxy::{Hold, Span, Upstream};
use http::Method;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use rustls::ServerConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    traces: TraceArgs,
}

fn args(flags: &[&str]) -> TraceArgs {
    let flags = ["dormouse"].iter().chain(flags);
    Cli::try_parse_from(flags).unwrap().traces
}

struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).await.unwrap();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (SocketAddr, mpsc::Receiver<ExportTraceServiceRequest>) {
    serving(None).await
}

fn install_crypto() {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

/// One that speaks TLS, and the file with the authority of its certificate.
async fn secret_collector() -> (
    SocketAddr,
    mpsc::Receiver<ExportTraceServiceRequest>,
    NamedTempFile,
) {
    install_crypto();
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let authority = NamedTempFile::new().unwrap();
    std::fs::write(&authority, own.cert.pem()).unwrap();
    let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()).into();
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (address, heard) = serving(Some(Arc::new(config).into())).await;
    (address, heard, authority)
}

async fn serving(tls: Option<TlsAcceptor>) -> (SocketAddr, mpsc::Receiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, heard) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(TraceServiceServer::new(Collector(told.clone())));
            let tls = tls.clone();
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new()).http2_only();
                match tls {
                    None => drop(builder.serve_connection(TokioIo::new(stream), service).await),
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            drop(builder.serve_connection(TokioIo::new(stream), service).await);
                        }
                    }
                }
            });
        }
    });
    (address, heard)
}

fn trace() -> RequestTrace {
    let at = |millis: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + millis);
    let time = |from, to| Span {
        began: at(from),
        ended: at(to),
    };
    RequestTrace {
        trace_id: [1; 16],
        parent: Some([2; 8]),
        span: [3; 8],
        time: time(0, 1000),
        holds: vec![Hold {
            span: [4; 8],
            time: time(1, 900),
        }],
        upstream: Some(Upstream {
            span: [5; 8],
            time: time(901, 1000),
            endpoint: "10.0.0.1:80".parse().unwrap(),
            attempts: 2,
        }),
        method: Method::GET,
        host: "shop.example.com".to_owned(),
        path: "/cart".to_owned(),
        status: 200,
        failure: None,
        route: Some(RouteKey::new("shop", "web")),
        client: "10.1.0.1:7".parse().unwrap(),
    }
}

#[tokio::test]
async fn a_collector_hears_of_the_request_its_hold_and_its_endpoint() {
    let (address, mut heard) = collector().await;
    let endpoint = format!("--otlp-traces-endpoint=http://{address}");
    let args = args(&["--otlp-traces-enabled", "--otlp-traces-protocol=grpc", &endpoint]);
    let (_sink, traces) = Traces::new(&args).unwrap().unwrap();
    traces.tell(vec![trace()]).await.unwrap();
    let told = timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
    let resource = &told.resource_spans[0];
    let name = resource.resource.as_ref().unwrap().attributes.iter();
    let mut name = name.filter(|attribute| attribute.key == "service.name");
    let name = format!("{:?}", name.next().unwrap().value);
    assert!(name.contains("keda-http-interceptor"), "{name}");
    let spans: Vec<_> = resource.scope_spans[0]
        .spans
        .iter()
        .map(|span| {
            (
                span.name.as_str(),
                span.kind,
                span.trace_id == [1; 16],
                span.parent_span_id.clone(),
                span.span_id.clone(),
                (span.end_time_unix_nano - span.start_time_unix_nano) / 1_000_000,
            )
        })
        .collect();
    let id = |byte: u8| vec![byte; 8];
    assert_eq!(
        spans,
        [
            ("GET", 2, true, id(2), id(3), 1000),
            ("hold", 1, true, id(3), id(4), 899),
            ("GET", 3, true, id(3), id(5), 99),
        ]
    );
}

#[tokio::test]
async fn a_collector_that_speaks_tls_is_told_if_its_certificate_is_believed() {
    let (address, mut heard, authority) = secret_collector().await;
    let believed = format!("--otlp-traces-certificate={}", authority.path().display());
    for scheme in ["https://", ""] {
        let endpoint = format!("--otlp-traces-endpoint={scheme}{address}");
        let flags = ["--otlp-traces-enabled", "--otlp-traces-protocol=grpc", &endpoint];
        let (_sink, traces) = Traces::new(&args(&[&flags[..], &[&believed]].concat()))
            .unwrap()
            .unwrap();
        traces.tell(vec![trace()]).await.unwrap();
        let told = timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
        assert_eq!(told.resource_spans[0].scope_spans[0].spans.len(), 3);

        let (_sink, traces) = Traces::new(&args(&flags)).unwrap().unwrap();
        assert!(
            traces.tell(vec![trace()]).await.is_err(),
            "nobody vouches for {endpoint}"
        );
    }
    let empty = NamedTempFile::new().unwrap();
    for file in ["/nowhere/ca.crt", empty.path().to_str().unwrap()] {
        let file_flag = format!("--otlp-traces-certificate={file}");
        for protocol in ["grpc", "http/protobuf"] {
            let protocol = format!("--otlp-traces-protocol={protocol}");
            let endpoint = "--otlp-traces-endpoint=https://collector.example.com";
            let flags = ["--otlp-traces-enabled", &protocol, endpoint, &file_flag];
            let error = Traces::new(&args(&flags)).err().unwrap();
            assert!(error.to_string().contains(file), "{error}");
        }
    }
}

#[tokio::test]
async fn what_waits_at_the_end_is_told_and_a_deaf_collector_stops_nothing() {
    let (address, mut heard) = collector().await;
    let endpoint = format!("--otlp-traces-endpoint=http://{address}");
    let flags = ["--otlp-traces-enabled", "--otlp-traces-protocol=grpc", &endpoint];
    let (sink, traces) = Traces::new(&args(&flags)).unwrap().unwrap();
    sink.take(trace());
    let end = CancellationToken::new();
    end.cancel();
    timeout(PATIENCE, traces.run(end.clone())).await.unwrap();
    assert!(timeout(PATIENCE, heard.recv()).await.unwrap().is_some());

    // Accepted by the kernel, and by nobody else.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("--otlp-traces-endpoint=http://{}", deaf.local_addr().unwrap());
    let flags = ["--otlp-traces-enabled", "--otlp-traces-protocol=grpc", &endpoint];
    let (sink, traces) = Traces::new(&args(&flags)).unwrap().unwrap();
    for _ in 0..WAITING + 100 {
        sink.take(trace());
    }
    let began = Instant::now();
    timeout(PATIENCE, traces.run(end)).await.unwrap();
    assert!(began.elapsed() < LAST * 3, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_collector_hears_the_same_over_http() {
    install_crypto();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!(
        "--otlp-traces-endpoint=http://{}/v1/traces",
        listener.local_addr().unwrap()
    );
    let flags = [
        "--otlp-traces-enabled",
        "--otlp-traces-protocol=http/protobuf",
        &endpoint,
    ];
    let (_sink, traces) = Traces::new(&args(&flags)).unwrap().unwrap();
    let hearing = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        while !heard.windows(8).any(|window| window == b"shop/web") {
            assert!(stream.read_buf(&mut heard).await.unwrap() > 0);
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        // Whatever is left of it.
        drop(timeout(Duration::from_millis(50), stream.read_buf(&mut heard)).await);
        heard
    };
    let (told, heard) = tokio::join!(traces.tell(vec![trace()]), timeout(PATIENCE, hearing));
    told.unwrap();
    let heard = String::from_utf8_lossy(&heard.unwrap()).into_owned();
    assert!(heard.starts_with("POST /v1/traces HTTP/1.1"), "{heard}");
    assert!(heard.contains("content-type: application/x-protobuf"), "{heard}");
}

#[test]
fn nobody_is_told_unless_somebody_wants_to_know() {
    assert!(Traces::new(&args(&[])).unwrap().is_none());
    assert_eq!(args(&[]).otlp_traces_protocol, TraceProtocol::Console);
    let protocol = args(&["--otlp-traces-protocol=http/protobuf"]).otlp_traces_protocol;
    assert_eq!(protocol, TraceProtocol::HttpProtobuf);
}

#[test]
fn the_console_gets_a_line_for_each_span() {
    let spans = spans::of(trace());
    let lines: Vec<serde_json::Value> = spans
        .iter()
        .map(|span| serde_json::from_slice(&spans::line(span)).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(
        (&lines[1]["name"], &lines[1]["duration"]),
        (&"hold".into(), &0.899.into())
    );
    assert_eq!(lines[1]["parent"], lines[0]["span"]);
    assert_eq!(lines[0]["attributes"]["dormouse.route"], "shop/web");
}
