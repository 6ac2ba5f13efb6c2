use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Metadata, TimeSpan, page, parse, unmatched};
use crate::connect::TriggerParams;
use crate::sensitive::Sensitive;
use crate::testing;

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Colour {
    #[default]
    Red,
    /// With a description of its own.
    DarkBlue,
}

/// An example.
#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Example {
    /// Text.
    #[schemars(extend("x-sources" = ["metadata", "auth", "env"]))]
    name: String,
    /// An integer.
    count: i32,
    #[serde(default)]
    small: u16,
    #[serde(default)]
    ratio: f64,
    flag: Option<bool>,
    #[schemars(extend("x-sources" = ["auth", "metadata"], "x-aliases" = ["pass"]))]
    password: Option<Sensitive>,
    wait: Option<TimeSpan>,
    #[serde(default)]
    colour: Colour,
    second: Option<Colour>,
    #[serde(default)]
    colours: Vec<Colour>,
    #[serde(default)]
    words: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[schemars(extend("x-sources" = ["auth"]))]
    port: Option<u16>,
    #[serde(flatten)]
    more: More,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct More {
    #[serde(default = "seven")]
    more_count: i64,
}

fn seven() -> i64 {
    7
}

impl Metadata for Example {
    const CONTEXT: &'static str = "outer";
    const PARSING: &'static str = "inner";

    fn validate(&self) -> Result<(), String> {
        if self.count < 0 {
            Err("count must not be negative".to_owned())
        } else {
            Ok(())
        }
    }
}

fn params(metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> TriggerParams {
    testing::params("example", metadata, auth)
}

fn fault(metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> String {
    parse::<Example>(&params(metadata, auth))
        .expect_err("it is wrong")
        .to_string()
}

#[test]
fn each_type_is_converted() {
    let parsed: Example = parse(&params(
        &[
            ("name", " a b "),
            ("count", "5"),
            ("small", "65535"),
            ("ratio", "1.5e1"),
            ("flag", "T"),
            ("wait", "1m30s"),
            ("colour", "darkBlue"),
            ("second", "red"),
            ("colours", "red, darkBlue"),
            ("words", "a, b ,,c"),
            ("labels", "a=1, b = x=y"),
        ],
        &[("pass", "secret\n"), ("port", "80")],
    ))
    .unwrap();
    assert_eq!(
        parsed,
        Example {
            name: "a b".to_owned(),
            count: 5,
            small: 65535,
            ratio: 15.0,
            flag: Some(true),
            password: Some(Sensitive::new("secret")),
            wait: Some(TimeSpan::parse("90s").unwrap()),
            colour: Colour::DarkBlue,
            second: Some(Colour::Red),
            colours: vec![Colour::Red, Colour::DarkBlue],
            words: ["a", "b", "", "c"].map(str::to_owned).to_vec(),
            labels: [("a", "1"), ("b", "x=y")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            port: Some(80),
            more: More { more_count: 7 },
        }
    );
}

#[test]
fn the_first_source_that_is_not_blank_counts() {
    let name = |params: &TriggerParams| parse::<Example>(params).unwrap().name;
    let mut given = params(
        &[("name", "m"), ("nameFromEnv", "NAME"), ("count", "1")],
        &[("name", "a")],
    );
    given.env.insert("NAME".to_owned(), Sensitive::new("e"));
    assert_eq!(name(&given), "m");
    given.metadata.insert("name".to_owned(), "  ".to_owned());
    assert_eq!(name(&given), "a");
    given.auth.params.insert("name".to_owned(), Sensitive::new(" \n"));
    assert_eq!(name(&given), "e");
    given.env.insert("NAME".to_owned(), Sensitive::new(""));
    assert_eq!(
        parse::<Example>(&given).unwrap_err().to_string(),
        "outer: inner: missing required parameter \"name\" in [triggerMetadata authParams resolvedEnv]"
    );
}

#[test]
fn all_faults_come_at_once_and_secrets_never() {
    assert_eq!(
        fault(
            &[
                ("count", "5.0"),
                ("flag", "yes"),
                ("colour", "green"),
                ("wait", "-1s"),
                ("small", "65536"),
                ("ratio", "NaN"),
                ("labels", "a")
            ],
            &[("port", "canary")]
        ),
        "outer: inner: unable to set param \"count\" value \"5.0\": expected a whole number, \
         missing required parameter \"name\" in [triggerMetadata authParams resolvedEnv], \
         parameter \"colour\" value \"green\" must be one of [red darkBlue], \
         unable to set param \"flag\" value \"yes\": expected true or false, \
         unable to set param \"labels\" value \"a\": expected a list such as key=value,key2=value2, \
         unable to set param \"port\": expected a whole number, \
         unable to set param \"ratio\" value \"NaN\": expected a number, \
         unable to set param \"small\" value \"65536\": expected a whole number from 0 to 65535, \
         unable to set param \"wait\" value \"-1s\": expected a duration that is not negative"
    );
    assert_eq!(
        fault(&[("name", "a"), ("count", "-1")], &[]),
        "outer: inner: count must not be negative"
    );
    let long = "9".repeat(10_000);
    assert!(fault(&[("name", "a"), ("count", &long)], &[]).len() < 300);
}

#[test]
fn numbers_follow_json() {
    for (count, ok) in [
        ("5", true),
        ("-5", true),
        ("+5", false),
        ("05", false),
        ("1e3", false),
        ("5.0", false),
        ("0x5", false),
        ("2147483648", false),
    ] {
        let parsed = parse::<Example>(&params(&[("name", "a"), ("count", count), ("ratio", "1")], &[]));
        let accepted = !matches!(&parsed, Err(error) if error.to_string().contains("unable to set"));
        assert_eq!(accepted, ok, "{count}: {parsed:?}");
    }
}

#[test]
fn keys_nobody_reads_are_found() {
    let given = params(
        &[
            ("name", "a"),
            ("countt", "1"),
            ("nameFromEnv", "N"),
            ("countFromEnv", "N"),
            ("port", "1"),
            ("pass", "x"),
            ("moreCount", "1"),
        ],
        &[],
    );
    assert_eq!(unmatched::<Example>(&given), ["countFromEnv", "countt", "port"]);
}

#[test]
fn spans_as_go_reads_them() {
    for (text, millis) in [
        ("0", 0.0),
        ("1500", 1500.0),
        ("1.5s", 1500.0),
        ("1h2m3s", 3_723_000.0),
        ("1.5h", 5_400_000.0),
        (".5m", 30_000.0),
        ("5.s", 5000.0),
        ("100us", 0.1),
        ("100\u{b5}s", 0.1),
        ("+2ms", 2.0),
        ("-0", 0.0),
        ("-0s", 0.0),
    ] {
        let span = TimeSpan::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(
            span.duration(),
            Duration::from_secs_f64(millis / 1000.0),
            "{text}"
        );
    }
    for text in [
        "",
        "s",
        "1",
        "1.5",
        "1d",
        "1 s",
        "--1s",
        "-1s",
        "-1",
        "1s2",
        ".s",
        "9999999h",
        "99999999999999999999",
    ] {
        assert_eq!(TimeSpan::parse(text).is_err(), text != "1", "{text}");
    }
}

#[test]
fn the_page_says_what_the_struct_says() {
    let page = page::<Example>("example");
    assert!(page.starts_with("# example\n\nAn example.\n"), "{page}");
    for row in [
        "| `count` | metadata | whole number | required | An integer. |",
        "| `name` | metadata, authentication, `nameFromEnv` | text | required | Text. |",
        "| `moreCount` | metadata | whole number | `7` |  |",
        "| `password` or `pass` | authentication, metadata | secret text |  |  |",
        "| `colour` | metadata | `red`, `darkBlue` | `red` |  |",
        "| `ratio` | metadata | number | `0` |  |",
    ] {
        assert!(page.contains(row), "{row}\n{page}");
    }
}

proptest! {
    #[test]
    fn any_text_is_a_span_or_an_error(text in "(\\PC{0,30}|[-+]?([0-9]{0,12}(\\.[0-9]{0,25})?(ns|us|ms|s|m|h)?){0,4})") {
        if let Ok(span) = TimeSpan::parse(&text) {
            prop_assert!(i64::try_from(span.nanos()).is_ok());
        }
    }

    #[test]
    fn no_fault_repeats_an_authentication_parameter(value in "canary[a-z0-9 .=,]{0,20}") {
        let given = params(&[("name", "a"), ("count", "1")], &[("port", &value)]);
        let fault = parse::<Example>(&given).unwrap_err().to_string();
        prop_assert!(!fault.contains("canary"), "{}", fault);
    }
}
