//! Writes the status of ScaledObjects: one writer per object at a time, and only what changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use dormouse_api::{ScaledObject, ScaledObjectStatus};
use dormouse_engine::{Leadership, ObjectKey};
use dormouse_kubernetes::{CallError, Calls, Priority};
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::status::merge_patch;

/// The statuses this process wrote or found, by object.
#[derive(Clone)]
pub struct StatusBook {
    client: Client,
    calls: Calls,
    leadership: Arc<dyn Leadership>,
    pages: Arc<Mutex<HashMap<ObjectKey, Arc<tokio::sync::Mutex<Page>>>>>,
}

/// One object's status: as it is on the server, as far as is known, and as it should be.
struct Page {
    uid: String,
    written: Value,
    wanted: ScaledObjectStatus,
}

/// A status before and after a change.
pub struct Changed {
    /// Before.
    pub before: ScaledObjectStatus,
    /// After.
    pub after: ScaledObjectStatus,
    /// Why it could not be written. It will be with the next change.
    pub failed: Option<CallError>,
}

impl StatusBook {
    /// An empty book.
    #[must_use]
    pub fn new(client: Client, calls: Calls, leadership: Arc<dyn Leadership>) -> Self {
        Self {
            client,
            calls,
            leadership,
            pages: Arc::default(),
        }
    }

    fn page(&self, key: &ObjectKey) -> Option<Arc<tokio::sync::Mutex<Page>>> {
        self.pages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    /// Opens the page of the object with this uid, with the status its watch shows, unless it is open already: what this
    /// process wrote last is newer than what the watch has seen.
    pub fn open(&self, key: &ObjectKey, uid: &str, status: &ScaledObjectStatus) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        // A page that is locked is being written, and so is not one of an object long gone.
        let is_of_another =
            |page: &tokio::sync::Mutex<Page>| page.try_lock().is_ok_and(|page| page.uid != uid);
        if pages.get(key).is_none_or(|page| is_of_another(page)) {
            let written = serde_json::to_value(status).unwrap_or_default();
            let page = Page {
                uid: uid.to_owned(),
                written,
                wanted: status.clone(),
            };
            pages.insert(key.clone(), Arc::new(tokio::sync::Mutex::new(page)));
        }
    }

    /// Closes a page: the object is gone, or another one has its name now.
    pub fn close(&self, key: &ObjectKey) {
        self.pages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }

    /// Closes all pages: another process wrote since, so what is remembered may be old.
    pub fn close_all(&self) {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The status as it should be.
    pub async fn wanted(&self, key: &ObjectKey) -> Option<ScaledObjectStatus> {
        Some(self.page(key)?.lock().await.wanted.clone())
    }

    /// Changes a status and writes the difference, if there is one. A change that could not be written stays wanted and
    /// goes out with the next. `None` where no page is open.
    pub async fn update(
        &self,
        key: &ObjectKey,
        change: impl FnOnce(&mut ScaledObjectStatus),
    ) -> Option<Changed> {
        let page = self.page(key)?;
        let mut page = page.lock().await;
        let before = page.wanted.clone();
        change(&mut page.wanted);
        let after = page.wanted.clone();
        let wanted = serde_json::to_value(&after).unwrap_or_default();
        let mut failed = None;
        if let Some(patch) = merge_patch(&page.written, &wanted) {
            match self.write(key, patch).await {
                Ok(()) => page.written = wanted,
                Err(error) => failed = Some(error),
            }
        }
        Some(Changed {
            before,
            after,
            failed,
        })
    }

    async fn write(&self, key: &ObjectKey, patch: Value) -> Result<(), CallError> {
        const CALL: &str = "write the status of a ScaledObject";
        if !self.leadership.is_leader() {
            return Err(CallError::Other {
                call: CALL,
                message: "this replica does not lead".to_owned(),
            });
        }
        // The answer is not decoded into a ScaledObject: one that no type can decode has a status too.
        let resource = ApiResource::erase::<ScaledObject>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &resource);
        let patch = Patch::Merge(json!({ "status": patch }));
        let params = PatchParams::default();
        self.calls
            .unary(
                Priority::Normal,
                CALL,
                api.patch_status(&key.name, &params, &patch),
            )
            .await
            .map(drop)
    }
}
