//! Conditions of a ScaledObject's status: their shape, types and reasons.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The object can be scaled: its target, its triggers and its bounds are in order.
pub const READY: &str = "Ready";
/// At least one trigger asks for replicas.
pub const ACTIVE: &str = "Active";
/// At least one metric is answered with the fallback.
pub const FALLBACK: &str = "Fallback";
/// An annotation pauses scaling, wholly or in one direction.
pub const PAUSED: &str = "Paused";
/// The HPA controller can compute with the metrics; appears with its first verdict.
pub const HPA_ACTIVE: &str = "HPAActive";

/// Stable reasons, as alerts and scripts match them. The message beside a reason is free to change.
pub mod reason {
    /// Ready: everything checked, scaling goes on.
    pub const SCALED_OBJECT_READY: &str = "ScaledObjectReady";
    /// Ready: the object, its target or its HPA is not in order; the message says which.
    pub const SCALED_OBJECT_CHECK_FAILED: &str = "ScaledObjectCheckFailed";
    /// Ready: the target's replicas could not be read.
    pub const ERROR_GETTING_CURRENT_REPLICAS: &str = "ErrorGettingCurrentReplicas";
    /// Ready: active, yet some triggers cannot be read.
    pub const PARTIAL_TRIGGER_ERROR: &str = "PartialTriggerError";
    /// Ready: the triggers cannot be read.
    pub const TRIGGER_ERROR: &str = "TriggerError";
    /// Active: nothing is known, because the object is not in order.
    pub const UNKNOWN_STATE: &str = "UnknownState";
    /// Active: a trigger, or the annotation that forces it, asks for replicas.
    pub const SCALER_ACTIVE: &str = "ScalerActive";
    /// Active: no trigger asks for replicas.
    pub const SCALER_NOT_ACTIVE: &str = "ScalerNotActive";
    /// Active: no trigger asks for replicas; the cooldown runs.
    pub const SCALER_COOLDOWN: &str = "ScalerCooldown";
    /// Fallback: no metric is answered with it.
    pub const NO_FALLBACK_FOUND: &str = "NoFallbackFound";
    /// Fallback: a metric is answered with it.
    pub const FALLBACK_EXISTS: &str = "FallbackExists";
    /// Paused: by an annotation.
    pub const SCALED_OBJECT_PAUSED: &str = "ScaledObjectPaused";
    /// Paused: the annotation is gone.
    pub const SCALED_OBJECT_UNPAUSED: &str = "ScaledObjectUnpaused";
    /// HPAActive: the HPA scales.
    pub const HPA_ACTIVE: &str = "HPAActive";
    /// HPAActive: the HPA rests, because its target has no replicas.
    pub const SCALING_DISABLED: &str = "ScalingDisabled";
    /// HPAActive: the HPA said nothing of why it does not scale.
    pub const HPA_METRICS_UNAVAILABLE: &str = "HPAMetricsUnavailable";
}

/// One aspect of the object's state.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which aspect: Ready, Active, Fallback, Paused or HPAActive.
    #[serde(rename = "type")]
    pub type_: String,
    /// Whether it holds: True, False, or Unknown while that cannot be told.
    #[schemars(with = "String")]
    pub status: ConditionStatus,
    /// Why, as one word for scripts and alerts.
    #[serde(skip_serializing_if = "is_blank")]
    pub reason: Option<String>,
    /// Why, as a sentence for people.
    #[serde(skip_serializing_if = "is_blank")]
    pub message: Option<String>,
}

impl Condition {
    /// A condition of which nothing more is known than its status: written without reason and message.
    #[must_use]
    pub fn bare(type_: &str, status: ConditionStatus) -> Self {
        Self {
            type_: type_.to_owned(),
            status,
            reason: None,
            message: None,
        }
    }

    /// A condition with its reason (one of [`reason`]) and a sentence.
    #[must_use]
    pub fn new(type_: &str, status: ConditionStatus, reason: &str, message: impl Into<String>) -> Self {
        Self {
            type_: type_.to_owned(),
            status,
            reason: Some(reason.to_owned()),
            message: Some(message.into()),
        }
    }

    /// What a ScaledObject carries before anything is known of it, in the order in which they are shown.
    #[must_use]
    pub fn initial() -> Vec<Self> {
        vec![
            Self::bare(READY, ConditionStatus::Unknown),
            Self::bare(ACTIVE, ConditionStatus::Unknown),
            Self::bare(FALLBACK, ConditionStatus::Unknown),
            Self::bare(PAUSED, ConditionStatus::False),
        ]
    }
}

/// Whether a condition holds. Anything but `True` and `False` reads as unknown.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(from = "String")]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It cannot be told.
    #[default]
    Unknown,
}

impl ConditionStatus {
    /// The word on the wire and in `kubectl get`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl From<String> for ConditionStatus {
    fn from(word: String) -> Self {
        match word.as_str() {
            "True" => Self::True,
            "False" => Self::False,
            _ => Self::Unknown,
        }
    }
}

fn is_blank(text: &Option<String>) -> bool {
    text.as_deref().is_none_or(str::is_empty)
}
