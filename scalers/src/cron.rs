//! `cron`: a fixed number of replicas between two points in time.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::connect::Connect;
use crate::error::{ConfigError, ReadError};
use crate::metadata::Metadata;
use crate::scaler::{MetricSpec, Observed, Scaler, Target};
use schedule::Schedule;

mod schedule;

/// Asks for a fixed number of replicas between a start and an end that return, such as working hours. Outside of that
/// time the trigger is not active.
///
/// Both schedules have five fields: minute, hour, day of month, month and day of week, each with lists (`1,15`), ranges
/// (`1-5`), steps (`*/10`) and, for months and days of the week, three-letter names. Sunday is 0. A day matches when the
/// day of the month *or* the day of the week does, unless one of the two is `*` or `?`. Local times that a change of
/// the clocks leaves out are skipped, those that it repeats count twice.
///
/// ```yaml
/// triggers:
///   - type: cron
///     metadata:
///       timezone: Asia/Kolkata
///       start: 0 6 * * *
///       end: 0 20 * * *
///       desiredReplicas: "10"
/// ```
///
/// - Metric name: `cron-<timezone>-<start>-<end>`, written so that it is a name: `*` becomes `x`, `/` in a schedule
///   `Sl`, `?` `Qm`, `,` `Cm`, and spaces go away.
/// - Value: `desiredReplicas` while active, 0 otherwise; the target is 1.
/// - With several triggers the highest wish wins, so a cron trigger works as a floor that other triggers exceed.
/// - `useCachedMetrics` cannot be used with this type.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CronMetadata {
    /// Zone the schedules are read in, by its IANA name. `TZ=<zone>` or `CRON_TZ=<zone>` before a schedule overrides it.
    timezone: String,
    /// When the time with replicas begins.
    start: String,
    /// When it ends. Must differ from `start`.
    end: String,
    /// Replicas wanted in between. Must not be 0.
    desired_replicas: i64,
}

impl Metadata for CronMetadata {
    const CONTEXT: &'static str = "error parsing cron metadata";
    const PARSING: &'static str = "error parsing cron metadata";

    fn validate(&self) -> Result<(), String> {
        if self.start == self.end {
            return Err("start and end can not have exactly same time input".to_owned());
        }
        if self.desired_replicas == 0 {
            return Err("no desiredReplicas specified".to_owned());
        }
        Ok(())
    }
}

/// See [`CronMetadata`].
pub(crate) struct Cron {
    name: String,
    start: Schedule,
    end: Schedule,
    zone: TimeZone,
    desired_replicas: i64,
    deadline: Duration,
}

impl Scaler for Cron {
    const TYPE: &'static str = "cron";
    const LABEL: &'static str = "cronScaler";
    type Metadata = CronMetadata;

    fn connect(metadata: CronMetadata, cx: &Connect) -> Result<Self, ConfigError> {
        let error = |message| ConfigError::Metadata {
            context: CronMetadata::CONTEXT,
            message,
        };
        let parse = |which: &str, spec: &str| {
            Schedule::parse(spec).map_err(|fault| error(format!("error parsing {which} schedule: {fault}")))
        };
        let zone = schedule::zone(&metadata.timezone)
            .map_err(|fault| error(format!("unable to load timezone: {fault}")))?;
        Ok(Self {
            name: format!(
                "cron-{}-{}-{}",
                metadata.timezone,
                named(&metadata.start),
                named(&metadata.end)
            ),
            start: parse("start", &metadata.start)?,
            end: parse("end", &metadata.end)?,
            zone,
            desired_replicas: metadata.desired_replicas,
            deadline: cx.default_deadline,
        })
    }

    fn metric(&self) -> MetricSpec {
        MetricSpec {
            base_name: self.name.clone(),
            target: Target::Whole(1),
        }
    }

    fn deadline(&self) -> Duration {
        self.deadline
    }

    async fn read(&self) -> Result<Observed, ReadError> {
        Ok(self.at(Timestamp::now()))
    }
}

impl Cron {
    /// What the trigger says at `now`: active when the end comes before the next start. A schedule that never comes
    /// counts as long past, as in KEDA.
    #[expect(clippy::cast_precision_loss, reason = "replica counts are small")]
    fn at(&self, now: Timestamp) -> Observed {
        let active = self.end.next(now, &self.zone) <= self.start.next(now, &self.zone);
        Observed {
            value: if active { self.desired_replicas as f64 } else { 0.0 },
            active,
        }
    }
}

/// A schedule as part of a metric name.
fn named(spec: &str) -> String {
    spec.replace(' ', "")
        .replace('*', "x")
        .replace('/', "Sl")
        .replace('?', "Qm")
        .replace(',', "Cm")
}

#[cfg(test)]
mod tests;
