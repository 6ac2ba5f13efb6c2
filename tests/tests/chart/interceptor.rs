//! The interceptor's values: those of the HTTP add-on's chart are accepted and reach the pod, and what the user gives
//! himself replaces what the chart would give, instead of being there twice.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::Cluster;
use serde_json::{Map, Value, json};

use crate::{find, nested, render, render_with};

const NAME: &str = "keda-add-ons-http-interceptor";

/// The add-on's value names with their defaults, without `images` and `operator`.
const ADD_ON_VALUES: &str = include_str!("http-add-on-values.txt");

/// Values that a user may have set, none of them the default.
const CHOSEN: &str = r#"
interceptor.replicas.min = 4
interceptor.pullPolicy = "IfNotPresent"
interceptor.imagePullSecrets = [{"name": "pull"}]
interceptor.podAnnotations.team = "a"
interceptor.resources.limits.memory = "1Gi"
interceptor.terminationGracePeriodSeconds = 60
interceptor.proxy.appProtocol = "http"
interceptor.tls.appProtocol = "https"
interceptor.extraVolumes = [{"name": "authority", "secret": {"secretName": "authority"}}]
interceptor.extraVolumeMounts = [{"name": "authority", "mountPath": "/authority"}]
interceptor.extraEnvs.KEDA_HTTP_LOG_REQUESTS = true
interceptor.env = [{"name": "OTEL_SERVICE_NAME", "value": "front"}]
interceptor.proxy.port = 8081
interceptor.admin.port = 9091
interceptor.requestTimeout = "1s"
interceptor.responseHeaderTimeout = "2s"
interceptor.readinessTimeout = "3s"
interceptor.tcpConnectTimeout = "4s"
interceptor.shutdownDelay = "5s"
interceptor.drainTimeout = 0
interceptor.maxIdleConns = 2000000
interceptor.maxIdleConnsPerHost = 7
interceptor.directPodRouting = false
interceptor.coldStart.maxPendingRequests = 8
interceptor.tls.enabled = true
interceptor.tls.port = 9443
interceptor.tls.certSecret = "front"
interceptor.tls.certPath = "/front/tls.crt"
interceptor.tls.keyPath = "/front/tls.key"
interceptor.tls.skipVerify = true
interceptor.tls.minVersion = 1.2
interceptor.tls.maxVersion = "1.3"
interceptor.tls.cipherSuites = "TLS_AES_128_GCM_SHA256"
interceptor.tls.curvePreferences = "X25519,P256"
interceptor.tls.caDirs = ["/authority", "/other"]
"#;

/// The variables that they become.
const VARIABLES: [(&str, &str); 25] = [
    ("KEDA_HTTP_LOG_REQUESTS", "true"),
    ("OTEL_SERVICE_NAME", "front"),
    ("KEDA_HTTP_PROXY_PORT", "8081"),
    ("KEDA_HTTP_ADMIN_PORT", "9091"),
    ("KEDA_HTTP_REQUEST_TIMEOUT", "1s"),
    ("KEDA_HTTP_RESPONSE_HEADER_TIMEOUT", "2s"),
    ("KEDA_HTTP_READINESS_TIMEOUT", "3s"),
    ("KEDA_HTTP_CONNECT_TIMEOUT", "4s"),
    ("KEDA_HTTP_SHUTDOWN_DELAY", "5s"),
    ("KEDA_HTTP_DRAIN_TIMEOUT", "0"),
    ("KEDA_HTTP_MAX_IDLE_CONNS", "2000000"),
    ("KEDA_HTTP_MAX_IDLE_CONNS_PER_HOST", "7"),
    ("KEDA_HTTP_DIRECT_POD_ROUTING", "false"),
    ("KEDA_HTTP_COLD_START_MAX_PENDING_REQUESTS", "8"),
    ("KEDA_HTTP_PROXY_TLS_ENABLED", "true"),
    ("KEDA_HTTP_PROXY_TLS_PORT", "9443"),
    ("KEDA_HTTP_PROXY_TLS_CERT_PATH", "/front/tls.crt"),
    ("KEDA_HTTP_PROXY_TLS_KEY_PATH", "/front/tls.key"),
    ("KEDA_HTTP_TLS_SKIP_VERIFY", "true"),
    ("KEDA_HTTP_TLS_MIN_VERSION", "1.2"),
    ("KEDA_HTTP_TLS_MAX_VERSION", "1.3"),
    ("KEDA_HTTP_TLS_CIPHER_SUITES", "TLS_AES_128_GCM_SHA256"),
    ("KEDA_HTTP_TLS_CURVE_PREFERENCES", "X25519,P256"),
    ("KEDA_HTTP_TLS_CA_DIRS", "/authority,/other"),
    ("POD_NAME", ""),
];

#[tokio::test]
async fn every_value_of_the_http_add_ons_chart_is_accepted() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let values = nested(ADD_ON_VALUES)?;
    let names = values["interceptor"].as_object().map_or(0, Map::len);
    ensure!(names > 25, "only {names} values of the interceptor");
    let objects = render_with(&cluster, &values).await?;
    let deployment = find(&objects, "Deployment", NAME)?;
    ensure!(
        deployment["spec"]["replicas"] == 3,
        "{}",
        deployment["spec"]["replicas"]
    );
    let container = container(&objects)?;
    ensure!(
        container["resources"]["limits"]["memory"] == "64Mi",
        "{}",
        container["resources"]
    );
    let variables = variables(container)?;
    ensure!(
        variables.get("KEDA_HTTP_MAX_IDLE_CONNS").copied() == Some("1000"),
        "{variables:?}"
    );
    // An empty value is no value: the process would refuse it.
    let empty = variables
        .iter()
        .find(|(name, value)| **name != "POD_NAME" && value.is_empty());
    ensure!(empty.is_none(), "{empty:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_chosen_reaches_the_interceptor() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let objects = render_with(&cluster, &nested(CHOSEN)?).await?;
    let deployment = find(&objects, "Deployment", NAME)?;
    let container = container(&objects)?;
    let found = variables(container)?;
    ensure!(found == BTreeMap::from(VARIABLES), "{found:?}");

    for (path, wanted) in [
        ("/spec/replicas", json!(4)),
        ("/spec/template/metadata/annotations/team", json!("a")),
        ("/spec/template/spec/imagePullSecrets/0/name", json!("pull")),
        ("/spec/template/spec/terminationGracePeriodSeconds", json!(60)),
    ] {
        let found = deployment.pointer(path);
        ensure!(found == Some(&wanted), "{path} is {found:?}");
    }
    ensure!(container["imagePullPolicy"] == "IfNotPresent", "{container}");
    ensure!(
        container["resources"] == json!({"limits": {"memory": "1Gi"}}),
        "{container}"
    );
    for (name, path) in [("certificate", "/front"), ("authority", "/authority")] {
        let mounts = list(container, "volumeMounts");
        ensure!(
            mounts
                .iter()
                .any(|mount| mount["name"] == name && mount["mountPath"] == path),
            "{name} is not mounted at {path}: {mounts:?}"
        );
        let volumes = list(&deployment["spec"]["template"]["spec"], "volumes");
        ensure!(
            volumes.iter().any(|volume| volume["name"] == name),
            "there is no volume {name}: {volumes:?}"
        );
    }
    let ports = &find(&objects, "Service", "keda-add-ons-http-interceptor-proxy")?["spec"]["ports"];
    for (port, number, protocol) in [(0_usize, 8081, "http"), (1, 9443, "https")] {
        ensure!(
            ports[port]["port"] == number && ports[port]["appProtocol"] == protocol,
            "{ports}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_former_name_of_the_readiness_timeout_counts_where_the_new_one_is_empty() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let former = ["--set", "interceptor.replicas.waitTimeout=20s"];
    let new = ["--set", "interceptor.readinessTimeout=0s"];
    for (arguments, wanted) in [
        (former.to_vec(), Some("20s")),
        ([former, new].concat(), Some("0s")),
        (vec![], None),
    ] {
        let objects = render(&cluster, &arguments).await?;
        let found = variables(container(&objects)?)?;
        let found = found.get("KEDA_HTTP_READINESS_TIMEOUT").copied();
        ensure!(found == wanted, "{arguments:?}: {found:?}");
    }
    Ok(())
}

/// The API server refuses a variable that is there twice, and the process a flag.
#[tokio::test]
async fn what_the_user_gives_himself_replaces_what_the_chart_gives() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let values = nested(
        r#"
interceptor.requestTimeout = "1s"
interceptor.extraEnvs.KEDA_HTTP_REQUEST_TIMEOUT = "2s"
interceptor.extraEnvs.KEDA_HTTP_PROXY_PORT = 9000
interceptor.extraEnvs.HTTPS_PROXY = "one"
interceptor.env = [{"name": "HTTPS_PROXY", "value": "two"}, {"name": "POD_NAME", "value": "three"}]
interceptor.extraArgs.zap-log-level = "debug"
interceptor.extraArgs.hosts-across-namespaces = true
interceptor.extraArgs.max-pending-requests = 1000000
interceptor.extraVolumeMounts = [{"name": "mine", "mountPath": "/certs/"}]
interceptor.tls.enabled = true
"#,
    )?;
    let objects = render_with(&cluster, &values).await?;
    let container = container(&objects)?;
    let variables = variables(container)?;
    for (name, wanted) in [
        ("KEDA_HTTP_REQUEST_TIMEOUT", "2s"),
        ("KEDA_HTTP_PROXY_PORT", "9000"),
        ("HTTPS_PROXY", "two"),
        ("POD_NAME", "three"),
    ] {
        let found = variables.get(name).copied();
        ensure!(found == Some(wanted), "{name} is {found:?}");
    }
    let flags = flags(container)?;
    for (name, wanted) in [
        ("--zap-log-level", "debug"),
        ("--hosts-across-namespaces", "true"),
        ("--max-pending-requests", "1000000"),
        ("--zap-encoder", "console"),
    ] {
        let found = flags.get(name).copied();
        ensure!(found == Some(wanted), "{name} is {found:?}");
    }
    let mounts = list(container, "volumeMounts");
    ensure!(
        mounts.iter().all(|mount| mount["name"] != "certificate"),
        "two volumes at one place: {mounts:?}"
    );
    Ok(())
}

#[tokio::test]
async fn how_many_there_are_may_be_left_to_an_hpa() -> Result<()> {
    let cluster = Cluster::connect().await?;
    for (min, replicas) in [("2", json!(2)), ("0", json!(0)), ("null", Value::Null)] {
        let objects = render(&cluster, &["--set", &format!("interceptor.replicas.min={min}")]).await?;
        let spec = &find(&objects, "Deployment", NAME)?["spec"];
        ensure!(spec["replicas"] == replicas, "{min}: {}", spec["replicas"]);
        let has_field = spec.as_object().is_some_and(|spec| spec.contains_key("replicas"));
        ensure!(has_field != replicas.is_null(), "{min}: a null would be 1");
    }
    Ok(())
}

#[tokio::test]
async fn disruptions_leave_one_and_the_token_is_good_for_reports_only() -> Result<()> {
    let cluster = Cluster::connect().await?;
    for (chosen, budget) in [
        ("", json!({"maxUnavailable": 1})),
        ("interceptor.pdb.minAvailable = 2", json!({"minAvailable": 2})),
        (
            "interceptor.pdb.maxUnavailable = \"25%\"",
            json!({"maxUnavailable": "25%"}),
        ),
    ] {
        let objects = render_with(&cluster, &nested(chosen)?).await?;
        let mut spec = find(&objects, "PodDisruptionBudget", NAME)?["spec"].clone();
        let selector = spec["selector"]["matchLabels"].take();
        spec.as_object_mut().and_then(|spec| spec.remove("selector"));
        ensure!(spec == budget, "{chosen:?}: {spec}");
        let pods = &find(&objects, "Deployment", NAME)?["spec"]["template"]["metadata"]["labels"];
        let chosen = selector.as_object().context("it has a selector")?;
        ensure!(
            !chosen.is_empty() && chosen.iter().all(|(name, value)| pods[name] == *value),
            "{chosen:?} does not select {pods}"
        );
    }
    let objects = render_with(&cluster, &nested("interceptor.pdb.enabled = false")?).await?;
    ensure!(find(&objects, "PodDisruptionBudget", NAME).is_err());
    let pod = &find(&objects, "Deployment", NAME)?["spec"]["template"]["spec"];
    let token = list(pod, "volumes")
        .iter()
        .find_map(|volume| volume.pointer("/projected/sources/0/serviceAccountToken"));
    let audience = token.map(|token| &token["audience"]);
    ensure!(audience == Some(&json!("dormouse-operator")), "{token:?}");
    Ok(())
}

fn container(objects: &[Value]) -> Result<&Value> {
    let deployment = find(objects, "Deployment", NAME)?;
    let container = deployment.pointer("/spec/template/spec/containers/0");
    container.context("the interceptor has no container")
}

/// The values of its variables by name, empty for those that come from elsewhere. None may be there twice.
fn variables(container: &Value) -> Result<BTreeMap<&str, &str>> {
    let mut found = BTreeMap::new();
    for variable in list(container, "env") {
        let name = variable["name"].as_str().context("a variable has a name")?;
        let value = variable["value"].as_str().unwrap_or_default();
        ensure!(found.insert(name, value).is_none(), "{name} is there twice");
    }
    Ok(found)
}

/// The values of its flags by name. None may be there twice.
fn flags(container: &Value) -> Result<BTreeMap<&str, &str>> {
    let mut found = BTreeMap::new();
    for argument in list(container, "args").iter().skip(1) {
        let parts = argument.as_str().and_then(|flag| flag.split_once('='));
        let (name, value) = parts.with_context(|| format!("{argument} is not --name=value"))?;
        ensure!(found.insert(name, value).is_none(), "{name} is given twice");
    }
    Ok(found)
}

fn list<'a>(of: &'a Value, field: &str) -> &'a [Value] {
    of[field].as_array().map(Vec::as_slice).unwrap_or_default()
}
