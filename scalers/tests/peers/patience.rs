//! `Retry-After`: obeyed by every trigger of the account that was told, and by no other.

use std::sync::Arc;
use std::time::Duration;

use dormouse_scalers::error::ReadErrorKind;
use dormouse_scalers::{Clients, ReadError, Trigger, TriggerParams, connect};

use crate::support::{Peer, Seen, answer, context, params, read};

const WAIT: Duration = Duration::from_secs(2);
const ERROR: &str = r#"{"__type":"com.amazonaws.sqs#ThrottlingException"}"#;

fn api(url: &str, token: &str) -> TriggerParams {
    let metadata = [
        ("url", url),
        ("valueLocation", "v"),
        ("targetValue", "2"),
        ("authMode", "bearer"),
    ];
    params("metrics-api", &metadata, &[("token", token)])
}

fn sqs(url: &str, key: &str) -> TriggerParams {
    let queue = "https://sqs.eu-west-1.amazonaws.com/123456789012/orders";
    let metadata = [
        ("queueURL", queue),
        ("awsRegion", "eu-west-1"),
        ("awsEndpoint", url),
    ];
    params(
        "aws-sqs-queue",
        &metadata,
        &[("awsAccessKeyID", key), ("awsSecretAccessKey", "canary")],
    )
}

fn among(clients: &Arc<Clients>, params: TriggerParams) -> Arc<dyn Trigger> {
    let mut context = context(params);
    context.clients = Arc::clone(clients);
    connect(&context).expect("the parameters are right")
}

/// Refuses the account `busy` for a while, and lets `other` in.
fn throttling(seen: &Seen) -> axum::response::Response {
    let who = seen.header("authorization").unwrap_or_default();
    let wait = WAIT.as_secs().to_string();
    if who.contains("busy") {
        return answer(429, &[("retry-after", &wait)], ERROR);
    }
    let attributes = r#""ApproximateNumberOfMessages":"7","ApproximateNumberOfMessagesNotVisible":"0""#;
    answer(200, &[], format!("{{\"v\":7,\"Attributes\":{{{attributes}}}}}"))
}

fn is_throttled(outcome: &Result<dormouse_scalers::Observed, ReadError>) -> bool {
    let kind = outcome.as_ref().err().map(|failure| failure.kind);
    matches!(kind, Some(ReadErrorKind::Throttled { retry_after: Some(wait) }) if wait <= WAIT)
}

#[tokio::test]
async fn one_answer_holds_back_all_triggers_of_that_account() {
    for of in [api as fn(&str, &str) -> TriggerParams, sqs] {
        let peer = Peer::start(throttling).await;
        let clients = context(of(&peer.url("/"), "busy")).clients;
        let (first, second) = (
            among(&clients, of(&peer.url("/"), "busy")),
            among(&clients, of(&peer.url("/"), "busy")),
        );
        let told = read(&first).await;
        assert!(is_throttled(&told), "{told:?}");
        assert_eq!(peer.seen().len(), 1, "not even the SDK tries again");
        for trigger in [&first, &second] {
            let refused = read(trigger).await;
            assert!(is_throttled(&refused), "{refused:?}");
            let text = refused.unwrap_err().message;
            assert!(
                text.ends_with("the server wants to be left alone for a while"),
                "{text}"
            );
        }
        assert_eq!(peer.seen().len(), 1, "nobody asked meanwhile");

        let other = among(&clients, of(&peer.url("/"), "other"));
        assert_eq!(
            read(&other).await.unwrap().value,
            7.0,
            "another identity is let in"
        );
        let elsewhere = Peer::start(throttling).await;
        assert!(is_throttled(
            &read(&among(&clients, of(&elsewhere.url("/"), "busy"))).await
        ));
        assert_eq!(
            elsewhere.seen().len(),
            1,
            "another server has not asked for anything yet"
        );

        tokio::time::sleep(WAIT).await;
        let again = read(&second).await;
        assert!(is_throttled(&again), "{again:?}");
        assert_eq!(peer.seen().len(), 3, "the time is over, and the server is asked");
    }
}
