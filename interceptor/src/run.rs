//! The process: watches, data plane, reports to the operators, and how it ends.
//!
//! ```text
//! SIGTERM ──> unready ──> requests still taken (shutdown delay) ──> drain (deadline) ──> goodbye to the operators ──> exit
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use dormouse_api::InterceptorRoute;
use dormouse_core::routes::BuildOptions;
use dormouse_kubernetes::{Cluster, Watch};
use dormouse_proxy::{AccessLog, Protocol, Proxy};
use dormouse_runtime::Metrics;
use dormouse_runtime::admin::{self, Readiness, Ready};
use dormouse_runtime::shutdown::{self, Supervisor};
use dormouse_runtime::telemetry::{self, LogOptions};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::args::InterceptorArgs;
use crate::backends::Backends;
use crate::freshness::Freshness;
use crate::metrics::PlaneMetrics;
use crate::pages;
use crate::queue;
use crate::reporter::Reporter;
use crate::routes::Routes;
use crate::slim::Route;
use crate::traces::Traces;

/// Version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long the reader of the access log may take for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Runs the interceptor until it is told to stop.
///
/// # Errors
/// It cannot start, or a part that it cannot do without ended.
pub async fn run(args: InterceptorArgs) -> anyhow::Result<()> {
    let stop = shutdown::termination().context("unable to listen for signals")?;
    let telemetry = telemetry::init(LogOptions {
        level: args.zap_log_level,
        encoder: args.zap_encoder,
        time: args.zap_time_encoding,
    })?;
    let config = dormouse_kubernetes::client::config(None).await?;
    let cluster = Cluster::new(config)?;
    let metrics = Metrics::new();
    metrics.register(|registry| cluster.calls.register(registry));
    let readiness = Readiness::new();
    let mut supervisor = Supervisor::new();

    let admin_listener = bind(SocketAddr::new(args.bind, args.admin_port), "the admin port").await?;
    let metrics_listener = bind(SocketAddr::new(args.bind, args.metrics_port), "metrics").await?;
    let mut config = args.proxy();
    if args.log_requests {
        config.access_log = Some(AccessLog::to(std::io::stdout()).context("unable to write an access log")?);
    }
    config.upstream_tls = args.tls.endpoints()?;
    let listener = args.tls.listener(args.bind)?;
    let keyring = listener.map(|(listener, keyring)| {
        config.tls = Some(listener);
        keyring
    });
    let traces = Traces::new(&args.traces)?.map(|(sink, traces)| {
        config.traces = Some(sink);
        traces
    });
    let log = config.access_log.clone();
    let proxy = Arc::new(Proxy::start(config)?);
    PlaneMetrics::register(&proxy, log.clone(), &metrics);
    let health = admin::health(readiness.clone())
        .merge(admin::log_level(telemetry))
        .merge(queue::page(proxy.demand()));
    let last = supervisor.last_token();
    supervisor.spawn_last(
        "admin",
        admin::serve(admin_listener, health, last.clone().cancelled_owned()),
    );
    let page = admin::metrics(metrics.clone());
    supervisor.spawn_last(
        "metrics",
        admin::serve(metrics_listener, page, last.cancelled_owned()),
    );

    let serving = readiness.check("serving");
    let backends = backends(&proxy, args.direct_pod_routing);
    let newcomers = args.direct_pod_routing.then(|| backends.clone());
    let reporter = Reporter::new(proxy.clone(), newcomers, args.access());
    // After the requests: the last report is that nothing is held any more.
    let end = supervisor.last_token();
    supervisor.spawn_last("reports", reporter.run(args.operators.clone(), end));
    follow_cluster(&args, &cluster, &proxy, backends, &readiness, &mut supervisor);
    if let Some(traces) = traces {
        let end = supervisor.last_token();
        supervisor.spawn_last("traces", traces.run(end));
    }
    if let Some(keyring) = keyring {
        let end = supervisor.last_token();
        supervisor.spawn_last("certificates", async move {
            end.run_until_cancelled(keyring.follow()).await;
        });
    }
    info!(version = VERSION, address = %proxy.address(), "interceptor started");
    let (delay, drain) = (args.shutdown_delay, args.drain());
    let stopping = supervisor.token();
    supervisor.spawn("requests", serve(proxy, serving, stopping, delay, drain));
    let ended = supervisor.run(stop, delay + drain + shutdown::LAST_GRACE).await;
    if let Some(log) = log {
        log.flush(LAST_LINES);
    }
    ended?;
    Ok(())
}

async fn bind(address: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("unable to listen on {address} for {what}"))
}

/// Takes requests until the process stops and for `delay` after that, and then lets those under way end for as long as
/// `drain`.
async fn serve(
    proxy: Arc<Proxy>,
    serving: Ready,
    stopping: CancellationToken,
    delay: Duration,
    drain: Duration,
) {
    serving.set(true);
    stopping.cancelled().await;
    serving.set(false);
    // Whoever still believes in this pod sends requests until every node has heard otherwise.
    sleep(delay).await;
    let drained = proxy.drain(drain).await;
    info!(cut = drained.cut, "drained");
}

/// Where the requests of each Service port go, told to the data plane: to the pods themselves, or through the Service.
pub(crate) fn backends(proxy: &Arc<Proxy>, direct: bool) -> Backends {
    let told = proxy.clone();
    Backends::new(Box::new(move |port, backend| match backend {
        Ok(backend) => {
            let backend = if direct {
                backend
            } else {
                backend.through_service()
            };
            told.set_endpoints(port, Some(&backend.endpoints), backend.protocol);
        }
        Err(why) => {
            debug!(%port, %why, "a Service port leads nowhere");
            told.set_endpoints(port, None, Protocol::default());
        }
    }))
}

/// Has the data plane follow what the cluster says, to the end: requests that are held during the drain still wait for
/// endpoints.
fn follow_cluster(
    args: &InterceptorArgs,
    cluster: &Cluster,
    proxy: &Arc<Proxy>,
    backends: Backends,
    readiness: &Readiness,
    supervisor: &mut Supervisor,
) {
    let (client, scope) = (&cluster.client, &args.watch_namespace);
    let freshness = Freshness::default();
    let (services, follow_services) = backends
        .follow_services(freshness.of("Services", Watch::reduced(client, scope)))
        .start();
    let (slices, follow_slices) = backends
        .follow_slices(freshness.of("EndpointSlices", Watch::reduced(client, scope)))
        .start();
    let (maps, follow_maps) = pages::follow(Watch::reduced(client, scope), proxy.clone()).start();
    let sweep = backends.clone();
    let changed = Arc::new(Notify::new());
    let notify = changed.clone();
    let objects = freshness.of(
        "InterceptorRoutes",
        Watch::<InterceptorRoute, Route>::reduced(client, scope),
    );
    let (watched, follow_objects) = objects.on_change(move |_, _| notify.notify_one()).start();
    let routes = Routes {
        watched: watched.clone(),
        changed,
        proxy: proxy.clone(),
        backends,
        options: BuildOptions {
            hosts_across_namespaces: args.hosts_across_namespaces,
        },
    };
    let built = readiness.check("routes and their endpoints");
    let fresh = readiness.check("news of the cluster");
    let follow_routes = async move {
        // A route whose Service is not known yet would seem to have none.
        tokio::join!(
            watched.synced(),
            services.synced(),
            slices.synced(),
            maps.synced()
        );
        routes.follow(built).await;
    };
    let mut to_the_end = |name, task: BoxFuture<'static, ()>| {
        let end = supervisor.last_token();
        supervisor.spawn_last(name, async move {
            end.run_until_cancelled(task).await;
        });
    };
    to_the_end("watch of Services", follow_services.boxed());
    to_the_end("watch of EndpointSlices", follow_slices.boxed());
    to_the_end(
        "pods without a slice",
        async move { sweep.give_up().await }.boxed(),
    );
    to_the_end("watch of ConfigMaps", follow_maps.boxed());
    to_the_end("watch of InterceptorRoutes", follow_objects.boxed());
    to_the_end("table of routes", follow_routes.boxed());
    to_the_end("freshness", freshness.follow(fresh).boxed());
}

#[cfg(test)]
mod tests;
