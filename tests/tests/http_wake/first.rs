//! The narrowest way through everything: one request, from an application that sleeps to one that sleeps again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::http_echo::{replicas, sleeps};
use dormouse_tests::{ClientPod, Cluster, HttpEcho, Installation, Namespace, Visitor, Way, logs, until};
use http::StatusCode;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_wakes_what_sleeps_and_it_sleeps_again() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let installation = Installation::shared(&cluster).await?;
    let namespace = Namespace::create(&cluster, "http-first").await?;
    let echo = HttpEcho::new(format!("{}.example.org", namespace.name()));
    echo.asleep(&cluster, &namespace).await?;
    let visitor = ClientPod::start(&namespace)
        .await?
        .visitor(&cluster, &installation, echo.host())
        .await?;

    let first = visitor.visit(Way::Get).await.context("the first request")?;
    eprintln!("the first request was answered after {:?}", first.took);
    ensure!(first.cold == Some(true), "the first answer says {:?}", first.cold);
    ensure!(
        replicas(&namespace).await? == 1,
        "one request wakes {} pods",
        replicas(&namespace).await?
    );
    let second = visitor.visit(Way::Get).await.context("the second request")?;
    ensure!(
        second.cold == Some(false),
        "the second answer says {:?}",
        second.cold
    );
    ensure!(
        second.pod == first.pod,
        "{:?} and {:?} answered",
        first.pod,
        second.pod
    );
    sleeps(&namespace, Duration::from_secs(30)).await?;
    logs::assert_nothing_denied(&cluster, &installation).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_listens_late_is_not_waited_for_by_the_kubelets_watch() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let installation = Installation::shared(&cluster).await?;
    let namespace = Namespace::create(&cluster, "http-late").await?;
    // The kubelet's first probe fails, and its next one is 10 s away.
    let echo = HttpEcho::new(format!("{}.example.org", namespace.name()))
        .variable("START_MS", 1500)
        .change(
            "Deployment",
            "/spec/template/spec/containers/0/readinessProbe/periodSeconds",
            json!(10),
        );
    echo.asleep(&cluster, &namespace).await?;
    let visitor = ClientPod::start(&namespace)
        .await?
        .visitor(&cluster, &installation, echo.host())
        .await?;
    let visit = visitor.visit(Way::Get).await?;
    eprintln!(
        "an application that listens after 1.5 s answered after {:?}",
        visit.took
    );
    ensure!(
        visit.took >= Duration::from_millis(1500) && visit.took < Duration::from_secs(6),
        "answered after {:?}",
        visit.took
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_without_a_route_and_routes_without_a_service_are_told_so() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let installation = Installation::shared(&cluster).await?;
    let namespace = Namespace::create(&cluster, "http-nowhere").await?;
    let host = format!("{}.example.org", namespace.name());
    let visitor = Visitor::of(&cluster, &installation, &host)
        .await?
        .within(Duration::from_secs(10));
    let (status, _) = visitor.ask("/").await?;
    ensure!(
        status == StatusCode::NOT_FOUND,
        "a host that no route names: {status}"
    );
    namespace
        .apply(&format!(
            "apiVersion: http.keda.sh/v1beta1\nkind: InterceptorRoute\nmetadata: {{name: nowhere}}\nspec: {{target: {{service: \
             nowhere, port: 80}}, rules: [{{hosts: [{host}]}}], scalingMetric: {{concurrency: {{targetValue: 1}}}}}}\n"
        ))
        .await?;
    let condition = [
        "get",
        "interceptorroute",
        "nowhere",
        "--output=jsonpath={.status.conditions[?(@.type==\"Ready\")]['status','reason','message']}",
    ];
    let told = until("the route's owner is told", Duration::from_secs(15), async || {
        let told = namespace.kubectl(&condition).await?;
        ensure!(told.starts_with("False"), "{told:?}");
        Ok(told)
    })
    .await?;
    ensure!(told.contains("ServiceNotFound"), "{told}");
    let (status, body) = visitor.ask("/").await?;
    ensure!(
        status == StatusCode::INTERNAL_SERVER_ERROR,
        "a Service that does not exist: {status}: {body}"
    );
    Ok(())
}
