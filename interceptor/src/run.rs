//! The process: watches, data plane, reports to the operators, and how it ends.
//!
//! ```text
//! SIGTERM ──> unready ──> requests still taken (shutdown delay) ──> drain (deadline) ──> goodbye to the operators ──> exit
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use dormouse_api::InterceptorRoute;
use dormouse_core::routes::BuildOptions;
use dormouse_kubernetes::{Cluster, Watch};
use dormouse_proxy::Proxy;
use dormouse_runtime::Metrics;
use dormouse_runtime::admin::{self, Readiness, Ready};
use dormouse_runtime::shutdown::{self, Supervisor};
use dormouse_runtime::telemetry::{self, LogOptions};
use futures::future::join_all;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::args::InterceptorArgs;
use crate::backends::Backends;
use crate::pages::{self, ConfigMap};
use crate::queue;
use crate::routes::Routes;
use crate::slim::{EndpointSlice, Service};

/// Version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

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
    let proxy = Arc::new(Proxy::start(args.proxy())?);
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
    watch(&args, &cluster, &proxy, &readiness, &mut supervisor);
    supervisor.spawn(
        "requests",
        serve(args.clone(), proxy.clone(), serving, supervisor.token()),
    );
    info!(version = VERSION, address = %proxy.address(), "interceptor started");
    let grace = args.shutdown_delay + args.drain() + shutdown::LAST_GRACE;
    supervisor.run(stop, grace).await?;
    Ok(())
}

async fn bind(address: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("unable to listen on {address} for {what}"))
}

/// Takes requests until the process stops, and then lets those under way end.
async fn serve(args: InterceptorArgs, proxy: Arc<Proxy>, serving: Ready, stopping: CancellationToken) {
    serving.set(true);
    stopping.cancelled().await;
    serving.set(false);
    // Whoever still believes in this pod sends requests until every node has heard otherwise.
    sleep(args.shutdown_delay).await;
    let drained = proxy.drain(args.drain()).await;
    info!(cut = drained.cut, "drained");
}

/// Has the data plane follow what the cluster says.
fn watch(
    args: &InterceptorArgs,
    cluster: &Cluster,
    proxy: &Arc<Proxy>,
    readiness: &Readiness,
    supervisor: &mut Supervisor,
) {
    let (client, scope) = (&cluster.client, &args.watch_namespace);
    let told = proxy.clone();
    let backends = Backends::new(Box::new(move |port, backend| match backend {
        Ok(backend) => told.set_endpoints(port, Some(&backend.endpoints), backend.protocol),
        Err(_) => told.set_endpoints(port, None, Default::default()),
    }));
    let changed = Arc::new(Notify::new());
    let notify = changed.clone();
    let (services, follow_services) = backends
        .follow_services(Watch::<Service>::within(client, scope))
        .start();
    let (slices, follow_slices) = backends
        .follow_slices(Watch::<EndpointSlice>::within(client, scope))
        .start();
    let (maps, follow_maps) = pages::follow(Watch::<ConfigMap>::within(client, scope), proxy.clone()).start();
    let (watched, follow_routes) = Watch::<InterceptorRoute>::within(client, scope)
        .on_change(move |_, _| notify.notify_one())
        .start();
    let options = BuildOptions {
        hosts_across_namespaces: args.hosts_across_namespaces,
    };
    let routes = Routes {
        watched: watched.clone(),
        changed,
        proxy: proxy.clone(),
        backends,
        options,
    };
    let synced = readiness.check("watches");
    let tasks: Vec<futures::future::BoxFuture<'static, ()>> = vec![
        Box::pin(follow_services),
        Box::pin(follow_slices),
        Box::pin(follow_maps),
        Box::pin(follow_routes),
        Box::pin(routes.follow()),
        Box::pin(async move {
            tokio::join!(
                watched.synced(),
                services.synced(),
                slices.synced(),
                maps.synced()
            );
            synced.set(true);
            std::future::pending().await
        }),
    ];
    let stopping = supervisor.last_token();
    supervisor.spawn_last("watches", async move {
        stopping.run_until_cancelled(join_all(tasks)).await;
    });
}
