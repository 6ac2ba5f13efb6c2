//! Why a ScaledObject is not in order.

use dormouse_kubernetes::CallError;
use dormouse_kubernetes::calls::NAMESPACE_ENDING;
use dormouse_translate::Refusal;

/// Why an object is not in order. `message` is for the Ready condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CheckFailure {
    /// KEDA's prefix for the failing step, and what is wrong.
    pub message: String,
    /// An Event beside the one that repeats `message`, where KEDA emits one: a trigger that cannot be built.
    pub scaler: Option<String>,
    /// Whether it may pass by itself: an API server that did not answer says nothing about the object.
    pub transient: bool,
    /// The outage it is part of, for the log.
    pub outage: Option<&'static str>,
}

impl From<CallError> for CheckFailure {
    fn from(error: CallError) -> Self {
        Self {
            message: error.to_string(),
            scaler: None,
            transient: true,
            outage: error.outage(),
        }
    }
}

impl CheckFailure {
    /// Whether something could not be written because its namespace is being deleted.
    #[must_use]
    pub fn is_namespace_ending(&self) -> bool {
        self.message.contains(NAMESPACE_ENDING)
    }

    pub(crate) fn new(prefix: &str, cause: impl std::fmt::Display) -> Self {
        Self {
            message: format!("{prefix}: {cause}"),
            scaler: None,
            transient: false,
            outage: None,
        }
    }
}

impl From<Refusal> for CheckFailure {
    fn from(refusal: Refusal) -> Self {
        Self {
            message: refusal.message,
            scaler: None,
            transient: false,
            outage: None,
        }
    }
}
