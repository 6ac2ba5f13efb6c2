//! The objects of one kind, over all watched namespaces.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use super::Change;
use crate::key::ObjectKey;

/// Objects by key. The library's store is per watch and does not tell what a new list removed, which is what a reconciler
/// has to hear about.
#[derive(Debug)]
pub(super) struct Store<K> {
    objects: RwLock<HashMap<ObjectKey, Stored<K>>>,
}

/// An object, and the version in which it was seen.
#[derive(Debug)]
pub(super) struct Stored<K> {
    pub(super) version: Box<str>,
    pub(super) object: Arc<K>,
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
            .map(|stored| stored.object.clone())
    }

    pub(super) fn list(&self) -> Vec<Arc<K>> {
        self.objects
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .map(|stored| stored.object.clone())
            .collect()
    }

    pub(super) fn entries(&self) -> Vec<(ObjectKey, Arc<K>)> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let entries = objects.iter();
        entries
            .map(|(key, stored)| (key.clone(), stored.object.clone()))
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(super) fn insert(&self, key: ObjectKey, stored: Stored<K>) {
        self.objects
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, stored);
    }

    pub(super) fn remove(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.objects
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key)
            .map(|stored| stored.object)
    }

    /// Makes a complete list of `namespace` (all of them, if none) the truth and says what that changed. Objects in
    /// `unreadable` keep the form they had.
    pub(super) fn replace(
        &self,
        namespace: Option<&str>,
        listed: HashMap<ObjectKey, Stored<K>>,
        unreadable: &HashSet<ObjectKey>,
    ) -> Vec<(ObjectKey, Change<K>)> {
        let mut changes = Vec::new();
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        objects.retain(|key, stored| {
            let in_scope = namespace.is_none_or(|namespace| *key.namespace == *namespace);
            let kept = !in_scope || listed.contains_key(key) || unreadable.contains(key);
            if !kept {
                changes.push((key.clone(), Change::Deleted(stored.object.clone())));
            }
            kept
        });
        for (key, stored) in listed {
            let known = objects.get(&key);
            if known.is_none_or(|known| known.version.is_empty() || known.version != stored.version) {
                changes.push((key.clone(), Change::Applied(stored.object.clone())));
                objects.insert(key, stored);
            }
        }
        changes
    }
}
