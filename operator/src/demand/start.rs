//! The parts of the demand server, put together.

use std::collections::HashSet;
use std::sync::Arc;

use dormouse_engine::{DemandHub, Leadership};
use dormouse_kubernetes::{Cluster, ObjectKey};
use dormouse_runtime::Supervisor;
use dormouse_scalers::OwnAddresses;
use rustls::server::ResolvesServerCert;
use tokio::net::TcpListener;

use super::args::DemandArgs;
use super::obstacles::Obstacles;
use super::pods::follow_pods;
use super::probes::{ClusterPods, Selector};
use super::reviewer::TokenReviewer;
use super::server::serve;
use super::service::DemandService;
use super::sessions::Sessions;
use crate::routes::RouteUsers;

/// The demand that interceptors report to this process, and the interceptors.
#[derive(Clone)]
pub struct DemandParts {
    /// What is known.
    pub hub: DemandHub,
    /// Which ScaledObjects scale on which routes.
    pub users: RouteUsers,
    sessions: Sessions,
}

impl DemandParts {
    /// Nothing is known yet. `namespace` is the operator's.
    #[must_use]
    pub fn new(args: &DemandArgs, namespace: &str) -> Self {
        let sessions = Sessions::default();
        let aliases = args.external_scaler_aliases.clone();
        let addresses = OwnAddresses::new(&*args.external_scaler_service, namespace, aliases);
        Self {
            users: RouteUsers::new(addresses.clone()),
            hub: DemandHub::new(addresses, Arc::new(sessions.clone())),
            sessions,
        }
    }

    /// The ScaledObjects on whose routes requests wait while none is served.
    pub(crate) fn awaited(&self) -> HashSet<ObjectKey> {
        let waiting = self.hub.waiting().into_iter();
        waiting
            .flat_map(|route| self.users.of(&ObjectKey::new(route.namespace, route.name)))
            .collect()
    }

    /// What keeps pods from starting that requests wait for, as interceptors are told; `selector` says what selects
    /// a route's pods.
    #[must_use]
    pub fn obstacles(
        &self,
        cluster: &Cluster,
        selector: Selector,
        leadership: Arc<dyn Leadership>,
    ) -> Obstacles {
        Obstacles {
            hub: self.hub.clone(),
            sessions: self.sessions.clone(),
            pods: Arc::new(pods(cluster)),
            selector,
            leadership,
        }
    }

    /// Listens to interceptors, and follows which of them exist, until the process stops; `selector` says what selects
    /// a route's pods.
    #[expect(clippy::too_many_arguments, reason = "each is another part of the process")]
    pub fn start(
        &self,
        args: &DemandArgs,
        namespace: &str,
        cluster: &Cluster,
        listener: TcpListener,
        certificate: Arc<dyn ResolvesServerCert>,
        selector: Selector,
        supervisor: &mut Supervisor,
    ) {
        let user = |account: &String| format!("system:serviceaccount:{namespace}:{account}");
        let users = args.interceptor_service_accounts.iter().map(user);
        let reviewer = TokenReviewer::new(cluster.client.clone(), cluster.calls.clone(), users);
        let pods = pods(cluster);
        let (hub, sessions) = (self.hub.clone(), self.sessions.clone());
        let service = DemandService::new(hub, sessions, Arc::new(reviewer), Arc::new(pods), selector);
        let stop = supervisor.token().cancelled_owned();
        supervisor.spawn("demand server", serve(listener, certificate, service, stop));
        let stopping = supervisor.token();
        let follow = follow_pods(
            &cluster.client,
            namespace,
            &args.interceptor_selector,
            self.hub.clone(),
        );
        supervisor.spawn("watch of interceptors", async move {
            tokio::select! {
                () = follow => {}
                () = stopping.cancelled() => {}
            }
        });
    }
}

fn pods(cluster: &Cluster) -> ClusterPods {
    ClusterPods {
        client: cluster.client.clone(),
        watches: cluster.passing.clone(),
        calls: cluster.calls.clone(),
    }
}
