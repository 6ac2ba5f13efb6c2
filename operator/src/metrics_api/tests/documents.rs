//! Discovery, OpenAPI and health.

use serde_json::{Value, json};

use super::fixture::{HPA, Served};

const AS_HPA: (&str, &str) = ("x-remote-user", HPA);

#[tokio::test]
async fn discovery_lists_the_one_resource() {
    let served = Served::start().await;
    let client = served.aggregator();
    let resources = client
        .get("/apis/external.metrics.k8s.io/v1beta1", &[AS_HPA])
        .await;
    assert_eq!(
        resources.json(),
        json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": "external.metrics.k8s.io/v1beta1",
            "resources": [{
                "name": "externalmetrics",
                "singularName": "",
                "namespaced": true,
                "kind": "ExternalMetricValueList",
                "verbs": ["get"],
            }],
        })
    );
    let groups = client.get("/apis", &[AS_HPA]).await.json();
    assert_eq!(groups["kind"], "APIGroupList");
    let group = client
        .get("/apis/external.metrics.k8s.io", &[AS_HPA])
        .await
        .json();
    assert_eq!(
        group["preferredVersion"]["groupVersion"],
        "external.metrics.k8s.io/v1beta1"
    );
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let answer = client.get("/apis", &[AS_HPA, ("accept", aggregated)]).await;
    assert_eq!(answer.headers["content-type"], aggregated);
    let found = &answer.json()["items"][0]["versions"][0]["resources"][0];
    assert_eq!(found["resource"], "externalmetrics");
    assert!(served.api.state().access_reviews.is_empty());
}

#[tokio::test]
async fn openapi_is_json_and_leads_from_the_index_to_the_document() {
    let served = Served::start().await;
    let client = served.aggregator();
    let v2 = client
        .get("/openapi/v2", &[AS_HPA, ("accept", "application/json")])
        .await;
    assert_eq!(v2.json()["swagger"], "2.0");
    let etag = v2.headers["etag"].to_str().unwrap();
    let again = client
        .get("/openapi/v2", &[AS_HPA, ("if-none-match", etag)])
        .await;
    assert_eq!((again.code.as_u16(), again.body.as_str()), (304, ""));
    let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let answer = client.get("/openapi/v2", &[AS_HPA, ("accept", protobuf)]).await;
    assert_eq!(answer.failure().0, 406);

    let index = client.get("/openapi/v3", &[AS_HPA]).await.json();
    let url = index["paths"]["apis/external.metrics.k8s.io/v1beta1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    let v3 = client.get(url, &[AS_HPA]).await.json();
    let kinds = v3["components"]["schemas"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(|schema| schema["x-kubernetes-group-version-kind"][0]["kind"].as_str())
        .collect::<Vec<_>>();
    assert_eq!(kinds, ["ExternalMetricValueList"]);
}

#[tokio::test]
async fn health_is_open_and_everything_else_is_not() {
    let served = Served::start().await;
    let client = served.client(None);
    for path in ["/healthz", "/livez", "/readyz"] {
        let answer = client.get(path, &[]).await;
        assert_eq!(
            (answer.code.as_u16(), answer.body.as_str()),
            (200, "ok"),
            "{path}"
        );
    }
    for path in ["/apis", "/openapi/v2", "/openapi/v3", "/version", "/", "/nowhere"] {
        assert_eq!(client.get(path, &[]).await.failure().0, 401, "{path}");
    }
    let version = served.aggregator().get("/version", &[AS_HPA]).await.json();
    assert_eq!(
        version["gitVersion"],
        Value::from(concat!("v", env!("CARGO_PKG_VERSION")))
    );
}

#[tokio::test]
async fn the_anonymous_user_is_asked_about_even_for_documents() {
    let served = Served::start().await;
    let anonymous = [
        ("x-remote-user", "system:anonymous"),
        ("x-remote-group", "system:unauthenticated"),
    ];
    let answer = served.aggregator().get("/apis", &anonymous).await;
    assert_eq!(
        answer.failure(),
        (
            403,
            "Forbidden".to_owned(),
            "forbidden: User \"system:anonymous\" cannot get path \"/apis\"".to_owned()
        )
    );
    let asked = served.api.state().access_reviews.last().cloned().unwrap();
    assert_eq!(
        asked["nonResourceAttributes"],
        json!({ "path": "/apis", "verb": "get" })
    );
}
