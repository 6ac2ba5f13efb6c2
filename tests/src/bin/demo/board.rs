//! What the demo looks at, and the table it prints of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use dormouse_api::{ConditionStatus, ScaledObject};
use dormouse_tests::example::NAME;
use dormouse_tests::scaled_object::condition;
use dormouse_tests::sqs::Depth;
use dormouse_tests::{Cluster, Namespace, Queue, Timeline, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, ListParams};

/// What happened, each duration from the first message on.
pub(crate) struct Story {
    pub(crate) processed: usize,
    pub(crate) repeated: usize,
    pub(crate) peak: i32,
    pub(crate) woke: Duration,
    pub(crate) peaked: Duration,
    pub(crate) done: Duration,
    pub(crate) asleep: Duration,
}

/// One line of the table.
#[derive(PartialEq)]
struct Row {
    depth: Depth,
    ready: i32,
    wanted: i32,
    hpa: Option<i32>,
    why: String,
}

impl Row {
    const HEAD: &str = "  time  visible  in flight  replicas  HPA wants  last decision, and why";

    fn print(&self, since: Instant) {
        let hpa = self.hpa.map_or("-".to_owned(), |wish| wish.to_string());
        let (visible, in_flight) = (self.depth.visible, self.depth.in_flight);
        let replicas = format!("{}/{}", self.ready, self.wanted);
        let time = since.elapsed().as_secs_f64();
        println!(
            "{time:>6.1}  {visible:>7}  {in_flight:>9}  {replicas:>8}  {hpa:>9}  {}",
            self.why
        );
    }
}

/// The newest of what is said in two places, of which only one carries a time.
#[derive(Default)]
struct Why {
    condition: Option<String>,
    event: Option<String>,
    said: String,
}

impl Why {
    fn hear(&mut self, condition: Option<String>, event: Option<String>) {
        if condition != self.condition {
            self.said = condition.clone().unwrap_or_default();
            self.condition = condition;
        }
        if event != self.event {
            // The HPA controller prints its label selector as a Go value.
            let text = event.clone().unwrap_or_default();
            let (before, rest) = text.split_once("(&LabelSelector").unwrap_or((text.as_str(), ""));
            let after = rest.split_once(",})").map_or("", |(_, after)| after);
            self.said = format!("{before}{after}");
            self.event = event;
        }
    }
}

/// What the demo looks at.
pub(crate) struct Board {
    scaled_object: Timeline<(bool, String)>,
    replicas: Timeline<(i32, i32)>,
    hpa: Timeline<Option<i32>>,
    events: Api<Event>,
    pods: Api<Pod>,
}

impl Board {
    pub(crate) fn watch(cluster: &Cluster, namespace: &Namespace) -> Self {
        let hpa = format!("keda-hpa-{NAME}");
        Self {
            scaled_object: Timeline::of(namespace.api::<ScaledObject>(), NAME, |object| {
                let ready = condition(object, "Ready").is_some_and(|one| one.status == ConditionStatus::True);
                let active = condition(object, "Active").and_then(|one| one.message.clone());
                (ready, active.unwrap_or_default())
            }),
            replicas: Timeline::of(namespace.api::<Deployment>(), NAME, |object| {
                let ready = object.status.as_ref().and_then(|status| status.ready_replicas);
                (
                    ready.unwrap_or(0),
                    object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
                )
            }),
            hpa: Timeline::of(namespace.api::<HorizontalPodAutoscaler>(), &hpa, |object| {
                object.status.as_ref().map(|status| status.desired_replicas)
            }),
            events: Api::namespaced(cluster.client(), namespace.name()),
            pods: namespace.api(),
        }
    }

    pub(crate) async fn asleep(&self, deadline: Duration) -> Result<()> {
        self.scaled_object
            .reaches("the ScaledObject is Ready", deadline, |(ready, _)| *ready)
            .await?;
        self.replicas
            .reaches("the Deployment is scaled to 0", deadline, |(_, wanted)| {
                *wanted == 0
            })
            .await?;
        until("its pods are gone", deadline, async || {
            let left = self.pods.list(&ListParams::default()).await?.items.len();
            ensure!(left == 0, "{left} are left");
            Ok(())
        })
        .await
    }

    /// Prints the table until every message is processed and the worker sleeps again.
    pub(crate) async fn follow(
        &self,
        sent: Instant,
        jobs: &Queue,
        results: &Queue,
        bodies: &[String],
    ) -> Result<Story> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut done = None;
        let mut printed: Option<(Instant, Row)> = None;
        let mut why = Why::default();
        let mut sleeping_since: Option<Instant> = None;
        println!("{}", Row::HEAD);
        loop {
            for body in results.drain().await? {
                *seen.entry(body).or_default() += 1;
            }
            if done.is_none() && bodies.iter().all(|body| seen.contains_key(body)) {
                done = Some(sent.elapsed());
            }
            let row = self.row(jobs.depth().await?, &mut why).await?;
            let quiet = |(at, last): &(Instant, Row)| *last == row && at.elapsed() < Duration::from_secs(5);
            let sleeping = row.wanted == 0 && row.ready == 0;
            sleeping_since = sleeping.then(|| sleeping_since.unwrap_or_else(Instant::now));
            if !printed.as_ref().is_some_and(quiet) {
                row.print(sent);
                printed = Some((Instant::now(), row));
            }
            // A moment more, for the Event that says why.
            let rested = sleeping_since.is_some_and(|since| since.elapsed() > Duration::from_secs(2));
            if let (Some(done), true) = (done, rested) {
                return self.story(sent, done, &seen, bodies);
            }
            if done.is_none() && sent.elapsed() > Duration::from_secs(300) {
                bail!(
                    "{} of {} messages were processed within 5 minutes",
                    seen.len(),
                    bodies.len()
                );
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn row(&self, depth: Depth, why: &mut Why) -> Result<Row> {
        let (ready, wanted) = self.replicas.now().unwrap_or_default();
        let condition = self.scaled_object.now().map(|(_, active)| active);
        why.hear(condition, self.newest_event().await?);
        Ok(Row {
            depth,
            ready,
            wanted,
            hpa: self.hpa.now().flatten(),
            why: why.said.clone(),
        })
    }

    /// What the operator or the HPA controller said last about a change of replicas.
    async fn newest_event(&self) -> Result<Option<String>> {
        const TELLING: [&str; 4] = [
            "KEDAScaleTargetActivated",
            "KEDAScaleTargetDeactivated",
            "KEDAScalerFailed",
            "SuccessfulRescale",
        ];
        let events = self
            .events
            .list(&ListParams::default())
            .await
            .context("reading the events")?;
        let telling = events.items.into_iter().filter(|event| {
            event
                .reason
                .as_deref()
                .is_some_and(|reason| TELLING.contains(&reason))
        });
        // One that is said again is the same Event, seen again.
        let when = |event: &Event| {
            let again = event
                .series
                .as_ref()
                .and_then(|series| series.last_observed_time.as_ref());
            let exact = event.event_time.as_ref().max(again).map(|time| time.0);
            exact.max(event.last_timestamp.as_ref().map(|time| time.0))
        };
        Ok(telling.max_by_key(when).and_then(|event| event.message))
    }

    fn story(
        &self,
        sent: Instant,
        done: Duration,
        seen: &BTreeMap<String, usize>,
        bodies: &[String],
    ) -> Result<Story> {
        let changes = self.replicas.changes();
        let after = || changes.iter().filter(|change| change.at >= sent);
        let peak = after().map(|change| change.value.1).max().unwrap_or_default();
        let first = |wanted: &dyn Fn(i32) -> bool| {
            let found = after()
                .find(|change| wanted(change.value.1))
                .map(|change| change.at - sent);
            found.ok_or_else(|| anyhow!("the replicas never changed"))
        };
        let last = after()
            .next_back()
            .ok_or_else(|| anyhow!("the replicas never changed"))?;
        Ok(Story {
            processed: bodies.iter().filter(|body| seen.contains_key(*body)).count(),
            repeated: seen.values().filter(|count| **count > 1).count(),
            peak,
            woke: first(&|wanted| wanted > 0)?,
            peaked: first(&|wanted| wanted == peak)?,
            done,
            asleep: last.at - sent,
        })
    }
}
