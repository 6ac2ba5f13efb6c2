//! Whose token is it? An interceptor is known by the pod that its token was made for, and by nothing it says.

use std::sync::Arc;
use std::time::Duration;

use dormouse_kubernetes::{Calls, Priority};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use sha2::{Digest, Sha256};

use crate::metrics_api::review::{Answer, ReviewCache, Unanswered};

/// What interceptors' tokens are made for, and no others are.
pub(super) const AUDIENCE: &str = "dormouse-operator";
/// Where the API server tells the pod of a token that is bound to one.
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// Longer tokens are refused unasked; projected ones are about 1 KiB.
const MAX_TOKEN: usize = 16 * 1024;
const CAPACITY: usize = 1024;

/// Nobody could say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReviewFailed(pub String);

/// Tells who holds a token.
pub trait Reviewer: Send + Sync {
    /// The uid of the interceptor pod that this token was made for; none if it is nobody's who may report.
    fn reporter<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<Arc<str>>, ReviewFailed>>;
}

/// Asks the API server, and remembers its answers by the tokens' digests for at most a minute.
pub struct TokenReviewer {
    client: Client,
    calls: Calls,
    /// Names of the service accounts that interceptors run as: any pod can have a token made for our audience.
    users: Arc<[String]>,
    owners: ReviewCache<Owner>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner(Option<Arc<str>>);

impl Answer for Owner {
    fn fresh_for(&self) -> Duration {
        Duration::from_secs(if self.0.is_some() { 60 } else { 5 })
    }
}

impl TokenReviewer {
    /// Lets in pods that run as one of these users, such as `system:serviceaccount:keda:interceptor`.
    #[must_use]
    pub fn new(client: Client, calls: Calls, users: impl IntoIterator<Item = String>) -> Self {
        Self {
            client,
            calls,
            users: users.into_iter().collect(),
            owners: ReviewCache::new(CAPACITY),
        }
    }

    async fn ask(
        client: Client,
        calls: Calls,
        users: Arc<[String]>,
        token: String,
    ) -> Result<Owner, Unanswered> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![AUDIENCE.to_owned()]),
                token: Some(token),
            },
            ..TokenReview::default()
        };
        let api = Api::<TokenReview>::all(client);
        let params = PostParams::default();
        let answer = calls
            // Not among the wakes: anybody who can connect can have it asked.
            .unary(
                Priority::Normal,
                "review an interceptor's token",
                api.create(&params, &review),
            )
            .await
            .map_err(|error| Unanswered(format!("TokenReview: {error}")))?;
        Ok(Owner(owner(answer, &users)))
    }
}

impl Reviewer for TokenReviewer {
    fn reporter<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<Arc<str>>, ReviewFailed>> {
        async move {
            if token.is_empty() || token.len() > MAX_TOKEN {
                return Ok(None);
            }
            let question = Sha256::digest(token).into();
            let ask = || {
                Self::ask(
                    self.client.clone(),
                    self.calls.clone(),
                    self.users.clone(),
                    token.to_owned(),
                )
            };
            let answer = self.owners.resolve(question, Duration::ZERO, ask).await;
            answer
                .map(|Owner(owner)| owner)
                .map_err(|error| ReviewFailed(error.to_string()))
        }
        .boxed()
    }
}

/// The pod of a token, if it is good for our audience and its user may report.
fn owner(answer: TokenReview, users: &[String]) -> Option<Arc<str>> {
    let status = answer.status?;
    let ours = |audience: &String| audience == AUDIENCE;
    // A server that knows nothing of audiences names none, and would let any token in.
    if status.authenticated != Some(true) || !status.audiences.iter().flatten().any(ours) {
        return None;
    }
    let user = status.user?;
    if !user.username.is_some_and(|name| users.contains(&name)) {
        return None;
    }
    let pod = user.extra?.remove(POD_UID)?.into_iter().next()?;
    (!pod.is_empty()).then(|| pod.into())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const USER: &str = "system:serviceaccount:keda:interceptor";

    fn reviewed(status: Value) -> Option<Arc<str>> {
        let answer = json!({"metadata": {}, "spec": {}, "status": status});
        owner(serde_json::from_value(answer).unwrap(), &[USER.to_owned()])
    }

    #[test]
    fn only_a_pod_of_an_interceptor_with_a_token_for_us_is_somebody() {
        let good = json!({
            "authenticated": true,
            "audiences": [AUDIENCE],
            "user": {"username": USER, "extra": {POD_UID: ["0b1c"]}},
        });
        assert_eq!(reviewed(good.clone()).as_deref(), Some("0b1c"));
        for (pointer, bad) in [
            ("/authenticated", json!(false)),
            ("/audiences", json!(["https://kubernetes.default.svc"])),
            ("/audiences", json!(null)),
            ("/user/username", json!("system:serviceaccount:shop:web")),
            ("/user/extra", json!({})),
            ("/user/extra", json!({POD_UID: [""]})),
            ("/user", json!(null)),
        ] {
            let mut status = good.clone();
            *status.pointer_mut(pointer).unwrap() = bad;
            assert_eq!(reviewed(status.clone()), None, "{status}");
        }
    }
}
