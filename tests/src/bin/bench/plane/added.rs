//! What a way adds to the latency of another: each tick sends a request on both, now the one first and now the other.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::HeaderValue;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::closed::{Connection, connect, get};

/// Connections per way; requests that find none make a new one.
const CONNECTIONS: usize = 50;

/// Latencies of both ways in seconds, each sorted.
#[derive(Default)]
pub(crate) struct Latencies {
    pub(crate) direct: Vec<f64>,
    pub(crate) proxied: Vec<f64>,
}

/// The value that this share of the sorted values keeps.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
    sorted.get(at.min(last)).copied()
}

/// Idle connections to one address.
struct Way {
    address: SocketAddr,
    host: HeaderValue,
    idle: Mutex<Vec<Connection>>,
}

impl Way {
    async fn new(address: SocketAddr, host: &str) -> Result<Arc<Self>> {
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS {
            idle.push(connect(address).await?);
        }
        Ok(Arc::new(Self {
            address,
            host: HeaderValue::from_str(host)?,
            idle: Mutex::new(idle),
        }))
    }

    /// One request; its latency counts from when it was due, so that no stall hides the next ones.
    async fn request(self: Arc<Self>, due: Instant) -> Result<f64> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => connect(self.address).await?,
        };
        get(&mut connection, &self.host).await?;
        let took = due.elapsed().as_secs_f64();
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(connection);
        Ok(took)
    }
}

/// Sends so many requests per second on each way.
pub(crate) async fn latencies(
    direct: SocketAddr,
    proxied: SocketAddr,
    host: &str,
    rate: u32,
    span: Duration,
) -> Result<Latencies> {
    let ways = [Way::new(direct, host).await?, Way::new(proxied, host).await?];
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way: [JoinSet<Result<f64>>; 2] = Default::default();
    for number in 0..span.as_secs() as usize * rate as usize {
        let due = ticks.tick().await;
        for way in [number % 2, 1 - number % 2] {
            under_way[way].spawn(ways[way].clone().request(due));
        }
    }
    let [direct, proxied] = under_way;
    Ok(Latencies {
        direct: sorted(direct).await.context("without the interceptor")?,
        proxied: sorted(proxied).await.context("through the interceptor")?,
    })
}

async fn sorted(mut requests: JoinSet<Result<f64>>) -> Result<Vec<f64>> {
    let mut all = Vec::with_capacity(requests.len());
    while let Some(ended) = requests.join_next().await {
        all.push(ended.context("a request panicked")??);
    }
    all.sort_by(f64::total_cmp);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_and_of_none() {
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&sorted, 0.99), Some(99.0));
        assert_eq!(percentile(&sorted[..1], 0.99), Some(1.0));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
