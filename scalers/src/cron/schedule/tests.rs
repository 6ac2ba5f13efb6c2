use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::Value;

use super::{Schedule, zone};

/// Lord Howe's clocks go back by half an hour. Go steps through a day by whole hours and loses its way there: it leaves
/// out moments that the schedule names, even whole days. Ours finds them; the last column is our answer.
const LEFT_OUT_BY_GO: [(&str, &str, usize, &str); 4] = [
    ("0 0 * * *", "Australia/Lord_Howe", 1, "2026-04-06T00:00:00+10:30"),
    (
        "15,45 8-18/2 * * *",
        "Australia/Lord_Howe",
        0,
        "2026-04-05T08:15:00+10:30",
    ),
    ("0 0 * * 0", "Australia/Lord_Howe", 1, "2026-04-12T00:00:00+10:30"),
    ("0 0 ? * ?", "Australia/Lord_Howe", 1, "2026-04-06T00:00:00+10:30"),
];

#[test]
fn times_agree_with_go() {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("../../../tests/vectors/cron.json")).unwrap();
    assert_eq!(vectors.len(), 180);
    let mut differing = Vec::new();
    for case in &vectors {
        let spec = case["spec"].as_str().unwrap();
        let schedule = Schedule::parse(spec);
        if case["error"] == true {
            assert!(schedule.is_err(), "{spec:?} was accepted");
            continue;
        }
        let schedule = schedule.unwrap_or_else(|error| panic!("{spec:?}: {error}"));
        let name = case["tz"].as_str().unwrap();
        let zone = zone(name).unwrap();
        let mut from: Timestamp = case["from"].as_str().unwrap().parse().unwrap();
        for (step, expected) in case["next"].as_array().unwrap().iter().enumerate() {
            let expected = expected.as_str().unwrap();
            let next = schedule.next(from, &zone);
            let expected = (expected != "never").then(|| expected.parse::<Timestamp>().unwrap());
            if next != expected {
                differing.push((spec, name, step, next));
            }
            let Some(expected) = expected else { break };
            from = expected;
        }
    }
    let listed = LEFT_OUT_BY_GO.map(|(spec, zone, step, ours)| (spec, zone, step, ours.parse().ok()));
    assert_eq!(differing, listed);
}

#[test]
fn faults_name_the_field_and_what_is_accepted() {
    for (spec, text) in [
        (
            "* * * *",
            "expected exactly 5 fields (minute, hour, day of month, month, day of week), found 4: \"* * * *\"",
        ),
        (
            "",
            "expected exactly 5 fields (minute, hour, day of month, month, day of week), found 0: \"\"",
        ),
        (
            "0 24 * * *",
            "\"24\" is not a valid hour: *, a number from 0 to 23, a range such as 0-3, either with a step such as /2, or a list of these",
        ),
        (
            "0 0 * * 7",
            "\"7\" is not a valid day of week: *, a number from 0 to 6, a range such as 0-3, either with a step such as /2, or a list of these",
        ),
        (
            "@daily",
            "descriptors such as @daily are not accepted: \"@daily\"",
        ),
        ("TZ=Mars/Base 0 0 * * *", "unknown time zone Mars/Base"),
        ("0 , * * *", "\",\" is not a valid hour: at least one value"),
    ] {
        assert_eq!(Schedule::parse(spec).unwrap_err().to_string(), text);
    }
}

proptest! {
    #[test]
    fn any_text_is_a_schedule_or_an_error(text in "(\\PC{0,40}|[0-9*/?,a-z -]{0,30})") {
        if let Ok(schedule) = Schedule::parse(&text) {
            let from: Timestamp = "2026-10-24T23:00:00Z".parse().unwrap();
            if let Some(next) = schedule.next(from, &TimeZone::UTC) {
                prop_assert!(next > from);
            }
        }
    }
}
