//! What people see of an interceptor that its chart installed: `/queue`, metrics, the access log and traces, of one request
//! that waits and is then served.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use dormouse_tests::exposition::{Family, parse};
use dormouse_tests::{ClientPod, Cluster, HttpEcho, Installation, Namespace, until};
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;

const CANARY: &str = "canary-7f20-query";
/// The application listens that long after its start.
const LATE: Duration = Duration::from_secs(4);
const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_can_be_followed_from_its_wait_to_its_answer() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let installation = Installation::standard()
        .set("interceptor.extraEnvs.KEDA_HTTP_LOG_REQUESTS=true")
        .set("interceptor.extraEnvs.OTEL_EXPORTER_OTLP_TRACES_ENABLED=true");
    installation.install(&cluster).await?;
    let namespace = Namespace::create(&cluster, "http-seeing").await?;
    let echo = HttpEcho::new(format!("{}.example.org", namespace.name()))
        .variable("START_MS", LATE.as_millis())
        // It does not sleep again, nor do its series go, before all was looked at.
        .change("ScaledObject", "/spec/cooldownPeriod", 60.into());
    echo.asleep(&cluster, &namespace).await?;
    let visitor = ClientPod::start(&namespace)
        .await?
        .visitor(&cluster, &installation, echo.host())
        .await?;
    let interceptor = Interceptor::only(&cluster, &installation).await?;
    let route = format!("{}/http-echo", namespace.name());

    let path = format!("/hello?key={CANARY}");
    let asked = visitor.ask(&path);
    let seen = async {
        until("one request waits", SOON, async || {
            let queue = interceptor.queue().await?;
            ensure!(queue[&route]["Concurrency"] == 1, "the queue is {queue}");
            let pending = "dormouse_interceptor_pending_requests";
            let found = interceptor.value(pending, &namespace, &[]).await?;
            ensure!(found == 1.0, "{found} wait");
            Ok(())
        })
        .await
    };
    let (answer, seen) = tokio::join!(asked, seen);
    let (status, _) = answer?;
    ensure!(status == StatusCode::OK, "answered with {status}");
    seen?;

    until("the request is done", SOON, async || {
        let queue = interceptor.queue().await?;
        let route = &queue[&route];
        ensure!(
            route["Concurrency"] == 0 && route["RequestCount"] == 1,
            "the queue is {queue}"
        );
        for (name, labels, wanted) in [
            (
                "interceptor_request_count_total",
                &[("code", "200"), ("method", "GET")][..],
                1.0,
            ),
            (
                "interceptor_request_duration_seconds_count",
                &[("code", "200")],
                1.0,
            ),
            ("interceptor_request_concurrency", &[], 0.0),
            ("dormouse_interceptor_pending_requests", &[], 0.0),
            (
                "dormouse_interceptor_hold_duration_seconds_count",
                &[("end", "endpoint")],
                1.0,
            ),
            ("dormouse_interceptor_ready_to_first_byte_seconds_count", &[], 1.0),
        ] {
            let found = interceptor.value(name, &namespace, labels).await?;
            ensure!(found == wanted, "{name} is {found}");
        }
        Ok(())
    })
    .await?;
    let held = "dormouse_interceptor_hold_duration_seconds_sum";
    let held = interceptor.value(held, &namespace, &[]).await?;
    ensure!(held >= LATE.as_secs_f64(), "it was held for {held} s");

    let (access, spans) = until("the request was told", SOON, async || {
        let lines = interceptor.lines().await?;
        let of_route =
            |line: &&Value| line["route"] == *route || line["attributes"]["dormouse.route"] == *route;
        let mine: Vec<_> = lines.iter().filter(of_route).collect();
        let access = mine.iter().find(|line| line["held"].is_number());
        let access = (*access.context("it is not in the access log")?).clone();
        let server = mine.iter().find(|line| line["span"].is_string());
        let server = server.context("it has no span")?;
        let trace = &server["trace"];
        let spans: Vec<_> = lines
            .iter()
            .filter(|line| line["span"].is_string() && line["trace"] == *trace)
            .cloned()
            .collect();
        ensure!(spans.len() == 3, "its spans are {spans:?}");
        Ok((access, spans))
    })
    .await?;
    ensure!(
        access["status"] == 200
            && access["method"] == "GET"
            && access["path"] == "/hello"
            && access["host"] == *echo.host()
            && access["held"].as_f64() >= Some(LATE.as_secs_f64()),
        "the access log says {access}"
    );
    let pods = namespace.api::<Pod>();
    let pods = pods.list(&ListParams::default().labels("app=http-echo")).await?;
    let address = pods
        .items
        .iter()
        .find_map(|pod| pod.status.as_ref()?.pod_ip.clone());
    let endpoint = access["endpoint"].as_str().unwrap_or_default();
    ensure!(
        address.is_some_and(|address| endpoint.starts_with(&address)),
        "the access log says that {endpoint} answered"
    );
    let hold = spans.iter().find(|span| span["name"] == "hold");
    let hold = hold.context("no span is that of the wait")?;
    ensure!(
        hold["duration"].as_f64() >= Some(LATE.as_secs_f64()),
        "the wait took {}",
        hold["duration"]
    );
    let logs = interceptor.logs().await?;
    ensure!(
        !logs.contains(CANARY),
        "a query can be read in the interceptor's logs"
    );
    Ok(())
}

/// The pod of the only interceptor.
struct Interceptor<'a> {
    cluster: &'a Cluster,
    namespace: String,
    pod: String,
}

impl<'a> Interceptor<'a> {
    /// Once those that an installation before it had are gone.
    async fn only(cluster: &'a Cluster, installation: &Installation) -> Result<Self> {
        let pods: Api<Pod> = Api::namespaced(cluster.client(), installation.namespace());
        let own = ListParams::default().labels("app=keda-add-ons-http-interceptor");
        let pod = until("there is one interceptor", Duration::from_secs(60), async || {
            let names: Vec<_> = pods
                .list(&own)
                .await?
                .into_iter()
                .filter_map(|pod| pod.metadata.name)
                .collect();
            let [name] = &names[..] else {
                return Err(anyhow!("there are {names:?}"));
            };
            Ok(name.clone())
        })
        .await?;
        Ok(Self {
            cluster,
            namespace: installation.namespace().to_owned(),
            pod,
        })
    }

    async fn page(&self, port: u16, path: &str) -> Result<String> {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}:{port}/proxy/{path}",
            self.namespace, self.pod
        );
        self.cluster.kubectl(&["get", "--raw", &path]).await
    }

    async fn queue(&self) -> Result<Value> {
        let queue = self.page(9090, "queue").await?;
        serde_json::from_str(&queue).with_context(|| format!("the queue is {queue}"))
    }

    /// What the only series of a route of `namespace` that has these labels says, by its name in the page.
    async fn value(&self, name: &str, namespace: &Namespace, labels: &[(&str, &str)]) -> Result<f64> {
        let page = self.page(2223, "metrics").await?;
        let families: BTreeMap<String, Family> =
            parse(&page).map_err(|fault| anyhow!("the metrics page is not in order: {fault}"))?;
        let own = [("route_namespace", namespace.name()), ("route_name", "http-echo")];
        let samples: Vec<_> = families
            .values()
            .flat_map(|family| &family.samples)
            .filter(|sample| {
                let has = |(label, value): &(&str, &str)| {
                    sample.labels.get(*label).is_some_and(|found| found == value)
                };
                sample.name == name && own.iter().chain(labels).all(has)
            })
            .collect();
        let [sample] = &samples[..] else {
            return Err(anyhow!("{name} has {} series of the route", samples.len()));
        };
        Ok(sample.value)
    }

    async fn logs(&self) -> Result<String> {
        let arguments = ["--namespace", &self.namespace, "logs", &self.pod, "--tail=-1"];
        self.cluster.kubectl(&arguments).await
    }

    /// The lines of its logs that are JSON.
    async fn lines(&self) -> Result<Vec<Value>> {
        let logs = self.logs().await?;
        Ok(logs
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }
}
