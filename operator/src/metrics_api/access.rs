//! May this user do that? Asked by SubjectAccessReview, as every aggregated API server does for every caller.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};
use sha2::{Digest, Sha256};

use super::discovery::{GROUP, VERSION};
use super::review::{Answer, Question, ReviewCache, Unanswered};
use super::user::{Identity, Proof, User};

/// How long an answer counts for the aggregation layer's callers while the API server is silent: the HPA must not go
/// blind because we cannot reach it.
const STALE_LIMIT: Duration = Duration::from_secs(300);
const CAPACITY: usize = 4096;

/// What a caller wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) enum Wish<'a> {
    /// Read a metric of a namespace. The API sees metrics as resources, and their reading as a list.
    Metric { namespace: &'a str, metric: &'a str },
    /// Get a path that belongs to no resource.
    Path(&'a str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Allowed(bool);

impl Answer for Allowed {
    fn fresh_for(&self) -> Duration {
        Duration::from_secs(if self.0 { 60 } else { 10 })
    }
}

/// Answers about access, remembered.
pub(crate) struct AccessReviews {
    client: Client,
    answers: ReviewCache<Allowed>,
}

impl AccessReviews {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            answers: ReviewCache::new(CAPACITY),
        }
    }

    /// Whether `identity` may do `wish`.
    pub(crate) async fn allows(&self, identity: &Identity, wish: Wish<'_>) -> Result<bool, Unanswered> {
        let user = &identity.user;
        if user.is_master() {
            return Ok(true);
        }
        let stale_limit = match identity.proof {
            Proof::FrontProxy => STALE_LIMIT,
            Proof::Certificate | Proof::Token => Duration::ZERO,
        };
        if let (Proof::FrontProxy, Wish::Metric { .. }) = (identity.proof, wish) {
            // The aggregation layer has already had this very request authorised, so one question about all metrics
            // spares the HPA controller's user a question per metric and minute.
            let all = Wish::Metric {
                namespace: "",
                metric: "*",
            };
            match self.ask(user, all, stale_limit).await {
                Ok(Allowed(true)) => return Ok(true),
                Ok(Allowed(false)) => {}
                Err(unanswered) => {
                    return self
                        .answers
                        .remembered(&question(user, wish), stale_limit)
                        .map(|Allowed(allowed)| allowed)
                        .ok_or(unanswered);
                }
            }
        }
        let Allowed(allowed) = self.ask(user, wish, stale_limit).await?;
        Ok(allowed)
    }

    async fn ask(&self, user: &User, wish: Wish<'_>, stale_limit: Duration) -> Result<Allowed, Unanswered> {
        let api = Api::<SubjectAccessReview>::all(self.client.clone());
        self.answers
            .resolve(question(user, wish), stale_limit, || {
                let review = review(user, wish);
                async move {
                    let answer = api
                        .create(&PostParams::default(), &review)
                        .await
                        .map_err(|error| Unanswered(format!("SubjectAccessReview: {error}")))?;
                    let status = answer.status.ok_or_else(|| {
                        Unanswered("SubjectAccessReview: its answer has no status".to_owned())
                    })?;
                    Ok(Allowed(status.allowed && !status.denied.unwrap_or(false)))
                }
            })
            .await
    }
}

fn question(user: &User, wish: Wish<'_>) -> Question {
    let text = serde_json::to_vec(&(user, wish)).expect("structs of strings always serialise");
    Sha256::digest(text).into()
}

fn review(user: &User, wish: Wish<'_>) -> SubjectAccessReview {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut spec = SubjectAccessReviewSpec {
        user: Some(user.name.clone()),
        uid: some(&user.uid),
        groups: Some(user.groups.clone()),
        extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
        ..SubjectAccessReviewSpec::default()
    };
    match wish {
        Wish::Metric { namespace, metric } => {
            spec.resource_attributes = Some(ResourceAttributes {
                group: Some(GROUP.to_owned()),
                version: Some(VERSION.to_owned()),
                resource: Some(metric.to_owned()),
                namespace: some(namespace),
                verb: Some("list".to_owned()),
                ..ResourceAttributes::default()
            });
        }
        Wish::Path(path) => {
            spec.non_resource_attributes = Some(NonResourceAttributes {
                path: Some(path.to_owned()),
                verb: Some("get".to_owned()),
            });
        }
    }
    SubjectAccessReview {
        spec,
        ..SubjectAccessReview::default()
    }
}
