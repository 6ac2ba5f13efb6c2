//! Writes the status of ScaledObjects: one writer per object at a time, and only what changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dormouse_api::{ScaledObject, ScaledObjectStatus};
use dormouse_engine::{Leadership, ObjectKey};
use dormouse_kubernetes::{CallError, Calls, Priority};
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::debug;

use crate::status::merge_patch;

/// How long a status that somebody else changed twice stays so.
const REPAIR: Duration = Duration::from_secs(10);

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
    /// The version of the object that `written` is the status of, as far as is known.
    version: Option<String>,
    /// When what somebody else wrote was last put right.
    repaired: Option<Instant>,
    written: ScaledObjectStatus,
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
    pub fn open(&self, key: &ObjectKey, uid: &str, version: Option<&str>, status: &ScaledObjectStatus) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        // A page that is locked is being written, and so is not one of an object long gone.
        let is_of_another =
            |page: &tokio::sync::Mutex<Page>| page.try_lock().is_ok_and(|page| page.uid != uid);
        if pages.get(key).is_none_or(|page| is_of_another(page)) {
            let page = Page {
                uid: uid.to_owned(),
                version: version.map(str::to_owned),
                repaired: None,
                written: status.clone(),
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
        let mut failed = None;
        if let Some(patch) = difference(&page.written, &after) {
            match self.write(key, patch).await {
                Ok(version) => {
                    page.written = after.clone();
                    page.version = version;
                }
                Err(error) => failed = Some(error),
            }
        }
        Some(Changed {
            before,
            after,
            failed,
        })
    }

    /// Takes in an object as a watch shows it. Where somebody else changed its status, that is the truth from which the
    /// next difference is taken, and what should be there is written again: at once the first time, then at most every
    /// `REPAIR`, as two writers that never agree must not wear out the API server. Says how long to wait where it is too
    /// early.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn take_in(
        &self,
        key: &ObjectKey,
        object: &ScaledObject,
    ) -> Result<Option<Duration>, CallError> {
        let Some(page) = self.page(key) else {
            return Ok(None);
        };
        let mut page = page.lock().await;
        // The watch may still be behind what this process wrote; the echo of our own write changes nothing below.
        if object.uid().as_ref() != Some(&page.uid)
            || is_older(object.resource_version().as_deref(), page.version.as_deref())
        {
            return Ok(None);
        }
        page.version = object.resource_version();
        page.written = object.status.clone().unwrap_or_default();
        let Some(patch) = difference(&page.written, &page.wanted) else {
            return Ok(None);
        };
        let wait = page
            .repaired
            .map(|at| REPAIR.saturating_sub(at.elapsed()))
            .filter(|wait| !wait.is_zero());
        if wait.is_some() {
            return Ok(wait);
        }
        page.repaired = Some(Instant::now());
        debug!(object = %key, "somebody else changed the status, writing it again");
        page.version = self.write(key, patch).await?;
        page.written = page.wanted.clone();
        Ok(None)
    }

    /// Writes a patch and says which version the object has after it.
    async fn write(&self, key: &ObjectKey, patch: Value) -> Result<Option<String>, CallError> {
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
            .map(|written| written.resource_version())
    }
}

/// The patch from one status to another, if they differ.
fn difference(from: &ScaledObjectStatus, to: &ScaledObjectStatus) -> Option<Value> {
    if from == to {
        return None;
    }
    let value = |status| serde_json::to_value(status).unwrap_or_default();
    merge_patch(&value(from), &value(to))
}

/// Whether `seen` is an older version than `known`. API servers count versions up; where one does not, everything is news.
pub(crate) fn is_older(seen: Option<&str>, known: Option<&str>) -> bool {
    let number = |version: Option<&str>| version.and_then(|version| version.parse::<u128>().ok());
    matches!((number(seen), number(known)), (Some(seen), Some(known)) if seen < known)
}

#[cfg(test)]
mod tests;
