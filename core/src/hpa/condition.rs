//! The conditions of an HPA's status.

/// `AbleToScale`, `ScalingActive`, `ScalingLimited` and `ScaledToZero`, each missing until the controller first had
/// reason to set it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HpaConditions {
    /// Whether the target's scale can be read and written, and whether the recommendation is held back.
    pub able_to_scale: Option<HpaCondition>,
    /// Whether the metrics give a count of replicas.
    pub scaling_active: Option<HpaCondition>,
    /// Whether bounds or rules cut that count.
    pub scaling_limited: Option<HpaCondition>,
    /// Whether the last change of the replicas was one to 0; only with [`scale_to_zero`](super::HpaSettings::scale_to_zero).
    pub scaled_to_zero: Option<HpaCondition>,
}

/// One condition of an HPA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HpaCondition {
    /// Its status.
    pub status: bool,
    /// Its reason.
    pub reason: HpaReason,
    /// Its message, in the words of the HPA controller, which dashboards and people look for.
    pub message: String,
}

impl HpaCondition {
    pub(super) fn new(status: bool, reason: HpaReason, message: impl Into<String>) -> Self {
        Self {
            status,
            reason,
            message: message.into(),
        }
    }
}

/// Every reason that the arithmetic gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HpaReason {
    /// The target's scale was not readable.
    FailedGetScale,
    /// The recommendation stands as it is.
    ReadyForNewScale,
    /// A lower recommendation of late holds back this one.
    ScaleUpStabilized,
    /// A higher recommendation of late holds back this one.
    ScaleDownStabilized,
    /// The target has been told to change.
    SucceededRescale,
    /// The target could not be told to change.
    FailedUpdateScale,
    /// The target is readable; nothing was decided yet.
    SucceededGetScale,
    /// The target is at 0, where the HPA leaves it.
    ScalingDisabled,
    /// The scale has no selector.
    InvalidSelector,
    /// At least one metric gives a count.
    ValidMetricFound,
    /// An external metric was not readable.
    FailedGetExternalMetric,
    /// A resource metric was not readable.
    FailedGetResourceMetric,
    /// A container's resource metric was not readable.
    FailedGetContainerResourceMetric,
    /// Nothing cut the count.
    DesiredWithinRange,
    /// Cut at the minimum.
    TooFewReplicas,
    /// Cut at the maximum.
    TooManyReplicas,
    /// Cut by how fast the target may grow.
    ScaleUpLimit,
    /// Cut by how fast the target may shrink.
    ScaleDownLimit,
    /// The HPA put the target to 0, and wakes it again.
    ScaledToZero,
    /// The HPA gave the target some replicas.
    NotScaledToZero,
}

impl HpaReason {
    /// The reason as the condition has it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::FailedGetScale => "FailedGetScale",
            Self::ReadyForNewScale => "ReadyForNewScale",
            Self::ScaleUpStabilized => "ScaleUpStabilized",
            Self::ScaleDownStabilized => "ScaleDownStabilized",
            Self::SucceededRescale => "SucceededRescale",
            Self::FailedUpdateScale => "FailedUpdateScale",
            Self::SucceededGetScale => "SucceededGetScale",
            Self::ScalingDisabled => "ScalingDisabled",
            Self::InvalidSelector => "InvalidSelector",
            Self::ValidMetricFound => "ValidMetricFound",
            Self::FailedGetExternalMetric => "FailedGetExternalMetric",
            Self::FailedGetResourceMetric => "FailedGetResourceMetric",
            Self::FailedGetContainerResourceMetric => "FailedGetContainerResourceMetric",
            Self::DesiredWithinRange => "DesiredWithinRange",
            Self::TooFewReplicas => "TooFewReplicas",
            Self::TooManyReplicas => "TooManyReplicas",
            Self::ScaleUpLimit => "ScaleUpLimit",
            Self::ScaleDownLimit => "ScaleDownLimit",
            Self::ScaledToZero => "ScaledToZero",
            Self::NotScaledToZero => "NotScaledToZero",
        }
    }
}
