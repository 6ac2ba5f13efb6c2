//! Many ScaledObjects at once, each on a podless Deployment of its own name and a source of its own name.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DynamicObject, ListParams};
use serde_json::{Value, json};

use crate::scaled::condition;
use crate::sources::{Mood, Sources};
use crate::stage::{Stage, podless, scaled_object};
use crate::timeline::Timeline;
use crate::wait::until;

/// One replica carries this much of what a source says.
pub const TARGET: f64 = 5.0;
/// The metric of every object.
pub const METRIC: &str = "s0-metric-api-value";

const AT_ONCE: usize = 8;

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Its name, its Deployment's and its source's.
    pub name: String,
    /// `pollingInterval`, in seconds.
    pub interval: u64,
    /// `cooldownPeriod`, in seconds.
    pub cooldown: u64,
    /// `minReplicaCount`.
    pub min: i64,
    /// `maxReplicaCount`.
    pub max: i64,
    /// The TriggerAuthentication that holds its token, if it has one.
    pub authentication: Option<String>,
}

impl Member {
    /// An object that may sleep and have four replicas, read every `interval` seconds.
    #[must_use]
    pub fn new(name: impl Into<String>, interval: u64) -> Self {
        Self {
            name: name.into(),
            interval,
            cooldown: 5,
            min: 0,
            max: 4,
            authentication: None,
        }
    }

    /// As a manifest.
    #[must_use]
    pub fn object(&self, sources: &Sources) -> Value {
        let mut trigger = json!({
            "type": "metrics-api",
            "metadata": {
                "url": sources.url(&self.name), "valueLocation": "value", "targetValue": TARGET.to_string(),
            },
        });
        if let Some(authentication) = &self.authentication {
            trigger["metadata"]["authMode"] = json!("bearer");
            trigger["authenticationRef"] = json!({"name": authentication});
        }
        scaled_object(
            &self.name,
            json!({
                "scaleTargetRef": {"name": self.name}, "pollingInterval": self.interval,
                "cooldownPeriod": self.cooldown, "minReplicaCount": self.min, "maxReplicaCount": self.max,
                "triggers": [trigger],
            }),
        )
    }

    /// The replicas that a source's number asks for.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the numbers are small, and a float saturates"
    )]
    pub fn wanted(&self, number: f64) -> i64 {
        ((number / TARGET).ceil() as i64).clamp(self.min, self.max)
    }
}

/// Objects of one namespace and their sources.
pub struct Fleet<'a> {
    stage: &'a Stage,
    sources: &'a Sources,
}

impl<'a> Fleet<'a> {
    /// An empty one.
    #[must_use]
    pub fn new(stage: &'a Stage, sources: &'a Sources) -> Self {
        Self { stage, sources }
    }

    /// Creates Deployments without replicas, then their ScaledObjects.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub async fn add(&self, members: &[Member]) -> Result<()> {
        let deployments = members.iter().map(|member| podless(&member.name, 0));
        let objects = members.iter().map(|member| member.object(self.sources));
        for batch in [deployments.collect::<Vec<_>>(), objects.collect()] {
            let applied = batch.into_iter().map(|object| self.stage.apply(object));
            futures::stream::iter(applied)
                .buffer_unordered(AT_ONCE)
                .try_collect::<()>()
                .await?;
        }
        Ok(())
    }

    /// Waits until a condition of each of these has this status.
    ///
    /// # Errors
    /// When it has not in time; with those that are left.
    pub async fn are(&self, type_: &str, status: &str, names: &[String], deadline: Duration) -> Result<()> {
        let what = format!("{} objects are {type_}={status}", names.len());
        until(&what, deadline, async || {
            let found = self.stage.scaled_objects().list(&ListParams::default()).await?;
            let is = |object: &DynamicObject| {
                let of = object.data.get("status").and_then(|all| condition(all, type_));
                of.is_some_and(|it| it["status"] == status)
            };
            let holds: Vec<_> = found.items.iter().filter(|one| is(one)).collect();
            let named = |name: &String| holds.iter().any(|one| one.metadata.name.as_ref() == Some(name));
            let left: Vec<_> = names.iter().filter(|name| !named(name)).take(10).collect();
            ensure!(left.is_empty(), "not so: {left:?}");
            Ok(())
        })
        .await
    }

    /// Follows the replicas of each of these.
    #[must_use]
    pub fn replicas(&self, names: &[String]) -> BTreeMap<String, Timeline<i64>> {
        let follow = |name: &String| {
            let api = self.stage.namespace.api::<Deployment>();
            let count = |one: &Deployment| {
                one.spec
                    .as_ref()
                    .and_then(|spec| spec.replicas)
                    .unwrap_or(1)
                    .into()
            };
            (name.clone(), Timeline::of(api, name, count))
        };
        names.iter().map(follow).collect()
    }

    /// Puts the sources of all of these into one mood.
    pub fn turn(&self, names: &[String], mood: &Mood) {
        for name in names {
            self.sources.is(name, mood.clone());
        }
    }

    /// How long after `since` each of these was first read; waits for it.
    ///
    /// # Errors
    /// When one was not read in time; with those that were not.
    pub async fn are_read(
        &self,
        names: &[String],
        since: Instant,
        deadline: Duration,
    ) -> Result<Vec<Duration>> {
        let left = deadline.saturating_sub(since.elapsed());
        until(
            &format!("all {} are read within {deadline:?}", names.len()),
            left,
            async || {
                let unread = |name: &&String| self.sources.first_since(name, since).is_none();
                let unread: Vec<_> = names.iter().filter(unread).collect();
                ensure!(unread.is_empty(), "not read: {unread:?}");
                Ok(())
            },
        )
        .await?;
        let late = |name: &String| Some(self.sources.first_since(name, since)? - since);
        Ok(names.iter().filter_map(late).collect())
    }
}
