use jiff::Timestamp;

use super::Cron;
use crate::connect::TriggerParams;
use crate::error::ConfigError;
use crate::metadata;
use crate::scaler::{MetricSpec, Observed, Scaler, Target};
use crate::testing;

fn params(entries: &[(&str, &str)]) -> TriggerParams {
    testing::params("cron", entries, &[])
}

fn connect(entries: &[(&str, &str)]) -> Result<Cron, ConfigError> {
    let cx = testing::context(params(entries));
    Cron::connect(metadata::parse(&cx.params)?, &cx)
}

const WORKING_HOURS: [(&str, &str); 4] = [
    ("timezone", "Asia/Tokyo"),
    ("start", "0 9 * * 1-5"),
    ("end", "0 18 * * 1-5"),
    ("desiredReplicas", "4"),
];

#[test]
fn active_from_start_to_end_in_its_own_zone() {
    let cron = connect(&WORKING_HOURS).unwrap();
    let on = Observed {
        value: 4.0,
        active: true,
    };
    let off = Observed {
        value: 0.0,
        active: false,
    };
    for (now, expected) in [
        ("2026-03-16T08:59:59+09:00", off),
        ("2026-03-16T09:00:00+09:00", on),
        ("2026-03-16T17:59:59+09:00", on),
        ("2026-03-16T18:00:00+09:00", off),
        ("2026-03-14T12:00:00+09:00", off),
        ("2026-03-16T03:00:00Z", on),
    ] {
        let now: Timestamp = now.parse().unwrap();
        assert_eq!(cron.at(now), expected, "{now}");
    }
}

#[test]
fn a_schedule_that_never_comes_is_long_past() {
    let never = "0 0 30 2 *";
    let now: Timestamp = "2026-03-16T12:00:00Z".parse().unwrap();
    let with = |key: &str| {
        let mut entries = WORKING_HOURS;
        entries.iter_mut().find(|(k, _)| *k == key).unwrap().1 = never;
        connect(&entries).unwrap().at(now).active
    };
    assert!(with("end"));
    assert!(!with("start"));
}

#[test]
fn the_metric_is_named_after_zone_and_schedules() {
    let cron = connect(&[
        ("timezone", "Asia/Tokyo"),
        ("start", "*/5 0 ? * *"),
        ("end", "59 23 1,15 * *"),
        ("desiredReplicas", "2"),
    ])
    .unwrap();
    assert_eq!(
        cron.metric(),
        MetricSpec {
            base_name: "cron-Asia/Tokyo-xSl50Qmxx-59231Cm15xx".to_owned(),
            target: Target::Whole(1)
        }
    );
}

#[test]
fn faults_as_the_user_sees_them() {
    let with = |key: &str, value: &'static str| {
        let mut entries = WORKING_HOURS;
        entries.iter_mut().find(|(k, _)| *k == key).unwrap().1 = value;
        connect(&entries).err().expect("it is wrong").to_string()
    };
    assert_eq!(
        with("timezone", "Mars/Base"),
        "error parsing cron metadata: unable to load timezone: unknown time zone Mars/Base"
    );
    assert_eq!(
        with("start", "0 25 * * *"),
        "error parsing cron metadata: error parsing start schedule: \"25\" is not a valid hour: *, a number from 0 to 23, \
         a range such as 0-3, either with a step such as /2, or a list of these"
    );
    assert!(with("end", "x").contains("error parsing end schedule: expected exactly 5 fields"));
    assert_eq!(
        with("end", "0 9 * * 1-5"),
        "error parsing cron metadata: error parsing cron metadata: start and end can not have exactly same time input"
    );
    assert_eq!(
        with("desiredReplicas", "0"),
        "error parsing cron metadata: error parsing cron metadata: no desiredReplicas specified"
    );
    assert_eq!(
        with("desiredReplicas", "5.0"),
        "error parsing cron metadata: error parsing cron metadata: unable to set param \"desiredReplicas\" value \"5.0\": \
         expected a whole number"
    );
    assert_eq!(
        connect(&[]).err().unwrap().to_string(),
        "error parsing cron metadata: error parsing cron metadata: \
         missing required parameter \"desiredReplicas\" in [triggerMetadata], \
         missing required parameter \"end\" in [triggerMetadata], \
         missing required parameter \"start\" in [triggerMetadata], \
         missing required parameter \"timezone\" in [triggerMetadata]"
    );
}
