//! The queue as the worker sees it: every call has a deadline, every message one of two ends.

use std::time::Duration;

use anyhow::Context as _;
use aws_config::BehaviorVersion;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

/// The longest one call may take beyond a long poll's own wait.
const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// Kept on top of the work's length before a message that was not finished shows up again.
const VISIBILITY_MARGIN: Duration = Duration::from_secs(30);

pub(crate) struct Queue {
    client: Client,
    url: String,
    results: Option<String>,
    wait_seconds: i32,
    visibility_seconds: i32,
}

/// A message in hand: it must be finished or given back.
pub(crate) struct Job(Message);

impl Job {
    pub(crate) fn id(&self) -> &str {
        self.0.message_id().unwrap_or_default()
    }

    /// How often this message has been received, this time included.
    pub(crate) fn attempt(&self) -> u32 {
        let counts = self.0.attributes();
        let count = counts.and_then(|all| all.get(&MessageSystemAttributeName::ApproximateReceiveCount));
        count.and_then(|count| count.parse().ok()).unwrap_or(1)
    }

    fn receipt(&self) -> &str {
        self.0.receipt_handle().unwrap_or_default()
    }
}

impl Queue {
    /// Credentials, region and endpoint come from the environment, as every AWS program takes them.
    pub(crate) async fn open(
        url: String,
        results: Option<String>,
        work: Duration,
        wait_seconds: i32,
    ) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .build_https();
        let attempt = CALL_DEADLINE + Duration::from_secs(wait_seconds.unsigned_abs().into());
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(3))
            .operation_attempt_timeout(attempt)
            .operation_timeout(attempt + CALL_DEADLINE)
            .build();
        let config = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .timeout_config(timeouts)
            .load()
            .await;
        let visibility = (work + VISIBILITY_MARGIN).as_secs().min(MAX_VISIBILITY);
        Self {
            client: Client::new(&config),
            url,
            results,
            wait_seconds,
            visibility_seconds: visibility as i32,
        }
    }

    /// Waits up to the long poll's length for one message.
    pub(crate) async fn receive(&self) -> anyhow::Result<Option<Job>> {
        let received = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(1)
            .wait_time_seconds(self.wait_seconds)
            .visibility_timeout(self.visibility_seconds)
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .send()
            .await
            .context("receiving")?;
        Ok(received.messages.unwrap_or_default().into_iter().next().map(Job))
    }

    /// Passes the result on, where a result queue is set, and only then deletes the message.
    pub(crate) async fn finish(&self, job: &Job) -> anyhow::Result<()> {
        if let Some(results) = &self.results {
            let body = job.0.body().unwrap_or_default();
            let sent = self
                .client
                .send_message()
                .queue_url(results)
                .message_body(body)
                .send()
                .await;
            sent.context("sending the result")?;
        }
        let deleted = self
            .client
            .delete_message()
            .queue_url(&self.url)
            .receipt_handle(job.receipt())
            .send()
            .await;
        deleted.context("deleting")?;
        Ok(())
    }

    /// Makes the message visible to others at once.
    pub(crate) async fn give_back(&self, job: &Job) -> anyhow::Result<()> {
        let call = self.client.change_message_visibility().queue_url(&self.url);
        call.receipt_handle(job.receipt())
            .visibility_timeout(0)
            .send()
            .await
            .context("giving back")?;
        Ok(())
    }
}

/// SQS hides a message for twelve hours at most.
const MAX_VISIBILITY: u64 = 12 * 60 * 60;
