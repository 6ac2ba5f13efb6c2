//! One ScaledObject and its target, watched from outside: every status and every replica count they ever had.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use kube::Api;
use kube::api::DynamicObject;
use kube::core::ApiResource;
use serde_json::Value;

use crate::stage::Stage;
use crate::timeline::{Change, Timeline};
use crate::wait::until;

/// For everything that the operator does at once, on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// A ScaledObject under observation, from before it exists.
pub struct Scaled<'a> {
    stage: &'a Stage,
    name: String,
    status: Timeline<Value>,
    replicas: Timeline<i64>,
}

impl<'a> Scaled<'a> {
    /// Watches the ScaledObject `name` and the Deployment of the same name.
    #[must_use]
    pub fn watch(stage: &'a Stage, name: &str) -> Self {
        let deployments = ApiResource::erase::<k8s_openapi::api::apps::v1::Deployment>(&());
        Self::watch_target(stage, name, stage.dynamic(&deployments), name)
    }

    /// Watches the ScaledObject `name` and its target, which keeps its count at `spec.replicas`.
    #[must_use]
    pub fn watch_target(stage: &'a Stage, name: &str, targets: Api<DynamicObject>, target: &str) -> Self {
        let status = Timeline::of(stage.scaled_objects(), name, |object: &DynamicObject| {
            object.data.get("status").cloned().unwrap_or_default()
        });
        let replicas = Timeline::of(targets, target, |object: &DynamicObject| {
            object
                .data
                .pointer("/spec/replicas")
                .and_then(Value::as_i64)
                .unwrap_or(1)
        });
        Self {
            stage,
            name: name.to_owned(),
            status,
            replicas,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The status as it is.
    #[must_use]
    pub fn status(&self) -> Value {
        self.status.now().unwrap_or_default()
    }

    /// Every status there was, oldest first.
    #[must_use]
    pub fn statuses(&self) -> Vec<Change<Value>> {
        self.status.changes()
    }

    /// Waits until the status is `wanted`.
    ///
    /// # Errors
    /// When it does not come in time; with the status there is.
    pub async fn status_is(
        &self,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        self.status
            .reaches(&format!("{}: {what}", self.name), deadline, wanted)
            .await
    }

    /// Waits until a condition has this status and reason.
    ///
    /// # Errors
    /// As [`status_is`](Self::status_is).
    pub async fn condition_is(&self, type_: &str, status: &str, reason: &str) -> Result<String> {
        self.condition_within(type_, status, reason, SOON).await
    }

    /// The same with a deadline of its own; answers the condition's message.
    ///
    /// # Errors
    /// As [`status_is`](Self::status_is).
    pub async fn condition_within(
        &self,
        type_: &str,
        status: &str,
        reason: &str,
        deadline: Duration,
    ) -> Result<String> {
        let wanted = |all: &Value| {
            condition(all, type_).is_some_and(|it| it["status"] == status && it["reason"] == reason)
        };
        let found = self
            .status_is(&format!("{type_}={status} {reason}"), deadline, wanted)
            .await?;
        let message = condition(&found, type_)
            .and_then(|it| it["message"].as_str())
            .unwrap_or_default();
        Ok(message.to_owned())
    }

    /// Waits until it is in order.
    ///
    /// # Errors
    /// As [`status_is`](Self::status_is).
    pub async fn is_ready(&self) -> Result<()> {
        self.condition_is("Ready", "True", "ScaledObjectReady")
            .await
            .map(drop)
    }

    /// Waits until it is Ready=False because of a check, with a message that contains `sentence`.
    ///
    /// # Errors
    /// As [`status_is`](Self::status_is).
    pub async fn is_refused(&self, sentence: &str) -> Result<String> {
        let refused = |all: &Value| {
            condition(all, "Ready").is_some_and(|ready| {
                let message = ready["message"].as_str().unwrap_or_default();
                ready["status"] == "False"
                    && ready["reason"] == "ScaledObjectCheckFailed"
                    && message.contains(sentence)
            })
        };
        let found = self
            .status_is(&format!("Ready=False with {sentence:?}"), SOON, refused)
            .await?;
        let active = condition(&found, "Active").map(|it| (it["status"].clone(), it["reason"].clone()));
        ensure!(
            active == Some(("Unknown".into(), "UnknownState".into())),
            "{}: Active is {active:?}",
            self.name
        );
        let message = condition(&found, "Ready")
            .and_then(|it| it["message"].as_str())
            .unwrap_or_default();
        Ok(message.to_owned())
    }

    /// Waits for this replica count.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn has(&self, replicas: i64, deadline: Duration) -> Result<()> {
        let what = format!("{} has {replicas} replicas", self.name);
        self.replicas
            .reaches(&what, deadline, |count| *count == replicas)
            .await
            .map(drop)
    }

    /// The moment of the first change since `since` to a count that is `wanted`, waited for.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn turned(
        &self,
        since: Instant,
        deadline: Duration,
        wanted: impl Fn(i64) -> bool,
    ) -> Result<Change<i64>> {
        let what = format!("the replicas of {}", self.name);
        self.replicas
            .first(&what, since, deadline, |count| wanted(*count))
            .await
    }

    /// Every count since `since`, the one at that moment first.
    #[must_use]
    pub fn counts_since(&self, since: Instant) -> Vec<i64> {
        let changes = self.replicas.changes();
        let before = changes.iter().rev().find(|change| change.at < since);
        before
            .into_iter()
            .chain(changes.iter().filter(|change| change.at >= since))
            .map(|change| change.value)
            .collect()
    }

    /// Every count there ever was.
    #[must_use]
    pub fn counts(&self) -> Vec<i64> {
        self.replicas
            .changes()
            .iter()
            .map(|change| change.value)
            .collect()
    }

    /// Waits until an Event of this reason, whose note contains `part`, was seen exactly `times` times.
    ///
    /// # Errors
    /// When it is not so in time; with the Events there are.
    pub async fn event(&self, reason: &str, part: &str, times: i32) -> Result<()> {
        let what = format!("{times} Events {reason} with {part:?} about {}", self.name);
        until(&what, SOON, async || {
            let count = self.stage.count_events(&self.name, reason, part).await?;
            if count != times {
                let all = self.stage.events(&self.name).await?;
                return Err(anyhow!("there are {count} among {all:#?}"));
            }
            Ok(())
        })
        .await
    }
}

/// The condition of a type in a status.
#[must_use]
pub fn condition<'v>(status: &'v Value, type_: &str) -> Option<&'v Value> {
    status["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == type_)
}
