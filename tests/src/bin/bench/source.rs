//! The event source that all objects ask: each at a path of its own, so that no two ask the same question.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::extract::{Path, State};
use dormouse_tests::Served;

/// Objects that are answered and counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// As most objects are.
    Plain,
    /// With `useCachedMetrics`.
    Cached,
}

impl Group {
    const ALL: [Self; 2] = [Self::Plain, Self::Cached];

    /// The first part of its paths.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Cached => "cached",
        }
    }
}

#[derive(Default)]
struct Script {
    value: AtomicU64,
    reads: [AtomicU64; 2],
    delay_ms: AtomicU64,
}

/// A running source; it ends with this value.
pub(crate) struct Source {
    server: Served,
    script: Arc<Script>,
}

impl Source {
    /// Starts it on the node's address; every value is 0.
    pub(crate) async fn start() -> Result<Self> {
        let script = Arc::new(Script::default());
        let router = Router::new()
            .route("/{group}/{object}", axum::routing::get(answer))
            .route("/floor", axum::routing::get(async || "{\"value\":0}"))
            .with_state(script.clone());
        Ok(Self {
            server: Served::start(router).await?,
            script,
        })
    }

    /// What the object with this name asks.
    pub(crate) fn url(&self, group: Group, object: &str) -> String {
        format!("http://{}/{}/{object}", self.server.address(), group.name())
    }

    /// What nobody but the bench asks: answered at once, and not counted.
    pub(crate) fn floor(&self) -> String {
        format!("http://{}/floor", self.server.address())
    }

    /// From now on every object reads `value`.
    pub(crate) fn say(&self, value: u64) {
        self.script.value.store(value, Ordering::SeqCst);
    }

    /// From now on each answer is held back for so long.
    pub(crate) fn delay(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.script.delay_ms.store(millis, Ordering::SeqCst);
    }

    /// How often this group was read so far.
    pub(crate) fn reads(&self, group: Group) -> u64 {
        self.script.reads[group as usize].load(Ordering::SeqCst)
    }
}

async fn answer(State(script): State<Arc<Script>>, Path((group, _)): Path<(String, String)>) -> String {
    let Some(group) = Group::ALL.into_iter().find(|known| known.name() == group) else {
        return "no such group".to_owned();
    };
    script.reads[group as usize].fetch_add(1, Ordering::SeqCst);
    let delay = script.delay_ms.load(Ordering::SeqCst);
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let value = script.value.load(Ordering::SeqCst);
    format!("{{\"value\":{value}}}")
}
