//! The six redis triggers: from 0 to what a key asks for and back to 0, on a single server, a cluster and a master that
//! sentinels watch, all behind passwords.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::redis::{ADMIN_PASSWORD, MASTER_NAME, SENTINEL_PASSWORD, node};
use dormouse_tests::stage::{all, podless, scaled_object};
use dormouse_tests::{RedisCluster, RedisSentinel, RedisServer, Scaled, Stage, logs};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
/// For the HPA controller's next sync, and what follows from it.
const HPA_ACTS: Duration = Duration::from_secs(60);
const TARGET: usize = 5;
const WANTED: i64 = 3;
const AUTHENTICATION: &str = "redis";

/// How a key is filled and emptied.
#[derive(Clone, Copy)]
enum Kind {
    List,
    /// By its length.
    Stream,
    /// By what its group has read and not acknowledged.
    Pending,
    /// By what its group has not read.
    Lag,
}

impl Kind {
    fn metadata(self, key: &str) -> Value {
        let target = TARGET.to_string();
        match self {
            Self::List => json!({"listName": key, "listLength": target}),
            Self::Stream => json!({"stream": key, "streamLength": target}),
            Self::Pending => {
                json!({"stream": key, "consumerGroup": "workers", "pendingEntriesCount": target})
            }
            Self::Lag => json!({"stream": key, "consumerGroup": "workers", "lagCount": target}),
        }
    }

    fn metric(self, key: &str) -> String {
        match self {
            Self::List => format!("s0-redis-{key}"),
            _ => format!("s0-redis-streams-{key}"),
        }
    }

    async fn prepare(self, server: &RedisServer, key: &str) -> Result<()> {
        if matches!(self, Self::Pending | Self::Lag) {
            let create = ["XGROUP", "CREATE", key, "workers", "$", "MKSTREAM"];
            server.command(&create).await?;
        }
        Ok(())
    }

    async fn fill(self, server: &RedisServer, key: &str, count: usize) -> Result<()> {
        if matches!(self, Self::List) {
            return server.push(key, count).await;
        }
        server.add(key, count).await?;
        if matches!(self, Self::Pending) {
            self.read(server, key).await?;
        }
        Ok(())
    }

    async fn read(self, server: &RedisServer, key: &str) -> Result<()> {
        let read = ["XREADGROUP", "GROUP", "workers", "me", "STREAMS", key, ">"];
        server.command(&read).await.map(drop)
    }

    async fn empty(self, server: &RedisServer, key: &str) -> Result<()> {
        match self {
            Self::List | Self::Stream => server.command(&["DEL", key]).await.map(drop),
            Self::Lag => self.read(server, key).await,
            Self::Pending => {
                let forget = ["XGROUP", "DELCONSUMER", key, "workers", "me"];
                server.command(&forget).await.map(drop)
            }
        }
    }
}

/// One trigger type on its server.
struct Case<'a> {
    trigger_type: &'static str,
    key: &'static str,
    kind: Kind,
    server: &'a RedisServer,
    /// Where to look for it.
    place: Value,
}

impl Case<'_> {
    fn object(&self) -> Value {
        let mut metadata = self.kind.metadata(self.key);
        for part in [&self.place, &json!({"sentinelMaster": MASTER_NAME})] {
            for (name, value) in part.as_object().into_iter().flatten() {
                metadata[name] = value.clone();
            }
        }
        scaled_object(
            self.trigger_type,
            json!({
                "scaleTargetRef": {"name": self.trigger_type}, "pollingInterval": 1, "cooldownPeriod": 2,
                "maxReplicaCount": 6,
                "triggers": [{
                    "type": self.trigger_type, "metadata": metadata, "authenticationRef": {"name": AUTHENTICATION},
                }],
            }),
        )
    }

    async fn scales_up_and_back_to_zero(&self, stage: &Stage) -> Result<()> {
        let scaled = Scaled::watch(stage, self.trigger_type);
        self.kind.prepare(self.server, self.key).await?;
        stage.apply(podless(self.trigger_type, 1)).await?;
        stage.apply(self.object()).await?;
        scaled.is_ready().await?;
        scaled.has(0, SOON).await?;

        self.kind.fill(self.server, self.key, TARGET * 3 - 1).await?;
        let filled = Instant::now();
        scaled
            .turned(filled, Duration::from_secs(10), |count| count == 1)
            .await?;
        scaled.has(WANTED, HPA_ACTS).await?;
        let metric = self.kind.metric(self.key);
        let value = stage.metric_value(self.trigger_type, &metric).await?;
        ensure!(value == (TARGET * 3 - 1).to_string(), "{metric} is {value}");

        self.kind.empty(self.server, self.key).await?;
        scaled.has(0, SOON).await?;
        let counts = scaled.counts();
        ensure!(
            counts == [1, 0, 1, WANTED, 0],
            "the replicas went another way: {counts:?}"
        );
        Ok(())
    }
}

async fn prepare(stage: &Stage) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": AUTHENTICATION},
        "stringData": {"password": ADMIN_PASSWORD, "sentinel": SENTINEL_PASSWORD},
    });
    stage.apply(secret).await?;
    let authentication = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": AUTHENTICATION},
        "spec": {"secretTargetRef": [
            {"parameter": "password", "name": AUTHENTICATION, "key": "password"},
            {"parameter": "sentinelPassword", "name": AUTHENTICATION, "key": "sentinel"},
        ]},
    });
    stage.apply(authentication).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_six_types_from_manifest_to_replicas_and_back() -> Result<()> {
    let stage = Stage::set("redis").await?;
    prepare(&stage).await?;
    let node = node()?;
    let (single, cluster, sentinel) = tokio::try_join!(
        RedisServer::start(node),
        RedisCluster::start(node, false, true),
        RedisSentinel::start(node, true),
    )?;
    let (list_owner, stream_owner) = (cluster.owner("orders").await?, cluster.owner("events").await?);
    let of_single = json!({"host": node.to_string(), "port": single.address().port().to_string()});
    let of_cluster = json!({"addresses": cluster.addresses()});
    let of_sentinel = json!({"addresses": sentinel.addresses()});
    let case = |trigger_type, kind, server, place: &Value| Case {
        trigger_type,
        key: if matches!(kind, Kind::List) {
            "orders"
        } else {
            "events"
        },
        kind,
        server,
        place: place.clone(),
    };
    let cases = [
        case("redis", Kind::List, &single, &of_single),
        case("redis-cluster", Kind::List, list_owner, &of_cluster),
        case("redis-sentinel", Kind::List, sentinel.server(0), &of_sentinel),
        case("redis-streams", Kind::Lag, &single, &of_single),
        case("redis-cluster-streams", Kind::Stream, stream_owner, &of_cluster),
        case(
            "redis-sentinel-streams",
            Kind::Pending,
            sentinel.server(0),
            &of_sentinel,
        ),
    ];
    all(cases.iter().map(|case| {
        (
            case.trigger_type.to_owned(),
            case.scales_up_and_back_to_zero(&stage),
        )
    }))
    .await?;
    let (installation, name) = (&stage.installation, stage.namespace.name());
    logs::assert_no_canary(&stage.cluster, installation, name, &[ADMIN_PASSWORD]).await
}

/// What was there goes on being there while redis is gone, and what redis says counts again as soon as it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_gone_or_refuses_moves_no_replica() -> Result<()> {
    let stage = Stage::set("redis-gone").await?;
    prepare(&stage).await?;
    let mut server = RedisServer::start(node()?).await?;
    let place = json!({"address": server.address().to_string()});
    let metadata = |kind: Kind| {
        let mut metadata = kind.metadata("orders");
        metadata["address"] = place["address"].clone();
        metadata
    };
    let object = |name: &str, trigger: Value| {
        let spec = json!({
            "scaleTargetRef": {"name": name}, "pollingInterval": 1, "cooldownPeriod": 2, "maxReplicaCount": 6,
            "triggers": [trigger],
        });
        scaled_object(name, spec)
    };
    server.push("orders", TARGET * 2).await?;
    let (served, refused) = (Scaled::watch(&stage, "served"), Scaled::watch(&stage, "refused"));
    for name in ["served", "refused"] {
        stage.apply(podless(name, 2)).await?;
    }
    let with = json!({"type": "redis", "metadata": metadata(Kind::List), "authenticationRef": {"name": AUTHENTICATION}});
    let without = json!({"type": "redis", "metadata": metadata(Kind::List)});
    stage.apply(object("served", with)).await?;
    stage.apply(object("refused", without)).await?;
    served.is_ready().await?;
    refused.condition_is("Ready", "False", "TriggerError").await?;
    refused
        .event("KEDAScalerFailed", "asks for a password (NOAUTH)", 1)
        .await?;

    server.kill().await?;
    served
        .event("KEDAScalerFailed", "connection to redis failed", 1)
        .await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    for scaled in [&served, &refused] {
        ensure!(
            scaled.counts() == [2],
            "{} moved: {:?}",
            scaled.name(),
            scaled.counts()
        );
    }
    server.restart().await?;
    served.has(0, SOON).await.context("an empty redis is back")?;
    server.push("orders", 1).await?;
    served.has(1, Duration::from_secs(10)).await?;
    ensure!(refused.counts() == [2], "refused moved: {:?}", refused.counts());
    Ok(())
}
