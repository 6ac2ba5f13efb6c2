//! ScaledObjects that the API server has and no type can decode: they are told so in their own status, and disturb nobody.

use std::collections::HashMap;
use std::sync::Arc;

use dormouse_api::ScaledObjectStatus;
use dormouse_engine::ObjectKey;
use dormouse_kubernetes::watch::Undecodable;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::mpsc;
use tracing::warn;

use crate::context::{Context, engine_key, watch_key};
use crate::status;

/// Objects remembered for the next leader; more are told when they change.
const MOST: usize = 1024;

/// Reports what comes in, until the process stops. What came before this process led is reported when it does.
pub async fn report(cx: Arc<Context>, mut waiting: mpsc::Receiver<Undecodable>) {
    let mut known: HashMap<ObjectKey, Undecodable> = HashMap::new();
    let mut leads = cx.leadership.subscribe();
    loop {
        tokio::select! {
            object = waiting.recv() => {
                let Some(object) = object else { return };
                let key = engine_key(&object.key);
                warn!(object = %key, error = object.error, "object cannot be read");
                tell(&cx, &key, &object).await;
                if known.len() < MOST {
                    known.insert(key, object);
                }
            }
            Ok(()) = leads.changed() => {
                // Those that decode by now are the reconciler's.
                known.retain(|key, _| cx.stores.scaled_objects.get(&watch_key(key)).is_none());
                for (key, object) in &known {
                    tell(&cx, key, object).await;
                }
            }
        }
    }
}

async fn tell(cx: &Context, key: &ObjectKey, object: &Undecodable) {
    if !cx.leadership.is_leader() {
        return;
    }
    let message = format!(
        "ScaledObject doesn't have a correct specification: {}",
        object.error
    );
    // A page of its own: nothing is known of the status that the object has, so nothing but the conditions is written, and
    // once the object decodes its page is opened anew.
    cx.status.open(
        key,
        &format!("undecodable {}", object.uid),
        &ScaledObjectStatus::default(),
    );
    let changed = cx
        .status
        .update(key, |status| status::set_check_failed(status, &message))
        .await;
    if changed.is_some_and(|changed| changed.before != changed.after) {
        let about = ObjectReference {
            api_version: Some("keda.sh/v1alpha1".to_owned()),
            kind: Some(object.kind.clone()),
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            uid: Some(object.uid.clone()),
            ..Default::default()
        };
        cx.events
            .send_lifecycle(&about, true, "ScaledObjectCheckFailed", message);
    }
}
