//! How a pod may be probed from outside, by what its containers say.
//!
//! The kubelet decides wherever an answer from outside does not mean what it means to the kubelet: with a probe that names a
//! host or is a command or gRPC, with a success threshold above 1, a readiness gate, several probed containers, the network
//! of the node, or the sidecar of a mesh, which the kubelet passes by and nobody else can.

use std::fmt;

use dormouse_wire::demand::{self as wire, Header, HttpCheck, NamedPort, PodProbe, TcpCheck, probe};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Pod, PodSpec, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;

use crate::pods::ready_condition;

/// How long after it became ready a pod may still be news: every EndpointSlice has it by then.
const NEWLY: SignedDuration = SignedDuration::from_secs(60);
/// What Kubernetes fills in for a probe without a deadline.
const DEFAULT_TIMEOUT_SECONDS: i32 = 1;
/// Containers that take in what comes for the others.
const SIDECARS: &[&str] = &[
    "istio-proxy",
    "linkerd-proxy",
    "kuma-sidecar",
    "consul-dataplane",
    "envoy-sidecar",
    "osm-envoy-bootstrap",
];
/// Marks that meshes leave on the pods whose traffic they take in.
const MESHES: &[&str] = &[
    "sidecar.istio.io/status",
    "linkerd.io/proxy-version",
    "kuma.io/sidecar-injected",
    "consul.hashicorp.com/connect-inject-status",
    "ambient.istio.io/redirection",
];

/// What interceptors are told of a pod, and whether that is all there will be.
#[derive(Clone, Deserialize)]
#[serde(from = "Pod")]
pub struct Told {
    pub(super) probe: PodProbe,
    /// The container was started, or when it is makes no difference.
    pub(super) complete: bool,
    stage: Stage,
}

/// How far a pod has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The kubelet has not found it ready, and may still do so.
    Starting,
    /// It is ready, since this moment where that is known.
    Ready(Option<Timestamp>),
    /// It has ended, or is about to.
    Over,
}

impl Told {
    /// Of a pod that is gone.
    pub(super) fn gone(&self) -> Self {
        over(self.probe.pod.clone().unwrap_or_default())
    }

    /// Whether requests may be sent to this pod, or a probe could soon find out that they may.
    pub(super) fn may_be_used(&self) -> bool {
        let may_be = match self.stage {
            Stage::Starting => self.probe.readiness.is_some(),
            Stage::Ready(_) => true,
            Stage::Over => false,
        };
        may_be && self.complete && !self.probe.addresses.is_empty()
    }

    /// Whether an EndpointSlice may not have it yet.
    pub(super) fn is_news(&self) -> bool {
        match self.stage {
            Stage::Ready(since) => since.is_some_and(|since| Timestamp::now().duration_since(since) < NEWLY),
            Stage::Starting | Stage::Over => true,
        }
    }
}

/// Without headers, which may be secret.
impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told")
            .field("pod", &self.probe.pod)
            .field("complete", &self.complete)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl From<Pod> for Told {
    fn from(pod: Pod) -> Self {
        let name = wire::Pod {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
        };
        of(name, &pod)
    }
}

/// How `pod` may be probed; without a readiness probe where the kubelet decides.
pub(super) fn of(name: wire::Pod, pod: &Pod) -> Told {
    let stage = stage(pod);
    if stage == Stage::Over {
        return over(name);
    }
    let addresses = addresses(pod);
    let probe = PodProbe {
        pod: Some(name),
        named_ports: pod.spec.as_ref().map(named_ports).unwrap_or_default(),
        ready: matches!(stage, Stage::Ready(_)),
        addresses,
        ..PodProbe::default()
    };
    let Some((container, startup, readiness)) = from_outside(pod) else {
        return Told {
            probe,
            complete: true,
            stage,
        };
    };
    let started = started_millis(pod, &container.name);
    let delayed = [startup.as_ref(), Some(&readiness)]
        .into_iter()
        .flatten()
        .any(|probe| probe.initial_delay_millis > 0);
    Told {
        complete: (started > 0 || !delayed) && !probe.addresses.is_empty(),
        stage,
        probe: PodProbe {
            startup,
            readiness: Some(readiness),
            container_started_millis: started,
            ..probe
        },
    }
}

/// What is to be told of a pod that is of no use any more.
pub(super) fn over(name: wire::Pod) -> Told {
    Told {
        probe: PodProbe {
            pod: Some(name),
            ..PodProbe::default()
        },
        complete: true,
        stage: Stage::Over,
    }
}

fn stage(pod: &Pod) -> Stage {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed")) {
        return Stage::Over;
    }
    match ready_condition(pod) {
        Some(ready) => Stage::Ready(ready.last_transition_time.as_ref().map(|since| since.0)),
        None => Stage::Starting,
    }
}

/// Where a Service comes out that leads to a name: at a container's port, or at that of a sidecar that goes on beside them.
fn named_ports(spec: &PodSpec) -> Vec<NamedPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| &container.ports);
    let named = ports.flatten().filter_map(|port| {
        let is_tcp = matches!(port.protocol.as_deref(), None | Some("" | "TCP"));
        Some(NamedPort {
            name: port.name.clone().filter(|name| is_tcp && !name.is_empty())?,
            port: port.container_port.try_into().ok()?,
        })
    });
    named.collect()
}

/// The addresses that the kubelet says the pod has.
fn addresses(pod: &Pod) -> Vec<String> {
    let status = pod.status.as_ref();
    let all = status
        .and_then(|status| status.pod_ips.as_deref())
        .unwrap_or_default();
    let first = status.and_then(|status| status.pod_ip.clone());
    let mut addresses: Vec<String> = all.iter().map(|own| own.ip.clone()).collect();
    addresses.extend(first.filter(|first| !addresses.contains(first)));
    addresses
}

/// The one probed container, its startup probe if it has one, and its readiness probe; `None` where the kubelet decides.
fn from_outside(pod: &Pod) -> Option<(&Container, Option<wire::Probe>, wire::Probe)> {
    let spec = pod.spec.as_ref()?;
    let annotations = pod.metadata.annotations.as_ref();
    let in_mesh = annotations.is_some_and(|own| MESHES.iter().any(|mark| own.contains_key(*mark)));
    let gated = spec
        .readiness_gates
        .as_ref()
        .is_some_and(|gates| !gates.is_empty());
    if in_mesh || gated || spec.host_network == Some(true) {
        return None;
    }
    // Those that are done before the others begin are never probed; sidecars among them are.
    let containers = || spec.init_containers.iter().flatten().chain(&spec.containers);
    if containers().any(|container| SIDECARS.contains(&&*container.name)) {
        return None;
    }
    let is_probed =
        |container: &&Container| container.readiness_probe.is_some() || container.startup_probe.is_some();
    let mut probed = containers().filter(is_probed);
    let (container, None) = (probed.next()?, probed.next()) else {
        return None;
    };
    let readiness = translate(container.readiness_probe.as_ref()?, container)?;
    let startup = match &container.startup_probe {
        Some(startup) => Some(translate(startup, container)?),
        None => None,
    };
    Some((container, startup, readiness))
}

fn translate(spec: &Probe, container: &Container) -> Option<wire::Probe> {
    if spec.success_threshold.unwrap_or(1) > 1 || spec.exec.is_some() || spec.grpc.is_some() {
        return None;
    }
    let check = match (&spec.http_get, &spec.tcp_socket) {
        (Some(get), None) => probe::Check::Http(request(get, container)?),
        (None, Some(socket)) if is_none_or_empty(socket.host.as_ref()) => probe::Check::Tcp(TcpCheck {
            port: port(&socket.port, container)?,
        }),
        _ => return None,
    };
    let timeout = spec.timeout_seconds.filter(|seconds| *seconds > 0);
    Some(wire::Probe {
        check: Some(check),
        initial_delay_millis: millis(spec.initial_delay_seconds.unwrap_or(0)),
        timeout_millis: millis(timeout.unwrap_or(DEFAULT_TIMEOUT_SECONDS)),
    })
}

fn request(get: &HTTPGetAction, container: &Container) -> Option<HttpCheck> {
    let tls = match get.scheme.as_deref() {
        None | Some("" | "HTTP") => false,
        Some("HTTPS") => true,
        Some(_) => return None,
    };
    if !is_none_or_empty(get.host.as_ref()) {
        return None;
    }
    let headers = get.http_headers.iter().flatten().map(|header| Header {
        name: header.name.clone(),
        value: header.value.clone(),
    });
    Some(HttpCheck {
        port: port(&get.port, container)?,
        path: get
            .path
            .clone()
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| "/".into()),
        tls,
        headers: headers.collect(),
    })
}

fn port(port: &IntOrString, container: &Container) -> Option<u32> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_ref() == Some(name));
            // As the kubelet has it: a name that no port has may still be a number.
            named
                .map(|port| port.container_port)
                .or_else(|| name.parse().ok())?
        }
    };
    u32::try_from(number)
        .ok()
        .filter(|number| (1..=65_535).contains(number))
}

/// When the container was started, at the latest: the API tells whole seconds. 0 where it does not run.
fn started_millis(pod: &Pod, container: &str) -> i64 {
    let status = pod.status.as_ref();
    let lists = status.map(|status| [&status.container_statuses, &status.init_container_statuses]);
    let mut statuses = lists.into_iter().flatten().flatten().flatten();
    let running = statuses
        .find(|status| status.name == container)
        .and_then(|status| status.state.as_ref()?.running.as_ref()?.started_at.as_ref());
    running.map_or(0, |started| started.0.as_millisecond() + 999)
}

fn is_none_or_empty(text: Option<&String>) -> bool {
    text.is_none_or(String::is_empty)
}

fn millis(seconds: i32) -> u32 {
    u32::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(readiness: &Value) -> Value {
        json!({
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "u1"},
            "spec": {"containers": [
                {"name": "helper"},
                {"name": "app", "ports": [{"name": "http", "containerPort": 8080}], "readinessProbe": readiness},
            ]},
            "status": {"podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}], "containerStatuses": [
                {"name": "helper", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                 "state": {"running": {"startedAt": "2026-11-21T00:00:00Z"}}},
                {"name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                 "state": {"running": {"startedAt": "2026-11-21T00:00:10Z"}}},
            ]},
        })
    }

    fn told(pod: Value) -> Told {
        of(wire::Pod::default(), &serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_pod_without_an_address_is_asked_about_again() {
        let mut pod = pod(&json!({"tcpSocket": {"port": 8080}}));
        pod["status"]["podIPs"] = Value::Null;
        let with_one = told(pod.clone());
        assert_eq!(
            (with_one.probe.addresses, with_one.complete),
            (vec!["10.0.0.7".to_owned()], true)
        );
        pod["status"]["podIP"] = Value::Null;
        let without = told(pod);
        assert_eq!((without.probe.addresses, without.complete), (vec![], false));
    }

    #[test]
    fn ahead_are_told_those_that_start_and_may_be_probed_and_those_that_are_ready() {
        let ready = |ago: i64| {
            let since = Timestamp::now() - SignedDuration::from_secs(ago);
            json!([{"type": "Ready", "status": "True", "lastTransitionTime": since.to_string()}])
        };
        let starting = pod(&json!({"tcpSocket": {"port": 8080}}));
        let of_starting = told(starting.clone());
        assert!(of_starting.may_be_used() && of_starting.is_news());
        let left_to_the_kubelet = pod(&json!(null));
        assert!(!told(left_to_the_kubelet.clone()).may_be_used());
        for mut pod in [left_to_the_kubelet, starting.clone()] {
            pod["status"]["conditions"] = ready(1);
            let newly = told(pod.clone());
            assert!(newly.may_be_used() && newly.is_news() && newly.probe.ready);
            pod["status"]["conditions"] = ready(100);
            let long_since = told(pod);
            assert!(long_since.may_be_used() && !long_since.is_news());
        }
        for (key, value) in [("podIPs", Value::Null), ("phase", json!("Failed"))] {
            let mut pod = starting.clone();
            pod["status"]["podIP"] = Value::Null;
            pod["status"]["conditions"] = ready(1);
            pod["status"][key] = value;
            let told = told(pod);
            assert!(!told.may_be_used(), "{key}");
            assert_eq!(told.stage == Stage::Over, key == "phase");
        }
        let told = told(starting);
        assert_eq!(told.stage, Stage::Starting);
        let gone = told.gone();
        assert_eq!((gone.stage, gone.probe.pod), (Stage::Over, told.probe.pod));
        assert!(gone.probe.addresses.is_empty());
    }

    #[test]
    fn a_service_may_lead_to_the_named_ports_of_containers_and_lasting_sidecars() {
        let mut pod = pod(&json!({"tcpSocket": {"port": 8080}}));
        let ports = |name: &str, number: u16| json!([{"name": name, "containerPort": number}]);
        pod["spec"]["containers"][0]["ports"] = json!([
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "metrics", "containerPort": 9090, "protocol": "TCP"},
            {"containerPort": 9091},
        ]);
        pod["spec"]["initContainers"] = json!([
            {"name": "beside", "restartPolicy": "Always", "ports": ports("side", 15000)},
            {"name": "before", "ports": ports("early", 1)},
        ]);
        let named = told(pod).probe.named_ports;
        let named: Vec<_> = named.iter().map(|port| (&*port.name, port.port)).collect();
        assert_eq!(named, [("metrics", 9090), ("http", 8080), ("side", 15000)]);
    }

    #[test]
    fn an_http_probe_is_told_with_its_defaults_and_its_named_port() {
        let headers = json!([{"name": "Host", "value": "web"}]);
        let readiness = json!({
            "httpGet": {"path": "/ready?full", "port": "http", "scheme": "HTTPS", "httpHeaders": headers},
            "initialDelaySeconds": 3,
        });
        let Told { probe, complete, .. } = told(pod(&readiness));
        assert!(complete);
        assert_eq!(probe.addresses, ["10.0.0.7", "fd00::7"]);
        // 2026-11-21T00:00:10Z, and all of that second.
        assert_eq!(probe.container_started_millis, 1_795_219_210_999);
        assert_eq!(probe.startup, None);
        let expected = wire::Probe {
            check: Some(probe::Check::Http(HttpCheck {
                port: 8080,
                path: "/ready?full".to_owned(),
                tls: true,
                headers: vec![Header {
                    name: "Host".to_owned(),
                    value: "web".to_owned(),
                }],
            })),
            initial_delay_millis: 3_000,
            timeout_millis: 1_000,
        };
        assert_eq!(probe.readiness, Some(expected));
    }

    #[test]
    fn a_startup_probe_is_told_too() {
        let mut pod = pod(&json!({"tcpSocket": {"port": 9000}, "timeoutSeconds": 5}));
        pod["spec"]["containers"][1]["startupProbe"] = json!({"httpGet": {"port": 8080}});
        let probe = told(pod).probe;
        let readiness = probe.readiness.unwrap();
        assert_eq!(readiness.check, Some(probe::Check::Tcp(TcpCheck { port: 9000 })));
        assert_eq!(readiness.timeout_millis, 5_000);
        let Some(probe::Check::Http(startup)) = probe.startup.unwrap().check else {
            unreachable!()
        };
        assert_eq!((startup.port, &*startup.path, startup.tls), (8080, "/", false));
    }

    #[test]
    fn a_delay_is_told_again_when_the_container_was_started() {
        let start_later = |readiness: Value| {
            let mut pod = pod(&readiness);
            pod["status"]["containerStatuses"][1]["state"] =
                json!({"waiting": {"reason": "ContainerCreating"}});
            told(pod)
        };
        let delayed = start_later(json!({"tcpSocket": {"port": 80}, "initialDelaySeconds": 1}));
        assert!(!delayed.complete && delayed.probe.container_started_millis == 0);
        assert!(start_later(json!({"tcpSocket": {"port": 80}})).complete);
    }

    #[test]
    fn the_kubelet_decides_where_an_answer_means_something_else() {
        let tcp = json!({"tcpSocket": {"port": 80}});
        assert!(told(pod(&tcp)).probe.readiness.is_some());
        for readiness in [
            json!(null),
            json!({"exec": {"command": ["true"]}}),
            json!({"grpc": {"port": 80}}),
            json!({"tcpSocket": {"port": 80}, "successThreshold": 2}),
            json!({"tcpSocket": {"port": 80, "host": "10.0.0.1"}}),
            json!({"tcpSocket": {"port": "nobody"}}),
            json!({"tcpSocket": {"port": 0}}),
            json!({"httpGet": {"port": 80, "host": "web"}}),
            json!({"httpGet": {"port": 80, "scheme": "SPDY"}}),
        ] {
            let told = told(pod(&readiness));
            assert_eq!(told.probe.readiness, None, "{readiness}");
            assert!(told.complete);
        }
        let mark = json!({"sidecar.istio.io/status": "{}"});
        for (pointer, key, value) in [
            ("/metadata", "annotations", mark),
            ("/metadata", "deletionTimestamp", json!("2026-11-21T00:00:00Z")),
            ("/spec", "readinessGates", json!([{"conditionType": "x"}])),
            ("/spec", "hostNetwork", json!(true)),
            ("/spec", "initContainers", json!([{"name": "linkerd-proxy"}])),
            ("/spec/containers/0", "readinessProbe", tcp.clone()),
            ("/spec/containers/0", "startupProbe", tcp.clone()),
            ("/spec/containers/0", "name", json!("istio-proxy")),
            (
                "/spec/containers/1",
                "startupProbe",
                json!({"exec": {"command": ["true"]}}),
            ),
        ] {
            let mut pod = pod(&tcp);
            pod.pointer_mut(pointer).unwrap()[key] = value;
            assert_eq!(told(pod.clone()).probe.readiness, None, "{pod}");
        }
    }
}
