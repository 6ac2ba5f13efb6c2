//! SQS for tests: a server on the node's address, and a queue as its sender and its auditor see it.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aws_credential_types::Credentials;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::config::{BehaviorVersion, Region};
use aws_sdk_sqs::types::{QueueAttributeName, SendMessageBatchRequestEntry};
use tokio::process::{Child, Command};

use crate::cluster::{NODE_ADDRESS, path};
use crate::served::listen;
use crate::wait::until;

/// The region everything here is in.
pub const REGION: &str = "us-east-1";

/// moto's SQS server, run as a child that ends with this value.
pub struct SqsServer {
    address: SocketAddr,
    _child: Child,
}

impl SqsServer {
    /// Starts moto (`DORMOUSE_MOTO`) on the node's address and waits until it answers.
    ///
    /// # Errors
    /// When it is not there, or does not answer within 60 s.
    pub async fn start() -> Result<Self> {
        let program = path("DORMOUSE_MOTO")?;
        let address = free_address().await?;
        let child = Command::new(&program)
            .args(["-H", NODE_ADDRESS, "-p", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("unable to start {}", program.display()))?;
        let this = Self {
            address,
            _child: child,
        };
        let client = client(&this.endpoint(), "test", "test");
        until("the SQS server answers", Duration::from_secs(60), async || {
            client
                .list_queues()
                .send()
                .await
                .map_err(|error| anyhow!("{}", aws_error(error)))
        })
        .await?;
        Ok(this)
    }

    /// The URL of the server, as `awsEndpoint` and `AWS_ENDPOINT_URL` take it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Creates a queue.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create_queue(&self, name: &str) -> Result<Queue> {
        Queue::create(client(&self.endpoint(), "test", "test"), name).await
    }
}

/// An address on the node that nobody listens on.
///
/// # Errors
/// When the node's address is not this machine's, as outside the cluster's network.
pub async fn free_address() -> Result<SocketAddr> {
    listen().await?.local_addr().context("reading a free port")
}

/// A client for a server at `endpoint`; each call has 5 s.
#[must_use]
pub fn client(endpoint: &str, access_key: &str, secret_key: &str) -> Client {
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(Duration::from_secs(5))
        .operation_timeout(Duration::from_secs(10))
        .build();
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new(access_key, secret_key, None, None, "test"))
        .timeout_config(timeouts)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

/// How many messages a queue holds, by what they are waiting for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// To be received.
    pub visible: u64,
    /// Received, and not deleted yet.
    pub in_flight: u64,
}

impl Depth {
    /// Messages not done yet.
    #[must_use]
    pub fn total(self) -> u64 {
        self.visible + self.in_flight
    }
}

/// One queue.
#[derive(Clone)]
pub struct Queue {
    client: Client,
    url: String,
}

impl Queue {
    /// Creates a queue, or finds it.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create(client: Client, name: &str) -> Result<Self> {
        let created = client.create_queue().queue_name(name).send().await;
        let created = created.map_err(|error| anyhow!("creating queue {name}: {}", aws_error(error)))?;
        let url = created
            .queue_url
            .ok_or_else(|| anyhow!("queue {name} was created without a URL"))?;
        Ok(Self { client, url })
    }

    /// Its URL, as workers and triggers take it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends every body, ten to a call.
    ///
    /// # Errors
    /// When the server refuses one.
    pub async fn send(&self, bodies: &[String]) -> Result<()> {
        for ten in bodies.chunks(10) {
            let entries = ten.iter().enumerate().map(|(index, body)| {
                SendMessageBatchRequestEntry::builder()
                    .id(index.to_string())
                    .message_body(body)
                    .build()
            });
            let entries = entries
                .collect::<Result<Vec<_>, _>>()
                .context("building a batch")?;
            let sent = self
                .client
                .send_message_batch()
                .queue_url(&self.url)
                .set_entries(Some(entries))
                .send()
                .await;
            let sent = sent.map_err(|error| anyhow!("sending: {}", aws_error(error)))?;
            ensure!(
                sent.failed.is_empty(),
                "{} messages of a batch were refused",
                sent.failed.len()
            );
        }
        Ok(())
    }

    /// How many messages are in it.
    ///
    /// # Errors
    /// When the server does not say.
    pub async fn depth(&self) -> Result<Depth> {
        let asked = self
            .client
            .get_queue_attributes()
            .queue_url(&self.url)
            .attribute_names(QueueAttributeName::ApproximateNumberOfMessages)
            .attribute_names(QueueAttributeName::ApproximateNumberOfMessagesNotVisible);
        let answer = asked
            .send()
            .await
            .map_err(|error| anyhow!("reading a queue: {}", aws_error(error)))?;
        let all = answer.attributes.unwrap_or_default();
        let read = |name: QueueAttributeName| -> Result<u64> {
            let text = all
                .get(&name)
                .ok_or_else(|| anyhow!("the answer has no {name}"))?;
            text.parse().with_context(|| format!("{name}"))
        };
        Ok(Depth {
            visible: read(QueueAttributeName::ApproximateNumberOfMessages)?,
            in_flight: read(QueueAttributeName::ApproximateNumberOfMessagesNotVisible)?,
        })
    }

    /// Takes up to ten messages out of the queue for good and answers their bodies.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn drain(&self) -> Result<Vec<String>> {
        let asked = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(10);
        let answer = asked
            .send()
            .await
            .map_err(|error| anyhow!("receiving: {}", aws_error(error)))?;
        let mut bodies = Vec::new();
        for message in answer.messages.unwrap_or_default() {
            let Some(receipt) = &message.receipt_handle else {
                bail!("a message came without a receipt")
            };
            let deleted = self
                .client
                .delete_message()
                .queue_url(&self.url)
                .receipt_handle(receipt)
                .send()
                .await;
            deleted.map_err(|error| anyhow!("deleting: {}", aws_error(error)))?;
            bodies.push(message.body.unwrap_or_default());
        }
        Ok(bodies)
    }
}

fn aws_error(error: impl std::error::Error) -> String {
    aws_sdk_sqs::error::DisplayErrorContext(error).to_string()
}
