//! What the API server sends decodes, and what is written back is the same, field by field.

use std::time::Duration;

use dormouse_api::{
    ClusterTriggerAuthentication, Condition, ConditionStatus, InterceptorRoute, ScaledObject,
    ScaledObjectStatus, TriggerActivity, TriggerAuthentication, conditions, defaults,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const EVERY_FIELD: &str = include_str!("../../tests/corpus/scaled_object.yaml");
const EVERY_AUTHENTICATION: &str = include_str!("../../tests/corpus/trigger_authentication.yaml");
const EVERY_ROUTE: &str = include_str!("../../tests/corpus/interceptor_route.yaml");
const AS_WRITTEN_BY_AN_OPERATOR: &str = include_str!("data/scaled_object.yaml");
const STATUSES: &str = include_str!("data/statuses.yaml");

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("YAML")
}

fn round_trip<T: DeserializeOwned + Serialize>(wire: &Value) -> Value {
    let decoded: T = serde_json::from_value(wire.clone()).expect("an object of this type");
    serde_json::to_value(decoded).expect("JSON")
}

fn scaled_object(spec: Value) -> ScaledObject {
    let wire =
        json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {}, "spec": spec});
    serde_json::from_value(wire).expect("a ScaledObject")
}

#[test]
fn a_live_object_comes_back_as_it_was() {
    let wire = yaml(AS_WRITTEN_BY_AN_OPERATOR);
    assert_eq!(round_trip::<ScaledObject>(&wire), wire);
}

#[test]
fn every_status_comes_back_as_it_was() {
    let statuses = yaml(STATUSES);
    assert_eq!(statuses.as_object().expect("map").len(), 4);
    for (name, wire) in statuses.as_object().expect("map") {
        assert_eq!(round_trip::<ScaledObjectStatus>(wire), *wire, "{name}");
    }
}

#[test]
fn no_field_of_the_schema_is_lost() {
    let mut wire = yaml(EVERY_FIELD);
    let back = round_trip::<ScaledObject>(&wire);
    let tolerance = "/spec/advanced/horizontalPodAutoscalerConfig/behavior/scaleUp/tolerance";
    *wire.pointer_mut(tolerance).expect("tolerance") = json!("0");
    assert_eq!(back, wire);

    let mut wire = yaml(EVERY_AUTHENTICATION);
    assert_eq!(round_trip::<TriggerAuthentication>(&wire), wire);
    wire["kind"] = json!("ClusterTriggerAuthentication");
    assert_eq!(round_trip::<ClusterTriggerAuthentication>(&wire), wire);

    let mut wire = yaml(EVERY_ROUTE);
    assert_eq!(round_trip::<InterceptorRoute>(&wire), wire);
    let spec = &mut wire["spec"];
    spec["target"] = json!({"service": "shop", "port": 80});
    spec["coldStart"]["fallback"]["service"] = json!({"name": "sorry", "portName": "http"});
    spec["coldStart"]["placeholder"]["response"] = json!({"body": "later"});
    assert_eq!(round_trip::<InterceptorRoute>(&wire), wire);
}

#[test]
fn a_minimal_route_is_written_as_it_was() {
    let wire = json!({
        "apiVersion": "http.keda.sh/v1beta1", "kind": "InterceptorRoute", "metadata": {},
        "spec": {"target": {"service": "shop"}, "scalingMetric": {}},
    });
    assert_eq!(round_trip::<InterceptorRoute>(&wire), wire);
}

#[test]
fn tolerance_may_be_a_number_or_text() {
    for (written, read) in [
        (json!(0), "0"),
        (json!(1), "1"),
        (json!(0.05), "0.05"),
        (json!("5e-2"), "5e-2"),
    ] {
        let object = scaled_object(json!({
            "scaleTargetRef": {"name": "app"},
            "triggers": [],
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": {"tolerance": written}}}},
        }));
        let behavior = object
            .spec
            .hpa_config()
            .and_then(|config| config.behavior.clone())
            .expect("behavior");
        let rules = behavior.scale_down.expect("rules");
        assert_eq!(rules.tolerance.expect("tolerance").0, read);
        assert_eq!(behavior.scale_up, None);
    }
}

#[test]
fn what_other_versions_add_is_passed_over() {
    let object = scaled_object(json!({
        "scaleTargetRef": {"name": "app", "newer": 1},
        "triggers": [{"type": "cron", "metadata": {}, "newer": {"a": []}}],
        "fallback": {"failureThreshold": 1, "replicas": 2, "behavior": "newer"},
        "newer": [1, 2],
    }));
    assert_eq!(object.spec.fallback.expect("fallback").behavior(), "newer");
    let condition: Condition =
        serde_json::from_value(json!({"type": "Ready", "status": "Perhaps", "newer": true}))
            .expect("condition");
    assert_eq!(
        condition,
        Condition::bare(conditions::READY, ConditionStatus::Unknown)
    );
}

#[test]
fn a_condition_without_reason_and_message_is_written_without_them() {
    let initial = serde_json::to_value(Condition::initial()).expect("JSON");
    assert_eq!(
        initial,
        json!([
            {"type": "Ready", "status": "Unknown"},
            {"type": "Active", "status": "Unknown"},
            {"type": "Fallback", "status": "Unknown"},
            {"type": "Paused", "status": "False"},
        ])
    );
    let blank = Condition {
        reason: Some(String::new()),
        message: Some(String::new()),
        ..Condition::initial()[3].clone()
    };
    assert_eq!(serde_json::to_value(blank).expect("JSON"), initial[3]);
}

#[test]
fn an_inactive_trigger_is_said_to_be_inactive() {
    assert_eq!(
        serde_json::to_value(TriggerActivity::default()).expect("JSON"),
        json!({"isActive": false})
    );
    let silent: TriggerActivity = serde_json::from_value(json!({})).expect("activity");
    assert!(!silent.is_active);
}

#[test]
fn an_empty_status_is_written_empty() {
    assert_eq!(
        serde_json::to_value(ScaledObjectStatus::default()).expect("JSON"),
        json!({})
    );
}

#[test]
fn a_minimal_object_has_defaults() {
    let object = scaled_object(json!({
        "scaleTargetRef": {"name": "app", "kind": ""},
        "triggers": [{"type": "cron", "metadata": {}, "authenticationRef": {"name": "a"}}],
        "fallback": {"failureThreshold": 1, "replicas": 2},
    }));
    let spec = &object.spec;
    assert_eq!(spec.polling_interval(), Duration::from_secs(30));
    assert_eq!(spec.cooldown_period(), Duration::from_secs(300));
    assert_eq!(spec.initial_cooldown_period(), Duration::ZERO);
    assert_eq!(
        (
            spec.min_replica_count(),
            spec.max_replica_count(),
            spec.idle_replica_count
        ),
        (0, 100, None)
    );
    assert_eq!(
        (spec.scale_target_ref.api_version(), spec.scale_target_ref.kind()),
        ("apps/v1", "Deployment")
    );
    assert_eq!(spec.hpa_name("orders"), "keda-hpa-orders");
    assert!(!spec.restore_to_original_replica_count());
    assert_eq!(
        spec.fallback.as_ref().map(|fallback| fallback.behavior()),
        Some("static")
    );
    let trigger = &spec.triggers[0];
    assert!(!trigger.use_cached_metrics);
    assert_eq!(
        trigger.authentication_ref.as_ref().map(|auth| auth.kind()),
        Some(defaults::AUTHENTICATION_KIND)
    );
}

#[test]
fn given_values_go_before_defaults() {
    let object: ScaledObject = serde_json::from_value(yaml(EVERY_FIELD)).expect("a ScaledObject");
    let spec = &object.spec;
    assert_eq!(spec.polling_interval(), Duration::from_secs(5));
    assert_eq!(spec.cooldown_period(), Duration::from_secs(60));
    assert_eq!(spec.initial_cooldown_period(), Duration::from_secs(20));
    assert_eq!((spec.min_replica_count(), spec.max_replica_count()), (2, 12));
    assert_eq!(spec.scale_target_ref.kind(), "StatefulSet");
    assert_eq!(spec.hpa_name("orders"), "orders-hpa");
    assert!(spec.restore_to_original_replica_count());
}

#[test]
fn a_grant_left_out_is_client_credentials() {
    let wire = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {},
        "spec": {"oauth2": {"clientId": "a", "tokenUrl": "https://login.example.com"}},
    });
    let object: TriggerAuthentication = serde_json::from_value(wire).expect("a TriggerAuthentication");
    assert_eq!(object.spec.oauth2.expect("oauth2").type_, "clientCredentials");
}
