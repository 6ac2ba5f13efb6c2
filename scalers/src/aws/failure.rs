//! What went wrong with an AWS call: a kind, and the service's error code, never its message.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::error::{ReadError, ReadErrorKind};
use crate::http_read::innermost;

const MAX_CODE: usize = 64;
const NO_SENSE: &str = "the answer makes no sense";

/// A failed call.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Failure {
    pub(super) kind: ReadErrorKind,
    pub(super) text: String,
}

/// The failure of a read of `what`.
pub(crate) fn read_error<E>(what: &str, error: &SdkError<E, HttpResponse>) -> ReadError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let Failure { kind, text } = of(error);
    ReadError::new(kind, format!("{what}: {text}"))
}

/// The failure of getting credentials for a read of `what`.
pub(super) fn credentials_error(what: &str, error: &CredentialsError) -> ReadError {
    let Failure { kind, text } = from_causes(Some(error), ReadErrorKind::Denied);
    ReadError::new(kind, format!("{what}: {text}"))
}

/// The failure behind an SDK error.
pub(super) fn of<E>(error: &SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(context) => {
            let status = context.raw().status().as_u16();
            let code = context
                .err()
                .code()
                .map(shortened)
                .filter(|code| !code.is_empty());
            let kind = kind_of(code.as_deref().unwrap_or_default(), status, || {
                retry_after(context.raw())
            });
            let text = code.unwrap_or_else(|| match status {
                200..=299 => NO_SENSE.to_owned(),
                _ => format!("status {status}"),
            });
            Failure { kind, text }
        }
        SdkError::TimeoutError(_) => Failure {
            kind: ReadErrorKind::Timeout,
            text: "timed out".to_owned(),
        },
        SdkError::ResponseError(context) => {
            let status = context.raw().status().as_u16();
            let (kind, text) = match kind_of("", status, || retry_after(context.raw())) {
                ReadErrorKind::BadAnswer => (ReadErrorKind::BadAnswer, NO_SENSE.to_owned()),
                kind => (kind, format!("status {status}")),
            };
            Failure { kind, text }
        }
        SdkError::DispatchFailure(failure) => {
            let connector = failure.as_connector_error();
            let kind = match connector {
                Some(error) if error.is_timeout() => ReadErrorKind::Timeout,
                Some(error) if error.is_io() => ReadErrorKind::Unreachable,
                _ => ReadErrorKind::Internal,
            };
            from_causes(connector.map(|error| error as &(dyn Error + 'static)), kind)
        }
        other => from_causes(other.source(), ReadErrorKind::Internal),
    }
}

/// The failure that the chain of causes tells of: credentials that could not be had, or the network.
fn from_causes(first: Option<&(dyn Error + 'static)>, otherwise: ReadErrorKind) -> Failure {
    let mut cause = first;
    while let Some(error) = cause {
        if let Some(own) = error.downcast_ref::<Failure>() {
            return Failure {
                kind: own.kind,
                text: own.text.clone(),
            };
        }
        if let Some(read) = error.downcast_ref::<ReadError>() {
            return Failure {
                kind: read.kind,
                text: read.message.clone(),
            };
        }
        if let Some(credentials) = error.downcast_ref::<CredentialsError>() {
            let own = credentials
                .source()
                .and_then(|source| source.downcast_ref::<Failure>());
            return own.map_or_else(
                || no_credentials(credentials),
                |own| Failure {
                    kind: own.kind,
                    text: own.text.clone(),
                },
            );
        }
        cause = error.source();
    }
    let text = first.map_or_else(|| "the request could not be sent".to_owned(), innermost);
    Failure {
        kind: otherwise,
        text,
    }
}

fn no_credentials(error: &CredentialsError) -> Failure {
    let (kind, text) = match error {
        CredentialsError::CredentialsNotLoaded(_) => (ReadErrorKind::Denied, "no AWS credentials were found"),
        CredentialsError::ProviderTimedOut(_) => {
            (ReadErrorKind::Timeout, "getting AWS credentials took too long")
        }
        CredentialsError::InvalidConfiguration(_) => (
            ReadErrorKind::Denied,
            "the AWS credentials' configuration is invalid",
        ),
        _ => (ReadErrorKind::Denied, "AWS credentials could not be had"),
    };
    Failure {
        kind,
        text: text.to_owned(),
    }
}

/// Codes come from outside: only what a code can consist of is kept.
fn shortened(code: &str) -> String {
    code.chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        .take(MAX_CODE)
        .collect()
}

fn kind_of(
    code: &str,
    status: u16,
    retry_after: impl FnOnce() -> Option<std::time::Duration>,
) -> ReadErrorKind {
    let name = code.rsplit('.').next().unwrap_or(code);
    match name {
        "QueueDoesNotExist" | "NonExistentQueue" | "ResourceNotFoundException" => ReadErrorKind::NotFound,
        "AccessDenied"
        | "AccessDeniedException"
        | "AuthFailure"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "InvalidIdentityToken"
        | "InvalidSecurity"
        | "KmsAccessDenied"
        | "MissingAuthenticationToken"
        | "NotAuthorized"
        | "OptInRequired"
        | "SignatureDoesNotMatch"
        | "UnauthorizedOperation"
        | "UnrecognizedClientException" => ReadErrorKind::Denied,
        "KmsThrottled"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequestsException" => ReadErrorKind::Throttled {
            retry_after: retry_after(),
        },
        _ => match status {
            401 | 403 => ReadErrorKind::Denied,
            404 => ReadErrorKind::NotFound,
            429 => ReadErrorKind::Throttled {
                retry_after: retry_after(),
            },
            500..=599 => ReadErrorKind::Unreachable,
            _ => ReadErrorKind::BadAnswer,
        },
    }
}

fn retry_after(response: &HttpResponse) -> Option<std::time::Duration> {
    let text = response.headers().get("retry-after")?;
    text.trim().parse().ok().map(std::time::Duration::from_secs)
}
