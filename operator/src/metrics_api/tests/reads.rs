//! Values and errors, as clients see them.

use http::Method;

use super::fixture::{HPA, READ, Served};

const AS_HPA: &[(&str, &str)] = &[
    ("x-remote-user", HPA),
    ("x-remote-group", "system:serviceaccounts"),
];

fn path(metric: &str, selector: &str) -> String {
    format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/{metric}?labelSelector={selector}")
}

#[tokio::test]
async fn a_value_is_served_in_the_shape_of_the_api() {
    let served = Served::start().await;
    let answer = served.aggregator().get(READ, AS_HPA).await;
    assert_eq!(answer.code, 200);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(
        answer.body,
        r#"{"kind":"ExternalMetricValueList","apiVersion":"external.metrics.k8s.io/v1beta1","metadata":{},"items":[{"metricName":"s0-orders","metricLabels":null,"timestamp":"2026-11-21T05:40:55Z","value":"15"}]}"#
    );
}

#[tokio::test]
async fn the_selector_may_be_written_in_every_equal_way() {
    let served = Served::start().await;
    let client = served.aggregator();
    for selector in [
        "scaledobject.keda.sh/name=worker",
        "scaledobject.keda.sh%2Fname==worker",
        "team=blue,scaledobject.keda.sh%2Fname%3D%3Dworker",
        "scaledobject.keda.sh%2Fname%20=%20worker",
        "scaledobject.keda.sh%2Fname+=+worker",
    ] {
        let answer = client.get(&path("S0-Orders", selector), AS_HPA).await;
        assert_eq!(answer.code, 200, "{selector}: {}", answer.body);
    }
}

#[tokio::test]
async fn each_failure_is_a_status_with_the_known_sentence() {
    let served = Served::start().await;
    let client = served.aggregator();
    let of_worker = "scaledobject.keda.sh%2Fname%3Dworker";
    let values = "error when getting metric values";
    for (metric, selector, code, reason, message) in [
        ("s0-orders", "", 500, "", "scaledObject name is not specified".to_owned()),
        ("s0-orders", "team=blue", 500, "", "scaledObject name is not specified".to_owned()),
        (
            "s9-nope",
            of_worker,
            500,
            "",
            format!("{values} no matching metrics found for s9-nope"),
        ),
        (
            "s0-orders",
            "scaledobject.keda.sh%2Fname%3Dother",
            500,
            "",
            format!("{values} error getting scalers ScaledObject.keda.sh \"other\" not found"),
        ),
        (
            "s0-failing",
            of_worker,
            500,
            "",
            format!("{values} metric:s0-failing encountered error: queue does not exist"),
        ),
        (
            "s0-old",
            of_worker,
            500,
            "",
            format!(
                "{values} metric:s0-old encountered error: its last reading is 90s old, older than the 34s it may be"
            ),
        ),
        (
            "s0-new",
            of_worker,
            500,
            "",
            format!("{values} no matching metrics found for s0-new: it has not been read yet"),
        ),
        (
            "s0-follower",
            of_worker,
            503,
            "ServiceUnavailable",
            "this replica is not the leader and holds no reading of metric s0-follower".to_owned(),
        ),
        (
            "s0-orders",
            "scaledobject.keda.sh%2Fname%20in%20(worker)",
            400,
            "BadRequest",
            "labelSelector: \"scaledobject.keda.sh/name in (worker)\" is not accepted: only requirements of the form key=value or key==value are".to_owned(),
        ),
    ] {
        let answer = client.get(&path(metric, selector), AS_HPA).await;
        assert_eq!(answer.failure(), (code, reason.to_owned(), message), "{metric} {selector}");
    }
}

#[tokio::test]
async fn other_paths_methods_and_types_are_refused_in_the_same_form() {
    let served = Served::start().await;
    let client = served.aggregator();
    for (method, path, accept, code, reason) in [
        (Method::GET, "/apis/other.k8s.io", "*/*", 404, "NotFound"),
        (
            Method::GET,
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop",
            "*/*",
            404,
            "NotFound",
        ),
        (
            Method::GET,
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/s0-orders/x",
            "*/*",
            404,
            "NotFound",
        ),
        (Method::POST, READ, "*/*", 405, "MethodNotAllowed"),
        (Method::DELETE, "/apis", "*/*", 405, "MethodNotAllowed"),
        (
            Method::GET,
            READ,
            "application/vnd.kubernetes.protobuf",
            406,
            "NotAcceptable",
        ),
    ] {
        let mut headers = AS_HPA.to_vec();
        headers.push(("accept", accept));
        let answer = client.send(method, path, &headers).await;
        let (found, why, _) = answer.failure();
        assert_eq!((found, why.as_str()), (code, reason), "{path}");
    }
}

#[tokio::test]
async fn the_hpa_controllers_accept_header_gets_json() {
    let served = Served::start().await;
    let mut headers = AS_HPA.to_vec();
    headers.push(("accept", "application/vnd.kubernetes.protobuf,application/json"));
    let answer = served.aggregator().get(READ, &headers).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
}
