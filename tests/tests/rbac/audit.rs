//! What the API server refused, by its own account.

use anyhow::Result;
use dormouse_tests::audit::AuditLog;
use serde_json::Value;

use crate::permission::Right;

/// Whether `user` was refused this right in what `log` covers.
pub(crate) fn shows_refusal(log: &AuditLog, user: &str, right: &Right) -> Result<bool> {
    let refused = |event: &Value| {
        let object = &event["objectRef"];
        let mut resource = object["resource"].as_str().unwrap_or_default().to_owned();
        if let Some(part) = object["subresource"].as_str() {
            resource = format!("{resource}/{part}");
        }
        // Setting an owner reference that blocks is not a request of its own: the answer to another one tells.
        let blocks = resource_blocks(event, user, right);
        blocks
            || event["annotations"]["authorization.k8s.io/decision"] == "forbid"
                && event["user"]["username"] == user
                && event["verb"] == *right.verb
                && object["apiGroup"].as_str().unwrap_or_default() == right.group
                && resource == right.resource
    };
    Ok(!log.events(refused)?.is_empty())
}

fn resource_blocks(event: &Value, user: &str, right: &Right) -> bool {
    let told = event["responseStatus"]["message"].as_str().unwrap_or_default();
    right.resource.ends_with("/finalizers")
        && event["user"]["username"] == user
        && event["responseStatus"]["code"] == 403
        && told.contains("blockOwnerDeletion")
}
