//! A Redis cluster.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};

use super::{Options, RedisServer, eventually, free_address};

const SLOTS: usize = 16_384;
const MASTERS: usize = 3;

/// Three masters that share the slots, each with a replica if so wished. Nobody needs a password unless `locked`.
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// A cluster on free ports of `ip`.
    ///
    /// # Errors
    /// When redis-server is not installed, or the cluster does not come together within 20 s.
    pub async fn start(ip: IpAddr, with_replicas: bool, locked: bool) -> Result<Self> {
        let count = if with_replicas { 2 * MASTERS } else { MASTERS };
        let mut nodes = Vec::new();
        for _ in 0..count {
            let bus = free_address(ip).await?.port();
            let lines = [
                "cluster-enabled yes".to_owned(),
                "cluster-node-timeout 1000".to_owned(),
                "cluster-replica-validity-factor 0".to_owned(),
                format!("cluster-port {bus}"),
            ];
            let options = Options {
                open: !locked,
                lines: lines.to_vec(),
                ..Options::default()
            };
            nodes.push((
                RedisServer::start_with(free_address(ip).await?, options).await?,
                bus,
            ));
        }
        let first = nodes[0].0.address();
        for (index, (node, _)) in nodes.iter().enumerate() {
            let epoch = (index + 1).to_string();
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await?;
            if index < MASTERS {
                let from = (SLOTS * index / MASTERS).to_string();
                let to = (SLOTS * (index + 1) / MASTERS - 1).to_string();
                node.command(&["CLUSTER", "ADDSLOTSRANGE", &from, &to]).await?;
            }
        }
        for (node, bus) in nodes.iter().skip(1) {
            let (host, port) = (node.address().ip().to_string(), node.address().port().to_string());
            let meet = ["CLUSTER", "MEET", &host, &port, &bus.to_string()];
            nodes[0].0.command(&meet).await?;
        }
        let this = Self {
            nodes: nodes.into_iter().map(|(node, _)| node).collect(),
        };
        for index in MASTERS..count {
            let master = this.nodes[index - MASTERS].command(&["CLUSTER", "MYID"]).await?;
            eventually("a replica knows its master", async || {
                let replicate = ["CLUSTER", "REPLICATE", &master];
                Ok(this.nodes[index].command(&replicate).await? == "OK")
            })
            .await?;
        }
        for node in &this.nodes {
            eventually(&format!("the cluster of {first} stands"), async || {
                let info = node.command(&["CLUSTER", "INFO"]).await?;
                let slots = node.command(&["CLUSTER", "SLOTS"]).await?;
                let known = this
                    .nodes
                    .iter()
                    .filter(|node| slots.contains(&node.address().port().to_string()))
                    .count();
                Ok(info.contains("cluster_state:ok") && known == count)
            })
            .await?;
        }
        Ok(this)
    }

    /// Every node: the masters first, then their replicas in the same order.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// One of them, to be killed or started anew.
    pub fn node_mut(&mut self, index: usize) -> &mut RedisServer {
        &mut self.nodes[index]
    }

    /// All addresses, joined by commas.
    #[must_use]
    pub fn addresses(&self) -> String {
        let all: Vec<_> = self.nodes.iter().map(|node| node.address().to_string()).collect();
        all.join(",")
    }

    /// The place among [`nodes`](Self::nodes) of the master that has this key.
    ///
    /// # Errors
    /// When no node answers for it.
    pub async fn owner_of(&self, key: &str) -> Result<usize> {
        for (index, node) in self.nodes.iter().enumerate() {
            let role = node.command(&["ROLE"]).await.unwrap_or_default();
            let answer = node.command(&["EXISTS", key]).await;
            if role.starts_with("master") && answer.is_ok() {
                return Ok(index);
            }
        }
        anyhow::bail!("no node has the slot of {key}")
    }

    /// The server that has this key.
    ///
    /// # Errors
    /// As [`owner_of`](Self::owner_of).
    pub async fn owner(&self, key: &str) -> Result<&RedisServer> {
        Ok(&self.nodes[self.owner_of(key).await?])
    }

    /// Begins to move the slot of `key` to another master: from now on what `from` does not hold is asked for at `to`.
    ///
    /// # Errors
    /// When a node refuses.
    pub async fn begin_to_move(&self, key: &str, from: usize, to: usize) -> Result<()> {
        let slot = self.slot(key).await?;
        let (source, target) = (self.id(from).await?, self.id(to).await?);
        self.nodes[to]
            .command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source])
            .await?;
        self.nodes[from]
            .command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target])
            .await?;
        Ok(())
    }

    /// Moves one key of a slot that is being moved.
    ///
    /// # Errors
    /// When a node refuses.
    pub async fn move_key(&self, key: &str, from: usize, to: usize) -> Result<()> {
        let address: SocketAddr = self.nodes[to].address();
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let answer = self.nodes[from]
            .command(&["MIGRATE", &host, &port, key, "0", "5000"])
            .await?;
        ensure!(answer == "OK" || answer == "NOKEY", "MIGRATE answered {answer}");
        Ok(())
    }

    /// Ends what [`begin_to_move`](Self::begin_to_move) began: all nodes know the new owner.
    ///
    /// # Errors
    /// When a node refuses.
    pub async fn end_the_move(&self, key: &str, to: usize) -> Result<()> {
        let slot = self.slot(key).await?;
        let target = self.id(to).await?;
        self.nodes[to]
            .command(&["CLUSTER", "SETSLOT", &slot, "NODE", &target])
            .await?;
        for node in &self.nodes[..MASTERS] {
            node.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &target])
                .await?;
        }
        Ok(())
    }

    async fn slot(&self, key: &str) -> Result<String> {
        self.nodes[0].command(&["CLUSTER", "KEYSLOT", key]).await
    }

    async fn id(&self, index: usize) -> Result<String> {
        self.nodes[index]
            .command(&["CLUSTER", "MYID"])
            .await
            .context("asking a node for its name")
    }
}
