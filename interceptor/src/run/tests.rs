//! How the process ends, and what it shows of itself.

use std::net::Ipv4Addr;
use std::num::NonZeroUsize;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use dormouse_core::routes::settings::{ColdStart, Port, RouteSettings, ScalingMetric, ServicePort, Timeouts};
use dormouse_core::routes::{Candidate, HostPattern, RouteKey, Rule};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tower::ServiceExt;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A data plane with one route, whose target sleeps.
fn proxy() -> Arc<Proxy> {
    let mut config = dormouse_proxy::Config::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    config.threads = NonZeroUsize::MIN;
    let proxy = Proxy::start(config).unwrap();
    let key = RouteKey::new("shop", "web");
    let target = ServicePort {
        namespace: "shop".into(),
        service: "web".into(),
        port: Port::Name("http".into()),
    };
    let settings = RouteSettings {
        key: key.clone(),
        target,
        timeouts: Timeouts::default(),
        cold_start: ColdStart::default(),
        static_routes: Vec::new(),
        scaling: ScalingMetric::default(),
    };
    let candidate = Candidate {
        key,
        uid: "1".to_owned(),
        created: 0,
        rules: vec![Rule::new(vec![HostPattern::Any], vec![], vec![])],
        value: Arc::new(settings),
    };
    proxy.set_routes(vec![candidate], BuildOptions::default());
    Arc::new(proxy)
}

/// Sends a request that will be held.
async fn held(proxy: &Proxy) -> TcpStream {
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        .await
        .unwrap();
    client
}

#[tokio::test]
async fn at_stop_it_is_unready_at_once_takes_requests_for_a_while_and_drains() {
    let delay = Duration::from_millis(500);
    let drain = Duration::from_secs(1);
    let (proxy, readiness, stopping) = (proxy(), Readiness::new(), CancellationToken::new());
    let serving = readiness.check("serving");
    let running = tokio::spawn(serve(proxy.clone(), serving, stopping.clone(), delay, drain));
    let mut early = held(&proxy).await;
    while !readiness.missing().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    stopping.cancel();
    let stopped = Instant::now();
    while readiness.missing() != ["serving"] {
        sleep(Duration::from_millis(1)).await;
    }
    let mut late = held(&proxy).await;
    while proxy.demand().snapshot()[0].pending < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    assert!(!running.is_finished(), "both are waited for");
    timeout(PATIENCE, running).await.unwrap().unwrap();
    assert!(stopped.elapsed() > delay + drain / 2, "nearly to the deadline");
    for client in [&mut early, &mut late] {
        let mut answer = String::new();
        let end = timeout(PATIENCE, client.read_to_string(&mut answer));
        end.await.unwrap().unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 503 "),
            "nobody is cut off: {answer:?}"
        );
    }
    assert!(TcpStream::connect(proxy.address()).await.is_err());
}

#[tokio::test]
async fn the_queue_page_has_every_route_in_the_add_ons_form() {
    let proxy = proxy();
    let page = async || {
        let request = Request::get("/queue").body(Body::empty()).unwrap();
        let response = queue::page(proxy.demand()).oneshot(request).await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/json");
        let body = to_bytes(response.into_body(), 1024).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    };
    assert_eq!(page().await, r#"{"shop/web":{"Concurrency":0,"RequestCount":0}}"#);
    let _client = held(&proxy).await;
    let counted = r#"{"shop/web":{"Concurrency":1,"RequestCount":1}}"#;
    let shows = async { while page().await != counted {} };
    timeout(PATIENCE, shows).await.unwrap();
}

#[tokio::test]
async fn the_metrics_page_has_the_add_ons_families() {
    let proxy = proxy();
    let metrics = Metrics::new();
    PlaneMetrics::register(&proxy, None, &metrics);
    let page = || metrics.encode(dormouse_runtime::metrics::Format::Classic);
    let shows = async |wanted: &str| {
        let looking = async {
            while !page().lines().any(|line| line == wanted) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(
            timeout(PATIENCE, looking).await.is_ok(),
            "{wanted} is not in\n{}",
            page()
        );
    };
    let client = held(&proxy).await;
    let route = r#"route_name="web",route_namespace="shop""#;
    shows(&format!("interceptor_request_concurrency{{{route}}} 1")).await;
    shows(&format!("dormouse_interceptor_pending_requests{{{route}}} 1")).await;
    drop(client);
    shows(&format!(
        r#"interceptor_request_count_total{{code="499",method="GET",{route}}} 1"#
    ))
    .await;
    shows(&format!(
        r#"interceptor_request_duration_seconds_bucket{{le="+Inf",code="499",method="GET",{route}}} 1"#
    ))
    .await;
    shows(&format!(
        r#"dormouse_interceptor_hold_duration_seconds_count{{end="client_left",{route}}} 1"#
    ))
    .await;
    shows(&format!("interceptor_request_concurrency{{{route}}} 0")).await;
    proxy.set_routes(Vec::new(), BuildOptions::default());
    let _client = held(&proxy).await;
    shows(r#"interceptor_request_count_total{code="404",method="GET",route_name="",route_namespace=""} 1"#)
        .await;
    assert!(!page().contains(route), "gone with the route:\n{}", page());
}
