use super::*;
use crate::registry;
use crate::testing::{context, params};

type Given<'a> = &'a [(&'a str, &'a str)];

const ADDRESS: (&str, &str) = ("address", "redis:6379");
const LIST: (&str, &str) = ("listName", "orders");

fn fault(trigger_type: &str, metadata: &[(&str, &str)], auth: &[(&str, &str)]) -> String {
    let connected = registry::connect(&context(params(trigger_type, metadata, auth)));
    match connected {
        Ok(_) => panic!("{trigger_type} takes {metadata:?}"),
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with("error parsing redis metadata: "), "{text}");
            assert!(!text.to_lowercase().contains("canary"), "{text}");
            text
        }
    }
}

#[test]
fn the_metric_has_kedas_name_target_and_label() {
    for trigger_type in ["redis", "redis-cluster", "redis-sentinel"] {
        let given = params(trigger_type, &[ADDRESS, LIST, ("sentinelMaster", "m")], &[]);
        let trigger = registry::connect(&context(given)).unwrap();
        let metric = trigger.metric();
        assert_eq!(
            (metric.base_name.as_str(), metric.target),
            ("redis-orders", Target::Whole(5))
        );
        assert_eq!(trigger.label(), "redisScaler");
        assert_eq!(trigger.deadline(), Duration::from_secs(3));
    }
}

#[test]
fn addresses_in_all_their_forms() {
    for metadata in [
        vec![("address", "redis:6379")],
        vec![("addresses", "redis-0:6379, redis-1:6379")],
        vec![("host", "redis"), ("port", "6379")],
        vec![("hosts", "redis-0,redis-1"), ("ports", "6379,6380")],
        vec![("address", "[::1]:6379")],
    ] {
        let given = [metadata.clone(), vec![LIST]].concat();
        let trigger = registry::connect(&context(params("redis", &given, &[])));
        assert!(trigger.is_ok(), "{metadata:?}: {:?}", trigger.err());
    }
    let out_of_authentication = params("redis", &[LIST], &[("host", "redis"), ("port", "6379")]);
    assert!(registry::connect(&context(out_of_authentication)).is_ok());
    let mut out_of_environment = params("redis", &[LIST, ("addressFromEnv", "REDIS")], &[]);
    out_of_environment
        .env
        .insert("REDIS".to_owned(), crate::Sensitive::new("redis:6379"));
    assert!(registry::connect(&context(out_of_environment)).is_ok());
}

#[test]
fn what_is_wrong_is_named() {
    let nowhere = "no addresses or hosts given. address should be a comma separated list of host:port or set the \
                   host/port values";
    let cases: &[(Given<'_>, Given<'_>, &str)] = &[
        (
            &[ADDRESS],
            &[],
            "missing required parameter \"listName\" in [triggerMetadata]",
        ),
        (&[LIST], &[], nowhere),
        (&[LIST, ("host", "redis")], &[], nowhere),
        (
            &[LIST, ("hosts", "a,b"), ("ports", "1")],
            &[],
            "not enough hosts or ports given. number of hosts should be equal to the number of ports",
        ),
        (
            &[LIST, ("address", "redis")],
            &[],
            "parameter \"address\" must be host:port",
        ),
        (
            &[LIST],
            &[("address", "canary-without-port")],
            "parameter \"address\" must be host:port",
        ),
        (
            &[LIST, ("host", "a"), ("port", "x")],
            &[],
            "\"port\" a number from 1 to 65535",
        ),
        (
            &[LIST, ADDRESS, ("enableTLS", "true")],
            &[("tls", "enable")],
            "unable to set `tls` in both ScaledObject and TriggerAuthentication together",
        ),
        (&[LIST, ADDRESS], &[("tls", "canary")], "\"tls\""),
        (
            &[LIST, ADDRESS],
            &[("cert", "canary")],
            "cert and key must be given together",
        ),
        (
            &[LIST, ADDRESS],
            &[("tls", "enable"), ("ca", "canary")],
            "ca must hold at least one certificate in PEM form",
        ),
        (
            &[LIST, ADDRESS, ("listLength", "0")],
            &[],
            "parameter \"listLength\" must be greater than 0",
        ),
        (&[LIST, ADDRESS, ("listLength", "five")], &[], "\"listLength\""),
        (
            &[LIST, ADDRESS, ("databaseIndex", "-1")],
            &[],
            "\"databaseIndex\"",
        ),
    ];
    for (metadata, auth, wanted) in cases {
        let text = fault("redis", metadata, auth);
        assert!(text.contains(wanted), "{metadata:?}: {text}");
    }
    let text = fault("redis-sentinel", &[LIST, ADDRESS], &[]);
    assert!(text.contains("\"sentinelMaster\""), "{text}");
}

#[test]
fn every_parameter_of_the_reference_is_known() {
    let metadata: Vec<(&str, &str)> = [
        "address",
        "addresses",
        "host",
        "hosts",
        "port",
        "ports",
        "username",
        "password",
        "sentinelUsername",
        "sentinelPassword",
        "sentinelMaster",
        "databaseIndex",
        "enableTLS",
        "unsafeSsl",
        "listName",
        "listLength",
        "activationListLength",
        "addressFromEnv",
        "addressesFromEnv",
        "hostFromEnv",
        "hostsFromEnv",
        "portFromEnv",
        "portsFromEnv",
        "usernameFromEnv",
        "passwordFromEnv",
        "sentinelUsernameFromEnv",
        "sentinelPasswordFromEnv",
        "sentinelMasterFromEnv",
    ]
    .map(|name| (name, "1"))
    .to_vec();
    for trigger_type in ["redis", "redis-cluster", "redis-sentinel"] {
        let unmatched = registry::unmatched(&params(trigger_type, &metadata, &[]));
        assert_eq!(unmatched, Vec::<String>::new(), "{trigger_type}");
    }
}

#[test]
fn only_allowed_hosts_see_the_credentials() {
    let with = |addresses| {
        let mut given = params(
            "redis-cluster",
            &[LIST, ("addresses", addresses)],
            &[("password", "canary")],
        );
        given.auth.allowed_hosts = Some("redis-0,redis-1".parse().unwrap());
        registry::connect(&context(given))
            .map(drop)
            .map_err(|error| error.to_string())
    };
    assert_eq!(with("redis-0:6379,redis-1:6379"), Ok(()));
    let refused = with("redis-0:6379,elsewhere:6379").unwrap_err();
    assert!(
        refused.contains("host \"elsewhere\" may not see the credentials"),
        "{refused}"
    );
}
