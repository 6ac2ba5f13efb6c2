//! Faults during a cold start: what breaks, and that the request is answered all the same, or says why not.

#[path = "http_faults/applications.rs"]
mod applications;
#[path = "http_faults/killed.rs"]
mod killed;
#[path = "http_faults/operators_away.rs"]
mod operators_away;

use anyhow::{Context as _, Result};
use dormouse_tests::{Cluster, HttpEcho, Installation, Namespace, Visitor};
use tokio::sync::{Mutex, OnceCell};

/// A fault of the whole installation must not be taken for one of another test.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Two operators and two interceptors.
async fn installation(cluster: &Cluster) -> Result<Installation> {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    let installation = Installation::standard()
        .replicas(2)
        .set("interceptor.replicas.min=2");
    INSTALLED
        .get_or_try_init(|| installation.install(cluster))
        .await?;
    Ok(installation)
}

/// The example in a namespace of its own, asleep.
struct Sleeper {
    cluster: Cluster,
    installation: Installation,
    namespace: Namespace,
    visitor: Visitor,
}

impl Sleeper {
    async fn new(subject: &str, change: impl FnOnce(HttpEcho) -> HttpEcho) -> Result<Self> {
        let cluster = Cluster::connect().await?;
        let namespace = Namespace::create(&cluster, subject).await?;
        Self::within(cluster, namespace, change).await
    }

    /// Its visitor at one interceptor instead of all of them.
    fn visitor_at(&self, interceptor: &str) -> Result<Visitor> {
        let door = format!("{interceptor}:8080");
        let door = door.parse().with_context(|| format!("{door:?} is no address"))?;
        Ok(Visitor::at(door, self.visitor.host()))
    }

    async fn within(
        cluster: Cluster,
        namespace: Namespace,
        change: impl FnOnce(HttpEcho) -> HttpEcho,
    ) -> Result<Self> {
        let installation = installation(&cluster).await?;
        let echo = change(HttpEcho::new(format!("{}.example.org", namespace.name())));
        echo.asleep(&cluster, &namespace).await?;
        let visitor = Visitor::of(&cluster, &installation, echo.host()).await?;
        Ok(Self {
            cluster,
            installation,
            namespace,
            visitor,
        })
    }
}
