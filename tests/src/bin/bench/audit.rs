//! Who wrote what, by the API server's own account: its audit log.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use dormouse_tests::Installation;
use jiff::Timestamp;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    verb: String,
    user: User,
    object_ref: Option<ObjectRef>,
    request_received_timestamp: Timestamp,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    api_group: String,
}

/// The writes of the operator between two moments, by what was written; without renewals of its lease, and without the
/// reviews it asks for, which store nothing.
pub(crate) fn writes(
    state: &Path,
    installation: &Installation,
    from: Timestamp,
    to: Timestamp,
) -> Result<BTreeMap<String, u64>> {
    let file = state.join("logs/audit.log");
    let text = fs::read_to_string(&file).with_context(|| format!("unable to read {}", file.display()))?;
    let prefix = format!("system:serviceaccount:{}:", installation.namespace());
    Ok(count(&text, &prefix, from, to))
}

fn count(text: &str, users: &str, from: Timestamp, to: Timestamp) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    // The last line may be half written.
    for entry in text
        .lines()
        .filter_map(|line| serde_json::from_str::<Entry>(line).ok())
    {
        let Some(object) = entry.object_ref else { continue };
        let within = entry.request_received_timestamp >= from && entry.request_received_timestamp < to;
        let stores = !matches!(
            &*object.api_group,
            "authentication.k8s.io" | "authorization.k8s.io"
        );
        if !within || !stores || object.resource == "leases" || !entry.user.username.starts_with(users) {
            continue;
        }
        let slash = if object.subresource.is_empty() { "" } else { "/" };
        let what = format!("{} {}{slash}{}", entry.verb, object.resource, object.subresource);
        *found.entry(what).or_default() += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_reviews_others_and_other_times_do_not_count() {
        let line = |verb: &str, user: &str, resource: &str, group: &str, at: &str| {
            serde_json::json!({
                "verb": verb, "user": {"username": user}, "requestReceivedTimestamp": at,
                "objectRef": {"resource": resource, "apiGroup": group},
            })
            .to_string()
        };
        let (own, inside) = (
            "system:serviceaccount:keda:keda-operator",
            "2030-01-01T00:00:10.5Z",
        );
        let text = [
            line("patch", own, "scaledobjects", "keda.sh", inside),
            line("update", own, "leases", "coordination.k8s.io", inside),
            line("create", own, "tokenreviews", "authentication.k8s.io", inside),
            line("patch", "admin", "scaledobjects", "keda.sh", inside),
            line(
                "patch",
                own,
                "scaledobjects",
                "keda.sh",
                "2030-01-01T00:01:00.000000Z",
            ),
            "{\"verb\":\"pat".to_owned(),
        ];
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let found = count(
            &text.join("\n"),
            "system:serviceaccount:keda:",
            time("2030-01-01T00:00:00Z"),
            time("2030-01-01T00:01:00Z"),
        );
        assert_eq!(found, BTreeMap::from([("patch scaledobjects".to_owned(), 1)]));
    }
}
