//! A master with a replica, watched by three sentinels.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};

use super::{ADMIN_PASSWORD, Options, RedisServer, eventually, free_address};

const SENTINELS: usize = 3;

/// What the sentinels call the master.
pub const MASTER_NAME: &str = "orders";
/// With which clients get at the sentinels themselves, where they are locked.
pub const SENTINEL_PASSWORD: &str = super::ADMIN_PASSWORD;

/// A master, its replica, and the sentinels that replace the one by the other. Nobody needs a password unless `locked`.
pub struct RedisSentinel {
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

impl RedisSentinel {
    /// All of it, on free ports of `ip`.
    ///
    /// # Errors
    /// When redis-server is not installed, or they do not find each other within 20 s.
    pub async fn start(ip: IpAddr, locked: bool) -> Result<Self> {
        let open = !locked;
        let options = |lines: Vec<String>| Options {
            open,
            lines,
            ..Options::default()
        };
        let master = RedisServer::start_with(free_address(ip).await?, options(Vec::new())).await?;
        let of = format!("replicaof {ip} {}", master.address().port());
        let replica = RedisServer::start_with(
            free_address(ip).await?,
            options(vec![of, "repl-diskless-sync-delay 0".to_owned()]),
        )
        .await?;
        eventually("the replica follows", async || {
            let info = replica.command(&["INFO", "replication"]).await?;
            Ok(info.contains("master_link_status:up"))
        })
        .await?;
        let mut lines = vec![
            format!(
                "sentinel monitor {MASTER_NAME} {ip} {} 2",
                master.address().port()
            ),
            format!("sentinel down-after-milliseconds {MASTER_NAME} 1000"),
            format!("sentinel failover-timeout {MASTER_NAME} 5000"),
        ];
        if locked {
            lines.push(format!("sentinel auth-pass {MASTER_NAME} {ADMIN_PASSWORD}"));
            lines.push(format!("sentinel sentinel-pass {SENTINEL_PASSWORD}"));
        }
        let mut sentinels = Vec::new();
        for _ in 0..SENTINELS {
            let options = Options {
                sentinel: true,
                ..options(lines.clone())
            };
            sentinels.push(RedisServer::start_with(free_address(ip).await?, options).await?);
        }
        let this = Self {
            servers: vec![master, replica],
            sentinels,
        };
        for sentinel in &this.sentinels {
            eventually("the sentinels know each other and the replica", async || {
                let info = sentinel.command(&["INFO", "sentinel"]).await?;
                Ok(info.contains("status=ok") && info.contains("slaves=1,sentinels=3"))
            })
            .await?;
        }
        Ok(this)
    }

    /// The sentinels.
    #[must_use]
    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// One of them, to be killed.
    pub fn sentinel_mut(&mut self, index: usize) -> &mut RedisServer {
        &mut self.sentinels[index]
    }

    /// Their addresses, joined by commas.
    #[must_use]
    pub fn addresses(&self) -> String {
        let all = self.sentinels.iter().map(|one| one.address().to_string());
        all.collect::<Vec<_>>().join(",")
    }

    /// The server that began as the master (0) or as its replica (1).
    pub fn server_mut(&mut self, index: usize) -> &mut RedisServer {
        &mut self.servers[index]
    }

    /// The server that began as the master (0) or as its replica (1).
    #[must_use]
    pub fn server(&self, index: usize) -> &RedisServer {
        &self.servers[index]
    }

    /// Where the sentinels say the master is. The first that answers is believed.
    ///
    /// # Errors
    /// When none answers.
    pub async fn master(&self) -> Result<SocketAddr> {
        for sentinel in &self.sentinels {
            let asked = sentinel.command(&["SENTINEL", "get-master-addr-by-name", MASTER_NAME]);
            let Ok(answer) = asked.await else { continue };
            let mut lines = answer.lines();
            let (host, port) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
            return format!("{host}:{port}").parse().context("no address of a master");
        }
        anyhow::bail!("no sentinel answers")
    }

    /// Waits until every sentinel names this one of the two servers as the master.
    ///
    /// # Errors
    /// When that takes longer than 20 s.
    pub async fn is_led_by(&self, index: usize) -> Result<()> {
        let wanted = self.servers[index].address();
        eventually("a failover", async || {
            let role = self.servers[index].command(&["ROLE"]).await?;
            Ok(role.starts_with("master") && self.master().await? == wanted)
        })
        .await
    }
}
