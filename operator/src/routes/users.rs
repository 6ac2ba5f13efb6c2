//! Which ScaledObjects scale on which routes.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dormouse_api::ScaledObject;
use dormouse_kubernetes::ObjectKey;
use dormouse_scalers::OwnAddresses;

/// Kept current by the watch of ScaledObjects; a cheap handle.
#[derive(Clone, Debug)]
pub struct RouteUsers {
    addresses: Arc<OwnAddresses>,
    // Held for look-ups only.
    index: Arc<Mutex<Index>>,
}

#[derive(Debug, Default)]
struct Index {
    by_route: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    by_user: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
}

impl RouteUsers {
    /// Nobody yet. Only triggers whose `scalerAddress` is one of `addresses` mean a route.
    #[must_use]
    pub fn new(addresses: OwnAddresses) -> Self {
        Self {
            addresses: Arc::new(addresses),
            index: Arc::default(),
        }
    }

    /// A ScaledObject is there, or changed. Gives back the routes that it has begun or ceased to scale on.
    pub fn note(&self, user: &ObjectKey, object: &ScaledObject) -> Vec<ObjectKey> {
        self.set(user, self.routes(user, object))
    }

    /// A ScaledObject is gone. Gives back the routes that it scaled on.
    pub fn forget(&self, user: &ObjectKey) -> Vec<ObjectKey> {
        self.set(user, BTreeSet::new())
    }

    /// The ScaledObjects that scale on a route.
    #[must_use]
    pub fn of(&self, route: &ObjectKey) -> Vec<ObjectKey> {
        let index = self.lock();
        index.by_route.get(route).into_iter().flatten().cloned().collect()
    }

    /// Whether any ScaledObject scales on a route.
    #[must_use]
    pub fn is_used(&self, route: &ObjectKey) -> bool {
        self.lock().by_route.contains_key(route)
    }

    /// The routes that the triggers of a ScaledObject name.
    fn routes(&self, user: &ObjectKey, object: &ScaledObject) -> BTreeSet<ObjectKey> {
        let triggers = object.spec.triggers.iter();
        let external = triggers.filter(|trigger| matches!(&*trigger.type_, "external" | "external-push"));
        let routes = external.filter_map(|trigger| {
            let address = trigger.metadata.get("scalerAddress")?;
            let name = trigger.metadata.get("interceptorRoute")?;
            self.addresses
                .contains(address)
                .then(|| ObjectKey::new(user.namespace.clone(), name.as_str()))
        });
        routes.collect()
    }

    fn set(&self, user: &ObjectKey, routes: BTreeSet<ObjectKey>) -> Vec<ObjectKey> {
        let mut index = self.lock();
        let Index { by_route, by_user } = &mut *index;
        let before = by_user.remove(user).unwrap_or_default();
        let changed: Vec<ObjectKey> = before.symmetric_difference(&routes).cloned().collect();
        for route in before.difference(&routes) {
            if let Some(users) = by_route.get_mut(route) {
                users.remove(user);
                if users.is_empty() {
                    by_route.remove(route);
                }
            }
        }
        for route in &routes {
            by_route.entry(route.clone()).or_default().insert(user.clone());
        }
        if !routes.is_empty() {
            by_user.insert(user.clone(), routes);
        }
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    fn object(triggers: &[(&str, &str, &str)]) -> ScaledObject {
        let trigger = |(type_, address, route): &(&str, &str, &str)| json!({"type": type_, "metadata": {"scalerAddress": address, "interceptorRoute": route}});
        let triggers: Vec<_> = triggers.iter().map(trigger).collect();
        let object = json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "o", "namespace": "shop"},
            "spec": {"scaleTargetRef": {"name": "web"}, "triggers": triggers},
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_route_is_used_by_those_whose_triggers_name_it_at_our_address() {
        let users = RouteUsers::new(OwnAddresses::new("scaler", "keda", Vec::new()));
        let ours = "scaler.keda:9090";
        let both = object(&[("external-push", ours, "web"), ("external", ours, "api")]);
        assert_eq!(users.note(&key("a"), &both), [key("api"), key("web")]);
        assert!(users.note(&key("a"), &both).is_empty(), "nothing changed");
        let others = object(&[
            ("external-push", "scaler.other:9090", "web"),
            ("cron", ours, "web"),
        ]);
        assert!(users.note(&key("b"), &others).is_empty());
        users.note(&key("b"), &object(&[("external-push", ours, "web")]));
        assert_eq!(users.of(&key("web")), [key("a"), key("b")]);
        assert!(users.is_used(&key("web")));
        let elsewhere = ObjectKey::new("blog", "web");
        assert!(users.of(&elsewhere).is_empty() && !users.is_used(&elsewhere));
        let one = object(&[("external-push", ours, "web")]);
        assert_eq!(users.note(&key("a"), &one), [key("api")]);
        assert_eq!(users.forget(&key("a")), [key("web")]);
        assert_eq!(users.forget(&key("b")), [key("web")]);
        let index = users.lock();
        assert!(index.by_route.is_empty() && index.by_user.is_empty());
    }
}
