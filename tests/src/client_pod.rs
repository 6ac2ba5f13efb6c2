//! Clients in a pod of their own: what they are asked to do by the test is done there, and told back.
//!
//! ```text
//! test: Visitor, Load ──POST /errands {Errand}──> program http-clients: Visitor, Load ──> interceptors
//!                     <──Outcome, or what went wrong──
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::http_load::{Load, Tally};
use crate::install::Installation;
use crate::namespace::Namespace;
use crate::visitor::{Visit, Visitor, Way};

/// Where the pod listens for errands.
pub const PORT: u16 = 8080;
/// The telling of an outcome, beyond what the errand itself may take.
const MARGIN: Duration = Duration::from_secs(10);

/// What to do, and whom to ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Errand {
    /// Where to connect to.
    pub address: SocketAddr,
    /// Whom to ask for.
    pub host: String,
    /// For each request.
    pub deadline: Duration,
    /// What to do.
    pub task: Task,
}

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Task {
    /// [`Visitor::visit`].
    Visit(Way),
    /// [`Visitor::ask`] for this path.
    Ask(String),
    /// A [`Load`], until all are told to stop.
    Load {
        /// Clients, each with one request at a time.
        clients: usize,
        /// Of their requests.
        method: String,
        /// Of their requests.
        path: String,
        /// Between two requests of a client.
        pause: Duration,
    },
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// Of a visit.
    Visit(Visit),
    /// Of a question.
    Ask {
        /// The answer's.
        status: u16,
        /// The answer's.
        body: String,
    },
    /// Of a load.
    Load(Tally),
}

/// A pod that does errands, gone with its namespace. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ClientPod {
    address: SocketAddr,
    client: reqwest::Client,
}

impl ClientPod {
    /// Starts one, and waits until it listens.
    ///
    /// # Errors
    /// When it does not within a minute.
    pub async fn start(namespace: &Namespace) -> Result<Self> {
        const NAME: &str = "http-clients";
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": NAME},
            "spec": {
                "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1,
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "clients", "image": format!("localhost/{NAME}:dev"), "imagePullPolicy": "Never",
                    "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                }],
            },
        });
        namespace.apply(&pod.to_string()).await?;
        let ready = ["wait", "pod", NAME, "--for=condition=Ready", "--timeout=60s"];
        namespace
            .kubectl(&ready)
            .await
            .context("the pod of the clients")?;
        let pod = namespace.api::<Pod>().get(NAME).await?;
        let ip = pod.status.and_then(|status| status.pod_ip);
        let ip = ip.context("the pod of the clients has no address")?;
        Ok(Self {
            address: SocketAddr::new(ip.parse()?, PORT),
            client: reqwest::Client::builder().no_proxy().build()?,
        })
    }

    /// [`Visitor::of`], with its requests made here.
    ///
    /// # Errors
    /// As there.
    pub async fn visitor(
        &self,
        cluster: &Cluster,
        installation: &Installation,
        host: &str,
    ) -> Result<Visitor> {
        Ok(Visitor::of(cluster, installation, host).await?.in_pod(self))
    }

    /// Has an errand done. One without an end takes until [`stop`](Self::stop).
    ///
    /// # Errors
    /// What went wrong there, or that nothing is heard of it.
    pub async fn run(&self, errand: &Errand) -> Result<Outcome> {
        let limit = match errand.task {
            Task::Load { .. } => Duration::from_secs(3600),
            Task::Visit(_) | Task::Ask(_) => errand.deadline + MARGIN,
        };
        let url = format!("http://{}/errands", self.address);
        let told = self.client.post(url).timeout(limit).json(errand).send().await;
        let told = told.context("the pod of the clients")?.error_for_status()?;
        let outcome: Result<Outcome, String> = told.json().await.context("what the clients tell")?;
        outcome.map_err(|error| anyhow!(error))
    }

    /// Stops all loads.
    ///
    /// # Errors
    /// When the pod does not answer.
    pub async fn stop(&self) -> Result<()> {
        let url = format!("http://{}/stop", self.address);
        let told = self.client.post(url).timeout(MARGIN).send().await;
        told.context("the pod of the clients")?.error_for_status()?;
        Ok(())
    }
}

/// What the pod serves.
pub fn app() -> Router {
    let stops = Arc::new(watch::Sender::new(()));
    Router::new()
        .route("/errands", post(errand))
        .route(
            "/stop",
            post(async |State(stops): State<Stops>| {
                stops.send_replace(());
            }),
        )
        .with_state(stops)
}

type Stops = Arc<watch::Sender<()>>;

async fn errand(State(stops): State<Stops>, Json(errand): Json<Errand>) -> Json<Result<Outcome, String>> {
    // Before it begins: a stop that comes right after the order counts.
    let stopped = stops.subscribe();
    Json(done(errand, stopped).await.map_err(|error| format!("{error:#}")))
}

async fn done(errand: Errand, mut stopped: watch::Receiver<()>) -> Result<Outcome> {
    let visitor = Visitor::at(errand.address, &errand.host).within(errand.deadline);
    match errand.task {
        Task::Visit(way) => visitor.visit(way).await.map(Outcome::Visit),
        Task::Ask(path) => {
            let (status, body) = visitor.ask(&path).await?;
            let status = status.as_u16();
            Ok(Outcome::Ask { status, body })
        }
        Task::Load {
            clients,
            method,
            path,
            pause,
        } => {
            let method: Method = method.parse()?;
            let load = Load::start(&visitor, clients, &method, &path, pause);
            if stopped.changed().await.is_err() {
                bail!("nobody can stop it");
            }
            load.stop().await.map(Outcome::Load)
        }
    }
}
