use super::*;
use crate::metadata::parse;
use crate::testing::{context, params};

const GOOD: [(&str, &str); 3] = [
    ("serverAddress", "http://prometheus:9090/"),
    ("query", "up"),
    ("threshold", "2"),
];

fn connected(
    metadata: &[(&str, &str)],
    auth: &[(&str, &str)],
    provider: Option<&str>,
) -> Result<Prometheus, String> {
    let mut all = GOOD.to_vec();
    all.retain(|(name, _)| !metadata.iter().any(|(other, _)| other == name));
    all.extend_from_slice(metadata);
    let mut cx = context(params("prometheus", &all, auth));
    cx.params.auth.pod_identity = provider.map(|provider| crate::connect::PodIdentity {
        provider: provider.to_owned(),
        role_arn: None,
        external_id: None,
    });
    parse(&cx.params)
        .and_then(|metadata| Prometheus::connect(metadata, &cx))
        .map_err(|error| error.to_string())
}

#[test]
fn defaults() {
    let scaler = connected(&[], &[], None).unwrap();
    assert_eq!(scaler.url.as_str(), "http://prometheus:9090/api/v1/query");
    assert!(scaler.ignore_null_values);
    assert_eq!(Scaler::deadline(&scaler), Duration::from_secs(3));
    assert_eq!(
        Scaler::metric(&scaler),
        MetricSpec {
            base_name: "prometheus".into(),
            target: Target::Decimal(2.0)
        }
    );
    let scaler = connected(
        &[("serverAddress", "https://u:p@host/a/b"), ("timeout", "500")],
        &[],
        None,
    )
    .unwrap();
    assert_eq!(scaler.url.as_str(), "https://u:p@host/a/b/api/v1/query");
    assert_eq!(Scaler::deadline(&scaler), Duration::from_millis(500));
}

#[test]
fn what_is_wrong_is_named() {
    for (metadata, auth, provider, expected) in [
        (
            &[("threshold", "")][..],
            &[][..],
            None,
            "missing required parameter \"threshold\"",
        ),
        (
            &[("query", " ")],
            &[],
            None,
            "missing required parameter \"query\"",
        ),
        (
            &[("threshold", "0")],
            &[],
            None,
            "parameter \"threshold\" must be greater than 0",
        ),
        (
            &[("threshold", "-1")],
            &[],
            None,
            "parameter \"threshold\" must be greater than 0",
        ),
        (
            &[("serverAddress", "prometheus:9090")],
            &[],
            None,
            "parameter \"serverAddress\" must be an absolute",
        ),
        (&[("serverAddress", "http://p?a=b")], &[], None, "without a query"),
        (
            &[("ignoreNullValues", "maybe")],
            &[],
            None,
            "unable to set param \"ignoreNullValues\"",
        ),
        (
            &[("cortexOrgID", "tenant")],
            &[],
            None,
            "use customHeaders: X-Scope-OrgID=<tenant>",
        ),
        (
            &[("customHeaders", "X-A=a,canary")],
            &[],
            None,
            "unable to set param \"customHeaders\": expected a list",
        ),
        (
            &[("customHeaders", "bad name=canary")],
            &[],
            None,
            "customHeaders: \"bad name\"",
        ),
        (
            &[("authModes", "bearer")],
            &[],
            None,
            "bearer token=<empty> is required when bearer auth is enabled",
        ),
        (
            &[("authModes", "bearer")],
            &[("bearerToken", "canary")],
            Some("aws"),
            "pod identity cannot be enabled with other auth types",
        ),
        (
            &[],
            &[],
            Some("azure-workload"),
            "pod identity azure-workload is not supported for prometheus",
        ),
        (
            &[],
            &[],
            Some("gcp"),
            "pod identity gcp is not supported for prometheus",
        ),
        (&[], &[], Some("aws"), "no awsRegion given"),
        (
            &[("awsRegion", "eu-west-1")],
            &[],
            None,
            "awsAccessKeyID not found",
        ),
    ] {
        let fault = connected(metadata, auth, provider).err().unwrap_or_default();
        assert!(
            fault.starts_with("error parsing prometheus metadata"),
            "{metadata:?}: {fault}"
        );
        assert!(fault.contains(expected), "{metadata:?}: {fault}");
        assert!(!fault.contains("canary"), "{fault}");
    }
}

#[test]
fn signed_only_when_amazon_is_meant() {
    let keys = [("awsAccessKeyID", "id"), ("awsSecretAccessKey", "secret")];
    let region = [("awsRegion", "eu-west-1")];
    let signed = |scaler: Prometheus| {
        let seconds = Scaler::deadline(&scaler).as_secs();
        (matches!(scaler.access, Access::Signed { .. }), seconds)
    };
    assert_eq!(connected(&[], &keys, None).map(signed), Ok((false, 3)));
    assert_eq!(connected(&region, &keys, None).map(signed), Ok((true, 15)));
    let amazon = (
        "serverAddress",
        "https://aps-workspaces.eu-west-1.amazonaws.com/workspaces/ws-1",
    );
    let own = [("awsRegion", "eu-west-1"), amazon];
    assert_eq!(connected(&own, &[], Some("aws")).map(signed), Ok((true, 15)));
    let stranger = connected(&region, &[], Some("aws")).err().unwrap_or_default();
    assert!(
        stranger.contains("parameter \"serverAddress\" names \"prometheus\", for which the operator's own"),
        "{stranger}"
    );
    let operator = [
        ("awsRegion", "eu-west-1"),
        ("identityOwner", "operator"),
        amazon,
        ("timeout", "1s"),
    ];
    assert_eq!(connected(&operator, &[], None).map(signed), Ok((true, 1)));
    let bearer = [("awsRegion", "eu-west-1"), ("authModes", "bearer")];
    assert_eq!(
        connected(&bearer, &[("bearerToken", "t")], None).map(signed),
        Ok((false, 3))
    );
}

#[test]
fn one_question_only_where_the_answer_must_be_the_same() {
    let asks = |metadata: &[(&str, &str)], auth: &[(&str, &str)]| {
        let scaler = connected(metadata, auth, None).unwrap();
        Scaler::question(&scaler).unwrap().fingerprint
    };
    let plain = asks(&[], &[]);
    assert_eq!(
        plain,
        asks(&[("threshold", "9"), ("activationThreshold", "1")], &[])
    );
    let bearer = [("authModes", "bearer")];
    let others = [
        asks(&[("query", "down")], &[]),
        asks(&[("serverAddress", "http://other:9090")], &[]),
        asks(&[("namespace", "shop")], &[]),
        asks(&[("queryParameters", "a=b")], &[]),
        asks(&[("customHeaders", "X-A=b")], &[]),
        asks(&[("ignoreNullValues", "false")], &[]),
        asks(&[("unsafeSsl", "true")], &[]),
        asks(&bearer, &[("bearerToken", "one")]),
        asks(&bearer, &[("bearerToken", "two")]),
    ];
    for (at, other) in others.iter().enumerate() {
        assert_ne!(*other, plain, "{at}");
        assert!(!others[..at].contains(other), "{at}");
    }
}
