//! InterceptorRoutes, as far as the operator has to do with them.
//!
//! ```text
//! watch of InterceptorRoutes ── set_route, remove_route ──> DemandHub
//!            └── what they ask for has changed ──┐
//! watch of ScaledObjects ── RouteUsers ──────────┴──> the ScaledObjects that scale on them are brought in order again
//!
//! all of that, watches of Services and ConfigMaps ──> RouteStatuses: judge ──> Ready conditions (the leader alone)
//! ```
//!
//! Every replica follows the routes: a new leader's demand book is warm.

mod slim;
mod status;
mod users;
mod verdict;

use std::sync::Arc;

use dormouse_api::InterceptorRoute;
use dormouse_core::demand::RouteKey;
use dormouse_engine::DemandHub;
use dormouse_kubernetes::{Change, Namespaces, ObjectKey, Watch, Watched};
use dormouse_scalers::RouteScaling;
use dormouse_translate::route;
use k8s_openapi::api::core::v1 as full;
use kube::Client;
use tokio::sync::Notify;
use tracing::info;

pub use slim::{Page, Service};
pub use status::RouteStatuses;
pub use users::RouteUsers;

use crate::changes::{self, Seen};
use crate::demand::Selection;

/// Routes and what they name, as the watches show them.
#[derive(Clone)]
pub struct RouteStores {
    /// The routes.
    pub routes: Watched<InterceptorRoute>,
    /// All Services.
    pub services: Watched<Service>,
    /// The ConfigMaps that routes may answer with.
    pub pages: Watched<Page>,
    /// Told whenever one of these has changed, or who scales on which route.
    pub changed: Arc<Notify>,
}

impl RouteStores {
    /// What selects the pods that answer the requests of a route; `None` where nobody knows which these are.
    #[must_use]
    pub fn selection(&self, route: &RouteKey) -> Option<Selection> {
        let namespace = &route.namespace;
        let route = self
            .routes
            .get(&ObjectKey::new(namespace.clone(), route.name.clone()))?;
        let service = &route.spec.target.service;
        let key = ObjectKey::new(namespace.clone(), service.as_str());
        let labels = self.services.get(&key)?.spec.selector.clone()?;
        let terms: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        (!terms.is_empty()).then(|| Selection {
            service: service.clone(),
            labels: terms.join(","),
        })
    }
}

/// Watches the routes of these namespaces and what they may name. What they ask for goes to `hub`; `look_again` is told each
/// ScaledObject to which that makes a difference. Whoever changes `users` tells `changed`. The task never ends.
pub fn follow(
    client: &Client,
    scope: &Namespaces,
    hub: DemandHub,
    users: RouteUsers,
    changed: Arc<Notify>,
    look_again: impl Fn(&ObjectKey) + Send + Sync + 'static,
) -> (RouteStores, impl Future<Output = ()> + Send + 'static) {
    let follower = Follower {
        hub,
        users,
        seen: Seen::default(),
    };
    let told = changed.clone();
    let (routes, follow_routes) = Watch::<InterceptorRoute>::within(client, scope)
        .on_change(move |key, change| {
            if let Some(users) = follower.take_in(key, change) {
                users.iter().for_each(&look_again);
                told.notify_one();
            }
        })
        .start();
    let told = changed.clone();
    let (services, follow_services) = Watch::<full::Service, Service>::reduced(client, scope)
        .on_change(move |_, _| told.notify_one())
        .start();
    let told = changed.clone();
    let (pages, follow_pages) = Watch::<full::ConfigMap, Page>::reduced(client, scope)
        .labels(verdict::PAGES)
        .on_change(move |_, _| told.notify_one())
        .start();
    let stores = RouteStores {
        routes,
        services,
        pages,
        changed,
    };
    let follow = async {
        tokio::join!(follow_routes, follow_services, follow_pages);
    };
    (stores, follow)
}

struct Follower {
    hub: DemandHub,
    users: RouteUsers,
    seen: Seen,
}

impl Follower {
    /// Gives back the ScaledObjects to which the change makes a difference; `None` if it is none but of the status, which
    /// this process writes itself.
    fn take_in(&self, key: &ObjectKey, change: &Change<InterceptorRoute>) -> Option<Vec<ObjectKey>> {
        let differs = match change {
            Change::Deleted(_) => {
                self.seen.forget(key);
                self.hub.remove_route(&route_key(key))
            }
            Change::Applied(object) => {
                let fingerprint = changes::of_generation_and_metadata(&object.metadata);
                if !self.seen.is_news(key, fingerprint) {
                    return None;
                }
                self.set(object)
            }
        };
        Some(if differs { self.users.of(key) } else { Vec::new() })
    }

    /// A route that is not in order gets no requests; what it asked for last stays, as a typo must not stop a worker that
    /// works.
    fn set(&self, object: &InterceptorRoute) -> bool {
        match route(object) {
            Ok(route) => self
                .hub
                .set_route(route.key, RouteScaling::from(route.value.scaling)),
            Err(refusal) => {
                info!(%refusal, "a route is not in order");
                false
            }
        }
    }
}

/// The name of a route for the demand book.
#[must_use]
pub fn route_key(key: &ObjectKey) -> RouteKey {
    RouteKey::new(key.namespace.clone(), key.name.clone())
}

#[cfg(test)]
mod tests {
    use dormouse_api::ScaledObject;
    use dormouse_scalers::{DemandSource, OwnAddresses};
    use serde_json::{Value, json};

    use super::*;
    use crate::demand::Sessions;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    fn object(generation: i64, target_value: i64) -> Arc<InterceptorRoute> {
        let spec: Value = json!({
            "target": {"service": "web", "port": 80}, "rules": [{"hosts": ["web"]}],
            "scalingMetric": {"concurrency": {"targetValue": target_value}},
        });
        let metadata = json!({"name": "web", "namespace": "shop", "generation": generation});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
    }

    #[test]
    fn whoever_scales_on_a_route_is_told_when_it_asks_for_something_else() {
        let addresses = OwnAddresses::new("scaler", "keda", Vec::new());
        let users = RouteUsers::new(addresses.clone());
        let metadata = json!({"scalerAddress": "scaler.keda:9090", "interceptorRoute": "web"});
        let user: ScaledObject = serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {
                "scaleTargetRef": {"name": "web"},
                "triggers": [{"type": "external-push", "metadata": metadata}],
            },
        }))
        .unwrap();
        users.note(&key("a"), &user);
        let follower = Follower {
            hub: DemandHub::new(addresses, Arc::new(Sessions::default())),
            users,
            seen: Seen::default(),
        };
        let applied = |object| follower.take_in(&key("web"), &Change::Applied(object));
        let asks_for = || follower.hub.scaling(&route_key(&key("web")))?.concurrency;
        let told = || Some(vec![key("a")]);
        assert_eq!(applied(object(1, 10)), told(), "it is there");
        assert_eq!(asks_for(), Some(10));
        assert_eq!(applied(object(1, 10)), None, "as it was");
        assert_eq!(applied(object(2, 20)), told());
        assert_eq!(asks_for(), Some(20));
        assert_eq!(applied(object(3, 0)), Some(Vec::new()));
        assert_eq!(asks_for(), Some(20), "what is wrong takes nothing away");
        let gone = follower.take_in(&key("web"), &Change::Deleted(object(3, 0)));
        assert_eq!(gone, told());
        assert_eq!(asks_for(), None);
    }
}
