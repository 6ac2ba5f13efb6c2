//! Reading a ScaledObject's status.

use dormouse_api::{Condition, ConditionStatus, ScaledObject};

/// The condition of this type, if it is there.
#[must_use]
pub fn condition<'a>(object: &'a ScaledObject, kind: &str) -> Option<&'a Condition> {
    object
        .status
        .as_ref()?
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)
}

/// Whether the condition of this type is True; `None` while it is absent or Unknown.
#[must_use]
pub fn holds(object: &ScaledObject, kind: &str) -> Option<bool> {
    match condition(object, kind)?.status {
        ConditionStatus::True => Some(true),
        ConditionStatus::False => Some(false),
        ConditionStatus::Unknown => None,
    }
}
