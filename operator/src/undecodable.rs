//! ScaledObjects that the API server has and no type can decode: they are told so in their own status, disturb nobody, and
//! are let go when they are deleted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dormouse_api::{ScaledObjectStatus, labels};
use dormouse_engine::ObjectKey;
use dormouse_kubernetes::watch::Undecodable;
use dormouse_kubernetes::{Action, Queue};
use k8s_openapi::api::core::v1::ObjectReference;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::context::{Context, engine_key, watch_key};
use crate::reconcile::CheckFailure;
use crate::{finalize, status};

/// Objects looked at at once.
const WORKERS: usize = 2;

/// The objects that no type can decode, as last seen; at most one entry for each that the API server has. Cheap to clone.
#[derive(Clone, Default)]
pub struct UndecodableObjects {
    known: Arc<Mutex<HashMap<ObjectKey, Arc<Undecodable>>>>,
    queue: Queue<ObjectKey>,
}

impl UndecodableObjects {
    /// Takes in what a watch saw. Quick, as watches need it.
    pub fn seen(&self, object: &Undecodable) {
        let key = engine_key(&object.key);
        if object.gone {
            self.lock().remove(&key);
            return;
        }
        self.lock().insert(key.clone(), Arc::new(object.clone()));
        self.queue.add(key);
    }

    /// An object decodes by now, or is gone: it is the reconciler's.
    pub fn no_longer(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    /// How many wait to be told.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Arc<Undecodable>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells each of them what is wrong and lets the deleted ones go, until the process stops. What came before this
    /// process led is looked at again when it does.
    pub async fn run(self, cx: Arc<Context>, stopping: CancellationToken) {
        let work = self.queue.run(WORKERS, stopping.clone(), |key| {
            let (cx, this) = (cx.clone(), self.clone());
            async move { this.look_at(&cx, &key).await.map(|()| Action::Done) }
        });
        let mut leads = cx.leadership.subscribe();
        let take_overs = async {
            while leads.changed().await.is_ok() {
                let keys: Vec<ObjectKey> = self.lock().keys().cloned().collect();
                keys.into_iter().for_each(|key| self.queue.add(key));
            }
        };
        tokio::join!(work, stopping.run_until_cancelled(take_overs));
    }

    async fn look_at(&self, cx: &Context, key: &ObjectKey) -> Result<(), CheckFailure> {
        let Some(object) = self.lock().get(key).cloned() else {
            return Ok(());
        };
        if !cx.leadership.is_leader() {
            return Ok(());
        }
        if object.deleting {
            return release(cx, key, &object).await;
        }
        tell(cx, key, &object).await;
        Ok(())
    }
}

/// Lets a deleted object go. Nothing that its spec asks for can be done but what an earlier, readable form asked for.
async fn release(cx: &Context, key: &ObjectKey, object: &Undecodable) -> Result<(), CheckFailure> {
    cx.engine.remove(key).await;
    if !object
        .finalizers
        .iter()
        .any(|finalizer| finalizer == labels::FINALIZER)
    {
        return Ok(());
    }
    let readable = cx.stores.scaled_objects.get(&watch_key(key));
    if let Some(readable) = readable.filter(|readable| readable.metadata.uid.as_ref() == Some(&object.uid)) {
        finalize::restore_replicas(cx, key, &readable).await;
    }
    finalize::release(cx, key, &object.finalizers, object.version.as_deref()).await?;
    cx.events.send_lifecycle(
        &about(key, object),
        true,
        "ScaledObjectDeleted",
        "ScaledObject was deleted",
    );
    info!(object = %key, "object was deleted, which could not be read");
    Ok(())
}

async fn tell(cx: &Context, key: &ObjectKey, object: &Undecodable) {
    let message = format!(
        "ScaledObject doesn't have a correct specification: {}",
        object.error
    );
    // A page of its own: nothing is known of the status that the object has, so nothing but the conditions is written, and
    // once the object decodes its page is opened anew.
    cx.status.open(
        key,
        &format!("undecodable {}", object.uid),
        None,
        &ScaledObjectStatus::default(),
    );
    let changed = cx
        .status
        .update(key, |status| status::set_check_failed(status, &message))
        .await;
    if changed.is_some_and(|changed| changed.before != changed.after) {
        cx.events
            .send_lifecycle(&about(key, object), true, "ScaledObjectCheckFailed", message);
    }
}

fn about(key: &ObjectKey, object: &Undecodable) -> ObjectReference {
    ObjectReference {
        api_version: Some("keda.sh/v1alpha1".to_owned()),
        kind: Some(object.kind.clone()),
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        uid: Some(object.uid.clone()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn odd(number: usize) -> Undecodable {
        Undecodable {
            kind: "ScaledObject".into(),
            key: dormouse_kubernetes::ObjectKey::new("shop", format!("odd-{number}").as_str()),
            uid: number.to_string(),
            error: "spec.pollingInterval: invalid type".into(),
            deleting: false,
            finalizers: Vec::new(),
            version: None,
            gone: false,
        }
    }

    #[test]
    fn however_many_come_at_once_each_waits_once_and_none_is_lost() {
        let objects = UndecodableObjects::default();
        for _ in 0..3 {
            (0..2000).for_each(|number| objects.seen(&odd(number)));
        }
        assert_eq!((objects.waiting(), objects.lock().len()), (2000, 2000));
        objects.seen(&Undecodable { gone: true, ..odd(7) });
        objects.no_longer(&ObjectKey::new("shop", "odd-8"));
        assert_eq!(objects.lock().len(), 1998);
    }
}
