//! From the InterceptorRoutes of the cluster to the data plane's table, rebuilt whole whenever one of them changes.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use dormouse_core::routes::settings::ServicePort;
use dormouse_core::routes::{BuildOptions, Candidate, RouteSettings};
use dormouse_kubernetes::{ObjectKey, Watched};
use dormouse_proxy::Proxy;
use dormouse_runtime::admin::Ready;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::backends::Backends;
use crate::slim::Route;

/// Keeps the table of routes current.
pub(crate) struct Routes {
    pub(crate) watched: Watched<Route>,
    pub(crate) changed: Arc<Notify>,
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) backends: Backends,
    pub(crate) options: BuildOptions,
}

/// A route that is not in order, and why.
type Refused = BTreeMap<ObjectKey, String>;

impl Routes {
    /// Rebuilds the table after each change, for as long as it runs. Changes that come meanwhile make one more rebuild.
    /// `built` is met after the first.
    pub(crate) async fn follow(self, built: Ready) {
        let mut told = Refused::new();
        loop {
            self.rebuild(&mut told);
            built.set(true);
            self.changed.notified().await;
        }
    }

    /// Builds the table once; `told` is what was last said about each route that is refused.
    fn rebuild(&self, told: &mut Refused) {
        let (candidates, refused) = sort_out(&self.watched.entries());
        for (key, refusal) in &refused {
            if told.get(key) != Some(refusal) {
                warn!(route = %key, error = %refusal, "route is not in order and gets no requests");
            }
        }
        *told = refused;
        self.backends.want(wanted(&candidates));
        let count = candidates.len();
        let conflicts = self.proxy.set_routes(candidates, self.options);
        info!(
            routes = count,
            conflicts = conflicts.len(),
            refused = told.len(),
            "routes changed"
        );
    }
}

/// Those that are in order, and those that are not: one bad route takes nothing from the others. The operator tells its
/// owner; what is said here is for the log.
fn sort_out(routes: &[(ObjectKey, Arc<Route>)]) -> (Vec<Candidate<Arc<RouteSettings>>>, Refused) {
    let mut candidates = Vec::with_capacity(routes.len());
    let mut refused = Refused::new();
    for (key, route) in routes {
        match &route.0 {
            Ok(candidate) => candidates.push(candidate.clone()),
            Err(refusal) => {
                refused.insert(key.clone(), refusal.clone());
            }
        }
    }
    (candidates, refused)
}

/// Every Service port that one of these may send requests to.
fn wanted(candidates: &[Candidate<Arc<RouteSettings>>]) -> HashSet<ServicePort> {
    let of = |candidate: &Candidate<Arc<RouteSettings>>| {
        let settings = &candidate.value;
        let fallback = settings.cold_start.fallback.clone();
        [Some(settings.target.clone()), fallback].into_iter().flatten()
    };
    candidates.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, spec: serde_json::Value) -> (ObjectKey, Arc<Route>) {
        let object = json!({
            "apiVersion": "http.keda.sh/v1beta1", "kind": "InterceptorRoute",
            "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
        });
        let route = serde_json::from_value(object).unwrap();
        (ObjectKey::new("shop", name), Arc::new(route))
    }

    #[test]
    fn one_bad_route_takes_nothing_from_the_others() {
        let scaling = json!({"concurrency": {"targetValue": 10}});
        let good = |name: &str| {
            let target = json!({"service": name, "port": 80});
            let spec = json!({"target": target, "rules": [{"hosts": [name]}], "scalingMetric": scaling});
            object(name, spec)
        };
        let bad = json!({
            "target": {"service": "bad", "port": 0}, "rules": [{"hosts": ["*.*"]}], "scalingMetric": scaling,
        });
        let (candidates, refused) = sort_out(&[good("a"), object("bad", bad), good("z")]);
        let names: Vec<_> = candidates.iter().map(|candidate| &*candidate.key.name).collect();
        assert_eq!(names, ["a", "z"]);
        let refused: Vec<_> = refused.iter().collect();
        let [(key, why)] = refused.as_slice() else {
            unreachable!("{refused:?}")
        };
        assert_eq!(key.to_string(), "shop/bad");
        assert!(why.contains("spec.target.port"), "{why}");
    }

    #[test]
    fn targets_and_fallbacks_are_wanted() {
        let spec = json!({
            "target": {"service": "web", "port": 80}, "rules": [{"hosts": ["web"]}],
            "scalingMetric": {"concurrency": {"targetValue": 10}},
            "coldStart": {"fallback": {"service": {"name": "spare", "portName": "http"}}},
        });
        let (candidates, _) = sort_out(&[object("web", spec)]);
        let mut wanted: Vec<_> = wanted(&candidates).iter().map(ToString::to_string).collect();
        wanted.sort();
        assert_eq!(wanted, ["shop/spare:http", "shop/web:80"]);
    }
}
