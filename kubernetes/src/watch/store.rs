//! The objects of one kind, over all watched namespaces.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use kube::Resource;

use super::Change;
use crate::key::ObjectKey;

/// Objects by key. The library's store is per watch and does not tell what a new list removed, which is what a reconciler
/// has to hear about.
#[derive(Debug)]
pub(super) struct Store<K> {
    objects: RwLock<HashMap<ObjectKey, Arc<K>>>,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self {
            objects: RwLock::default(),
        }
    }
}

impl<K> Store<K> {
    pub(super) fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.objects
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    pub(super) fn list(&self) -> Vec<Arc<K>> {
        self.objects
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(super) fn insert(&self, key: ObjectKey, object: Arc<K>) {
        self.objects
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, object);
    }

    pub(super) fn remove(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.objects
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key)
    }
}

impl<K: Resource> Store<K> {
    /// Makes a complete list of `namespace` (all of them, if none) the truth and says what that changed. Objects in
    /// `unreadable` keep the form they had.
    pub(super) fn replace(
        &self,
        namespace: Option<&str>,
        listed: HashMap<ObjectKey, Arc<K>>,
        unreadable: &HashSet<ObjectKey>,
    ) -> Vec<(ObjectKey, Change<K>)> {
        let mut changes = Vec::new();
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        objects.retain(|key, object| {
            let in_scope = namespace.is_none_or(|namespace| *key.namespace == *namespace);
            let kept = !in_scope || listed.contains_key(key) || unreadable.contains(key);
            if !kept {
                changes.push((key.clone(), Change::Deleted(object.clone())));
            }
            kept
        });
        for (key, object) in listed {
            let version = |object: &Arc<K>| object.meta().resource_version.clone();
            let known = objects
                .get(&key)
                .is_some_and(|known| version(known) == version(&object));
            if !known {
                objects.insert(key.clone(), object.clone());
                changes.push((key, Change::Applied(object)));
            }
        }
        changes
    }
}
