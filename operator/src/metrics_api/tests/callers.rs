//! Who is let in, and what the API server is asked about them.

use std::time::Duration;

use serde_json::json;

use super::super::Caller;
use super::fixture::{Authority, HPA, OWN_USER, READ, Served, TRUST, trust};
use crate::certificates::tests::fake_api::Mood;

const AS_HPA: &[(&str, &str)] = &[
    ("x-remote-user", HPA),
    ("x-remote-group", "system:serviceaccounts"),
];

#[tokio::test]
async fn the_aggregation_layer_speaks_for_its_users() {
    let served = Served::start().await;
    let client = served.aggregator();
    let headers = [
        ("x-remote-user", "jürgen"),
        ("x-remote-uid", "42"),
        ("x-remote-group", "one"),
        ("x-remote-group", "two"),
        ("x-remote-extra-example.org%2Fscopes", "read"),
    ];
    let answer = client.get(READ, &headers).await;
    assert_eq!(
        answer.failure(),
        (
            403,
            "Forbidden".to_owned(),
            "s0-orders.external.metrics.k8s.io is forbidden: User \"jürgen\" cannot list resource \"s0-orders\" in API group \"external.metrics.k8s.io\" in the namespace \"shop\"".to_owned(),
        )
    );
    let asked = served.api.state().access_reviews.last().cloned().unwrap();
    assert_eq!(
        asked,
        json!({
            "user": "jürgen", "uid": "42",
            "groups": ["one", "two", "system:authenticated"],
            "extra": { "example.org/scopes": ["read"] },
            "resourceAttributes": {
                "verb": "list", "group": "external.metrics.k8s.io", "version": "v1beta1",
                "namespace": "shop", "resource": "s0-orders",
            },
        })
    );
}

#[tokio::test]
async fn one_question_answers_for_all_metrics_of_the_hpa_controller() {
    let served = Served::start().await;
    let client = served.aggregator();
    for number in 0..50 {
        let path = READ.replace("s0-orders", &format!("s{number}-orders"));
        client.get(&path, AS_HPA).await;
    }
    assert_eq!(served.api.state().access_reviews.len(), 1);
}

#[tokio::test]
async fn masters_are_not_asked_about_even_when_nobody_could_answer() {
    let served = Served::start().await;
    let client = served.aggregator();
    assert_eq!(client.get("/apis", AS_HPA).await.code, 200);
    served.api.state().mood = Mood::Refusing;
    let headers = [
        ("x-remote-user", "system:kube-aggregator"),
        ("x-remote-group", "system:masters"),
    ];
    assert_eq!(client.get(READ, &headers).await.code, 200);
    assert!(served.api.state().access_reviews.is_empty());
}

#[tokio::test]
async fn identity_headers_count_only_with_the_right_certificate() {
    let served = Served::start().await;
    let wrong_authority = Authority::new("front-proxy-ca").issue("front-proxy-client", "");
    let wrong_name = served.front_proxy.issue("somebody-else", "");
    let no_certificate = served.client(None);
    for client in [
        served.client(Some(&wrong_authority)),
        served.client(Some(&wrong_name)),
        no_certificate,
    ] {
        let masters = [("x-remote-user", "root"), ("x-remote-group", "system:masters")];
        assert_eq!(client.get(READ, &masters).await.failure().0, 401);
    }
    let user = served.clients.issue("alice", "developers");
    let headers = [("x-remote-user", "root"), ("x-remote-group", "system:masters")];
    let answer = served.client(Some(&user)).get(READ, &headers).await;
    assert_eq!(
        answer.failure().0,
        403,
        "the certificate's user counts, not the headers'"
    );
    let asked = served.api.state().access_reviews.last().cloned().unwrap();
    assert_eq!(asked["user"], "alice");
    assert_eq!(asked["groups"], json!(["developers", "system:authenticated"]));
}

#[tokio::test]
async fn a_certificate_without_identity_headers_is_nobody() {
    let served = Served::start().await;
    assert_eq!(served.aggregator().get(READ, &[]).await.failure().0, 401);
}

#[tokio::test]
async fn client_certificates_and_tokens_need_their_own_permission() {
    let served = Served::start().await;
    served.api.state().allowed.push(("alice", "shop", "s0-orders"));
    served.api.state().tokens.insert(
        "alices-token".to_owned(),
        json!({ "username": "alice", "groups": ["system:authenticated"] }),
    );
    let certificate = served.clients.issue("alice", "developers");
    assert_eq!(served.client(Some(&certificate)).get(READ, &[]).await.code, 200);

    let client = served.client(None);
    for _ in 0..20 {
        let answer = client
            .get(READ, &[("authorization", "Bearer alices-token")])
            .await;
        assert_eq!(answer.code, 200);
    }
    assert_eq!(served.api.state().token_reviews, 1, "the answer is remembered");
    let other = READ.replace("s0-orders", "s1-orders");
    let answer = client
        .get(&other, &[("authorization", "Bearer alices-token")])
        .await;
    assert_eq!(answer.failure().0, 403);
    for wrong in [
        "Bearer nobodys-token",
        "Bearer ",
        "Basic YWxpY2U6eA==",
        "alices-token",
    ] {
        let answer = client.get(READ, &[("authorization", wrong)]).await;
        assert_eq!(
            answer.failure(),
            (401, "Unauthorized".to_owned(), "Unauthorized".to_owned())
        );
    }
}

#[tokio::test]
async fn another_replica_is_let_in_and_told_apart() {
    let served = Served::start().await;
    served
        .api
        .state()
        .tokens
        .insert("own-token".to_owned(), json!({ "username": OWN_USER }));
    let answer = served
        .client(None)
        .get(READ, &[("authorization", "Bearer own-token")])
        .await;
    assert_eq!(answer.code, 200);
    assert_eq!(served.aggregator().get(READ, AS_HPA).await.code, 200);
    let passed_on = [("x-remote-user", OWN_USER)];
    assert_eq!(
        served.aggregator().get(READ, &passed_on).await.code,
        403,
        "only the token itself proves a replica"
    );
    let asked = served.source.asked.lock().unwrap().clone();
    let callers = asked.into_iter().map(|(_, caller)| caller).collect::<Vec<_>>();
    assert_eq!(callers, [Caller::Forwarded, Caller::Client]);
}

#[tokio::test]
async fn who_cannot_be_checked_is_turned_away() {
    let served = Served::start().await;
    let client = served.aggregator();
    assert_eq!(client.get("/apis", AS_HPA).await.code, 200);
    served.api.state().mood = Mood::Refusing;
    assert_eq!(client.get(READ, AS_HPA).await.failure().0, 503);
    let answer = served
        .client(None)
        .get(READ, &[("authorization", "Bearer alices-token")])
        .await;
    let (code, reason, message) = answer.failure();
    assert_eq!((code, reason.as_str()), (503, "ServiceUnavailable"));
    assert!(!message.contains("alices-token"));
}

#[tokio::test]
async fn a_known_caller_goes_on_while_the_api_server_is_silent() {
    let served = Served::start().await;
    let client = served.aggregator();
    assert_eq!(client.get(READ, AS_HPA).await.code, 200);
    served.api.state().mood = Mood::Silent;
    for _ in 0..10 {
        assert_eq!(client.get(READ, AS_HPA).await.code, 200);
    }
}

#[tokio::test]
async fn a_rotated_front_proxy_authority_is_accepted_on_its_first_request() {
    let served = Served::start().await;
    assert_eq!(served.aggregator().get(READ, AS_HPA).await.code, 200);
    let rotated = Authority::new("front-proxy-ca-2");
    served.api.put(TRUST, trust(&rotated, &served.clients));
    let identity = rotated.issue("front-proxy-client", "");
    // The ConfigMap is not read again within five seconds, whoever knocks.
    tokio::time::sleep(Duration::from_millis(5100)).await;
    let answer = served.client(Some(&identity)).get(READ, AS_HPA).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    assert_eq!(served.aggregator().get(READ, AS_HPA).await.code, 401);
}
