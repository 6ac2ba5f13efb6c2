//! What InterceptorRoutes come to, and what is said of those that are wrong.

use std::num::NonZeroU32;

use dormouse_core::routes::settings::{RequestRate, ResponseBody, ResponseMode, StaticResponse};
use dormouse_core::routes::{HeaderRule, HostPattern, PathPrefix, Rule};
use serde_json::{Value, json};

use super::response::LONGEST_BODY;
use super::*;

const EVERY_FIELD: &str = include_str!("../../../tests/corpus/interceptor_route.yaml");

/// A small route that is in order, but for the fields of `spec`.
fn with(spec: Value) -> InterceptorRoute {
    let mut wire = json!({
        "apiVersion": "http.keda.sh/v1beta1",
        "kind": "InterceptorRoute",
        "metadata": {
            "namespace": "shop", "name": "web", "uid": "uid-1", "creationTimestamp": "2026-08-21T10:00:00Z",
        },
        "spec": {
            "target": {"service": "web", "port": 80},
            "rules": [{"hosts": ["shop.example.com"]}],
            "scalingMetric": {"concurrency": {"targetValue": 100}},
        },
    });
    for (field, value) in spec.as_object().unwrap() {
        wire["spec"][field] = value.clone();
    }
    serde_json::from_value(wire).unwrap()
}

fn settings(spec: Value) -> RouteSettings {
    let candidate = route(&with(spec)).unwrap();
    RouteSettings::clone(&candidate.value)
}

fn faults(spec: Value) -> Vec<String> {
    let refusal = route(&with(spec)).unwrap_err();
    refusal.faults.into_iter().map(|fault| fault.message).collect()
}

fn port(service: &str, port: Port) -> ServicePort {
    ServicePort {
        namespace: "shop".into(),
        service: service.into(),
        port,
    }
}

fn number(number: u16) -> Port {
    Port::Number(NonZeroU16::new(number).unwrap())
}

fn target(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).unwrap()
}

#[test]
fn a_small_route_has_defaults() {
    let candidate = route(&with(json!({}))).unwrap();
    assert_eq!(candidate.key, RouteKey::new("shop", "web"));
    assert_eq!(
        (candidate.uid.as_str(), candidate.created),
        ("uid-1", 1_787_306_400)
    );
    let host = HostPattern::Exact("shop.example.com".into());
    assert_eq!(candidate.rules, [Rule::new(vec![host], vec![], vec![])]);
    let settings = candidate.value;
    assert_eq!(settings.key, candidate.key);
    assert_eq!(settings.target, port("web", number(80)));
    assert_eq!(settings.timeouts, Timeouts::default());
    assert_eq!(settings.cold_start, ColdStart::default());
    assert_eq!(settings.static_routes, []);
    assert_eq!(settings.scaling.concurrency, Some(target(100)));
    assert_eq!(settings.scaling.request_rate, None);
}

#[test]
fn every_field_has_its_meaning() {
    let mut wire: Value = serde_saphyr::from_str(EVERY_FIELD).unwrap();
    wire["metadata"]["namespace"] = json!("shop");
    let candidate = route(&serde_json::from_value(wire).unwrap()).unwrap();
    let hosts = ["shop.example.com", "*.shop.example.com"];
    let header = |name, value| HeaderRule::new(name, value).unwrap();
    let first = Rule::new(
        hosts.map(|host| HostPattern::parse(host).unwrap()).to_vec(),
        ["/orders", "/invoices"].map(PathPrefix::new).to_vec(),
        vec![header("X-Tenant", Some("blue")), header("X-Beta", None)],
    );
    let second = Rule::new(vec![], vec![PathPrefix::new("/shop")], vec![]);
    assert_eq!(candidate.rules, [first, second]);

    let settings = candidate.value;
    assert_eq!(settings.target, port("shop", Port::Name("http".into())));
    assert_eq!(
        settings.timeouts,
        Timeouts {
            readiness: Timeout::After(Duration::from_secs(30)),
            request: Timeout::After(Duration::from_secs(90)),
            response_header: Timeout::None,
        }
    );
    let (window, granularity) = (Duration::from_secs(120), Duration::from_millis(500));
    assert_eq!(
        settings.scaling.request_rate,
        Some(RequestRate::try_new(target(50), window, granularity).unwrap())
    );
    assert_eq!(settings.scaling.concurrency, Some(target(20)));

    let cold_start = &settings.cold_start;
    assert_eq!(cold_start.fallback, Some(port("sorry", number(8080))));
    assert_eq!(
        (cold_start.max_pending, cold_start.overflow),
        (Some(500), Overflow::Placeholder)
    );
    let placeholder = cold_start.placeholder.as_ref().unwrap();
    assert_eq!(placeholder.status, 202);
    assert_eq!(placeholder.headers, [("Refresh".into(), "2".into())]);
    assert!(matches!(&placeholder.body, ResponseBody::ConfigMap(body)
            if *body.name == *"pages" && body.key.as_deref() == Some("waking.html")));

    let [health, robots, pages] = &settings.static_routes[..] else {
        panic!("{:?}", settings.static_routes);
    };
    assert_eq!((health.mode, health.response.status), (ResponseMode::Always, 204));
    assert_eq!(
        health.rules,
        [Rule::new(
            vec![HostPattern::Exact("shop.example.com".into())],
            vec![PathPrefix::new("/healthz")],
            vec![header("user-agent", Some("probe"))],
        )]
    );
    assert_eq!(robots.mode, ResponseMode::WhenUnavailable);
    assert_eq!(
        robots.response,
        StaticResponse {
            status: 200,
            body: ResponseBody::Text("User-agent: *\n".into()),
            headers: Vec::new(),
        }
    );
    assert_eq!(pages.mode, ResponseMode::WhenUnavailable);
}

#[test]
fn a_route_without_rules_is_in_order() {
    assert_eq!(route(&with(json!({"rules": []}))).unwrap().rules, []);
    let open = route(&with(json!({"rules": [{}]}))).unwrap().rules;
    assert_eq!(open[0].hosts(), [HostPattern::Any]);
}

#[test]
fn placeholders_have_defaults() {
    let settings = settings(json!({"coldStart": {"placeholder": {"response": {}}}}));
    let placeholder = settings.cold_start.placeholder.unwrap();
    assert_eq!((placeholder.status, placeholder.body), (503, ResponseBody::Empty));
    assert_eq!(settings.cold_start.overflow, Overflow::Reject);
    assert_eq!(settings.cold_start.max_pending, None);
}

#[test]
fn an_empty_key_of_a_config_map_is_none() {
    let response = json!({"bodyFromConfigMap": {"name": "pages", "key": ""}});
    let settings = settings(json!({"coldStart": {"placeholder": {"response": response}}}));
    let placeholder = settings.cold_start.placeholder.unwrap();
    assert!(matches!(placeholder.body, ResponseBody::ConfigMap(body) if body.key.is_none()));
}

#[test]
fn durations_are_gos() {
    for (text, expected) in [
        ("0", Timeout::None),
        ("0s", Timeout::None),
        ("0h0m0s", Timeout::None),
        ("500ms", Timeout::After(Duration::from_millis(500))),
        ("1m30s", Timeout::After(Duration::from_secs(90))),
        ("1.5h", Timeout::After(Duration::from_secs(5400))),
        ("1us", Timeout::After(Duration::from_micros(1))),
    ] {
        let settings = settings(json!({"timeouts": {"request": text}}));
        assert_eq!(settings.timeouts.request, expected, "{text:?}");
        assert_eq!(settings.timeouts.readiness, Timeout::Inherited);
    }
    for text in [
        "",
        "500",
        "00",
        "-1s",
        "1",
        "s",
        "1 s",
        "1d",
        "1m30",
        "1e9s",
        "99999999h",
    ] {
        let faults = faults(json!({"timeouts": {"readiness": text, "responseHeader": text}}));
        let expected = ["readiness", "responseHeader"].map(|field| {
            format!(
                "spec.timeouts.{field} is {text:?}: a duration of at least 0, such as 1m30s or 500ms, is accepted"
            )
        });
        assert_eq!(faults, expected);
    }
}

#[test]
fn a_rates_window_has_defaults() {
    let rate = |rate: Value| settings(json!({"scalingMetric": {"requestRate": rate}})).scaling;
    let scaling = rate(json!({"targetValue": 5}));
    let minute = Duration::from_secs(60);
    assert_eq!(
        scaling.request_rate,
        RequestRate::try_new(target(5), minute, minute / 60).ok()
    );
    assert_eq!(scaling.concurrency, None);
    let day = rate(json!({"targetValue": 5, "window": "24h"}))
        .request_rate
        .unwrap();
    assert_eq!(day.granularity(), Duration::from_secs(24));
}

/// Every fault by itself: the fields, and the one sentence about them.
#[test]
fn each_fault_is_told() {
    let response = |response: Value| json!({"coldStart": {"placeholder": {"response": response}}});
    let fixed = |fixed: Value| json!({"staticRoutes": [{"rules": [{}], "response": fixed}]});
    let rate = |rate: Value| json!({"scalingMetric": {"requestRate": rate}});
    for (spec, expected) in [
        (
            json!({"target": {"service": "", "port": 80}}),
            "spec.target.service is \"\": the name of a Service is accepted",
        ),
        (
            json!({"target": {"service": "a"}}),
            "spec.target: exactly one of 'port' or 'portName' must be set",
        ),
        (
            json!({"target": {"service": "a", "port": 1, "portName": "http"}}),
            "spec.target: exactly one of 'port' or 'portName' must be set",
        ),
        (
            json!({"target": {"service": "a", "port": 65536}}),
            "spec.target.port is 65536: a port from 1 to 65535 is accepted",
        ),
        (
            json!({"target": {"service": "a", "port": 0}}),
            "spec.target.port is 0: a port from 1 to 65535 is accepted",
        ),
        (
            json!({"target": {"service": "a", "portName": ""}}),
            "spec.target.portName is \"\": the name of a port is accepted",
        ),
        (
            json!({"rules": [{}, {"hosts": ["a", "a b"]}]}),
            "spec.rules[1].hosts[1] is \"a b\": an IP address or a host name of letters, digits, '-', '_' and '.' \
             (other alphabets in their xn-- form) is accepted",
        ),
        (
            json!({"rules": [{"hosts": ["a.*"]}]}),
            "spec.rules[0].hosts[0] is \"a.*\": a wildcard as the whole first label, as in *.example.com, or * alone is \
             accepted",
        ),
        (
            json!({"rules": [{"headers": [{"name": "a:"}]}]}),
            "spec.rules[0].headers[0].name is \"a:\": a header name of letters, digits and any of !#$%&'*+-.^_`|~ is accepted",
        ),
        (
            json!({"scalingMetric": {}}),
            "spec.scalingMetric: at least one of 'concurrency' or 'requestRate' must be set",
        ),
        (
            json!({"scalingMetric": {"concurrency": {"targetValue": 0}}}),
            "spec.scalingMetric.concurrency.targetValue is 0: a whole number of at least 1 is accepted",
        ),
        (
            rate(json!({"targetValue": -1})),
            "spec.scalingMetric.requestRate.targetValue is -1: a whole number of at least 1 is accepted",
        ),
        (
            rate(json!({"targetValue": 1, "window": "0s"})),
            "spec.scalingMetric.requestRate.window is 0ns: a duration above 0 is accepted",
        ),
        (
            rate(json!({"targetValue": 1, "window": "soon"})),
            "spec.scalingMetric.requestRate.window is \"soon\": a duration of at least 0, such as 1m30s or 500ms, is accepted",
        ),
        (
            rate(json!({"targetValue": 1, "granularity": "61s"})),
            "spec.scalingMetric.requestRate.granularity is 61s: a duration above 0 and no longer than the window is accepted",
        ),
        (
            json!({"coldStart": {}}),
            "spec.coldStart: at least one of 'fallback', 'placeholder' or 'maxPendingRequests' must be set",
        ),
        (
            json!({"coldStart": {"maxPendingRequests": 1, "overflow": "Placeholder"}}),
            "spec.coldStart: 'placeholder' must be set when 'overflow' is 'Placeholder'",
        ),
        (
            json!({"coldStart": {"maxPendingRequests": 1, "overflow": "Drop"}}),
            "spec.coldStart.overflow is \"Drop\": Reject or Placeholder is accepted",
        ),
        (
            json!({"coldStart": {"maxPendingRequests": -1}}),
            "spec.coldStart.maxPendingRequests is -1: a whole number of at least 0 is accepted",
        ),
        (
            json!({"coldStart": {"fallback": {"service": {"name": "a"}}}}),
            "spec.coldStart.fallback.service: exactly one of 'port' or 'portName' must be set",
        ),
        (
            json!({"coldStart": {"fallback": {"service": {"name": "", "port": 1}}}}),
            "spec.coldStart.fallback.service.name is \"\": the name of a Service is accepted",
        ),
        (
            response(json!({"statusCode": 600})),
            "spec.coldStart.placeholder.response.statusCode is 600: a final status from 200 to 599 is accepted",
        ),
        (
            response(json!({"body": "a", "bodyFromConfigMap": {"name": "a"}})),
            "spec.coldStart.placeholder.response: at most one of 'body' or 'bodyFromConfigMap' may be set",
        ),
        (
            response(json!({"bodyFromConfigMap": {"name": ""}})),
            "spec.coldStart.placeholder.response.bodyFromConfigMap.name is \"\": the name of a ConfigMap is accepted",
        ),
        (
            response(json!({"body": "\u{e4}".repeat(LONGEST_BODY + 1)})),
            "spec.coldStart.placeholder.response.body has 32769 characters: at most 32768 are accepted",
        ),
        (
            fixed(json!({"statusCode": 101})),
            "spec.staticRoutes[0].response.statusCode is 101: a final status from 200 to 599 is accepted",
        ),
        (
            fixed(json!({"headers": {"a b": ""}})),
            "spec.staticRoutes[0].response.headers[\"a b\"]: a header cannot have this name; letters, digits and '-' are \
             accepted",
        ),
        (
            fixed(json!({"headers": {"Content-Length": "5"}})),
            "spec.staticRoutes[0].response.headers[\"Content-Length\"]: the interceptor sets this header itself; leave it out",
        ),
        (
            fixed(json!({"headers": {"x-a": "1\r\nx-b: 2"}})),
            "spec.staticRoutes[0].response.headers[\"x-a\"] is \"1\\r\\nx-b: 2\": a value without line breaks and other \
             control characters is accepted",
        ),
        (
            json!({"staticRoutes": [{"rules": [], "response": {}}]}),
            "spec.staticRoutes[0].rules is empty: at least one rule is accepted",
        ),
        (
            json!({"staticRoutes": [{"rules": [{"hosts": ["a..b"]}], "response": {}}]}),
            "spec.staticRoutes[0].rules[0].hosts[0] is \"a..b\": an IP address or a host name of letters, digits, '-', '_' \
             and '.' (other alphabets in their xn-- form) is accepted",
        ),
        (
            json!({"staticRoutes": [{"rules": [{}], "response": {}, "responseMode": "Never"}]}),
            "spec.staticRoutes[0].responseMode is \"Never\": Always or WhenUnavailable is accepted",
        ),
    ] {
        assert_eq!(faults(spec.clone()), [expected], "{spec}");
    }
}

#[test]
fn what_may_be_written_but_not_multiplied_is_refused() {
    let hosts: Vec<_> = (0..65).map(|index| format!("h{index}")).collect();
    let paths: Vec<_> = (0..64)
        .map(|index| json!({"value": format!("/{index}")}))
        .collect();
    let rule = |hosts: &[String]| json!({"rules": [{"hosts": hosts, "paths": paths}]});
    assert!(route(&with(rule(&hosts[1..]))).is_ok());
    assert_eq!(
        faults(rule(&hosts)),
        ["spec.rules come to 4160 pairs of host and path: at most 4096 are accepted"]
    );
    let fixed = json!({"rules": [{"hosts": vec!["h"; 600]}, {"paths": vec![json!({"value": "/"}); 600]}], "response": {}});
    assert_eq!(
        faults(json!({"staticRoutes": [fixed]})),
        ["spec.staticRoutes have 1202 rules, hosts, paths and headers: at most 1024 are accepted"]
    );
}

#[test]
fn all_faults_are_told_at_once_and_their_message_is_bounded() {
    let object = with(json!({
        "target": {"service": "", "port": 0},
        "rules": [{"hosts": ["a b", "c d"]}],
        "scalingMetric": {},
        "timeouts": {"request": "soon"},
        "coldStart": {"overflow": "Never"},
        "staticRoutes": [{"rules": [], "response": {"statusCode": 1}, "responseMode": "x".repeat(5000)}],
    }));
    let refusal = route(&object).unwrap_err();
    assert_eq!(refusal.faults.len(), 11);
    let message = refusal.to_string();
    assert!(
        message.starts_with("InterceptorRoute shop/web: spec.rules[0].hosts[0] is \"a b\": "),
        "{message}"
    );
    assert!(message.ends_with("; and 3 more"), "{message}");
    let longest = refusal.faults.iter().map(|fault| fault.message.len()).max();
    assert!(longest < Some(250), "{refusal:?}");
}

#[test]
fn an_object_without_metadata_is_of_the_default_namespace() {
    let mut object = with(json!({}));
    object.metadata = Default::default();
    let candidate = route(&object).unwrap();
    assert_eq!(candidate.key.to_string(), "default/");
    assert_eq!((candidate.uid.as_str(), candidate.created), ("", 0));
}
