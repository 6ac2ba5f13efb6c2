//! How interceptors learn of probes.

use std::time::Duration;

use dormouse_wire::demand::from_interceptor::Message as Said;
use dormouse_wire::demand::{Pod, PodsWanted};
use serde_json::{Value, json};

use super::fixture::{Interceptor, Operator, hello, report};

fn pod(name: &str, started: bool) -> Value {
    let running = json!({"running": {"startedAt": "2026-11-21T00:00:00Z"}});
    let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid of {name}")},
        "spec": {"containers": [{
            "name": "app",
            "readinessProbe": {"tcpSocket": {"port": 8080}, "initialDelaySeconds": 5},
        }]},
        "status": {"podIP": "10.0.0.7", "containerStatuses": [{
            "name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": if started { running } else { waiting },
        }]},
    })
}

fn wanted(namespace: &str, name: &str) -> Pod {
    Pod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: format!("uid of {name}"),
    }
}

async fn an_interceptor(operator: &Operator) -> Interceptor {
    let mut interceptor = operator.connect("a").await;
    interceptor.say(hello()).await;
    interceptor.say(report(1, 0, 0)).await;
    assert_eq!(interceptor.acknowledged().await, 1);
    interceptor
}

async fn want(interceptor: &mut Interceptor, pods: Vec<Pod>) {
    interceptor.say(Said::PodsWanted(PodsWanted { pods })).await;
}

#[tokio::test]
async fn an_interceptor_is_told_of_each_pod_once_and_again_when_its_container_was_started() {
    let operator = Operator::start().await;
    operator.pods.set(pod("web-1", true));
    operator.pods.set(pod("web-2", false));
    let mut interceptor = an_interceptor(&operator).await;
    want(&mut interceptor, vec![wanted("shop", "web-1")]).await;
    let told = interceptor.told_of_pod().await;
    assert_eq!(told.pod, Some(wanted("shop", "web-1")));
    assert!(told.readiness.is_some() && told.container_started_millis > 0);

    let both = vec![wanted("shop", "web-1"), wanted("shop", "web-2")];
    want(&mut interceptor, both).await;
    let told = interceptor.told_of_pod().await;
    assert_eq!(
        told.pod,
        Some(wanted("shop", "web-2")),
        "and not of the other one again"
    );
    assert_eq!(told.container_started_millis, 0);
    operator.pods.set(pod("web-2", true));
    let told = interceptor.told_of_pod().await;
    assert!(told.container_started_millis > 0);
    assert_eq!(interceptor.within_a_moment().await, None);
}

#[tokio::test]
async fn nothing_is_told_of_other_pods_or_of_namespaces_without_routes() {
    let operator = Operator::start().await;
    operator.pods.set(pod("web-1", true));
    let mut interceptor = an_interceptor(&operator).await;
    let another = Pod {
        uid: "of a pod of that name before".to_owned(),
        ..wanted("shop", "web-1")
    };
    let all = vec![
        wanted("vault", "web-1"),
        another,
        wanted("shop", "gone"),
        wanted("shop", "web-1"),
    ];
    want(&mut interceptor, all).await;
    assert_eq!(interceptor.told_of_pod().await.pod, Some(wanted("shop", "web-1")));
    assert_eq!(interceptor.within_a_moment().await, None);
    let mut read = operator.pods.read.lock().unwrap().clone();
    read.sort();
    assert_eq!(read, ["gone", "web-1", "web-1"], "none of the vault's");
}

#[tokio::test]
async fn a_pod_that_nobody_wants_any_more_is_not_looked_at_again() {
    let operator = Operator::start().await;
    operator.pods.set(pod("web-1", false));
    let mut interceptor = an_interceptor(&operator).await;
    want(&mut interceptor, vec![wanted("shop", "web-1")]).await;
    interceptor.told_of_pod().await;
    want(&mut interceptor, Vec::new()).await;
    // Answered in order: what was wanted has been taken in by then.
    interceptor.say(report(2, 0, 0)).await;
    assert_eq!(interceptor.acknowledged().await, 2);
    let read = operator.pods.read.lock().unwrap().len();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(operator.pods.read.lock().unwrap().len(), read);
}

#[tokio::test]
async fn the_pods_of_a_route_that_waits_are_told_before_they_are_asked_for() {
    let operator = Operator::start().await;
    operator.pods.set(pod("web-1", true));
    let mut interceptor = an_interceptor(&operator).await;
    interceptor.say(report(2, 1, 0)).await;
    assert_eq!(interceptor.acknowledged().await, 2);
    let told = interceptor.told_of_pod().await;
    assert_eq!(told.pod, Some(wanted("shop", "web-1")));
    assert_eq!(told.addresses, ["10.0.0.7"]);
    want(&mut interceptor, vec![wanted("shop", "web-1")]).await;
    operator.pods.set(pod("web-1", true));
    assert_eq!(interceptor.within_a_moment().await, None, "it is known");
    assert!(operator.pods.read.lock().unwrap().is_empty());
    let told = interceptor.told_of_pod().await;
    assert_eq!(
        told.pod,
        Some(wanted("shop", "web-1")),
        "it may not have been kept: a second later the pod is still wanted"
    );
}
