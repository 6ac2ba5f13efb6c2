use super::*;
use crate::registry;
use crate::testing::{context, params};

fn connected(metadata: &[(&str, &str)]) -> Result<MetricSpec, String> {
    let given = [metadata, &[("address", "redis:6379"), ("stream", "orders")]].concat();
    let trigger = registry::connect(&context(params("redis-streams", &given, &[])));
    trigger
        .map(|trigger| trigger.metric())
        .map_err(|error| error.to_string())
}

#[test]
fn the_group_and_the_lag_decide_which_target_counts() {
    let all = [("pendingEntriesCount", "2"), ("streamLength", "3")];
    let with = |further: &[(&str, &str)]| connected(&[&all, further].concat()).unwrap().target;
    assert_eq!(with(&[]), Target::Whole(3));
    assert_eq!(with(&[("lagCount", "4")]), Target::Whole(3), "a lag is a group's");
    assert_eq!(with(&[("consumerGroup", "g")]), Target::Whole(2));
    assert_eq!(
        with(&[("consumerGroup", "g"), ("lagCount", "0")]),
        Target::Whole(2)
    );
    assert_eq!(
        with(&[("consumerGroup", "g"), ("lagCount", "4")]),
        Target::Whole(4)
    );
    assert_eq!(connected(&[]).unwrap().target, Target::Whole(5));
    assert_eq!(
        connected(&[("consumerGroup", "g")]).unwrap().target,
        Target::Whole(5)
    );
}

#[test]
fn the_metric_has_kedas_name_and_label() {
    let sentinel = ("sentinelMaster", "m");
    for trigger_type in ["redis-streams", "redis-cluster-streams", "redis-sentinel-streams"] {
        let given = params(
            trigger_type,
            &[("address", "r:1"), ("stream", "orders"), sentinel],
            &[],
        );
        let trigger = registry::connect(&context(given)).unwrap();
        assert_eq!(trigger.metric().base_name, "redis-streams-orders");
        assert_eq!(trigger.label(), "redisStreamsScaler");
    }
}

#[test]
fn a_target_that_counts_must_be_positive() {
    assert!(
        connected(&[("pendingEntriesCount", "0")]).is_ok(),
        "it does not count"
    );
    for (metadata, parameter) in [
        (vec![("streamLength", "0")], "streamLength"),
        (
            vec![("consumerGroup", "g"), ("pendingEntriesCount", "-1")],
            "pendingEntriesCount",
        ),
        (vec![("consumerGroup", "g"), ("lagCount", "-1")], "lagCount"),
    ] {
        let text = connected(&metadata).unwrap_err();
        assert!(
            text.starts_with("error parsing redis streams metadata: "),
            "{text}"
        );
        assert!(
            text.contains(&format!("{parameter:?} must be greater than 0")),
            "{text}"
        );
    }
}

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

fn group(name: &str, further: Vec<Value>) -> Value {
    let mut fields = vec![bulk("name"), bulk(name), bulk("last-delivered-id"), bulk("5-1")];
    fields.extend(further);
    Value::Array(fields)
}

#[test]
fn a_group_is_found_with_its_lag() {
    let groups = Value::Array(vec![
        group("old", vec![]),
        group("known", vec![bulk("lag"), Value::Int(7)]),
        group("unknown", vec![bulk("lag"), Value::Nil]),
    ]);
    let lag = |name| {
        find(&groups, name)
            .unwrap()
            .map(|group| (group.lag, group.last_delivered))
    };
    assert_eq!(lag("known"), Some((Some(Some(7)), "5-1".to_owned())));
    assert_eq!(lag("unknown"), Some((Some(None), "5-1".to_owned())));
    assert_eq!(lag("old"), Some((None, "5-1".to_owned())));
    assert_eq!(lag("none"), None);
}

#[test]
fn an_answer_of_another_form_is_no_group() {
    for answer in [
        Value::Nil,
        Value::Array(vec![Value::Int(1)]),
        Value::Array(vec![group("g", vec![bulk("lag"), bulk("many")])]),
        Value::Array(vec![group("g", vec![bulk("lag"), Value::Int(-1)])]),
    ] {
        assert!(find(&answer, "g").is_err(), "{answer:?}");
    }
}

#[test]
fn one_question_for_those_who_would_be_told_the_same() {
    let clients = context(params("redis-streams", &[], &[])).clients;
    let asks = |trigger_type: &str, further: &[(&str, &str)], password: &str| {
        let base = [
            ("address", "redis:6379"),
            ("stream", "orders"),
            ("sentinelMaster", "m"),
        ];
        // What is given later counts.
        let mut cx = context(params(
            trigger_type,
            &[&base, further].concat(),
            &[("password", password)],
        ));
        cx.clients = clients.clone();
        registry::connect(&cx).unwrap().question().unwrap().fingerprint
    };
    let group = ("consumerGroup", "g");
    let plain = asks("redis-streams", &[], "a");
    assert_eq!(
        plain,
        asks(
            "redis-streams",
            &[("streamLength", "9"), ("activationLagCount", "3")],
            "a"
        )
    );
    let all = [
        plain,
        asks("redis-streams", &[], "b"),
        asks("redis-streams", &[("databaseIndex", "1")], "a"),
        asks("redis-streams", &[("address", "other:6379")], "a"),
        asks("redis-streams", &[("stream", "others")], "a"),
        asks("redis-streams", &[("enableTLS", "true")], "a"),
        asks("redis-streams", &[group], "a"),
        asks("redis-streams", &[("consumerGroup", "h")], "a"),
        asks("redis-streams", &[group, ("lagCount", "3")], "a"),
        asks("redis-cluster-streams", &[], "a"),
        asks("redis-sentinel-streams", &[], "a"),
    ];
    for (index, one) in all.iter().enumerate() {
        assert!(!all[..index].contains(one), "{index}");
    }
}
