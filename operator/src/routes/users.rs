//! Which ScaledObjects scale on which routes.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dormouse_api::{ConditionStatus, ScaledObject, conditions};
use dormouse_kubernetes::ObjectKey;
use dormouse_scalers::OwnAddresses;

use crate::status;

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
    by_user: HashMap<ObjectKey, User>,
}

/// A ScaledObject that scales on routes.
#[derive(Debug, Default)]
struct User {
    routes: BTreeSet<ObjectKey>,
    /// Why it is not Ready, if it says so.
    trouble: Option<Arc<str>>,
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

    /// A ScaledObject is there, or changed. Gives back the routes that it has begun or ceased to scale on, and all of them
    /// when it got into trouble or out of it.
    pub fn note(&self, user: &ObjectKey, object: &ScaledObject) -> Vec<ObjectKey> {
        let routes = self.routes(user, object);
        let trouble = (!routes.is_empty()).then(|| trouble(object)).flatten();
        self.set(user, User { routes, trouble })
    }

    /// A ScaledObject is gone. Gives back the routes that it scaled on.
    pub fn forget(&self, user: &ObjectKey) -> Vec<ObjectKey> {
        self.set(user, User::default())
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

    /// Who scales on a route, and why that comes to nothing, where all of them are in trouble.
    #[must_use]
    pub fn in_trouble(&self, route: &ObjectKey) -> Option<(ObjectKey, Arc<str>)> {
        let index = self.lock();
        let users = index.by_route.get(route)?.iter();
        let troubles: Option<Vec<_>> = users
            .map(|user| Some((user.clone(), index.by_user.get(user)?.trouble.clone()?)))
            .collect();
        troubles?.into_iter().next()
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

    fn set(&self, user: &ObjectKey, now: User) -> Vec<ObjectKey> {
        let mut index = self.lock();
        let Index { by_route, by_user } = &mut *index;
        let before = by_user.remove(user).unwrap_or_default();
        let changed = if before.trouble == now.trouble {
            before.routes.symmetric_difference(&now.routes).cloned().collect()
        } else {
            before.routes.union(&now.routes).cloned().collect()
        };
        for route in before.routes.difference(&now.routes) {
            if let Some(users) = by_route.get_mut(route) {
                users.remove(user);
                if users.is_empty() {
                    by_route.remove(route);
                }
            }
        }
        for route in &now.routes {
            by_route.entry(route.clone()).or_default().insert(user.clone());
        }
        if !now.routes.is_empty() {
            by_user.insert(user.clone(), now);
        }
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a ScaledObject's own Ready condition says against it.
fn trouble(object: &ScaledObject) -> Option<Arc<str>> {
    let ready = status::find(object.status.as_ref()?, conditions::READY)?;
    (ready.status == ConditionStatus::False).then(|| ready.message.as_deref().unwrap_or_default().into())
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

    #[test]
    fn a_route_is_in_trouble_when_all_who_scale_on_it_are() {
        let users = RouteUsers::new(OwnAddresses::new("scaler", "keda", Vec::new()));
        let said = |status: &str, message: &str| {
            let mut object = object(&[("external-push", "scaler.keda:9090", "web")]);
            let ready = json!({"type": "Ready", "status": status, "reason": "r", "message": message});
            object.status = serde_json::from_value(json!({"conditions": [ready]})).unwrap();
            object
        };
        assert_eq!(users.note(&key("a"), &said("Unknown", "soon")), [key("web")]);
        assert_eq!(users.in_trouble(&key("web")), None);
        let lost = said("False", "no target");
        assert_eq!(users.note(&key("a"), &lost), [key("web")], "its trouble is news");
        assert!(users.note(&key("a"), &lost).is_empty());
        let trouble = Some((key("a"), "no target".into()));
        assert_eq!(users.in_trouble(&key("web")), trouble);
        users.note(&key("b"), &said("True", "fine"));
        assert_eq!(users.in_trouble(&key("web")), None, "the other one wakes it");
        users.forget(&key("b"));
        assert_eq!(users.in_trouble(&key("web")), trouble);
        assert_eq!(users.note(&key("a"), &said("True", "fine")), [key("web")]);
        assert_eq!(users.in_trouble(&key("web")), None);
    }
}
