//! What is written into the Lease, and what a version of it means.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::api::ObjectMeta;
use tokio::time::Instant;

use super::{ADDRESS_ANNOTATION, LeaderInfo, LeaseConfig};

/// A version of the Lease and when it was first seen here.
#[derive(Debug, Clone)]
pub(super) struct Observation {
    pub(super) lease: Lease,
    pub(super) at: Instant,
}

impl Observation {
    pub(super) fn is_version_of(&self, lease: &Lease) -> bool {
        self.lease.metadata.resource_version == lease.metadata.resource_version
            && self.lease.metadata.uid == lease.metadata.uid
    }

    pub(super) fn holder(&self) -> Option<&str> {
        self.lease
            .spec
            .as_ref()?
            .holder_identity
            .as_deref()
            .filter(|holder| !holder.is_empty())
    }

    pub(super) fn leader(&self) -> Option<LeaderInfo> {
        let address = self
            .lease
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(ADDRESS_ANNOTATION))
            .cloned();
        self.holder().map(|holder| LeaderInfo {
            identity: holder.to_owned(),
            address,
        })
    }

    /// From when on `config`'s candidate may claim this version: at once if nobody else holds it, else when it has not
    /// changed for as long as its holder asked for.
    pub(super) fn claimable_at(&self, config: &LeaseConfig) -> Instant {
        match self.holder() {
            None => self.at,
            Some(holder) if holder == config.identity => self.at,
            Some(_) => {
                let seconds = self
                    .lease
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.lease_duration_seconds);
                let asked = seconds
                    .and_then(|s| u64::try_from(s).ok())
                    .map(Duration::from_secs);
                self.at + asked.unwrap_or(config.duration)
            }
        }
    }
}

/// The Lease with which `config`'s candidate takes over, or goes on from, `previous`.
pub(super) fn claim(config: &LeaseConfig, previous: Option<&Lease>) -> Lease {
    let now = MicroTime(Timestamp::now());
    let old = previous.and_then(|lease| lease.spec.clone());
    let (acquired, transitions) = match &old {
        None => (now.clone(), 0),
        Some(old) if old.holder_identity.as_deref() == Some(&config.identity) => (
            old.acquire_time.clone().unwrap_or_else(|| now.clone()),
            old.lease_transitions.unwrap_or(0),
        ),
        Some(old) => (now.clone(), old.lease_transitions.unwrap_or(0).saturating_add(1)),
    };
    let mut metadata = metadata(config, previous);
    let annotations = metadata.annotations.get_or_insert_default();
    match &config.metrics_address {
        Some(address) => annotations.insert(ADDRESS_ANNOTATION.into(), address.clone()),
        None => annotations.remove(ADDRESS_ANNOTATION),
    };
    Lease {
        metadata,
        spec: Some(LeaseSpec {
            acquire_time: Some(acquired),
            holder_identity: Some(config.identity.clone()),
            // Validated to be at most an hour.
            lease_duration_seconds: i32::try_from(config.duration.as_secs()).ok(),
            lease_transitions: Some(transitions),
            renew_time: Some(now),
            ..old.unwrap_or_default()
        }),
    }
}

/// The Lease that tells the others not to wait.
pub(super) fn release(config: &LeaseConfig, held: &Lease) -> Lease {
    let now = MicroTime(Timestamp::now());
    let mut metadata = metadata(config, Some(held));
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(ADDRESS_ANNOTATION);
    }
    Lease {
        metadata,
        spec: Some(LeaseSpec {
            acquire_time: Some(now.clone()),
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            renew_time: Some(now),
            ..held.spec.clone().unwrap_or_default()
        }),
    }
}

fn metadata(config: &LeaseConfig, previous: Option<&Lease>) -> ObjectMeta {
    let new = || ObjectMeta {
        name: Some(config.name.clone()),
        namespace: Some(config.namespace.clone()),
        ..ObjectMeta::default()
    };
    previous.map_or_else(new, |lease| lease.metadata.clone())
}
