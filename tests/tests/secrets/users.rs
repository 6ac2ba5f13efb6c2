//! The users of a Redis that knows each of them by a password.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::redis::node;
use dormouse_tests::stage::{podless, scaled_object};
use dormouse_tests::{RedisServer, Scaled, Stage, until};
use serde_json::{Value, json};

use crate::{IN_USE, authentication, nothing_failed, secret};

/// Whatever is a secret in these tests.
pub(crate) const CANARY: &str = "CANARY-REDIS-";
const NAME: &str = "jobs";
const LIST: &str = "waiting";
const ROTATIONS: usize = 3;
/// How long an object goes on with its last user, to show that it needs no other.
const AFTERWARDS: Duration = Duration::from_secs(4);

fn user(round: usize) -> String {
    format!("reader-{round}")
}

fn credentials(round: usize) -> Value {
    secret(
        NAME,
        json!({"username": user(round), "password": format!("{CANARY}{round}")}),
    )
}

/// Another user each time, and the old one taken away, with its connections, as soon as the new one is there.
pub(crate) async fn rotate(stage: &Stage) -> Result<()> {
    let server = RedisServer::start(node()?).await?;
    server.push(LIST, 1).await?;
    let let_in = async |round| server.set_user(&user(round), &format!("{CANARY}{round}")).await;
    let_in(0).await?;
    stage.apply(credentials(0)).await?;
    let keys = ["username", "password"]
        .map(|parameter| json!({"parameter": parameter, "name": NAME, "key": parameter}));
    stage
        .apply(authentication(
            "TriggerAuthentication",
            NAME,
            json!({"secretTargetRef": keys}),
        ))
        .await?;
    stage.apply(podless(NAME, 1)).await?;
    let scaled = Scaled::watch(stage, NAME);
    stage.apply(object(&server)).await?;
    scaled.is_ready().await?;
    for round in 1..=ROTATIONS {
        let_in(round).await?;
        let changed = Instant::now();
        stage.apply(credentials(round)).await?;
        let took = until(&format!("{} reads", user(round)), 4 * IN_USE, async || {
            let open = server.connections_of(&user(round)).await?;
            ensure!(open > 0, "it has no connection");
            Ok(changed.elapsed())
        })
        .await?;
        ensure!(took <= IN_USE, "{} was in use after {took:?}", user(round));
        server.delete_user(&user(round - 1)).await?;
        eprintln!("{} reads {took:?} after the Secret changed", user(round));
    }
    let before = server.calls_of("llen").await?;
    tokio::time::sleep(AFTERWARDS).await;
    let reads = server.calls_of("llen").await? - before;
    ensure!(reads >= 2, "the list was read {reads} times in {AFTERWARDS:?}");
    nothing_failed(stage, NAME).await?;
    let refused = server
        .command(&["ACL", "LOG"])
        .await
        .context("reading who was refused")?;
    ensure!(refused.is_empty(), "Redis refused: {refused}");
    Ok(())
}

fn object(server: &RedisServer) -> Value {
    scaled_object(
        NAME,
        json!({
            "scaleTargetRef": {"name": NAME}, "pollingInterval": 1, "maxReplicaCount": 2,
            "triggers": [{
                "type": "redis", "authenticationRef": {"name": NAME},
                "metadata": {"address": server.address().to_string(), "listName": LIST, "listLength": "5"},
            }],
        }),
    )
}
