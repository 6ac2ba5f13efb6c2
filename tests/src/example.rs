//! The example that users copy (`deploy/examples/sqs-worker`), with the values of one run put in.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::manifest;
use crate::namespace::Namespace;
use crate::sqs::REGION;

/// The name that all the example's objects begin with, and that its Deployment and ScaledObject have.
pub const NAME: &str = "sqs-worker";

/// What a user would change in the example before applying it.
#[derive(Clone)]
pub struct SqsWorker {
    /// The queue to work on.
    pub queue_url: String,
    /// Where finished messages' bodies go.
    pub result_queue_url: String,
    /// The SQS server.
    pub endpoint: String,
    /// Its access key.
    pub access_key: String,
    /// And its secret half.
    pub secret_key: String,
    /// How long one message takes.
    pub work: Duration,
    /// Fields of the ScaledObject's `spec` that are set besides, by name.
    pub spec: Vec<(&'static str, Value)>,
    /// `queueLength` of the trigger.
    pub queue_length: u32,
}

impl SqsWorker {
    /// Applies the example to `namespace`.
    ///
    /// # Errors
    /// When the example no longer has the shape this knows, or the API server refuses it.
    pub async fn apply(&self, cluster: &Cluster, namespace: &Namespace) -> Result<()> {
        for object in self.objects(cluster).await? {
            manifest::apply_value(cluster, namespace.name(), object).await?;
        }
        Ok(())
    }

    async fn objects(&self, cluster: &Cluster) -> Result<Vec<Value>> {
        let mut objects = manifest::kustomized(cluster, "deploy/examples/sqs-worker").await?;
        for object in &mut objects {
            self.fill(object)
                .with_context(|| format!("filling in the example's {}", object["kind"]))?;
        }
        Ok(objects)
    }

    fn fill(&self, object: &mut Value) -> Result<()> {
        match object["kind"].as_str() {
            Some("Secret") => {
                object["stringData"]["AWS_ACCESS_KEY_ID"] = json!(self.access_key);
                object["stringData"]["AWS_SECRET_ACCESS_KEY"] = json!(self.secret_key);
            }
            Some("Deployment") => {
                let container = at(object, "/spec/template/spec/containers/0")?;
                container["image"] = json!(format!("localhost/{NAME}:dev"));
                container["imagePullPolicy"] = json!("Never");
                let environment = at(container, "/env")?;
                for (name, value) in [
                    ("QUEUE_URL", self.queue_url.clone()),
                    ("RESULT_QUEUE_URL", self.result_queue_url.clone()),
                    ("AWS_ENDPOINT_URL", self.endpoint.clone()),
                    ("AWS_REGION", REGION.to_owned()),
                    ("WORK_MS", self.work.as_millis().to_string()),
                ] {
                    set_variable(environment, name, value)?;
                }
            }
            Some("ScaledObject") => {
                for (field, value) in &self.spec {
                    object["spec"][*field] = value.clone();
                }
                let metadata = at(object, "/spec/triggers/0/metadata")?;
                metadata["queueURL"] = json!(self.queue_url);
                metadata["queueLength"] = json!(self.queue_length.to_string());
                metadata["awsRegion"] = json!(REGION);
                metadata["awsEndpoint"] = json!(self.endpoint);
            }
            _ => {}
        }
        Ok(())
    }
}

fn at<'a>(object: &'a mut Value, pointer: &str) -> Result<&'a mut Value> {
    object
        .pointer_mut(pointer)
        .ok_or_else(|| anyhow!("there is nothing at {pointer}"))
}

fn set_variable(environment: &mut Value, name: &str, value: String) -> Result<()> {
    let variables = environment
        .as_array_mut()
        .ok_or_else(|| anyhow!("env is not a list"))?;
    variables.retain(|variable| variable["name"] != name);
    variables.push(json!({"name": name, "value": value}));
    Ok(())
}
