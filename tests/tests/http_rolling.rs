//! What is replaced while it works: pods of the application, pods of the interceptor, and all pods of an application that
//! falls asleep between two requests. Not one request fails.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::http_echo::{self, NAME};
use dormouse_tests::{Cluster, HttpEcho, Installation, Load, Namespace, Tally, Visitor, Way};
use http::Method;
use rand::Rng as _;
use serde_json::json;
use tokio::sync::{Mutex, OnceCell};

/// Requests of each kind, unless DORMOUSE_REQUESTS says otherwise.
const REQUESTS: u64 = 4_000;
const CLIENTS: usize = 8;
const INTERCEPTOR: &str = "deployment/keda-add-ons-http-interceptor";

/// Replacing one thing must not be taken for replacing another.
static ALONE: Mutex<()> = Mutex::const_new(());

struct Stand {
    cluster: Cluster,
    installation: Installation,
    namespace: Namespace,
    visitor: Visitor,
    requests: u64,
}

/// Two interceptors, and the example in a namespace of its own.
async fn stand(subject: &str, change: impl FnOnce(HttpEcho) -> HttpEcho) -> Result<Stand> {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    let cluster = Cluster::connect().await?;
    let installation = Installation::standard().set("interceptor.replicas.min=2");
    INSTALLED
        .get_or_try_init(|| installation.install(&cluster))
        .await?;
    let namespace = Namespace::create(&cluster, subject).await?;
    let echo = change(HttpEcho::new(format!("{}.example.org", namespace.name())));
    echo.ready(&cluster, &namespace).await?;
    let requests = match std::env::var("DORMOUSE_REQUESTS") {
        Ok(text) => text.parse().context("DORMOUSE_REQUESTS is no number")?,
        Err(_) => REQUESTS,
    };
    let visitor = Visitor::of(&cluster, &installation, echo.host()).await?;
    visitor
        .visit(Way::Get)
        .await
        .context("before anything is replaced")?;
    Ok(Stand {
        visitor,
        cluster,
        installation,
        namespace,
        requests,
    })
}

impl Stand {
    /// Replaces all pods of a Deployment again and again, at least twice, until `load` has made enough requests.
    async fn replace_under_load(&self, namespace: &str, deployment: &str, load: Load) -> Result<Tally> {
        let began = Instant::now();
        for round in 0.. {
            if round >= 2 && load.done() >= self.requests {
                break;
            }
            ensure!(
                began.elapsed() < Duration::from_secs(600),
                "only {} requests in {:?}",
                load.done(),
                began.elapsed()
            );
            let common = ["--namespace", namespace, "rollout"];
            self.cluster
                .kubectl(&[&common[..], &["restart", deployment][..]].concat())
                .await?;
            let status = ["status", deployment, "--timeout=55s"];
            self.cluster
                .kubectl_within(&[&common[..], &status[..]].concat(), Duration::from_secs(60))
                .await?;
        }
        // Those that go are on their way out for some time.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let tally = load.stop().await?;
        eprintln!(
            "{deployment} was replaced under load for {:?}: {tally:?}",
            began.elapsed()
        );
        Ok(tally)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_the_application_costs_no_request() -> Result<()> {
    let _alone = ALONE.lock().await;
    for (subject, linger) in [("http-lingers", 1500), ("http-stops", 0)] {
        let stand = stand(subject, |echo| {
            echo.variable("LINGER_MS", linger)
                .change("ScaledObject", "/spec/minReplicaCount", json!(2))
        })
        .await?;
        let load = Load::start(&stand.visitor, CLIENTS, &Method::GET, "/?delay=1", Duration::ZERO);
        let posts = Load::start(
            &stand.visitor,
            2,
            &Method::POST,
            "/?delay=1",
            Duration::from_millis(5),
        );
        let tally = stand
            .replace_under_load(stand.namespace.name(), &format!("deployment/{NAME}"), load)
            .await?;
        tally
            .is_whole(stand.requests)
            .with_context(|| subject.to_owned())?;
        // What happens behind the interceptor is no reason to close a client's connection.
        ensure!(
            tally.repeated == 0,
            "{subject}: {} had to be sent again",
            tally.repeated
        );
        let posts = posts.stop().await?;
        eprintln!("{subject}, POST: {posts:?}");
        // A POST whose pod closes the connection in that very moment cannot be sent again: an application has to linger.
        if linger > 0 {
            posts.is_whole(1).with_context(|| format!("{subject}, POST"))?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_the_interceptors_costs_no_request() -> Result<()> {
    let _alone = ALONE.lock().await;
    let stand = stand("http-replaced", |echo| {
        echo.change("ScaledObject", "/spec/minReplicaCount", json!(1))
    })
    .await?;
    let load = Load::start(&stand.visitor, CLIENTS, &Method::GET, "/?delay=1", Duration::ZERO);
    let posts = Load::start(
        &stand.visitor,
        2,
        &Method::POST,
        "/?delay=20",
        Duration::from_millis(5),
    );
    let tally = stand
        .replace_under_load(stand.installation.namespace(), INTERCEPTOR, load)
        .await?;
    tally.is_whole(stand.requests)?;
    let posts = posts.stop().await?;
    eprintln!("POST: {posts:?}");
    posts.is_whole(1).context("POST")
}

/// The application sleeps whenever nobody came for a second, and now and then nobody does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn falling_asleep_between_two_requests_costs_none() -> Result<()> {
    let _alone = ALONE.lock().await;
    let stand = stand("http-between", |echo| {
        echo.variable("LINGER_MS", 500).target(4).most(3)
    })
    .await?;
    let wanted = http_echo::wanted(&stand.namespace);
    let began = Instant::now();
    let sleeps = || wanted.changes().iter().filter(|change| change.value == 0).count();
    let (mut done, mut tallies) = (0, Vec::new());
    while done < stand.requests || sleeps() < 4 {
        ensure!(
            began.elapsed() < Duration::from_secs(600),
            "only {done} requests and {} sleeps in {:?}",
            sleeps(),
            began.elapsed()
        );
        let load = Load::start(&stand.visitor, CLIENTS, &Method::GET, "/?delay=2", Duration::ZERO);
        let busy = rand::rng().random_range(1000..2500);
        tokio::time::sleep(Duration::from_millis(busy)).await;
        let tally = load.stop().await?;
        tally.is_whole(1)?;
        ensure!(tally.repeated == 0, "{} had to be sent again", tally.repeated);
        done += tally.done;
        tallies.push(tally.done);
        // A route counts as active for 3 s after its last request; the cooldown and a tick come on top.
        let quiet = rand::rng().random_range(3500..6500);
        tokio::time::sleep(Duration::from_millis(quiet)).await;
    }
    eprintln!(
        "{done} requests in bursts of {tallies:?}, {} sleeps, no failure",
        sleeps()
    );
    Ok(())
}
