//! Services and ConfigMaps as far as the status of routes depends on them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Service {
    /// Where it leads.
    #[serde(default)]
    pub spec: ServiceSpec,
}

/// The part of a Service's spec that is read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub type_: String,
    /// The labels of its pods; none for one whose endpoints somebody else keeps.
    pub selector: Option<BTreeMap<String, String>>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServicePort {
    /// Its name; empty where the only port has none.
    pub name: String,
    /// Its number.
    pub port: u16,
    /// What is spoken there.
    pub protocol: String,
}

/// A ConfigMap that routes may answer with: its keys alone.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// The keys of its texts.
    #[serde(default)]
    pub data: Option<BTreeMap<String, IgnoredAny>>,
    /// The keys of anything else.
    #[serde(default)]
    pub binary_data: Option<BTreeMap<String, IgnoredAny>>,
}

impl Page {
    /// Whether there is anything under this key.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        let mut values = self.data.iter().chain(&self.binary_data);
        values.any(|values| values.contains_key(key))
    }
}
