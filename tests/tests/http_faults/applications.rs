//! Applications that do not come up as they should.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::{Cluster, Namespace, Operators, Way};
use http::StatusCode;
use serde_json::{Value, json};

use crate::{ALONE, Sleeper};

const CONTAINER: &str = "/spec/template/spec/containers/0";

/// Without a readiness probe, Kubernetes calls a pod ready before it listens: its connections are refused for 3 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_is_called_ready_too_early_is_waited_for() -> Result<()> {
    let _alone = ALONE.lock().await;
    let sleeper = Sleeper::new("http-early", |echo| {
        echo.variable("START_MS", 3000).change(
            "Deployment",
            &format!("{CONTAINER}/readinessProbe"),
            Value::Null,
        )
    })
    .await?;
    let visit = sleeper.visitor.visit(Way::Get).await?;
    ensure!(
        visit.took >= Duration::from_secs(3),
        "answered after {:?}",
        visit.took
    );
    sleeper.visitor.visit(Way::Post).await.map(drop)
}

/// It takes connections and breaks them off, for 2 s, before it does what it should.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_breaks_off_connections_at_first_gets_no_request() -> Result<()> {
    let _alone = ALONE.lock().await;
    let sleeper = Sleeper::new("http-breaks", |echo| echo.variable("BREAK_MS", 2000)).await?;
    let visit = sleeper.visitor.visit(Way::Post).await?;
    ensure!(
        visit.took >= Duration::from_secs(2),
        "answered after {:?}",
        visit.took
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_killed_before_it_answers_is_replaced_and_the_request_waits_on() -> Result<()> {
    let _alone = ALONE.lock().await;
    let sleeper = Sleeper::new("http-killed", |echo| echo.variable("START_MS", 1500)).await?;
    let visitor = sleeper.visitor.clone();
    let request = tokio::spawn(async move { visitor.visit(Way::Get).await });
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let delete = ["delete", "pods", "--all", "--grace-period=0", "--force"];
    let deleted = sleeper.namespace.kubectl(&delete).await?;
    ensure!(
        deleted.contains("force deleted"),
        "no pod was killed: {deleted:?}"
    );
    let visit = request.await??;
    ensure!(
        visit.took >= Duration::from_secs(2),
        "answered after {:?}",
        visit.took
    );
    Ok(())
}

/// The controller that writes EndpointSlices gets nowhere: its first one is refused, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_no_endpoint_slice_names_yet_answers_what_waits() -> Result<()> {
    let _alone = ALONE.lock().await;
    let cluster = Cluster::connect().await?;
    let namespace = Namespace::create(&cluster, "http-no-slice").await?;
    let quota = "--hard=count/endpointslices.discovery.k8s.io=0";
    namespace
        .kubectl(&["create", "quota", "no-slices", quota])
        .await?;
    let in_force = r"--for=jsonpath={.status.hard.count/endpointslices\.discovery\.k8s\.io}=0";
    namespace
        .kubectl(&["wait", "quota/no-slices", in_force, "--timeout=20s"])
        .await?;
    let sleeper = Sleeper::within(cluster, namespace, |echo| echo).await?;
    let visit = sleeper.visitor.visit(Way::Post).await?;
    let slices = sleeper
        .namespace
        .kubectl(&["get", "endpointslices", "--output=name"])
        .await?;
    ensure!(slices.is_empty(), "a slice may have told of it: {slices}");
    ensure!(visit.cold == Some(true), "it did not sleep: {visit:?}");
    // One of the interceptors hears of it only now, when it is ready already.
    let interceptors = Operators::interceptors_of(&sleeper.cluster, &sleeper.installation);
    for door in interceptors.addresses().await? {
        let visit = sleeper.visitor_at(&door)?.visit(Way::Get).await;
        visit.with_context(|| format!("after it, at {door}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_cannot_be_pulled_ends_in_a_504_that_says_so() -> Result<()> {
    let _alone = ALONE.lock().await;
    let sleeper = Sleeper::new("http-image", |echo| {
        echo.change(
            "Deployment",
            &format!("{CONTAINER}/image"),
            json!("localhost/nobody-made-this:dev"),
        )
        .change("InterceptorRoute", "/spec/timeouts", json!({"readiness": "6s"}))
    })
    .await?;
    let began = Instant::now();
    let (status, body) = sleeper.visitor.ask("/").await?;
    let took = began.elapsed();
    ensure!(status == StatusCode::GATEWAY_TIMEOUT, "{status}: {body}");
    ensure!(
        took >= Duration::from_secs(5) && took < Duration::from_secs(15),
        "answered after {took:?}"
    );
    ensure!(body.contains("image"), "nobody is told why: {body:?}");
    Ok(())
}

/// It dies with the request in its hand. What a pod has seen cannot be sent again; what comes next is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_dies_with_a_request_in_hand_costs_that_one_alone() -> Result<()> {
    let _alone = ALONE.lock().await;
    let sleeper = Sleeper::new("http-dies", |echo| echo).await?;
    let visitor = sleeper.visitor.clone();
    let cut = tokio::spawn(async move { visitor.ask("/?delay=20000").await });
    sleeper.visitor.visit(Way::Get).await.context("beside it")?;
    let delete = ["delete", "pods", "--all", "--grace-period=0", "--force"];
    sleeper.namespace.kubectl(&delete).await?;
    let next = sleeper.visitor.visit(Way::Get).await.context("after it")?;
    ensure!(
        next.took < Duration::from_secs(20),
        "answered after {:?}",
        next.took
    );
    let (status, body) = cut.await??;
    ensure!(
        status == StatusCode::BAD_GATEWAY || status == StatusCode::OK,
        "the request that was cut off: {status}: {body}"
    );
    Ok(())
}
