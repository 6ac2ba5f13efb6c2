//! Whose token is this? Asked by TokenReview; tokens themselves are never kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use sha2::{Digest, Sha256};

use super::review::{Answer, ReviewCache, Unanswered};
use super::user::User;

const CAPACITY: usize = 1024;
/// Longer bearer tokens are refused unasked; service account tokens are about 1 KiB.
const MAX_TOKEN: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner(Option<Arc<User>>);

impl Answer for Owner {
    fn fresh_for(&self) -> Duration {
        Duration::from_secs(if self.0.is_some() { 60 } else { 5 })
    }
}

/// Owners of tokens, remembered by the tokens' digests.
pub(crate) struct TokenReviews {
    client: Client,
    owners: ReviewCache<Owner>,
}

impl TokenReviews {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            owners: ReviewCache::new(CAPACITY),
        }
    }

    /// The user whose token this is, or none if it is nobody's.
    pub(crate) async fn owner(&self, token: &str) -> Result<Option<Arc<User>>, Unanswered> {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Ok(None);
        }
        let api = Api::<TokenReview>::all(self.client.clone());
        let Owner(owner) = self
            .owners
            .resolve(Sha256::digest(token).into(), Duration::ZERO, || {
                let review = TokenReview {
                    spec: TokenReviewSpec {
                        token: Some(token.to_owned()),
                        ..TokenReviewSpec::default()
                    },
                    ..TokenReview::default()
                };
                async move {
                    let answer = api
                        .create(&PostParams::default(), &review)
                        .await
                        .map_err(|error| Unanswered(format!("TokenReview: {error}")))?;
                    owner(answer)
                }
            })
            .await?;
        Ok(owner)
    }
}

fn owner(answer: TokenReview) -> Result<Owner, Unanswered> {
    let status = answer
        .status
        .ok_or_else(|| Unanswered("TokenReview: its answer has no status".to_owned()))?;
    let user = status
        .authenticated
        .unwrap_or(false)
        .then_some(status.user)
        .flatten();
    Ok(Owner(user.and_then(|user| {
        let user = User {
            name: user.username.filter(|name| !name.is_empty())?,
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_else(BTreeMap::new),
        };
        Some(Arc::new(user.authenticated()))
    })))
}
