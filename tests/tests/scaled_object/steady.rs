//! What is not done: writes without news, reads beyond the cadence.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dormouse_tests::Stage;
use dormouse_tests::scaled::SOON;
use serde_json::json;

use crate::play::{METRIC, Play};

/// Over ten intervals neither the object nor its HPA's spec is written, be it at work or asleep.
pub(crate) async fn no_write_without_news(stage: &Stage) -> Result<()> {
    let (working, asleep) =
        tokio::try_join!(settled(stage, "working", 2, 2), settled(stage, "asleep", 0, 0))?;
    let before = (version(&working).await?, version(&asleep).await?);
    let reads = (working.upstream.seen().len(), asleep.upstream.seen().len());
    tokio::time::sleep(Duration::from_secs(11)).await;
    let after = (version(&working).await?, version(&asleep).await?);
    ensure!(
        before == after,
        "something was written without news: {before:?}, then {after:?}"
    );
    for (play, reads) in [(&working, reads.0), (&asleep, reads.1)] {
        let made = play.upstream.seen().len() - reads;
        ensure!(
            (9..=13).contains(&made),
            "{} was read {made} times in 11 intervals",
            play.scaled.name()
        );
    }
    Ok(())
}

async fn settled<'a>(stage: &'a Stage, name: &str, replicas: u32, asked: u32) -> Result<Play<'a>> {
    let play = Play::prepare(stage, name, replicas, asked).await?;
    play.begin(|_| {}).await?;
    let wanted = if asked > 0 {
        ("True", "ScalerActive")
    } else {
        ("False", "ScalerNotActive")
    };
    play.scaled.condition_is("Active", wanted.0, wanted.1).await?;
    let wanted = if asked > 0 { "HPAActive" } else { "ScalingDisabled" };
    play.scaled.condition_is("HPAActive", "True", wanted).await?;
    Ok(play)
}

/// The versions of the object and, as its controller writes the status, the generation of what the HPA must do.
async fn version(play: &Play<'_>) -> Result<(Option<String>, Option<String>)> {
    let object = play.stage.scaled_objects().get(play.scaled.name()).await?;
    let hpa = play.hpa().await?;
    Ok((
        object.metadata.resource_version,
        hpa.map(|hpa| format!("{:?}", hpa.spec)),
    ))
}

/// At an interval of 20 s: one read per interval asleep or with `useCachedMetrics`, else one more in between; and none more
/// for anybody who asks for the metric.
pub(crate) async fn reads_per_interval(stage: &Stage) -> Result<()> {
    let interval = Duration::from_secs(20);
    let with = async |name: &'static str, asked: u32, cached: bool| {
        let play = Play::prepare(stage, name, asked, asked).await?;
        play.begin(|spec| {
            spec["pollingInterval"] = json!(interval.as_secs());
            spec["triggers"][0]["useCachedMetrics"] = json!(cached);
        })
        .await?;
        play.scaled
            .status_is("the first reading", SOON, |status| {
                status["triggersActivity"].is_object()
            })
            .await?;
        anyhow::Ok(play)
    };
    let (plain, cached, asleep) = tokio::try_join!(
        with("plain", 2, false),
        with("cached", 2, true),
        with("dreaming", 0, false)
    )?;
    let reads = || [&plain, &cached, &asleep].map(|play| play.upstream.seen().len());
    let (began, before) = (Instant::now(), reads());
    // A little longer, as the machine is busy; the next read is 10 s away.
    while began.elapsed() < interval * 2 + Duration::from_secs(4) {
        for play in [&plain, &cached] {
            let value = stage.metric_value(play.scaled.name(), METRIC).await?;
            ensure!(value == "10", "{} is {value}", play.scaled.name());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let made: Vec<usize> = reads()
        .iter()
        .zip(before)
        .map(|(now, before)| now - before)
        .collect();
    ensure!(
        made == [4, 2, 2],
        "in two intervals the plain, the cached and the sleeping one were read {made:?} times"
    );
    ensure!(
        plain.scaled.counts() == [2] && cached.scaled.counts() == [2],
        "replicas moved"
    );
    Ok(())
}
