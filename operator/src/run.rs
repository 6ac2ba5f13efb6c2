//! Builds the operator's parts, runs them, and stops them in the right order.
//!
//! ```text
//! SIGTERM ──> unready, no more writes ──> queues drained ──> lease given up ──> metrics API serves on for a moment as a
//!             follower, until the Service has forgotten this pod ──> exit 0
//! ```

mod objects;
mod watches;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use dormouse_core::routes::BuildOptions;
use dormouse_engine::{Engine, Leadership, Settings};
use dormouse_kubernetes::discovery::Discovery;
use dormouse_kubernetes::lease::{self, LeaseConfig};
use dormouse_kubernetes::{Cluster, Priority};
use dormouse_runtime::admin::{self, Readiness};
use dormouse_runtime::telemetry::{self, LogOptions};
use dormouse_runtime::{Metrics, Supervisor, shutdown};
use dormouse_scalers::DemandSource;
use dormouse_scalers::clients::{Clients, ClientsConfig, EgressRules};
use dormouse_translate::parameters::ResolverSettings;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::Api;
use kube::api::PostParams;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::args::OperatorArgs;
use crate::certificates::{RotationSettings, ServingCertificate};
use crate::changes;
use crate::context::{Context, VERSION};
use crate::debug::DebugPage;
use crate::demand::{Authorities, DemandParts};
use crate::egress::ApiServer;
use crate::endpoints::SliceEndpoints;
use crate::events::Events;
use crate::external_scaler::{self, ExternalScalerService};
use crate::journal::OperatorJournal;
use crate::leadership::Fence;
use crate::metric_source::EngineMetrics;
use crate::metrics::OperatorMetrics;
use crate::metrics_api::{self, Gatekeeper, Limits};
use crate::peers::{Leader, TOKEN_FILE};
use crate::pods::PodCounter;
use crate::references::References;
use crate::routes::RouteStatuses;
use crate::status_book::StatusBook;
use crate::work::Work;

/// How long requests still come in after this pod was asked to stop: until every node has heard that it is unready.
const ENDPOINT_PROPAGATION: Duration = Duration::from_secs(3);
/// How long the whole stop may take.
const GRACE: Duration = Duration::from_secs(9);
/// How long the changes of what an object refers to are gathered before it is looked at again: a key and its secret half may
/// be in two objects, and one without the other is no use.
const SETTLE: Duration = Duration::from_millis(500);

/// Runs the operator until it is told to stop.
///
/// # Errors
/// It cannot start, or a part that it cannot do without ended.
pub async fn run(args: OperatorArgs) -> anyhow::Result<()> {
    let stop = shutdown::termination().context("unable to listen for signals")?;
    let options = LogOptions {
        level: args.zap_log_level,
        encoder: args.zap_encoder,
        time: args.zap_time_encoding,
    };
    let telemetry = telemetry::init(options)?;
    let config = dormouse_kubernetes::client::config(args.kubeconfig.as_deref()).await?;
    let cluster = Cluster::new(config.clone())?;
    let api_server = ApiServer::new(cluster.client.clone(), cluster.calls.clone(), &config);
    let metrics = Metrics::new();
    metrics.register(|registry| cluster.calls.register(registry));
    let readiness = Readiness::new();
    let mut supervisor = Supervisor::new();
    let stopping = supervisor.token();

    let admin_listener = bind(args.health_probe_bind_address.0, "health probes").await?;
    let metrics_listener = bind(args.metrics_bind_address.0, "metrics").await?;
    let api_listener = bind(args.metrics_api_bind_address.0, "the metrics API").await?;
    let demand_listener = match args.demand.demand_bind_address {
        Some(address) => Some(bind(address.0, "interceptors").await?),
        None => None,
    };
    let scaler_listener = match args.demand.external_scaler_bind_address {
        Some(address) => Some(bind(address.0, "the external scaler").await?),
        None => None,
    };
    let debug_page = DebugPage::default();
    let health = admin::health(readiness.clone())
        .merge(admin::log_level(telemetry))
        .merge(debug_page.router());
    supervisor.spawn_last(
        "health",
        admin::serve(admin_listener, health, supervisor.last_token().cancelled_owned()),
    );
    let page = admin::metrics(metrics.clone());
    supervisor.spawn_last(
        "metrics",
        admin::serve(metrics_listener, page, supervisor.last_token().cancelled_owned()),
    );

    let released = CancellationToken::new();
    let lease = if args.leader_elect {
        let (lease, election) = lease::elect(&cluster.election, lease_config(&args))?;
        supervisor.spawn("leader election", election.run(released.clone()));
        lease
    } else {
        dormouse_kubernetes::Leadership::always()
    };
    let (fence, follow) = Fence::new(lease, stopping.clone());
    supervisor.spawn("leadership", until(stopping.clone(), follow));

    let parts = assemble(&args, &cluster, api_server, &metrics, &fence, &mut supervisor);
    debug_page.open(parts.cx.clone());
    if let Some(listener) = demand_listener {
        let (namespace, certificate) = (&args.pod_namespace, parts.certificate.resolver());
        let demand = &parts.demand;
        let routes = parts.cx.stores.routes.clone();
        demand.start(
            &args.demand,
            namespace,
            &cluster,
            listener,
            certificate,
            Arc::new(move |route| routes.as_ref()?.selection(route)),
            &mut supervisor,
        );
        let authorities = Authorities {
            api: Api::namespaced(cluster.client.clone(), namespace),
            name: args.demand.ca_config_map_name.clone(),
            calls: cluster.calls.clone(),
            leadership: parts.cx.leadership.clone(),
            known: parts.certificate.authorities(),
        };
        supervisor.spawn(
            "authorities for interceptors",
            until(stopping.clone(), authorities.publish()),
        );
    }
    if let Some(listener) = scaler_listener {
        let service = ExternalScalerService::new(Arc::new(parts.demand.hub.clone()));
        let stop = supervisor.token().cancelled_owned();
        supervisor.spawn("external scaler", external_scaler::serve(listener, service, stop));
    }
    serve_metrics_api(
        &args,
        &cluster,
        &parts,
        &fence,
        api_listener,
        &readiness,
        &mut supervisor,
    )
    .await;

    let synced = readiness.check("watches");
    supervisor.spawn(
        "objects",
        objects::work(
            parts,
            fence,
            synced,
            args.max_reconciles,
            stopping.clone(),
            released,
        ),
    );
    info!(version = VERSION, "operator started");
    supervisor.run(stop, GRACE).await?;
    Ok(())
}

async fn bind(address: std::net::SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("unable to listen on {address} for {what}"))
}

/// Runs a task that has no end of its own until the process stops.
async fn until(stopping: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => if !stopping.is_cancelled() { warn!("a task ended early") },
        () = stopping.cancelled() => {}
    }
}

fn lease_config(args: &OperatorArgs) -> LeaseConfig {
    let host = if args.pod_name.is_empty() {
        "dormouse"
    } else {
        &args.pod_name
    };
    let port = args.metrics_api_bind_address.0.port();
    LeaseConfig {
        name: args.leader_election_id.clone(),
        metrics_address: args
            .pod_ip
            .map(|ip| std::net::SocketAddr::new(ip, port).to_string()),
        duration: args.lease_duration.0,
        renew_deadline: args.lease_renew_deadline.0,
        retry_period: args.lease_retry_period.0,
        ..LeaseConfig::new(args.pod_namespace.as_str(), lease::identity(host))
    }
}

/// What the working parts share.
struct Parts {
    cx: Arc<Context>,
    queues: Work,
    journal: Arc<OperatorJournal>,
    demand: DemandParts,
    certificate: ServingCertificate,
}

fn assemble(
    args: &OperatorArgs,
    cluster: &Cluster,
    api_server: ApiServer,
    metrics: &Metrics,
    fence: &Fence,
    supervisor: &mut Supervisor,
) -> Parts {
    let queues = Work::default();
    let stopping = supervisor.token();
    let demand = DemandParts::new(&args.demand, &args.pod_namespace);
    let stores = watches::start(args, cluster, &queues, &demand, supervisor);
    let (client, calls) = (cluster.client.clone(), cluster.calls.clone());
    let waiting = queues.objects.clone();
    let (events, write_events) =
        Events::new(client.clone(), calls.clone(), args.pod_name.clone(), move || {
            waiting.ready() > 0
        });
    supervisor.spawn("events", until(stopping.clone(), write_events));
    let operator_metrics = Arc::new(OperatorMetrics::register(
        metrics,
        VERSION,
        args.enable_high_cardinality_metrics_labels,
    ));
    queues.show_depths(metrics, &events);
    let leadership: Arc<dyn Leadership> = Arc::new(fence.clone());
    let status = StatusBook::new(client.clone(), calls.clone(), leadership.clone());
    let (refresh, look_again) = (queues.objects.clone(), queues.objects.clone());
    let journal = Arc::new(OperatorJournal {
        metrics: operator_metrics.clone(),
        status: status.clone(),
        events: events.clone(),
        leadership: leadership.clone(),
        objects: stores.scaled_objects.clone(),
        hpas: stores.hpas.clone(),
        refresh: Box::new(move |key| refresh.add(key.clone())),
        failing: Mutex::new(HashMap::new()),
    });
    let clients = Clients::new(ClientsConfig {
        ca_dirs: args.ca_dir.clone(),
        min_tls: args.http_min_tls_version.0,
        disable_keep_alive: args.http_disable_keep_alive,
        egress: EgressRules {
            allowed: args.egress_allow.clone(),
            ..EgressRules::default()
        },
        aws_endpoints: args.aws_endpoint_allow.clone(),
        ..ClientsConfig::default()
    });
    supervisor.spawn(
        "addresses of the API server",
        until(stopping.clone(), api_server.follow(clients.egress().clone())),
    );
    let settings = Settings::new(
        Duration::from_millis(args.http_default_timeout.max(1)),
        Arc::new(clients),
        Some(Arc::new(SliceEndpoints {
            client: client.clone(),
            calls: calls.clone(),
        })),
    );
    let interceptors = args.demand.demand_bind_address.is_some();
    let settings = Settings {
        // Without a place to report to, no demand would ever be known.
        demand: interceptors.then(|| Arc::new(demand.hub.clone()) as Arc<dyn DemandSource>),
        pods: Some(Arc::new(PodCounter {
            client: client.clone(),
            calls: calls.clone(),
        })),
        ..settings
    };
    let changed = queues.objects.clone();
    let references = References::new(client.clone(), calls.clone(), move |user| {
        changed.add_after(user.clone(), SETTLE);
    });
    let follow = references
        .clone()
        .run(client.clone(), args.watch_namespace.clone(), stopping.clone());
    supervisor.spawn("references", until(stopping.clone(), follow));
    let cx = Arc::new(Context {
        references,
        discovery: Discovery::new(client.clone(), calls.clone()),
        engine: Engine::new(settings, journal.clone(), leadership.clone()),
        client,
        calls,
        leadership,
        status,
        events,
        metrics: operator_metrics,
        stores,
        look_again: Arc::new(move |key, delay| look_again.add_after(key, delay)),
        resolver: ResolverSettings {
            cluster_object_namespace: args
                .cluster_object_namespace
                .clone()
                .unwrap_or_else(|| args.pod_namespace.clone()),
            restrict_secret_access: args.restrict_secret_access,
            require_allowed_hosts: args.require_allowed_hosts,
        },
        authentications: changes::Generations::default(),
    });
    if let Some(routes) = &cx.stores.routes {
        let statuses = RouteStatuses {
            stores: routes.clone(),
            scaled_objects: cx.stores.scaled_objects.clone(),
            users: demand.users.clone(),
            options: BuildOptions {
                hosts_across_namespaces: args.demand.hosts_across_namespaces,
            },
            client: cx.client.clone(),
            calls: cx.calls.clone(),
            leadership: cx.leadership.clone(),
        };
        supervisor.spawn(
            "statuses of InterceptorRoutes",
            until(stopping.clone(), statuses.follow()),
        );
        let stores = routes.clone();
        let obstacles = demand.obstacles(
            cluster,
            Arc::new(move |route| stores.selection(route)),
            cx.leadership.clone(),
        );
        supervisor.spawn("obstacles", until(stopping.clone(), obstacles.follow()));
    }
    supervisor.spawn(
        "undecodable objects",
        queues.undecodable.clone().run(cx.clone(), stopping),
    );
    Parts {
        cx,
        queues,
        journal,
        demand,
        certificate: ServingCertificate::new(),
    }
}

async fn serve_metrics_api(
    args: &OperatorArgs,
    cluster: &Cluster,
    parts: &Parts,
    fence: &Fence,
    listener: TcpListener,
    readiness: &Readiness,
    supervisor: &mut Supervisor,
) {
    let stopping = supervisor.token();
    let certificate = parts.certificate.clone();
    if args.enable_cert_rotation {
        let settings = RotationSettings {
            secret: args.cert_secret_name.clone(),
            services: vec![
                args.operator_service_name.clone(),
                args.metrics_server_service_name.clone(),
                args.webhooks_service_name.clone(),
            ],
            cluster_domain: args.k8s_cluster_domain.clone(),
            metrics_service: args.metrics_server_service_name.clone(),
            patch_api_service: args.enable_apiservice_patching,
            ..RotationSettings::new(&args.pod_namespace, args.cert_validity.0)
        };
        let (certificate, client, fence) = (certificate.clone(), cluster.client.clone(), fence.clone());
        let rotate = async move {
            certificate
                .rotate(client, settings, move || fence.is_leader())
                .await
        };
        supervisor.spawn("certificates", until(stopping.clone(), rotate));
    } else {
        let (certificate, directory) = (certificate.clone(), args.cert_dir.clone());
        let follow = async move { certificate.follow_files(directory, Duration::from_secs(5)).await };
        supervisor.spawn("certificates", until(stopping.clone(), follow));
    }
    let own_user = own_user(cluster, &args.pod_namespace).await;
    let gatekeeper = Arc::new(Gatekeeper::new(cluster.client.clone(), own_user));
    let server_name = format!("{}.{}.svc", args.metrics_server_service_name, args.pod_namespace);
    let leader = Leader::new(server_name, TOKEN_FILE.as_ref(), certificate.authorities());
    let source = Arc::new(EngineMetrics {
        engine: parts.cx.engine.clone(),
        fence: fence.clone(),
        leader: Arc::new(leader),
        objects: parts.cx.stores.scaled_objects.clone(),
        is_due: {
            let objects = parts.queues.objects.clone();
            Box::new(move |key| objects.is_due(key))
        },
    });
    let resolver = certificate.resolver();
    let told = stopping.clone();
    let last_requests = async move {
        told.cancelled().await;
        tokio::time::sleep(ENDPOINT_PROPAGATION).await;
    };
    let serve = metrics_api::serve(
        listener,
        resolver,
        gatekeeper,
        source,
        Limits::default(),
        last_requests,
    );
    supervisor.spawn("metrics API", serve);
    let serving = readiness.check("metrics API");
    let ready = async move {
        certificate.ready().await;
        serving.set(true);
        std::future::pending().await
    };
    supervisor.spawn("metrics API readiness", until(stopping, ready));
}

/// The user this process is to the API server, so that a replica of ours is recognised as such.
async fn own_user(cluster: &Cluster, namespace: &str) -> String {
    let api: Api<SelfSubjectReview> = Api::all(cluster.client.clone());
    let (params, question) = (PostParams::default(), SelfSubjectReview::default());
    let asked = cluster
        .calls
        .unary(
            Priority::Normal,
            "ask who this process is",
            api.create(&params, &question),
        )
        .await;
    let user = asked.ok().and_then(|review| review.status?.user_info?.username);
    user.unwrap_or_else(|| {
        format!(
            "system:serviceaccount:{namespace}:{}",
            dormouse_api::labels::OPERATOR_SERVICE
        )
    })
}
