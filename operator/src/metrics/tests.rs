use std::collections::BTreeMap;

use dormouse_core::{ReadFailure, Reading};
use dormouse_runtime::metrics::Format;
use dormouse_scalers::traffic::Traffic;
use jiff::Timestamp;

use super::*;

#[path = "../../../tests/src/exposition.rs"]
#[allow(unreachable_pub, reason = "the file is public where it lives")]
mod exposition;

use exposition::{Family as Shown, parse};

struct Page {
    page: Metrics,
    metrics: OperatorMetrics,
    traffic: Traffic,
}

impl Page {
    fn new(high_cardinality: bool) -> Self {
        let page = Metrics::new();
        let metrics = OperatorMetrics::register(&page, "0.1.0", high_cardinality);
        Self {
            page,
            metrics,
            traffic: Traffic::default(),
        }
    }

    fn families(&self) -> BTreeMap<String, Shown> {
        parse(&self.page.encode(Format::Classic)).unwrap()
    }

    fn read_as(&self, index: usize, name: Option<&str>, metric: &str, ok: bool, leads: bool) {
        let reading = Reading::new(15.0, true, Timestamp::UNIX_EPOCH).unwrap();
        let failure = ReadFailure {
            category: "timeout",
            message: "x".into(),
        };
        let read = TriggerRead {
            index,
            name,
            label: name.unwrap_or("metricsAPIScaler"),
            trigger_type: "metrics-api",
            metric_name: metric,
            outcome: if ok { Ok(&reading) } else { Err(&failure) },
            took: Duration::from_millis(2),
            shared: false,
            traffic: &self.traffic,
        };
        self.metrics.read(&key(), &read, leads);
    }
}

fn key() -> ObjectKey {
    ObjectKey::new("cap", "full")
}

/// (family, labels without those that say which object, value) of all series of an object.
fn of_object(families: &BTreeMap<String, Shown>) -> Vec<String> {
    let mut all = Vec::new();
    for (family, shown) in families {
        for sample in &shown.samples {
            let object = ["scaledObject", "scaled_resource", "scaledResource", "resource"];
            if object
                .iter()
                .any(|label| sample.labels.get(*label).is_some_and(|name| name == "full"))
            {
                all.push(family.clone());
            }
        }
    }
    all.dedup();
    all
}

async fn with_http(page: &Page) {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let serve = async move {
        let (mut stream, _) = server.accept().await.unwrap();
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1024]).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n7";
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer)
            .await
            .unwrap();
    };
    let params = dormouse_scalers::TriggerParams {
        trigger_type: "metrics-api".into(),
        metadata: [
            ("url", format!("http://{address}/")),
            ("valueLocation", "backlog".into()),
            ("format", "prometheus".into()),
            ("targetValue", "5".into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
        ..dormouse_scalers::TriggerParams::default()
    };
    let connect = dormouse_scalers::Connect {
        namespace: "cap".into(),
        default_deadline: Duration::from_secs(3),
        clients: std::sync::Arc::new(dormouse_scalers::Clients::new(dormouse_scalers::ClientsConfig {
            egress: dormouse_scalers::clients::EgressRules::with_loopback(),
            ..Default::default()
        })),
        endpoints: None,
        pods: None,
        demand: None,
        params,
    };
    let trigger = dormouse_scalers::connect(&connect);
    let trigger = trigger.unwrap_or_else(|error| panic!("{error}"));
    // What the answer means is not this test's business.
    let (_, _) = tokio::join!(page.traffic.during(trigger.read()), serve);
}

/// Family by family: type, help text and label names are those of a page that KEDA printed.
#[tokio::test]
async fn the_page_is_kedas_field_by_field() {
    let page = Page::new(false);
    with_http(&page).await;
    page.metrics.checked(&key(), false);
    page.metrics.tick(&key(), Duration::from_millis(1));
    page.metrics
        .registered("scaled_object", "cap", "full", &["metrics-api", "cron"]);
    page.read_as(0, Some("first"), "s0-metric-api-v", true, true);
    let families = page.families();
    let mut compared = 0;
    for line in include_str!("kedas.txt").lines() {
        let parts: Vec<&str> = line.splitn(4, ' ').collect();
        let [kind, name, labels, help] = parts[..] else {
            panic!("{line}")
        };
        let shown = families
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not shown"));
        assert_eq!((shown.kind.as_str(), shown.help.as_str()), (kind, help), "{name}");
        let names: Vec<Vec<&str>> = shown.label_names().into_iter().collect();
        assert_eq!(names, [labels.split(',').collect::<Vec<_>>()], "{name}");
        compared += 1;
    }
    assert_eq!(compared, 12);
    let http = &families["keda_scaler_http_requests_total"].samples[0];
    assert_eq!((http.labels["status_code"].as_str(), http.value), ("200", 1.0));
    assert_eq!(
        (
            http.labels["scaler"].as_str(),
            http.labels["trigger_name"].as_str()
        ),
        ("metrics-api", "first")
    );
    for own in [
        "dormouse_source_reads_total",
        "dormouse_source_read_duration_seconds",
        "dormouse_tick_lateness_seconds",
        "dormouse_decision_duration_seconds",
        "dormouse_wake_to_scale_seconds",
    ] {
        assert!(families.contains_key(own), "{own} is not shown");
    }
}

#[test]
fn errors_start_at_zero_and_count_for_trigger_and_object() {
    let page = Page::new(false);
    page.metrics.checked(&key(), true);
    page.read_as(0, None, "s0-a", true, true);
    let value = |families: &BTreeMap<String, Shown>, name: &str| families[name].samples[0].value;
    let families = page.families();
    assert_eq!(value(&families, "keda_scaled_object_paused"), 1.0);
    assert_eq!(value(&families, "keda_scaler_detail_errors_total"), 0.0);
    assert_eq!(value(&families, "keda_scaled_object_errors_total"), 0.0);
    page.read_as(0, None, "s0-a", false, true);
    let families = page.families();
    assert_eq!(value(&families, "keda_scaler_detail_errors_total"), 1.0);
    assert_eq!(value(&families, "keda_scaled_object_errors_total"), 1.0);
    assert_eq!(
        value(&families, "keda_scaler_metrics_value"),
        15.0,
        "the last good one"
    );
    let outcomes: Vec<_> = families["dormouse_source_reads_total"]
        .samples
        .iter()
        .map(|sample| (sample.labels["outcome"].as_str(), sample.value))
        .collect();
    assert!(
        outcomes.contains(&("ok", 1.0)) && outcomes.contains(&("timeout", 1.0)),
        "{outcomes:?}"
    );
}

#[tokio::test]
async fn series_go_with_their_trigger_its_name_and_the_object() {
    let page = Page::new(true);
    with_http(&page).await;
    page.metrics.checked(&key(), false);
    page.metrics.tick(&key(), Duration::ZERO);
    page.metrics.quarantined(&key());
    assert_eq!(
        page.families()["dormouse_scaled_object_quarantines_total"].samples[0].value,
        1.0
    );
    page.read_as(0, Some("old"), "s0-a", true, true);
    page.read_as(1, None, "s1-b", true, true);
    // Renamed: one series, of the new name.
    page.read_as(0, Some("new"), "s0-a", true, true);
    let scalers = |page: &Page| -> Vec<String> {
        let families = page.families();
        let samples = &families["keda_scaler_active"].samples;
        let mut scalers: Vec<_> = samples
            .iter()
            .map(|sample| sample.labels["scaler"].clone())
            .collect();
        scalers.sort();
        scalers
    };
    assert_eq!(scalers(&page), ["metricsAPIScaler", "new"]);
    // The second is removed, a resource trigger comes.
    let cpu = ResourceTrigger {
        index: 1,
        name: None,
        resource: "cpu",
    };
    page.metrics.has_triggers(&key(), &["s0-a".into()], &[cpu]);
    assert_eq!(scalers(&page), ["cpuMemoryScaler", "new"]);
    let families = page.families();
    for family in [
        "keda_scaler_http_requests_total",
        "keda_scaler_http_request_duration_seconds",
    ] {
        let left = &families[family].samples;
        assert!(
            left.iter().all(|sample| sample.labels["metric_name"] == "s0-a"),
            "{left:?}"
        );
        assert_eq!(left[0].labels["scaled_resource"], "full");
    }
    page.metrics.forget(&key());
    assert_eq!(of_object(&page.families()), Vec::<String>::new());
}

#[test]
fn only_the_leader_tells_of_objects() {
    let page = Page::new(false);
    page.read_as(0, None, "s0-a", true, false);
    assert_eq!(of_object(&page.families()), Vec::<String>::new());
    assert!(page.families().contains_key("dormouse_source_reads_total"));
    page.metrics.checked(&key(), false);
    page.metrics
        .registered("scaled_object", "cap", "full", &["metrics-api"]);
    page.read_as(0, None, "s0-a", true, true);
    assert!(of_object(&page.families()).len() >= 5);
    page.metrics.forget_all();
    let families = page.families();
    assert_eq!(of_object(&families), Vec::<String>::new());
    assert!(!families.contains_key("keda_resource_registered_total"));
    // What it does later as the leader counts from one.
    page.metrics
        .registered("scaled_object", "cap", "full", &["metrics-api"]);
    assert_eq!(
        page.families()["keda_trigger_registered_total"].samples[0].value,
        1.0
    );
}

#[test]
fn registrations_are_counted_once_and_leave_at_zero() {
    let page = Page::new(false);
    page.metrics.registered(
        "scaled_object",
        "cap",
        "full",
        &["metrics-api", "cron", "metrics-api"],
    );
    page.metrics
        .registered("scaled_object", "cap", "full", &["metrics-api", "cron"]);
    page.metrics
        .registered("cluster_trigger_authentication", "", "keys", &[]);
    let families = page.families();
    let types = &families["keda_trigger_registered_total"].samples;
    assert!(
        types.len() == 2 && types.iter().all(|sample| sample.value == 1.0),
        "{types:?}"
    );
    let resources = &families["keda_resource_registered_total"].samples;
    assert!(
        resources
            .iter()
            .any(|sample| sample.labels["namespace"] == "default"),
        "{resources:?}"
    );
    page.metrics.unregister("scaled_object", "cap", "full");
    page.metrics
        .unregister("cluster_trigger_authentication", "", "keys");
    assert!(!page.families().contains_key("keda_trigger_registered_total"));
}

#[test]
fn queues_are_asked_at_each_scrape() {
    let page = Page::new(false);
    let waiting = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(3));
    let seen = waiting.clone();
    QueueDepths::default()
        .with("objects", move || seen.load(std::sync::atomic::Ordering::SeqCst))
        .with("events", || 0)
        .register(&page.page);
    let depth = || page.families()["dormouse_queue_depth"].samples[0].value;
    assert_eq!(depth(), 3.0);
    waiting.store(0, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(depth(), 0.0);
}
