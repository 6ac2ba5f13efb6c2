//! What ten thousand requests that wait for an application weigh, and whether all of them are answered once it is there.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::HeaderValue;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::api::{ApiServer, host};
use super::closed::{connect, get, throughput};
use super::interceptor::Interceptor;
use super::nginx::Nginx;
use super::{Arguments, CONNECTIONS, REST};
use crate::figures::Figures;
use crate::steps::say;

const HELD: usize = 10_000;
/// Clients that connect at the same time.
const AT_ONCE: usize = 200;
const LOAD: Duration = Duration::from_secs(60);
/// For all to wait, and for all to be answered.
const PATIENCE: Duration = Duration::from_secs(120);

/// Weighs a fresh process that has nothing to do, then with all requests waiting, and so again after a minute of load.
pub(crate) async fn all(arguments: &Arguments, app: &Nginx, figures: &mut Figures) -> Result<()> {
    say("10,000 requests that wait");
    let api = ApiServer::start(1, None).await?;
    let ours = arguments.interceptor(&api).await?;
    sleep(REST).await;
    let note = "one route, nothing done yet";
    figures.add("idle_rss", ours.process()?.resident()?, "MiB", 20.0, note);
    hold(&ours, &api, app, "", figures).await?;
    let hosts = vec![host(0); CONNECTIONS];
    throughput(ours.address(), &hosts, &[ours.process()?], LOAD).await?;
    api.set_pod(None);
    sleep(REST).await;
    hold(&ours, &api, app, "_after_load", figures).await
}

async fn hold(
    ours: &Interceptor,
    api: &ApiServer,
    app: &Nginx,
    when: &str,
    figures: &mut Figures,
) -> Result<()> {
    let before = ours.process()?.resident()?;
    let host = HeaderValue::from_str(&host(0))?;
    let mut waiting: JoinSet<Result<()>> = JoinSet::new();
    for number in 0..HELD {
        let (address, host) = (ours.address(), host.clone());
        waiting.spawn(async move {
            // Not all at once: the kernel takes only so many that nobody has accepted yet.
            sleep(Duration::from_millis((number / AT_ONCE * 10) as u64)).await;
            get(&mut connect(address).await?, &host).await
        });
    }
    let all = async {
        while ours.concurrency().await? < HELD as u64 {
            ensure!(
                waiting.len() == HELD && waiting.try_join_next().is_none(),
                "a request did not wait"
            );
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    };
    timeout(PATIENCE, all).await.context("not all requests wait")??;
    sleep(REST).await;
    let note = format!("{before:.1} MiB before they came");
    let name = format!("held_10k_rss{when}");
    figures.add(name, ours.process()?.resident()?, "MiB", 150.0, note);
    let woken = Instant::now();
    api.set_pod(Some(app.address()));
    let (mut answered, mut failure) = (0_u32, None);
    let ends = async {
        while let Some(ended) = waiting.join_next().await {
            match ended.context("a client panicked").flatten() {
                Ok(()) => answered += 1,
                Err(error) => failure = Some(format!("{error:#}")),
            }
        }
    };
    timeout(PATIENCE, ends).await.context("not all requests ended")?;
    let note = match failure {
        Some(failure) => format!("one that failed: {failure}"),
        None => format!(
            "the last one {:.2} s after the wake",
            woken.elapsed().as_secs_f64()
        ),
    };
    let name = format!("held_10k_answered{when}");
    figures.add_at_least(name, f64::from(answered), "requests", HELD as f64, note);
    let name = format!("held_10k_rss_peak{when}");
    figures.add(
        name,
        ours.process()?.peak()?,
        "MiB",
        None,
        "while they were answered",
    );
    Ok(())
}
