//! One right: a verb on a resource, as a role of the chart grants it.

use std::fmt;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// The lane with a second pod.
pub(crate) const FOLLOWED: usize = 1;

/// Where a rule stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Cluster(String),
    Namespaced { namespace: String, name: String },
}

/// A rule with one verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Right {
    /// The role that grants it, by what its name ends with after the operator's and where it counts: the same in every lane.
    pub(crate) role: String,
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) verb: String,
    names: Vec<String>,
}

impl Right {
    /// The rules of a role, taken apart.
    pub(crate) fn all_of(role: &str, rules: &Value) -> Result<Vec<Self>> {
        let strings = |rule: &Value, field: &str| -> Vec<String> {
            let list = rule[field].as_array().into_iter().flatten();
            list.filter_map(|item| item.as_str().map(str::to_owned)).collect()
        };
        let mut rights = Vec::new();
        for rule in rules.as_array().context("a role has no rules")? {
            for group in strings(rule, "apiGroups") {
                for resource in strings(rule, "resources") {
                    for verb in strings(rule, "verbs") {
                        rights.push(Self {
                            role: role.to_owned(),
                            group: group.clone(),
                            resource: resource.clone(),
                            verb,
                            names: strings(rule, "resourceNames"),
                        });
                    }
                }
            }
        }
        Ok(rights)
    }

    /// The rule that grants this and nothing else.
    pub(crate) fn rule(&self) -> Value {
        let mut rule = json!({"apiGroups": [self.group], "resources": [self.resource], "verbs": [self.verb]});
        if !self.names.is_empty() {
            rule["resourceNames"] = json!(self.names);
        }
        rule
    }

    /// The lane that shows it, where not every one can: one alone has what there is once in a cluster, and another has a
    /// second pod, which follows the Lease.
    pub(crate) fn lane(&self) -> Option<usize> {
        match self.resource.as_str() {
            "apiservices" => Some(0),
            // The right to review tokens comes otherwise where the metrics API needs it, too.
            "leases" | "tokenreviews" => Some(FOLLOWED),
            _ => None,
        }
    }

    /// Whether it is only asked for where an API server cannot stream what it lists, which this one can.
    pub(crate) fn is_for_older_servers(&self, all: &[Self]) -> bool {
        let watches = |other: &&Self| {
            other.verb == "watch"
                && (&other.group, &other.resource, &other.names) == (&self.group, &self.resource, &self.names)
        };
        self.verb == "list" && all.iter().find(watches).is_some()
    }

    /// Whether the operator asks for it when it starts, and then no more.
    pub(crate) fn is_asked_for_at_the_start(&self) -> bool {
        matches!(self.verb.as_str(), "list" | "watch")
            || matches!(
                self.resource.as_str(),
                "leases" | "apiservices" | "endpointslices" | "tokenreviews"
            )
            || self.names == ["kedaorg-certs"]
            || self.names == ["kedaorg-ca"]
            || (self.resource == "configmaps" && self.verb == "create")
            || (self.resource == "secrets" && self.verb == "create")
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        write!(f, " (role {})", self.role)
    }
}
