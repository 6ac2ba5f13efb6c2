//! What the SDK may try again on its own.

use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::retries::classifiers::{
    ClassifyRetry, RetryAction, RetryClassifierPriority,
};

/// Forbids the SDK's own second try where the server said when to come back: whoever asked does so then.
#[derive(Debug)]
pub(crate) struct PatientServer;

impl ClassifyRetry for PatientServer {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let says_when = |response: &HttpResponse| response.headers().get("retry-after").is_some();
        if context.response().is_some_and(says_when) {
            RetryAction::RetryForbidden
        } else {
            RetryAction::NoActionIndicated
        }
    }

    fn name(&self) -> &'static str {
        "Retry-After"
    }

    fn priority(&self) -> RetryClassifierPriority {
        RetryClassifierPriority::run_after(RetryClassifierPriority::transient_error_classifier())
    }
}
