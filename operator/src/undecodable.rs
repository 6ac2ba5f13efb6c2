//! ScaledObjects that the API server has and no type can decode: they are told so in their own status, and disturb nobody.

use std::sync::Arc;

use dormouse_api::ScaledObjectStatus;
use dormouse_kubernetes::watch::Undecodable;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::mpsc;
use tracing::warn;

use crate::context::{Context, engine_key};
use crate::status;

/// Reports what comes in, until the process stops.
pub async fn report(cx: Arc<Context>, mut waiting: mpsc::Receiver<Undecodable>) {
    while let Some(object) = waiting.recv().await {
        let key = engine_key(&object.key);
        let message = format!(
            "ScaledObject doesn't have a correct specification: {}",
            object.error
        );
        warn!(object = %key, %message, "object cannot be read");
        if !cx.leadership.is_leader() {
            continue;
        }
        cx.status.open(&key, &object.uid, &ScaledObjectStatus::default());
        let changed = cx
            .status
            .update(&key, |status| status::set_check_failed(status, &message))
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
}
