use super::{AwsSqsQueue, queue_name};
use crate::error::ConfigError;
use crate::metadata;
use crate::scaler::{MetricSpec, Scaler, Target};
use crate::testing;

const KEYS: [(&str, &str); 2] = [("awsAccessKeyID", "id"), ("awsSecretAccessKey", "canary")];

fn connect(entries: &[(&str, &str)]) -> Result<AwsSqsQueue, ConfigError> {
    let cx = testing::context(testing::params("aws-sqs-queue", entries, &KEYS));
    AwsSqsQueue::connect(metadata::parse(&cx.params)?, &cx)
}

#[test]
fn the_queues_name_in_every_form() {
    for (text, name) in [
        (
            "https://sqs.eu-west-1.amazonaws.com/123456789012/orders",
            Some("orders"),
        ),
        (
            "http://127.0.0.1:15000/123456789012/orders.fifo",
            Some("orders.fifo"),
        ),
        (
            "https://sqs.eu-west-1.amazonaws.com/123456789012/orders?a=b",
            Some("orders"),
        ),
        ("orders", Some("orders")),
        ("/123456789012/orders", Some("orders")),
        ("orders/eu", Some("orders/eu")),
        ("https://sqs.eu-west-1.amazonaws.com/orders", None),
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/", None),
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/a/b", None),
        ("https://sqs.eu-west-1.amazonaws.com", None),
        ("/orders", None),
        ("arn:aws:sqs:eu-west-1:123456789012:orders", None),
        ("1:2", Some("1:2")),
    ] {
        assert_eq!(queue_name(text), name, "{text}");
    }
}

#[test]
fn defaults_and_metric() {
    let queue = connect(&[
        ("queueURL", "https://h/1/orders.fifo"),
        ("awsRegion", "eu-west-1"),
    ])
    .unwrap();
    let metric = MetricSpec {
        base_name: "aws-sqs-orders.fifo".to_owned(),
        target: Target::Whole(5),
    };
    assert_eq!(queue.metric(), metric);
    assert_eq!(queue.deadline().as_secs(), 15);
    let names = |queue: &AwsSqsQueue| {
        queue
            .attributes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&queue),
        [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible"
        ]
    );
    let other = connect(&[
        ("queueURL", "orders"),
        ("awsRegion", "eu-west-1"),
        ("scaleOnInFlight", "F"),
        ("scaleOnDelayed", "1"),
        ("queueLength", " 7 "),
    ])
    .unwrap();
    assert_eq!(
        names(&other),
        [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesDelayed"
        ]
    );
    assert_eq!(other.metric().target, Target::Whole(7));
}

#[test]
fn one_client_for_all_queues_of_one_identity_and_region() {
    let cx = |region: &'static str, secret: &'static str| {
        testing::params(
            "aws-sqs-queue",
            &[("queueURL", "orders"), ("awsRegion", region)],
            &[("awsAccessKeyID", "id"), ("awsSecretAccessKey", secret)],
        )
    };
    let mut context = testing::context(cx("eu-west-1", "a"));
    let mut connect = |params| {
        context.params = params;
        AwsSqsQueue::connect(metadata::parse(&context.params).unwrap(), &context)
            .unwrap()
            .client
    };
    let first = connect(cx("eu-west-1", "a"));
    assert!(std::sync::Arc::ptr_eq(&first, &connect(cx("eu-west-1", "a"))));
    assert!(!std::sync::Arc::ptr_eq(&first, &connect(cx("eu-west-2", "a"))));
    assert!(!std::sync::Arc::ptr_eq(&first, &connect(cx("eu-west-1", "b"))));
}

#[test]
fn faults_as_the_user_sees_them() {
    let fault = |entries: &[(&str, &str)]| connect(entries).err().expect("it is wrong").to_string();
    let prefix = "error parsing SQS queue metadata: ";
    assert_eq!(
        fault(&[("queueURL", "orders")]),
        format!("{prefix}{prefix}missing required parameter \"awsRegion\" in [triggerMetadata authParams]")
    );
    assert_eq!(
        fault(&[("awsRegion", "eu-west-1"), ("queueURL", " ")]),
        format!("{prefix}{prefix}missing required parameter \"queueURL\" in [triggerMetadata resolvedEnv]")
    );
    assert_eq!(
        fault(&[("awsRegion", "eu-west-1"), ("queueURL", "https://h/orders")]),
        format!("{prefix}cannot get queueName from queueURL")
    );
    assert_eq!(
        fault(&[
            ("awsRegion", "eu-west-1"),
            ("queueURL", "o"),
            ("queueLength", "5.0"),
            ("scaleOnDelayed", "yes")
        ]),
        format!(
            "{prefix}{prefix}unable to set param \"queueLength\" value \"5.0\": expected a whole number, \
             unable to set param \"scaleOnDelayed\" value \"yes\": expected true or false"
        )
    );
    let cx = testing::context(testing::params(
        "aws-sqs-queue",
        &[("queueURL", "o"), ("awsRegion", "r")],
        &[],
    ));
    let error = metadata::parse(&cx.params)
        .and_then(|m| AwsSqsQueue::connect(m, &cx))
        .err()
        .unwrap();
    assert_eq!(error.to_string(), format!("{prefix}awsAccessKeyID not found"));
}

#[test]
fn only_the_same_question_of_the_same_queue_as_the_same_identity_is_shared() {
    let asks = |more: &[(&str, &str)], keys: [(&str, &str); 2]| {
        let mut entries = vec![("queueURL", "https://h/1/orders"), ("awsRegion", "eu-west-1")];
        for (key, value) in more {
            entries.retain(|(known, _)| known != key);
            entries.push((key, value));
        }
        let cx = testing::context(testing::params("aws-sqs-queue", &entries, &keys));
        let queue = AwsSqsQueue::connect(metadata::parse(&cx.params).unwrap(), &cx).unwrap();
        crate::scaler::Trigger::question(&queue).unwrap()
    };
    let one = asks(&[], KEYS);
    let own_thresholds = asks(&[("queueLength", "50"), ("activationQueueLength", "7")], KEYS);
    assert_eq!(own_thresholds.fingerprint, one.fingerprint);
    assert!((own_thresholds.activation - 7.0).abs() < f64::EPSILON);
    for (more, keys) in [
        (
            &[][..],
            [("awsAccessKeyID", "id"), ("awsSecretAccessKey", "other")],
        ),
        (
            &[],
            [("awsAccessKeyID", "other"), ("awsSecretAccessKey", "canary")],
        ),
        (&[("queueURL", "https://h/1/other")], KEYS),
        (&[("awsRegion", "eu-west-2")], KEYS),
        (&[("awsEndpoint", "http://other")], KEYS),
        (&[("scaleOnInFlight", "false")], KEYS),
        (&[("scaleOnDelayed", "true")], KEYS),
    ] {
        assert_ne!(asks(more, keys).fingerprint, one.fingerprint, "{more:?} {keys:?}");
    }
}
