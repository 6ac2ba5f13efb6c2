//! How a call to the API server can fail.

use std::{error::Error, time::Duration};

use kube::core::Status;

/// What the API server says in a failure is kept up to this many characters.
const MAX_MESSAGE: usize = 512;
/// The patience a 429 without a number asks for.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The name of an outage of the API server in log records.
pub const OUTAGE: &str = "kubernetes-api";
/// What the API server says to whoever creates something in a namespace that is being deleted.
pub const NAMESPACE_ENDING: &str = "because it is being terminated";
/// What the API server says, for up to 30 s after a kind was installed, to whoever names an object of it as an owner whose
/// deletion must wait.
const OWNER_KIND_UNKNOWN: &str = "cannot find RESTMapping";

/// A failed call, by what the caller can do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The object, or its kind, does not exist.
    #[error("unable to {call}: {message}")]
    NotFound {
        /// What was attempted.
        call: &'static str,
        /// The API server's sentence.
        message: String,
    },
    /// The object changed since it was read, or a precondition does not hold.
    #[error("unable to {call}: {message}")]
    Conflict {
        /// What was attempted.
        call: &'static str,
        /// The API server's sentence.
        message: String,
    },
    /// An object of that name exists.
    #[error("unable to {call}: {message}")]
    AlreadyExists {
        /// What was attempted.
        call: &'static str,
        /// The API server's sentence.
        message: String,
    },
    /// Dormouse may not do this, or its credentials are not accepted.
    #[error("unable to {call}: {message}")]
    Forbidden {
        /// What was attempted.
        call: &'static str,
        /// The API server's sentence.
        message: String,
    },
    /// The API server asks for patience.
    #[error("unable to {call}: the API server is busy and asks to wait {retry_after:?}")]
    Throttled {
        /// What was attempted.
        call: &'static str,
        /// How long to wait.
        retry_after: Duration,
    },
    /// No answer in time; a write may have happened all the same.
    #[error("unable to {call}: the deadline passed while {stage}")]
    Timeout {
        /// What was attempted.
        call: &'static str,
        /// What was being waited for.
        stage: &'static str,
    },
    /// No connection, or it broke; a write may have happened all the same.
    #[error("unable to {call}: the API server cannot be reached: {message}")]
    Unreachable {
        /// What was attempted.
        call: &'static str,
        /// The transport's account of it.
        message: String,
    },
    /// The API server refuses what was sent.
    #[error("unable to {call}: {message}")]
    Invalid {
        /// What was attempted.
        call: &'static str,
        /// The API server's sentence.
        message: String,
    },
    /// Anything else.
    #[error("unable to {call}: {message}")]
    Other {
        /// What was attempted.
        call: &'static str,
        /// What is known.
        message: String,
    },
}

impl CallError {
    /// Sorts a client error. `call` completes the sentence "unable to ...".
    #[must_use]
    pub fn classify(call: &'static str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::from_status(call, status),
            kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => {
                Self::Unreachable {
                    call,
                    message: chain(error),
                }
            }
            // The decoder's own words could quote the answer, which may be a Secret.
            kube::Error::SerdeError(error) => Self::Other {
                call,
                message: format!(
                    "the answer cannot be decoded (line {}, column {})",
                    error.line(),
                    error.column()
                ),
            },
            other => Self::Other {
                call,
                message: cut(&other.to_string()),
            },
        }
    }

    /// Sorts a failure the API server described.
    #[must_use]
    pub fn from_status(call: &'static str, status: &Status) -> Self {
        let message = if status.message.is_empty() {
            &status.reason
        } else {
            &status.message
        };
        let message = cut(message);
        match (status.code, status.reason.as_str()) {
            (404, _) => Self::NotFound { call, message },
            (409, "AlreadyExists") => Self::AlreadyExists { call, message },
            (409 | 412, _) => Self::Conflict { call, message },
            (403, _) => Self::Forbidden { call, message },
            (429, _) => {
                let seconds = status
                    .details
                    .as_ref()
                    .map_or(0, |details| details.retry_after_seconds);
                let asked = Duration::from_secs(seconds.into());
                Self::Throttled {
                    call,
                    retry_after: if asked.is_zero() {
                        DEFAULT_RETRY_AFTER
                    } else {
                        asked
                    },
                }
            }
            (504, _) | (_, "Timeout" | "ServerTimeout") => Self::Timeout {
                call,
                stage: "the API server worked on it",
            },
            (502 | 503, _) => Self::Unreachable { call, message },
            (400 | 422, _) => Self::Invalid { call, message },
            _ => Self::Other { call, message },
        }
    }

    /// A bounded name of the class, for metric labels and Events.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::Conflict { .. } => "conflict",
            Self::AlreadyExists { .. } => "already_exists",
            Self::Forbidden { .. } => "forbidden",
            Self::Throttled { .. } => "throttled",
            Self::Timeout { .. } => "timeout",
            Self::Unreachable { .. } => "unreachable",
            Self::Invalid { .. } => "invalid",
            Self::Other { .. } => "other",
        }
    }

    /// What is out of order if this is not the call's own fault: the value of a log record's field `outage`, by which
    /// records of one cause are held to one in a while, whatever they are about.
    #[must_use]
    pub fn outage(&self) -> Option<&'static str> {
        let outage = matches!(
            self,
            Self::Throttled { .. } | Self::Timeout { .. } | Self::Unreachable { .. }
        );
        outage.then_some(OUTAGE)
    }

    /// Whether the write was refused because its namespace is being deleted: what it was for is about to go as well.
    #[must_use]
    pub fn is_namespace_ending(&self) -> bool {
        matches!(self, Self::Forbidden { message, .. } if message.contains(NAMESPACE_ENDING))
    }

    /// Whether the write was refused because admission has not heard yet of its owner's kind, which was installed just now.
    #[must_use]
    pub fn is_owner_kind_unknown(&self) -> bool {
        matches!(self, Self::Forbidden { message, .. } if message.contains(OWNER_KIND_UNKNOWN))
    }

    /// Whether the object, or its kind, does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Conflict { .. }
                | Self::Throttled { .. }
                | Self::Timeout { .. }
                | Self::Unreachable { .. }
                | Self::Other { .. }
        )
    }
}

/// An error and its causes, outermost first.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Some errors already print their cause.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    cut(&text)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
