//! Which changes of a watched object are worth another look. The operator's own status writes come back through the watch
//! and must not wake it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use dormouse_api::ScaledObject;
use dormouse_kubernetes::ObjectKey;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Remembers what each object looked like when it was last looked at. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<Mutex<HashMap<ObjectKey, u64>>>);

impl Seen {
    /// Whether an object that now has this fingerprint is new or has changed.
    pub fn is_news(&self, key: &ObjectKey, fingerprint: u64) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(key.clone(), fingerprint) != Some(fingerprint)
    }

    /// This process is about to give the object this fingerprint, and knows what it does: its return is no news.
    pub fn expect(&self, key: &ObjectKey, fingerprint: u64) {
        self.is_news(key, fingerprint);
    }

    /// The object is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// Remembers which generation of each object was last looked at.
#[derive(Debug, Default)]
pub struct Generations(Mutex<HashMap<ObjectKey, (Option<String>, i64)>>);

impl Generations {
    /// Whether the spec of an object that was looked at before has changed since. One that is seen for the first time, or
    /// that only has an old one's name, has not.
    pub fn moved_on(&self, key: &ObjectKey, metadata: &ObjectMeta) -> bool {
        let generation = metadata.generation.unwrap_or_default();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.insert(key.clone(), (metadata.uid.clone(), generation));
        before.is_some_and(|(uid, before)| uid == metadata.uid && before < generation)
    }

    /// The object is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// Everything of a ScaledObject but its status.
#[must_use]
pub fn of_scaled_object(object: &ScaledObject) -> u64 {
    of_generation_and_metadata(&object.metadata)
}

/// Everything of an HPA that the operator sets.
#[must_use]
pub fn of_hpa(hpa: &HorizontalPodAutoscaler) -> u64 {
    let mut hasher = DefaultHasher::new();
    of_metadata(&hpa.metadata, &mut hasher);
    serde_json::to_string(&hpa.spec)
        .unwrap_or_default()
        .hash(&mut hasher);
    hasher.finish()
}

/// The metadata of an authentication, with its generation.
#[must_use]
pub fn of_generation_and_metadata(metadata: &ObjectMeta) -> u64 {
    let mut hasher = DefaultHasher::new();
    metadata.generation.hash(&mut hasher);
    of_metadata(metadata, &mut hasher);
    hasher.finish()
}

fn of_metadata(metadata: &ObjectMeta, hasher: &mut DefaultHasher) {
    metadata.uid.hash(hasher);
    metadata.labels.hash(hasher);
    metadata.annotations.hash(hasher);
    metadata.finalizers.hash(hasher);
    metadata.deletion_timestamp.is_some().hash(hasher);
}

#[cfg(test)]
mod tests {
    use dormouse_api::ScaledObjectSpec;

    use super::*;

    #[test]
    fn a_status_is_no_news_but_an_annotation_is() {
        let seen = Seen::default();
        let key = ObjectKey::new("shop", "orders");
        let mut object = ScaledObject::new("orders", ScaledObjectSpec::default());
        assert!(seen.is_news(&key, of_scaled_object(&object)));
        object.status = Some(Default::default());
        object.metadata.resource_version = Some("2".into());
        assert!(!seen.is_news(&key, of_scaled_object(&object)));
        object.metadata.annotations =
            Some([("autoscaling.keda.sh/paused".to_owned(), "true".to_owned())].into());
        assert!(seen.is_news(&key, of_scaled_object(&object)));
        seen.forget(&key);
        assert!(seen.is_news(&key, of_scaled_object(&object)));
    }

    #[test]
    fn what_is_expected_is_no_news_and_anything_else_is() {
        let (seen, key) = (Seen::default(), ObjectKey::new("shop", "orders"));
        assert!(seen.is_news(&key, 1));
        seen.clone().expect(&key, 2);
        assert!(!seen.is_news(&key, 2));
        seen.expect(&key, 3);
        assert!(seen.is_news(&key, 4), "someone else's change came with it");
    }

    #[test]
    fn only_a_known_object_moves_on() {
        let generations = Generations::default();
        let key = ObjectKey::new("shop", "keys");
        let at = |uid: &str, generation| ObjectMeta {
            uid: Some(uid.into()),
            generation: Some(generation),
            ..Default::default()
        };
        assert!(!generations.moved_on(&key, &at("a", 3)));
        assert!(!generations.moved_on(&key, &at("a", 3)));
        assert!(generations.moved_on(&key, &at("a", 4)));
        assert!(!generations.moved_on(&key, &at("a", 4)), "told once");
        assert!(
            !generations.moved_on(&key, &at("b", 9)),
            "another object of that name"
        );
        generations.forget(&key);
        assert!(!generations.moved_on(&key, &at("b", 10)));
    }
}
