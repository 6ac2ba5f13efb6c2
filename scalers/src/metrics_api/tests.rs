use std::time::Duration;

use super::MetricsApi;
use crate::error::ConfigError;
use crate::metadata;
use crate::scaler::{MetricSpec, Scaler, Target};
use crate::testing;

const BASE: [(&str, &str); 3] = [
    ("url", "http://h:1/stats"),
    ("valueLocation", "a.b"),
    ("targetValue", "2.5"),
];

fn connect(more: &[(&str, &str)], auth: &[(&str, &str)]) -> Result<MetricsApi, ConfigError> {
    let mut entries = BASE.to_vec();
    for (key, value) in more {
        entries.retain(|(k, _)| k != key);
        entries.push((key, value));
    }
    let cx = testing::context(testing::params("metrics-api", &entries, auth));
    MetricsApi::connect(metadata::parse(&cx.params)?, &cx)
}

#[test]
fn defaults_and_metric() {
    let api = connect(&[], &[]).unwrap();
    let metric = MetricSpec {
        base_name: "metric-api-a.b".to_owned(),
        target: Target::Decimal(2.5),
    };
    assert_eq!(api.metric(), metric);
    assert_eq!(api.deadline(), Duration::from_secs(3));
    assert_eq!(
        connect(&[("timeout", "250")], &[]).unwrap().deadline(),
        Duration::from_millis(250)
    );
    assert_eq!(
        connect(&[("timeout", "1m")], &[]).unwrap().deadline(),
        Duration::from_secs(60)
    );
    assert_eq!(
        connect(&[("timeout", "0")], &[]).unwrap().deadline(),
        Duration::from_secs(3)
    );
}

#[test]
fn faults_as_the_user_sees_them() {
    let outer = "error parsing metric API metadata: ";
    let inner = "error parsing metrics API metadata: ";
    for (more, auth, expected) in [
        (
            &[("authMode", "bearer")][..],
            &[][..],
            format!("{outer}{inner}bearer token=<empty> is required when bearer auth is enabled"),
        ),
        (
            &[("targetValue", "")],
            &[],
            format!("{outer}{inner}no targetValue given in metadata"),
        ),
        (
            &[("targetValue", "0")],
            &[],
            format!("{outer}{inner}no targetValue given in metadata"),
        ),
        (
            &[("url", "")],
            &[],
            format!("{outer}{inner}missing required parameter \"url\" in [triggerMetadata]"),
        ),
        (
            &[("url", "h/stats")],
            &[],
            format!("{outer}parameter \"url\" must be an absolute http or https URL"),
        ),
        (
            &[("url", "ftp://canary@h/")],
            &[],
            format!("{outer}parameter \"url\" must be an absolute http or https URL"),
        ),
        (
            &[("format", "csv")],
            &[],
            format!(
                "{outer}{inner}parameter \"format\" value \"csv\" must be one of [json prometheus xml yaml]"
            ),
        ),
        (
            &[("aggregateFromKubeServiceEndpoints", "true")],
            &[],
            format!("{outer}aggregateFromKubeServiceEndpoints needs a Kubernetes cluster"),
        ),
        (
            &[("format", "prometheus"), ("valueLocation", "a{b=~\"c\"}")],
            &[],
            format!(
                "{outer}valueLocation \"a{{b=~\\\"c\\\"}}\" must be a metric name with labels that are equal to something, \
                 such as waiting{{queue=\"a\"}}"
            ),
        ),
        (
            &[],
            &[("ca", "canary")],
            format!("{outer}ca must hold at least one certificate in PEM form"),
        ),
    ] {
        assert_eq!(
            connect(more, auth).err().map(|error| error.to_string()),
            Some(expected),
            "{more:?}"
        );
    }
}

#[test]
fn only_the_same_question_of_the_same_server_as_the_same_identity_is_shared() {
    let ca = rcgen::generate_simple_self_signed(["h".to_owned()])
        .unwrap()
        .cert
        .pem();
    let asks = |more: &[(&str, &str)], auth: &[(&str, &str)]| {
        crate::scaler::Trigger::question(&connect(more, auth).unwrap()).unwrap()
    };
    let bearer = |token| [("authModes", "bearer"), ("bearerToken", token)];
    let one = asks(&[], &bearer("a"));
    let own_thresholds = asks(
        &[("targetValue", "9"), ("activationTargetValue", "0.5")],
        &bearer("a"),
    );
    assert_eq!(own_thresholds.fingerprint, one.fingerprint);
    assert!((own_thresholds.activation - 0.5).abs() < f64::EPSILON);
    for (more, auth) in [
        (&[][..], &bearer("b")[..]),
        (&[], &[]),
        (
            &[],
            &[
                ("authModes", "custom"),
                ("customAuthHeader", "X-A"),
                ("customAuthValue", "a"),
            ],
        ),
        (&[], &[("authModes", "bearer"), ("bearerToken", "a"), ("ca", &ca)]),
        (&[("url", "http://h:1/other")], &bearer("a")),
        (&[("url", "http://other:1/stats")], &bearer("a")),
        (&[("valueLocation", "a.c")], &bearer("a")),
        (&[("format", "yaml")], &bearer("a")),
        (&[("unsafeSsl", "true")], &bearer("a")),
        (&[("timeout", "9000")], &bearer("a")),
    ] {
        assert_ne!(asks(more, auth).fingerprint, one.fingerprint, "{more:?} {auth:?}");
    }
}
