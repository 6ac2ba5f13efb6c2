//! Who has to do with one target, found without looking at every object: with thousands of them, each of which is checked
//! when it appears, that would be millions of looks.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dormouse_api::ScaledObject;
use dormouse_kubernetes::ObjectKey;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::{Resource, ResourceExt};

use crate::context::Stores;

/// Something that only one object may have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    /// A scale target of this name, whatever its kind.
    Target(ObjectKey),
    /// The HPA of this name.
    Hpa(ObjectKey),
}

/// Which objects of one kind have a hand on which places.
#[derive(Debug, Default)]
struct Claims {
    by_place: HashMap<Place, BTreeSet<ObjectKey>>,
    by_object: HashMap<ObjectKey, Vec<Place>>,
}

impl Claims {
    fn set(&mut self, key: &ObjectKey, places: Vec<Place>) {
        if self.by_object.get(key) == Some(&places) {
            return;
        }
        self.release(key);
        for place in &places {
            self.by_place
                .entry(place.clone())
                .or_default()
                .insert(key.clone());
        }
        self.by_object.insert(key.clone(), places);
    }

    fn release(&mut self, key: &ObjectKey) {
        for place in self.by_object.remove(key).into_iter().flatten() {
            if let Some(keys) = self.by_place.get_mut(&place) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_place.remove(&place);
                }
            }
        }
    }

    fn on<'a>(&'a self, place: &Place) -> impl Iterator<Item = &'a ObjectKey> + use<'a> {
        self.by_place.get(place).into_iter().flatten()
    }
}

/// Kept current by the watches; a cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Neighbours {
    objects: Arc<Mutex<Claims>>,
    hpas: Arc<Mutex<Claims>>,
}

impl Neighbours {
    /// A ScaledObject is there, or changed.
    pub fn note_object(&self, key: &ObjectKey, object: &ScaledObject) {
        lock(&self.objects).set(key, places(object));
    }

    /// A ScaledObject is gone.
    pub fn forget_object(&self, key: &ObjectKey) {
        lock(&self.objects).release(key);
    }

    /// An HPA is there, or changed.
    pub fn note_hpa(&self, key: &ObjectKey, hpa: &HorizontalPodAutoscaler) {
        let target = hpa.spec.as_ref().map(|spec| &*spec.scale_target_ref.name);
        let place = target.map(|target| Place::Target(ObjectKey::new(key.namespace.clone(), target)));
        lock(&self.hpas).set(key, place.into_iter().collect());
    }

    /// An HPA is gone.
    pub fn forget_hpa(&self, key: &ObjectKey) {
        lock(&self.hpas).release(key);
    }

    /// The ScaledObjects whose target has this name.
    #[must_use]
    pub fn objects_on(&self, target: &ObjectKey) -> Vec<ObjectKey> {
        lock(&self.objects)
            .on(&Place::Target(target.clone()))
            .cloned()
            .collect()
    }

    /// All that can be in the way of `object`, itself among them: the ScaledObjects and HPAs on its target, those that
    /// want its HPA's name, and the ScaledObjects that own one of these HPAs.
    #[must_use]
    pub fn of(
        &self,
        object: &ScaledObject,
        stores: &Stores,
    ) -> (Vec<Arc<ScaledObject>>, Vec<Arc<HorizontalPodAutoscaler>>) {
        let places = places(object);
        let hpas: BTreeSet<ObjectKey> = {
            let claims = lock(&self.hpas);
            places
                .iter()
                .flat_map(|place| claims.on(place))
                .cloned()
                .collect()
        };
        let hpas: Vec<_> = hpas.iter().filter_map(|key| stores.hpas.get(key)).collect();
        let mut objects: BTreeSet<ObjectKey> = {
            let claims = lock(&self.objects);
            places
                .iter()
                .flat_map(|place| claims.on(place))
                .cloned()
                .collect()
        };
        objects.extend(hpas.iter().flat_map(|hpa| owners(hpa)));
        let objects = objects.iter().filter_map(|key| stores.scaled_objects.get(key));
        (objects.collect(), hpas)
    }
}

fn places(object: &ScaledObject) -> Vec<Place> {
    let namespace = ObjectKey::of(object).namespace;
    let target = object.spec.scale_target_ref.name.as_str();
    let hpa = object.spec.hpa_name(&object.name_any());
    vec![
        Place::Target(ObjectKey::new(namespace.clone(), target)),
        Place::Hpa(ObjectKey::new(namespace, hpa)),
    ]
}

fn owners(hpa: &HorizontalPodAutoscaler) -> impl Iterator<Item = ObjectKey> {
    let namespace = hpa.meta().namespace.as_deref().unwrap_or_default();
    let owners = hpa.metadata.owner_references.iter().flatten();
    owners.map(move |owner| ObjectKey::new(namespace, owner.name.as_str()))
}

fn lock(claims: &Mutex<Claims>) -> MutexGuard<'_, Claims> {
    claims.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use dormouse_api::ScaledObjectSpec;

    use super::*;

    fn object(name: &str, target: &str) -> ScaledObject {
        let mut object = ScaledObject::new(name, ScaledObjectSpec::default());
        object.spec.scale_target_ref.name = target.into();
        object.metadata.namespace = Some("shop".into());
        object
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    #[test]
    fn an_object_is_found_where_it_is_now_and_nowhere_when_it_is_gone() {
        let neighbours = Neighbours::default();
        neighbours.note_object(&key("a"), &object("a", "orders"));
        neighbours.note_object(&key("b"), &object("b", "orders"));
        assert_eq!(neighbours.objects_on(&key("orders")), [key("a"), key("b")]);
        neighbours.note_object(&key("a"), &object("a", "bills"));
        assert_eq!(neighbours.objects_on(&key("orders")), [key("b")]);
        assert_eq!(neighbours.objects_on(&key("bills")), [key("a")]);
        assert!(
            neighbours
                .objects_on(&ObjectKey::new("other", "bills"))
                .is_empty()
        );
        neighbours.forget_object(&key("a"));
        neighbours.forget_object(&key("b"));
        let claims = lock(&neighbours.objects);
        assert!(claims.by_place.is_empty() && claims.by_object.is_empty());
    }

    #[test]
    fn who_wants_the_same_hpa_is_a_neighbour_on_another_target() {
        let mut other = object("b", "bills");
        other.spec.advanced = serde_json::from_value(serde_json::json!({
            "horizontalPodAutoscalerConfig": {"name": "keda-hpa-a"},
        }))
        .unwrap();
        let mut claims = Claims::default();
        claims.set(&key("b"), places(&other));
        let found: Vec<_> = places(&object("a", "orders"))
            .iter()
            .flat_map(|place| claims.on(place))
            .cloned()
            .collect();
        assert_eq!(found, [key("b")]);
    }
}
