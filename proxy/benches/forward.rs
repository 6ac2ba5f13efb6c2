//! How many requests a data thread passes on per second of its own processor time:
//! `cargo bench -p dormouse-proxy --bench forward`.
//!
//! Client and application are in the same process, on threads of their own whose time does not count. Linux only: each
//! thread's time is read from `/proc`.

use std::convert::Infallible;
use std::error::Error;
use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dormouse_core::endpoints::{Conditions, Endpoint, EndpointSet, PodKey};
use dormouse_core::routes::settings::{ColdStart, Port, RouteSettings, ScalingMetric, ServicePort, Timeouts};
use dormouse_core::routes::{BuildOptions, Candidate, HostPattern, RouteKey, Rule};
use dormouse_proxy::{Config, Protocol, Proxy};
use http::header::{HOST, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

const HOSTNAME: &str = "shop.example.com";
const CONNECTIONS: usize = 50;
/// Requests at a time on each connection of HTTP/2.
const STREAMS: usize = 10;
const WARM_UP: Duration = Duration::from_millis(500);
const ROUND: Duration = Duration::from_secs(2);
/// The best one counts, as others are slowed by other programs.
const ROUNDS: usize = 5;

type Failed = Box<dyn Error + Send + Sync>;

/// What is sent, and how.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    threads: usize,
    /// The bytes of the request's body, and of the response's.
    body: usize,
    http2: bool,
}

const CASES: &[Case] = &[
    Case {
        name: "GET, 100 bytes back",
        threads: 1,
        body: 0,
        http2: false,
    },
    Case {
        name: "GET, 100 bytes back, two threads",
        threads: 2,
        body: 0,
        http2: false,
    },
    Case {
        name: "POST, 16 KiB there and back",
        threads: 1,
        body: 16 * 1024,
        http2: false,
    },
    Case {
        name: "GET over HTTP/2, 100 bytes back",
        threads: 1,
        body: 0,
        http2: true,
    },
];

fn main() -> Result<(), Failed> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:40} {:>14} {:>10} {:>12}",
        "", "per CPU-second", "us each", "per second"
    )?;
    for case in CASES {
        // Data threads are made anew for each case; the others stay.
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let rounds = runtime.block_on(measure(case))?;
        let best = rounds.into_iter().max_by(|one, other| one.0.total_cmp(&other.0));
        let (per_cpu_second, per_second) = best.ok_or("no round")?;
        let each = 1e6 / per_cpu_second;
        writeln!(
            out,
            "{:40} {per_cpu_second:>14.0} {each:>10.2} {per_second:>12.0}",
            case.name
        )?;
    }
    Ok(())
}

/// For each round: requests per second of the data threads' time, and per second.
async fn measure(case: &Case) -> Result<Vec<(f64, f64)>, Failed> {
    let application = application().await?;
    let proxy = proxy(application, case.threads)?;
    let answers = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    let connections = if case.http2 {
        CONNECTIONS / STREAMS
    } else {
        CONNECTIONS
    };
    for _ in 0..connections {
        let stream = TcpStream::connect(proxy.address()).await?;
        stream.set_nodelay(true)?;
        if case.http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            for _ in 0..STREAMS {
                clients.spawn(over_http2(sender.clone(), answers.clone()));
            }
        } else {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            clients.spawn(over_http1(sender, case.body, answers.clone()));
        }
    }
    let mut rounds = Vec::new();
    sleep(WARM_UP).await;
    for _ in 0..ROUNDS {
        let (began, count, used) = (Instant::now(), answers.load(Ordering::Relaxed), data_threads()?);
        sleep(ROUND).await;
        let count = (answers.load(Ordering::Relaxed) - count) as f64;
        let used = (data_threads()? - used).as_secs_f64();
        rounds.push((count / used, count / began.elapsed().as_secs_f64()));
    }
    match clients.try_join_next() {
        Some(ended) => Err(ended?.err().unwrap_or_else(|| "a client ended".into())),
        None => Ok(rounds),
    }
}

async fn over_http1(
    mut sender: http1::SendRequest<Full<Bytes>>,
    body: usize,
    answers: Arc<AtomicU64>,
) -> Result<(), Failed> {
    let body = Bytes::from(vec![b'x'; body]);
    loop {
        let mut request = Request::new(Full::new(body.clone()));
        if !body.is_empty() {
            *request.method_mut() = Method::POST;
        }
        request
            .headers_mut()
            .insert(HOST, HeaderValue::from_static(HOSTNAME));
        sender.ready().await?;
        take(sender.send_request(request).await?, &answers).await?;
    }
}

async fn over_http2(
    mut sender: http2::SendRequest<Full<Bytes>>,
    answers: Arc<AtomicU64>,
) -> Result<(), Failed> {
    loop {
        let request = Request::get(format!("http://{HOSTNAME}/")).body(Full::default())?;
        sender.ready().await?;
        take(sender.send_request(request).await?, &answers).await?;
    }
}

async fn take(response: Response<Incoming>, answers: &AtomicU64) -> Result<(), Failed> {
    if !response.status().is_success() {
        return Err(format!("answered with {}", response.status()).into());
    }
    response.into_body().collect().await?;
    answers.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Gives back a request's body, or 100 bytes where it has none.
async fn application() -> Result<SocketAddr, Failed> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).ok();
            let service = service_fn(|request: Request<Incoming>| async {
                let body = request.into_body().collect().await.map(|body| body.to_bytes());
                let body = body.unwrap_or_default();
                let body = if body.is_empty() {
                    Bytes::from_static(&[b'x'; 100])
                } else {
                    body
                };
                Ok::<_, Infallible>(Response::new(Full::new(body)))
            });
            tokio::spawn(async move {
                let builder = hyper::server::conn::http1::Builder::new();
                builder.serve_connection(TokioIo::new(stream), service).await.ok();
            });
        }
    });
    Ok(address)
}

fn proxy(application: SocketAddr, threads: usize) -> Result<Proxy, Failed> {
    let mut config = Config::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    config.threads = NonZeroUsize::new(threads).ok_or("no threads")?;
    let proxy = Proxy::start(config)?;
    let target = ServicePort {
        namespace: "shop".into(),
        service: "web".into(),
        port: Port::Number(NonZeroU16::MIN),
    };
    let settings = RouteSettings {
        key: RouteKey::new("shop", "web"),
        target: target.clone(),
        timeouts: Timeouts::default(),
        cold_start: ColdStart::default(),
        static_routes: Vec::new(),
        scaling: ScalingMetric {
            concurrency: NonZeroU32::new(100),
            request_rate: None,
        },
    };
    let route = Candidate {
        key: settings.key.clone(),
        uid: String::new(),
        created: 0,
        rules: vec![Rule::new(
            vec![HostPattern::parse(HOSTNAME)?],
            Vec::new(),
            Vec::new(),
        )],
        value: Arc::new(settings),
    };
    proxy.set_routes(vec![route], BuildOptions::default());
    let pod = PodKey {
        namespace: "shop".into(),
        name: "web-0".into(),
        uid: "1".into(),
    };
    let endpoint = Endpoint::new(application, Some(pod), Conditions::default());
    proxy.set_endpoints(
        &target,
        Some(&EndpointSet::new([endpoint], false)),
        Protocol::Http1,
    );
    Ok(proxy)
}

/// The processor time of all data threads so far.
fn data_threads() -> Result<Duration, Failed> {
    let mut sum = Duration::ZERO;
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?.path();
        if fs::read_to_string(thread.join("comm"))?.starts_with("proxy-") {
            let times = fs::read_to_string(thread.join("schedstat"))?;
            let nanos = times.split_whitespace().next().ok_or("no time")?;
            sum += Duration::from_nanos(nanos.parse()?);
        }
    }
    Ok(sum)
}
