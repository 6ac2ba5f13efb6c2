//! A changed Secret, ConfigMap, authentication or pod template is in use within 5 s, and nothing fails on the way: the old
//! key is revoked as soon as the new one was seen.

#[path = "secrets/keys.rs"]
mod keys;
#[path = "secrets/sources.rs"]
mod sources;
#[path = "secrets/users.rs"]
mod users;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::stage::all;
use dormouse_tests::{SignedSqs, Stage, logs};
use futures::FutureExt as _;
use serde_json::{Value, json};

/// From a change to its first use.
const IN_USE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_queues_rotate_without_a_failed_poll() -> Result<()> {
    let stage = Stage::set("rotate").await?;
    let server = SignedSqs::start().await?;
    let neighbour = keys::Rotated::settle(&stage, &server, "untouched", 1).await?;
    let (fast, slow, again) = tokio::try_join!(
        keys::rotate(&stage, &server, "fast", 1, keys::Way::Patched),
        keys::rotate(&stage, &server, "slow", 30, keys::Way::Patched),
        keys::rotate(&stage, &server, "replaced", 1, keys::Way::DeletedAndCreated),
    )?;
    neighbour.was_left_alone()?;
    stage.installation_is_clean(&keys::secrets()).await?;
    eprintln!(
        "from the change of a Secret to its first use: interval 1 s {fast:?}, interval 30 s {slow:?}, replaced {again:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_redis_rotate_without_a_failed_poll() -> Result<()> {
    let stage = Stage::set("users").await?;
    users::rotate(&stage).await?;
    stage.installation_is_clean(&[users::CANARY]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_other_reference_is_followed() -> Result<()> {
    let stage = Stage::set("follow").await?;
    all([
        ("a ConfigMap", sources::from_a_config_map(&stage).boxed()),
        (
            "a TriggerAuthentication",
            sources::by_another_authentication(&stage).boxed(),
        ),
        (
            "a ClusterTriggerAuthentication",
            sources::cluster_wide(&stage).boxed(),
        ),
        (
            "the container's environment",
            sources::environment(&stage).boxed(),
        ),
        ("a Secret that appears", sources::appears(&stage).boxed()),
        ("many Secrets", sources::many(&stage).boxed()),
    ]
    .map(|(name, case)| (name.to_owned(), case)))
    .await?;
    stage.installation_is_clean(&[sources::CANARY]).await
}

trait Clean {
    /// No canary is where it must not be, and no right was missing.
    async fn installation_is_clean(&self, canaries: &[&str]) -> Result<()>;
}

impl Clean for Stage {
    async fn installation_is_clean(&self, canaries: &[&str]) -> Result<()> {
        logs::assert_no_canary(&self.cluster, &self.installation, self.namespace.name(), canaries).await?;
        logs::assert_nothing_denied(&self.cluster, &self.installation).await
    }
}

/// Failed reads of a ScaledObject so far, as the operator counts them.
async fn failed_reads(stage: &Stage, name: &str) -> Result<f64> {
    let page = stage.metrics_page().await?;
    let labels = [
        format!("namespace=\"{}\"", stage.namespace.name()),
        format!("scaledObject=\"{name}\""),
    ];
    let line = page.lines().find(|line| {
        line.starts_with("keda_scaler_detail_errors_total{")
            && labels.iter().all(|label| line.contains(label.as_str()))
    });
    let line = line.with_context(|| format!("no reads of {name} are counted"))?;
    let value = line.rsplit(' ').next().unwrap_or_default();
    value.parse().with_context(|| format!("{line} has no number"))
}

async fn nothing_failed(stage: &Stage, name: &str) -> Result<()> {
    let failed = failed_reads(stage, name).await?;
    ensure!(failed == 0.0, "{failed} reads of {name} failed");
    Ok(())
}

/// Waits for the first use of something new, which must come in time after `changed`.
async fn first_use(
    what: &str,
    changed: Instant,
    mut used: impl FnMut() -> Option<Instant>,
) -> Result<Duration> {
    loop {
        if let Some(at) = used() {
            let took = at.saturating_duration_since(changed);
            ensure!(took <= IN_USE, "{what} was in use after {took:?}");
            return Ok(took);
        }
        ensure!(
            changed.elapsed() < 4 * IN_USE,
            "{what} was not in use after {:?}",
            changed.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn secret(name: &str, values: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values})
}

fn config_map(name: &str, values: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": values})
}

fn authentication(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "keda.sh/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}
