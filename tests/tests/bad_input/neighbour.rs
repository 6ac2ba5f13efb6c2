//! A good object beside the bad ones.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dormouse_tests::stage::podless;
use dormouse_tests::upstream::Answer;
use dormouse_tests::{Scaled, Stage, Upstream};

use crate::cases::{Good, REPLICAS};

const NAME: &str = "neighbour";
const INTERVAL: Duration = Duration::from_secs(1);

/// An object with a source of its own that has all it wants, so that nothing about it has a reason to change.
pub(crate) struct Neighbour<'a> {
    scaled: Scaled<'a>,
    upstream: Upstream,
    statuses: usize,
    reads: usize,
    since: Instant,
}

impl<'a> Neighbour<'a> {
    /// Sets it up and waits until it is at rest with its replicas.
    pub(crate) async fn settle(stage: &'a Stage) -> Result<Self> {
        let upstream = Upstream::start(Answer::value(10.0)).await?;
        let scaled = Scaled::watch(stage, NAME);
        stage.apply(podless(NAME, REPLICAS)).await?;
        stage.apply(Good::new(&upstream).object(NAME)).await?;
        scaled.is_ready().await?;
        scaled.condition_is("Active", "True", "ScalerActive").await?;
        scaled.condition_is("HPAActive", "True", "HPAActive").await?;
        let (statuses, reads) = (scaled.statuses().len(), upstream.seen().len());
        Ok(Self {
            scaled,
            upstream,
            statuses,
            reads,
            since: Instant::now(),
        })
    }

    /// Since it settled: no status was written, no replica changed, and it was read once per interval.
    pub(crate) fn was_not_disturbed(&self) -> Result<()> {
        let written: Vec<_> = self.scaled.statuses().split_off(self.statuses);
        ensure!(
            written.is_empty(),
            "the neighbour's status was written: {written:#?}"
        );
        let counts = self.scaled.counts();
        ensure!(
            counts == [i64::from(REPLICAS)],
            "the neighbour's replicas moved: {counts:?}"
        );
        let reads = self.upstream.seen().len() - self.reads;
        let due = self.since.elapsed().as_secs_f64() / INTERVAL.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a few hundred at most")]
        let share = reads as f64 / due;
        ensure!(
            (0.8..=1.2).contains(&share),
            "the neighbour was read {reads} times where {due:.0} were due"
        );
        Ok(())
    }

    /// Its reads so far.
    pub(crate) fn reads(&self) -> usize {
        self.upstream.seen().len()
    }
}
