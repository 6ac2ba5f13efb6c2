//! `aws-sqs-queue`: how many messages an SQS queue holds.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::aws::{self, AwsMetadata, SdkParts};
use crate::backpressure::Account;
use crate::clients::Fingerprint;
use crate::connect::Connect;
use crate::error::{ConfigError, ReadError, ReadErrorKind};
use crate::metadata::Metadata;
use crate::scaler::{MetricSpec, Observed, Question, Scaler, Target};

/// Scales on the number of messages in an Amazon SQS queue.
///
/// ```yaml
/// triggers:
///   - type: aws-sqs-queue
///     metadata:
///       queueURL: https://sqs.eu-west-1.amazonaws.com/123456789012/orders
///       queueLength: "5"
///       awsRegion: eu-west-1
///     authenticationRef:
///       name: aws
/// ```
///
/// - Metric name: `aws-sqs-<name of the queue>`.
/// - Value: `ApproximateNumberOfMessages`, with `ApproximateNumberOfMessagesNotVisible` and
///   `ApproximateNumberOfMessagesDelayed` as set below. While messages in flight count, no worker is taken away that
///   still works on one.
/// - `queueURL` is a URL whose path is `/<account>/<name>`, or the name alone. It is sent as it is.
/// - With the pod identity `aws`, its role, or the authentication's `awsRoleArn`, is assumed by the operator's web
///   identity token, else by the operator's own credentials; without a role those credentials are used. Without a
///   pod identity, `identityOwner` decides.
/// - The operator needs `sqs:GetQueueAttributes`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SqsMetadata {
    /// URL or name of the queue.
    #[serde(rename = "queueURL")]
    #[schemars(extend("x-sources" = ["metadata", "env"]))]
    queue_url: String,
    /// Messages one replica is meant to carry.
    #[serde(default = "default_queue_length")]
    queue_length: i64,
    /// The trigger is active above this number of messages.
    #[serde(default)]
    activation_queue_length: i64,
    /// Whether messages count that were received but not yet deleted.
    #[serde(default = "default_scale_on_in_flight")]
    scale_on_in_flight: bool,
    /// Whether messages count whose delay is not over yet.
    #[serde(default)]
    scale_on_delayed: bool,
    #[serde(flatten)]
    aws: AwsMetadata,
}

fn default_queue_length() -> i64 {
    5
}

fn default_scale_on_in_flight() -> bool {
    true
}

impl Metadata for SqsMetadata {
    const CONTEXT: &'static str = "error parsing SQS queue metadata";
    const PARSING: &'static str = "error parsing SQS queue metadata";
}

/// See [`SqsMetadata`].
pub(crate) struct AwsSqsQueue {
    client: Arc<Client>,
    account: Account,
    url: String,
    name: String,
    attributes: Vec<QueueAttributeName>,
    target: i64,
    activation: i64,
    asks: Fingerprint,
}

impl Scaler for AwsSqsQueue {
    const TYPE: &'static str = "aws-sqs-queue";
    const LABEL: &'static str = "awsSqsQueueScaler";
    type Metadata = SqsMetadata;

    fn connect(metadata: SqsMetadata, cx: &Connect) -> Result<Self, ConfigError> {
        let error = |message| ConfigError::Metadata {
            context: SqsMetadata::CONTEXT,
            message,
        };
        let name = queue_name(&metadata.queue_url)
            .ok_or_else(|| error("cannot get queueName from queueURL".to_owned()))?
            .to_owned();
        let identity = metadata
            .aws
            .identity
            .pick(cx.params.auth.pod_identity.as_ref())
            .map_err(error)?;
        let parts = SdkParts::shared(&identity, &metadata.aws.aws_region, cx).map_err(error)?;
        let endpoint = metadata.aws.aws_endpoint.as_deref();
        if let Some(endpoint) = endpoint {
            aws::check_endpoint(&identity, "sqs", ("awsEndpoint", endpoint), cx).map_err(error)?;
        }
        let key = parts.fingerprint.and(&["sqs", endpoint.unwrap_or_default()]);
        let account = cx.clients.account(key);
        let client = cx
            .clients
            .shared(key, || {
                let mut config =
                    aws_sdk_sqs::config::Builder::from(parts.config()).retry_classifier(aws::PatientServer);
                config.set_endpoint_url(endpoint.map(str::to_owned));
                Ok::<_, String>(Client::from_conf(config.build()))
            })
            .map_err(error)?;
        let mut attributes = vec![QueueAttributeName::ApproximateNumberOfMessages];
        if metadata.scale_on_in_flight {
            attributes.push(QueueAttributeName::ApproximateNumberOfMessagesNotVisible);
        }
        if metadata.scale_on_delayed {
            attributes.push(QueueAttributeName::ApproximateNumberOfMessagesDelayed);
        }
        let asked: Vec<&str> = attributes.iter().map(QueueAttributeName::as_str).collect();
        Ok(Self {
            client,
            account,
            asks: key.and(&[&metadata.queue_url]).and(&asked),
            url: metadata.queue_url,
            name,
            attributes,
            target: metadata.queue_length,
            activation: metadata.activation_queue_length,
        })
    }

    fn metric(&self) -> MetricSpec {
        MetricSpec {
            base_name: format!("aws-sqs-{}", self.name),
            target: Target::Whole(self.target),
        }
    }

    fn deadline(&self) -> Duration {
        aws::DEADLINE
    }

    #[expect(clippy::cast_precision_loss, reason = "no queue holds 2^53 messages")]
    async fn read(&self) -> Result<Observed, ReadError> {
        let what = format!("error reading SQS queue {:?}", self.name);
        self.account.admit(&what)?;
        let answer = self
            .client
            .get_queue_attributes()
            .queue_url(&self.url)
            .set_attribute_names(Some(self.attributes.clone()))
            .send()
            .await
            .map_err(|error| aws::read_error(&what, &error))
            .inspect_err(|failure| self.account.obey(failure))?;
        let bad = |fault: String| ReadError::new(ReadErrorKind::BadAnswer, format!("{what}: {fault}"));
        let mut messages = 0_i64;
        for attribute in &self.attributes {
            let value = answer
                .attributes()
                .and_then(|attributes| attributes.get(attribute))
                .ok_or_else(|| bad(format!("metric {attribute} not found in SQS queue attributes")))?;
            let value: i64 = value
                .parse()
                .map_err(|_| bad(format!("metric {attribute} is not a whole number")))?;
            messages = messages.saturating_add(value);
        }
        Ok(Observed::above(messages as f64, self.activation as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "no queue holds 2^53 messages")]
    fn question(&self) -> Option<Question> {
        Some(Question {
            fingerprint: self.asks,
            activation: self.activation as f64,
        })
    }
}

/// The queue's name: the third part of the path of a URI or of an absolute path, or all of a text that is neither.
/// `None` where a URI's path has another form.
fn queue_name(text: &str) -> Option<&str> {
    let path = if text.starts_with('/') {
        text
    } else {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Some(text);
        };
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        if !is_scheme {
            return Some(text);
        }
        let after_host = rest
            .strip_prefix("//")
            .map(|rest| &rest[rest.find(['/', '?']).unwrap_or(rest.len())..]);
        after_host.unwrap_or(if rest.starts_with('/') { rest } else { "" })
    };
    let path = path.split('?').next().unwrap_or_default();
    match path.split('/').collect::<Vec<_>>()[..] {
        [_, _, name] if !name.is_empty() => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
