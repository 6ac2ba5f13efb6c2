//! `prometheus` against scripted servers.

use std::time::Duration;

use dormouse_scalers::error::ReadErrorKind;
use dormouse_scalers::{Observed, TriggerParams};

use crate::support::{Peer, Seen, answer, connected, params, read};

fn prometheus(url: &str, metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> TriggerParams {
    let mut all = vec![
        ("serverAddress", url),
        ("query", "sum(up{a=\"b c\"}) + 1"),
        ("threshold", "2"),
        ("activationThreshold", "15"),
    ];
    all.extend_from_slice(metadata);
    params("prometheus", &all, auth)
}

fn vector(value: &str) -> String {
    format!(
        r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[1,"{value}"]}}]}}}}"#
    )
}

fn sixteen(_: &Seen) -> axum::response::Response {
    answer(200, &[], vector("16"))
}

fn query_of(seen: &Seen) -> Vec<(String, String)> {
    let (path, query) = seen.target.split_once('?').expect("there is a query");
    assert_eq!(path, "/prom/api/v1/query");
    url::form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect()
}

#[tokio::test]
async fn each_way_to_authenticate_and_everything_that_is_sent() {
    let peer = Peer::start(sixteen).await;
    for (metadata, auth, header, expected) in [
        (&[][..], &[("bearerToken", "t")][..], "authorization", None),
        (
            &[("authModes", "bearer")],
            &[("bearerToken", "t")],
            "authorization",
            Some("Bearer t"),
        ),
        (
            &[("authModes", "basic")],
            &[("username", "u"), ("password", "p")],
            "authorization",
            Some("Basic dTpw"),
        ),
        (
            &[("authModes", "custom")],
            &[("customAuthHeader", "X-Custom"), ("customAuthValue", "c")],
            "x-custom",
            Some("c"),
        ),
        (
            &[("customHeaders", "X-Scope-OrgID=tenant,X-Odd=a=b")],
            &[],
            "x-scope-orgid",
            Some("tenant"),
        ),
        (&[("customHeaders", "X-Odd=a=b")], &[], "x-odd", Some("a=b")),
    ] {
        let trigger = connected(prometheus(&peer.url("/prom/"), metadata, auth));
        let observed = Observed {
            value: 16.0,
            active: true,
        };
        assert_eq!(read(&trigger).await, Ok(observed), "{metadata:?}");
        let seen = peer.seen().pop().unwrap();
        assert_eq!(seen.header(header), expected, "{metadata:?}");
        assert_eq!(seen.method, "GET");
        let query = query_of(&seen);
        assert_eq!(
            query[0],
            ("query".to_owned(), "sum(up{a=\"b c\"}) + 1".to_owned())
        );
        assert_eq!(query[1].0, "time");
        let (sent, now) = (
            query[1].1.parse::<jiff::Timestamp>().unwrap(),
            jiff::Timestamp::now(),
        );
        assert!(
            now.duration_since(sent).abs() < jiff::SignedDuration::from_secs(10),
            "{sent}"
        );
        assert_eq!(query.len(), 2);
    }
    let further = [
        ("namespace", "shop"),
        ("queryParameters", "dedup=true,partial&x=a b"),
    ];
    let trigger = connected(prometheus(&peer.url("/prom"), &further, &[]));
    assert!(read(&trigger).await.is_ok());
    let query = query_of(&peer.seen().pop().unwrap());
    let rest: Vec<_> = query[2..].iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        rest,
        [("namespace", "shop"), ("dedup", "true"), ("partial&x", "a b")]
    );
}

#[tokio::test]
async fn signed_for_amazon() {
    let peer = Peer::start(sixteen).await;
    let metadata = [("awsRegion", "eu-west-1"), ("customHeaders", "X-Also=signed")];
    let auth = [
        ("awsAccessKeyID", "ID"),
        ("awsSecretAccessKey", "canary"),
        ("awsSessionToken", "canary-token"),
    ];
    let trigger = connected(prometheus(&peer.url("/prom"), &metadata, &auth));
    for _ in 0..2 {
        assert!(read(&trigger).await.is_ok());
        let seen = peer.seen().pop().unwrap();
        let signature = seen.header("authorization").unwrap();
        assert!(
            signature.starts_with("AWS4-HMAC-SHA256 Credential=ID/"),
            "{signature}"
        );
        assert!(signature.contains("/eu-west-1/aps/aws4_request"), "{signature}");
        assert!(
            signature.contains("SignedHeaders=host;x-also;x-amz-date"),
            "{signature}"
        );
        assert_eq!(seen.header("x-amz-security-token"), Some("canary-token"));
    }
}

#[tokio::test]
async fn what_is_no_number() {
    let multiple = r#"{"data":{"resultType":"vector","result":[{"value":[1,"1"]},{"value":[1,"2"]}]}}"#;
    let empty = r#"{"data":{"resultType":"vector","result":[]}}"#;
    let query = "sum(up{a=\"b c\"}) + 1";
    for (body, counted, failed) in [
        (
            vector("NaN"),
            Some(0.0),
            "prometheus query returns NaN".to_owned(),
        ),
        (
            vector("+Inf"),
            Some(0.0),
            "prometheus query returns +Inf".to_owned(),
        ),
        (
            empty.to_owned(),
            Some(0.0),
            "prometheus metrics 'prometheus' target may be lost, the result is empty".to_owned(),
        ),
        (
            multiple.to_owned(),
            None,
            format!("prometheus query {query} returned multiple elements"),
        ),
        (vector("-7.5"), Some(-7.5), String::new()),
    ] {
        let script = body.clone();
        let peer = Peer::start(move |_: &Seen| answer(200, &[], script.clone())).await;
        for ignore in ["true", "false"] {
            let trigger = connected(prometheus(
                &peer.url("/prom"),
                &[("ignoreNullValues", ignore)],
                &[],
            ));
            match (read(&trigger).await, counted) {
                (Ok(observed), Some(value)) if ignore == "true" || failed.is_empty() => {
                    assert_eq!(observed, Observed { value, active: false }, "{body}");
                }
                (Err(error), _) => {
                    assert!(ignore == "false" || counted.is_none(), "{body}: {error}");
                    assert_eq!(
                        (error.kind, error.message),
                        (ReadErrorKind::BadAnswer, failed.clone())
                    );
                }
                (Ok(observed), _) => panic!("{body}, ignoreNullValues {ignore}: {observed:?}"),
            }
        }
    }
}

#[tokio::test]
async fn statuses_become_kinds_and_show_no_body() {
    let after = Some(Duration::from_secs(9));
    for (status, kind) in [
        (301, ReadErrorKind::BadAnswer),
        (400, ReadErrorKind::BadAnswer),
        (401, ReadErrorKind::Denied),
        (403, ReadErrorKind::Denied),
        (422, ReadErrorKind::BadAnswer),
        (429, ReadErrorKind::Throttled { retry_after: after }),
        (503, ReadErrorKind::Unreachable),
    ] {
        let peer = Peer::start(move |_: &Seen| answer(status, &[("retry-after", "9")], "canary")).await;
        let url = peer.url("/prom").replace("http://", "http://user:canary@");
        let error = read(&connected(prometheus(&url, &[], &[]))).await.unwrap_err();
        assert_eq!(error.kind, kind, "{status}: {error}");
        let sentence = format!("prometheus query api returned error. status: {status} (http://127.0.0.1:");
        assert!(error.message.starts_with(&sentence), "{error}");
    }
    let peer = Peer::start(|_: &Seen| answer(200, &[], "<html>canary")).await;
    let error = read(&connected(prometheus(&peer.url("/prom"), &[], &[])))
        .await
        .unwrap_err();
    assert!(
        error.message.ends_with("is not one of Prometheus' query API"),
        "{error}"
    );
}
