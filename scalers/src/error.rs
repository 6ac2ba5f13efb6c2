//! What can go wrong with a trigger. No error carries a secret or the body of a remote answer.

use std::time::Duration;

/// The trigger cannot be built from what the user wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No scaler has this type.
    #[error("no scaler found for type: {0}")]
    UnknownType(String),
    /// One or more parameters are missing or wrong; one sentence names them all.
    #[error("{context}: {message}")]
    Metadata {
        /// What was parsed, such as `error parsing SQS queue metadata`.
        context: &'static str,
        /// Every fault found, joined by `, `.
        message: String,
    },
}

/// The source could not be read this time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ReadError {
    /// What kind of failure it is.
    pub kind: ReadErrorKind,
    /// One sentence for people.
    pub message: String,
}

/// Kinds of read failure, bounded for labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadErrorKind {
    /// The deadline passed.
    Timeout,
    /// No connection, or it broke.
    Unreachable,
    /// The source refused the credentials, or there were none.
    Denied,
    /// What was asked for does not exist.
    NotFound,
    /// Too many calls; the source may have said when to come back.
    Throttled {
        /// `Retry-After`, if given.
        retry_after: Option<Duration>,
    },
    /// The server's address is one that triggers may not reach.
    EgressDenied,
    /// The answer makes no sense.
    BadAnswer,
    /// Something is under way that must not be cut off.
    Busy,
    /// The code that reads it failed.
    Internal,
}

impl ReadErrorKind {
    /// Bounded name for labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::NotFound => "not-found",
            Self::Throttled { .. } => "throttled",
            Self::EgressDenied => "egress-denied",
            Self::BadAnswer => "bad-answer",
            Self::Busy => "busy",
            Self::Internal => "internal",
        }
    }
}

impl ReadError {
    /// An error of `kind` that says `message`.
    #[must_use]
    pub fn new(kind: ReadErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}
