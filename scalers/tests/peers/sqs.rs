//! `aws-sqs-queue` against a scripted SQS.

use std::time::Duration;

use axum::response::Response;
use dormouse_scalers::error::ReadErrorKind;
use dormouse_scalers::{Observed, TriggerParams};
use serde_json::{Value, json};

use crate::support::{Peer, RawPeer, Seen, answer, connected, params, read};

const AMZ_JSON: (&str, &str) = ("content-type", "application/x-amz-json-1.0");

fn queue(endpoint: &str, more: &[(&str, &str)]) -> TriggerParams {
    let mut metadata = vec![
        (
            "queueURL",
            "https://sqs.eu-west-1.amazonaws.com/123456789012/orders",
        ),
        ("awsRegion", "eu-west-1"),
        ("awsEndpoint", endpoint),
    ];
    metadata.extend_from_slice(more);
    params(
        "aws-sqs-queue",
        &metadata,
        &[
            ("awsAccessKeyID", "AKIDEXAMPLE"),
            ("awsSecretAccessKey", "canary-secret"),
            ("awsSessionToken", "canary-token"),
        ],
    )
}

fn attributes(values: Value) -> Response {
    answer(200, &[AMZ_JSON], json!({ "Attributes": values }).to_string())
}

fn all_attributes(_: &Seen) -> Response {
    attributes(json!({
        "ApproximateNumberOfMessages": "7",
        "ApproximateNumberOfMessagesNotVisible": "3",
        "ApproximateNumberOfMessagesDelayed": "20",
    }))
}

fn error(status: u16, code: &'static str) -> impl Fn(&Seen) -> Response + Clone {
    move |_| {
        let body =
            json!({ "__type": format!("com.amazonaws.sqs#{code}"), "message": "canary of the service" });
        answer(status, &[AMZ_JSON, ("retry-after", "7")], body.to_string())
    }
}

#[tokio::test]
async fn one_signed_call_asks_for_exactly_what_counts() {
    let peer = Peer::start(all_attributes).await;
    for (more, expected, names) in [
        (
            &[][..],
            10.0,
            &[
                "ApproximateNumberOfMessages",
                "ApproximateNumberOfMessagesNotVisible",
            ][..],
        ),
        (
            &[("scaleOnInFlight", "false")],
            7.0,
            &["ApproximateNumberOfMessages"],
        ),
        (
            &[("scaleOnDelayed", "true")],
            30.0,
            &[
                "ApproximateNumberOfMessages",
                "ApproximateNumberOfMessagesNotVisible",
                "ApproximateNumberOfMessagesDelayed",
            ],
        ),
    ] {
        let before = peer.seen().len();
        let trigger = connected(queue(&peer.url("/"), more));
        assert_eq!(peer.seen().len(), before, "connecting does no I/O");
        assert_eq!(
            read(&trigger).await,
            Ok(Observed {
                value: expected,
                active: true
            })
        );
        let seen = peer.seen();
        assert_eq!(seen.len(), before + 1);
        let request = &seen[before];
        assert_eq!(
            request.header("x-amz-target"),
            Some("AmazonSQS.GetQueueAttributes")
        );
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(
            body,
            json!({ "QueueUrl": "https://sqs.eu-west-1.amazonaws.com/123456789012/orders", "AttributeNames": names })
        );
        let authorization = request.header("authorization").unwrap();
        assert!(
            authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"),
            "{authorization}"
        );
        assert!(
            authorization.contains("/eu-west-1/sqs/aws4_request"),
            "{authorization}"
        );
        assert_eq!(request.header("x-amz-security-token"), Some("canary-token"));
    }
}

#[tokio::test]
async fn active_only_above_the_activation_length() {
    let peer = Peer::start(all_attributes).await;
    for (activation, active) in [("9", true), ("10", false)] {
        let trigger = connected(queue(&peer.url("/"), &[("activationQueueLength", activation)]));
        assert_eq!(
            read(&trigger).await,
            Ok(Observed { value: 10.0, active }),
            "{activation}"
        );
    }
}

#[tokio::test]
async fn refusals_name_the_queue_and_the_code_only() {
    let after = Some(Duration::from_secs(7));
    for (status, code, kind, calls) in [
        (400, "QueueDoesNotExist", ReadErrorKind::NotFound, 1),
        (403, "AccessDenied", ReadErrorKind::Denied, 1),
        (403, "InvalidClientTokenId", ReadErrorKind::Denied, 1),
        (
            400,
            "RequestThrottled",
            ReadErrorKind::Throttled { retry_after: after },
            2,
        ),
        (400, "KmsAccessDenied", ReadErrorKind::Denied, 1),
        (400, "InvalidAddress", ReadErrorKind::BadAnswer, 1),
        (500, "InternalFailure", ReadErrorKind::Unreachable, 2),
    ] {
        let peer = Peer::start(error(status, code)).await;
        let failure = read(&connected(queue(&peer.url("/"), &[]))).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{code}");
        assert_eq!(
            failure.message,
            format!("error reading SQS queue \"orders\": {code}")
        );
        assert!(peer.seen().len() <= calls, "{code}: {} calls", peer.seen().len());
    }
}

#[tokio::test]
async fn answers_without_a_code() {
    for (status, body, kind, text) in [
        (
            200,
            "<html>canary</html>".to_owned(),
            ReadErrorKind::BadAnswer,
            "the answer makes no sense",
        ),
        (
            200,
            "{\"Attributes\":{\"Appro".to_owned(),
            ReadErrorKind::BadAnswer,
            "the answer makes no sense",
        ),
        (
            200,
            "x".repeat(2 << 20),
            ReadErrorKind::BadAnswer,
            "the answer is longer than 1 MiB",
        ),
        (
            429,
            String::new(),
            ReadErrorKind::Throttled { retry_after: None },
            "status 429",
        ),
        (503, "canary".to_owned(), ReadErrorKind::Unreachable, "status 503"),
        (403, "canary".to_owned(), ReadErrorKind::Denied, "status 403"),
    ] {
        let given = body.clone();
        let peer = Peer::start(move |_: &Seen| answer(status, &[AMZ_JSON], given.clone())).await;
        let failure = read(&connected(queue(&peer.url("/"), &[]))).await.unwrap_err();
        assert_eq!(
            (failure.kind, failure.message.as_str()),
            (
                kind,
                format!("error reading SQS queue \"orders\": {text}").as_str()
            )
        );
        assert!(peer.seen().len() <= 2);
    }
}

#[tokio::test]
async fn attributes_that_are_missing_or_no_numbers() {
    for (values, text) in [
        (
            json!({ "ApproximateNumberOfMessages": "7" }),
            "metric ApproximateNumberOfMessagesNotVisible not found in SQS queue attributes",
        ),
        (
            json!({}),
            "metric ApproximateNumberOfMessages not found in SQS queue attributes",
        ),
        (
            json!({ "ApproximateNumberOfMessages": "canary", "ApproximateNumberOfMessagesNotVisible": "1" }),
            "metric ApproximateNumberOfMessages is not a whole number",
        ),
    ] {
        let peer = Peer::start(move |_: &Seen| attributes(values.clone())).await;
        let failure = read(&connected(queue(&peer.url("/"), &[]))).await.unwrap_err();
        assert_eq!(failure.kind, ReadErrorKind::BadAnswer);
        assert_eq!(
            failure.message,
            format!("error reading SQS queue \"orders\": {text}")
        );
    }
}

#[tokio::test]
async fn a_broken_network_is_unreachable_and_then_works_again() {
    let peer = RawPeer::start(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"Attr", false).await;
    let failure = read(&connected(queue(&format!("http://{}", peer.address), &[])))
        .await
        .unwrap_err();
    assert!(
        matches!(
            failure.kind,
            ReadErrorKind::Unreachable | ReadErrorKind::BadAnswer
        ),
        "{failure:?}"
    );

    let peer = RawPeer::start(b"", false).await;
    let failure = read(&connected(queue(&format!("http://{}", peer.address), &[])))
        .await
        .unwrap_err();
    assert_eq!(failure.kind, ReadErrorKind::Unreachable, "{failure:?}");

    let address = peer.address;
    drop(peer);
    let trigger = connected(queue(&format!("http://{address}"), &[]));
    let failure = read(&trigger).await.unwrap_err();
    assert_eq!(failure.kind, ReadErrorKind::Unreachable);
    assert_eq!(
        failure.message,
        "error reading SQS queue \"orders\": Connection refused (os error 111)"
    );

    let _back = Peer::start_on(address, all_attributes).await;
    assert_eq!(
        read(&trigger).await,
        Ok(Observed {
            value: 10.0,
            active: true
        })
    );
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let other = Peer::start(all_attributes).await;
    let target = other.url("/");
    let peer = Peer::start(move |_: &Seen| answer(307, &[("location", &target)], "")).await;
    let failure = read(&connected(queue(&peer.url("/"), &[]))).await.unwrap_err();
    assert_eq!(failure.kind, ReadErrorKind::BadAnswer, "{failure:?}");
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn a_read_that_is_given_up_ends_its_connection() {
    let mut peer = RawPeer::start(b"", true).await;
    let trigger = connected(queue(&format!("http://{}", peer.address), &[]));
    let given_up = tokio::time::timeout(Duration::from_millis(200), trigger.read()).await;
    assert!(given_up.is_err());
    tokio::time::timeout(Duration::from_secs(5), peer.ended.recv())
        .await
        .expect("the connection ends")
        .unwrap();
}
