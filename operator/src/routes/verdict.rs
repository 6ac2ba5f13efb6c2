//! What the Ready condition of each route says: a pure function of all of them and of what they refer to.

use std::collections::HashMap;
use std::sync::Arc;

use dormouse_api::{ConditionStatus, InterceptorRoute};
use dormouse_core::routes::settings::{Port, ResponseBody, ServicePort};
use dormouse_core::routes::{BuildOptions, Candidate, Conflict, RouteKey, RouteSettings, RouteTable};
use dormouse_kubernetes::ObjectKey;
use dormouse_translate::route;

use super::slim::{Page, Service};

/// The label that a ConfigMap needs before routes may answer with it.
pub(super) const PAGES: &str = "http.keda.sh/response-body=true";
/// Everything is in order. The add-on's reason.
const IN_FORCE: &str = "Reconciled";
/// A message of a condition has fewer bytes.
const LONGEST_MESSAGE: usize = 32_000;

/// What routes refer to.
pub(super) trait References {
    /// A Service.
    fn service(&self, key: &ObjectKey) -> Option<Arc<Service>>;
    /// A ConfigMap with the label of [`PAGES`].
    fn page(&self, key: &ObjectKey) -> Option<Arc<Page>>;
    /// Whether a ScaledObject scales on the route.
    fn is_used(&self, route: &ObjectKey) -> bool;
    /// The ScaledObject that scales on the route, and why it cannot.
    fn in_trouble(&self, route: &ObjectKey) -> Option<(ObjectKey, Arc<str>)>;
}

/// The Ready condition of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) status: ConditionStatus,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// One thing that is wrong with a route.
struct Problem {
    reason: &'static str,
    message: String,
}

/// Judges all routes; a conflict is between two of them.
pub(super) fn judge(
    objects: &[Arc<InterceptorRoute>],
    references: &impl References,
    options: BuildOptions,
) -> Vec<(Arc<InterceptorRoute>, Verdict)> {
    let mut candidates = Vec::with_capacity(objects.len());
    let mut verdicts = Vec::with_capacity(objects.len());
    let mut judged = Vec::with_capacity(objects.len());
    for object in objects {
        match route(object) {
            Ok(candidate) => {
                judged.push((object, problems(object, &candidate, references)));
                candidates.push(Candidate {
                    value: (),
                    ..without_value(candidate)
                });
            }
            Err(refusal) => {
                let problem = Problem {
                    reason: "InvalidSpec",
                    message: refusal.to_string(),
                };
                verdicts.push((object.clone(), verdict(&[problem], &[])));
            }
        }
    }
    let (_, conflicts) = RouteTable::build(candidates, options);
    let (mut lost, mut won) = (sides(&conflicts, true), sides(&conflicts, false));
    for (object, mut problems) in judged {
        let key = super::route_key(&ObjectKey::of(&**object));
        problems.extend(lost.remove(&key).into_iter().flatten().map(|message| Problem {
            reason: "Conflict",
            message,
        }));
        if !references.is_used(&ObjectKey::of(&**object)) {
            problems.push(Problem {
                reason: "NoScaledObject",
                message: format!(
                    "no ScaledObject of this namespace has an external-push trigger with interceptorRoute {:?}: requests wake nothing",
                    key.name
                ),
            });
        }
        if let Some((user, why)) = references.in_trouble(&ObjectKey::of(&**object)) {
            problems.push(Problem {
                reason: "ScaledObjectNotReady",
                message: format!("ScaledObject {user}, which scales on this route, is not Ready: {why}"),
            });
        }
        let won = won.remove(&key).unwrap_or_default();
        verdicts.push((object.clone(), verdict(&problems, &won)));
    }
    verdicts
}

fn without_value(candidate: Candidate<Arc<RouteSettings>>) -> Candidate<()> {
    Candidate {
        key: candidate.key,
        uid: candidate.uid,
        created: candidate.created,
        rules: candidate.rules,
        value: (),
    }
}

/// What there is to say to the losers of conflicts, or to the winners.
fn sides(conflicts: &[Conflict], losers: bool) -> HashMap<RouteKey, Vec<String>> {
    let mut told: HashMap<RouteKey, Vec<String>> = HashMap::new();
    for conflict in conflicts {
        let (key, message) = match losers {
            true => (&conflict.loser, conflict.told_to_loser()),
            false => (&conflict.winner, conflict.told_to_winner()),
        };
        told.entry(key.clone()).or_default().push(message);
    }
    told
}

fn problems(
    object: &InterceptorRoute,
    candidate: &Candidate<Arc<RouteSettings>>,
    references: &impl References,
) -> Vec<Problem> {
    let settings = &candidate.value;
    let mut problems = Vec::new();
    if object.spec.rules.is_empty() {
        problems.push(Problem {
            reason: "NoRules",
            message: "spec.rules is empty: the route gets no requests".to_owned(),
        });
    }
    problems.extend(service_problem("spec.target", &settings.target, references));
    if let Some(fallback) = &settings.cold_start.fallback {
        problems.extend(service_problem(
            "spec.coldStart.fallback.service",
            fallback,
            references,
        ));
    }
    let placeholder = settings.cold_start.placeholder.as_deref();
    let placeholder = placeholder.map(|response| ("spec.coldStart.placeholder".to_owned(), response));
    let fixed = settings.static_routes.iter().enumerate();
    let fixed = fixed.map(|(index, fixed)| (format!("spec.staticRoutes[{index}]"), &fixed.response));
    for (at, response) in placeholder.into_iter().chain(fixed) {
        if let ResponseBody::ConfigMap(body) = &response.body {
            let key = ObjectKey::new(settings.key.namespace.clone(), body.name.clone());
            problems.extend(page_problem(&at, &key, body.key.as_deref(), references));
        }
    }
    problems
}

fn service_problem(at: &str, wanted: &ServicePort, references: &impl References) -> Option<Problem> {
    let (namespace, name) = (&wanted.namespace, &wanted.service);
    let Some(service) = references.service(&ObjectKey::new(namespace.clone(), name.clone())) else {
        return Some(Problem {
            reason: "ServiceNotFound",
            message: format!("{at}: there is no Service {namespace}/{name}"),
        });
    };
    if service.spec.type_ == "ExternalName" {
        return Some(Problem {
            reason: "ExternalNameService",
            message: format!(
                "{at}: Service {namespace}/{name} is an ExternalName, which has no pods to wait for; Services with endpoints are accepted"
            ),
        });
    }
    let is_tcp = |port: &&super::slim::ServicePort| matches!(&*port.protocol, "" | "TCP");
    let mut ports = service.spec.ports.iter().filter(is_tcp);
    let is_there = match &wanted.port {
        Port::Number(number) => ports.any(|port| port.port == number.get()),
        Port::Name(name) => ports.any(|port| *port.name == **name),
    };
    (!is_there).then(|| Problem {
        reason: "PortNotFound",
        message: match &wanted.port {
            Port::Number(number) => format!("{at}: Service {namespace}/{name} has no TCP port {number}"),
            Port::Name(port) => format!("{at}: Service {namespace}/{name} has no TCP port named {port:?}"),
        },
    })
}

fn page_problem(
    at: &str,
    key: &ObjectKey,
    wanted: Option<&str>,
    references: &impl References,
) -> Option<Problem> {
    let Some(page) = references.page(key) else {
        return Some(Problem {
            reason: "ConfigMapNotFound",
            message: format!("{at}: there is no ConfigMap {key} with the label {PAGES:?}"),
        });
    };
    let missing = wanted.filter(|wanted| !page.has(wanted))?;
    Some(Problem {
        reason: "ConfigMapKeyNotFound",
        message: format!("{at}: ConfigMap {key} has no key {missing:?}"),
    })
}

/// The first problem gives the reason, all of them the message. What a route has won is no problem of its own.
fn verdict(problems: &[Problem], won: &[String]) -> Verdict {
    let said = problems.iter().map(|problem| &*problem.message);
    let mut said: Vec<&str> = said.chain(won.iter().map(String::as_str)).collect();
    if problems.is_empty() {
        said.insert(0, "InterceptorRoute is in order and gets its requests");
    }
    let mut message = said.join("; ");
    if message.len() > LONGEST_MESSAGE {
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
        message.push_str("...");
    }
    let first = problems.first();
    Verdict {
        status: first.map_or(ConditionStatus::True, |_| ConditionStatus::False),
        reason: first.map_or(IN_FORCE, |problem| problem.reason),
        message,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A Service `web` with port 80 named `http`, a ConfigMap `pages` with one page, and a ScaledObject for every route but
    /// `lonely`, which works for every one but `stuck`.
    struct Shop;

    impl References for Shop {
        fn service(&self, key: &ObjectKey) -> Option<Arc<Service>> {
            let spec = match &*key.name {
                "web" => json!({"type": "ClusterIP", "ports": [
                    {"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"},
                ]}),
                "outside" => json!({"type": "ExternalName", "externalName": "example.org"}),
                _ => return None,
            };
            Some(serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap())
        }

        fn page(&self, key: &ObjectKey) -> Option<Arc<Page>> {
            let pages = json!({"data": {"sorry.html": "Sorry"}, "binaryData": {"logo.png": "AA=="}});
            (&*key.name == "pages").then(|| serde_json::from_value(pages).unwrap())
        }

        fn is_used(&self, route: &ObjectKey) -> bool {
            &*route.name != "lonely"
        }

        fn in_trouble(&self, route: &ObjectKey) -> Option<(ObjectKey, Arc<str>)> {
            (&*route.name == "stuck").then(|| (route.clone(), "its target is gone".into()))
        }
    }

    fn object(name: &str, created: &str, change: impl FnOnce(&mut Value)) -> Arc<InterceptorRoute> {
        let mut object = json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": created},
            "spec": {
                "target": {"service": "web", "port": 80}, "rules": [{"hosts": [format!("{name}.example.org")]}],
                "scalingMetric": {"concurrency": {"targetValue": 10}},
            },
        });
        change(&mut object["spec"]);
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn judged(objects: &[Arc<InterceptorRoute>]) -> HashMap<String, Verdict> {
        let verdicts = judge(objects, &Shop, BuildOptions::default());
        let named = verdicts
            .into_iter()
            .map(|(object, verdict)| (object.metadata.name.clone().unwrap(), verdict));
        named.collect()
    }

    fn one(name: &str, change: impl FnOnce(&mut Value)) -> Verdict {
        let object = object(name, "2026-11-21T00:00:00Z", change);
        judged(&[object]).remove(name).unwrap()
    }

    #[test]
    fn a_route_in_order_is_ready() {
        let verdict = one("web", |spec| {
            spec["target"] = json!({"service": "web", "portName": "http"});
            let body = json!({"bodyFromConfigMap": {"name": "pages", "key": "logo.png"}});
            let by_path = json!({"bodyFromConfigMap": {"name": "pages"}});
            spec["coldStart"] = json!({"placeholder": {"response": body}});
            spec["staticRoutes"] = json!([{"rules": [{"paths": [{"value": "/x"}]}], "response": by_path}]);
        });
        assert_eq!(
            (verdict.status, verdict.reason),
            (ConditionStatus::True, "Reconciled"),
            "{}",
            verdict.message
        );
    }

    #[test]
    fn whatever_is_wrong_is_told() {
        type Change = fn(&mut Value);
        let cases: [(&str, &str, Change); 10] = [
            ("InvalidSpec", "spec.target.port", |spec| {
                spec["target"]["port"] = json!(0)
            }),
            ("NoRules", "spec.rules is empty", |spec| spec["rules"] = json!([])),
            ("ServiceNotFound", "no Service shop/gone", |spec| {
                spec["target"]["service"] = json!("gone");
            }),
            ("ExternalNameService", "shop/outside is an ExternalName", |spec| {
                spec["target"]["service"] = json!("outside");
            }),
            ("PortNotFound", "no TCP port 81", |spec| {
                spec["target"]["port"] = json!(81);
            }),
            ("PortNotFound", "no TCP port 53", |spec| {
                spec["target"]["port"] = json!(53);
            }),
            ("PortNotFound", "no TCP port named \"grpc\"", |spec| {
                spec["target"] = json!({"service": "web", "portName": "grpc"});
            }),
            (
                "ServiceNotFound",
                "spec.coldStart.fallback.service: there is no",
                |spec| {
                    spec["coldStart"] = json!({"fallback": {"service": {"name": "gone", "port": 80}}});
                },
            ),
            ("ConfigMapNotFound", "no ConfigMap shop/gone", |spec| {
                let body = json!({"bodyFromConfigMap": {"name": "gone"}});
                spec["coldStart"] = json!({"placeholder": {"response": body}});
            }),
            ("ConfigMapKeyNotFound", "no key \"gone.html\"", |spec| {
                let body = json!({"bodyFromConfigMap": {"name": "pages", "key": "gone.html"}});
                spec["staticRoutes"] = json!([{"rules": [{}], "response": body}]);
            }),
        ];
        for (reason, part, change) in cases {
            let verdict = one("web", change);
            assert_eq!(
                (verdict.status, verdict.reason),
                (ConditionStatus::False, reason),
                "{}",
                verdict.message
            );
            assert!(verdict.message.contains(part), "{}", verdict.message);
        }
    }

    #[test]
    fn a_route_that_nobody_scales_on_or_can_says_so_beside_the_rest() {
        let verdict = one("lonely", |_| {});
        assert_eq!(verdict.reason, "NoScaledObject");
        let stuck = one("stuck", |_| {});
        assert_eq!(
            (stuck.status, stuck.reason),
            (ConditionStatus::False, "ScaledObjectNotReady")
        );
        assert!(stuck.message.ends_with("its target is gone"), "{}", stuck.message);
        let verdict = one("lonely", |spec| spec["target"]["port"] = json!(81));
        assert_eq!(verdict.reason, "PortNotFound");
        assert!(
            verdict.message.contains("interceptorRoute \"lonely\""),
            "{}",
            verdict.message
        );
    }

    #[test]
    fn both_sides_of_a_conflict_are_told_and_the_older_stays_ready() {
        let same = |spec: &mut Value| spec["rules"] = json!([{"hosts": ["shop.example.org"]}]);
        let verdicts = judged(&[
            object("younger", "2026-11-21T00:00:01Z", same),
            object("older", "2026-11-21T00:00:00Z", same),
            object("other", "2026-11-21T00:00:00Z", |_| {}),
        ]);
        let (older, younger) = (&verdicts["older"], &verdicts["younger"]);
        assert_eq!(
            (older.status, older.reason),
            (ConditionStatus::True, "Reconciled")
        );
        assert!(older.message.contains("shop/younger"), "{}", older.message);
        assert_eq!(
            (younger.status, younger.reason),
            (ConditionStatus::False, "Conflict")
        );
        assert!(younger.message.contains("shop/older"), "{}", younger.message);
        assert!(!verdicts["other"].message.contains("host"));
    }
}
