//! What the cluster looks like after a test failed, in at most a few screens.

use serde_json::Value;

use crate::cluster::Cluster;
use crate::process::{SHORT, output};
use crate::progress::say;
use crate::setup::Parts;

const LINES: usize = 60;
const PODS: usize = 6;
const LOG_LINES: &str = "--tail=80";

/// Prints the cluster's objects, its latest events and the logs of Dormouse's pods.
pub(crate) fn show(cluster: &Cluster, parts: &Parts) {
    let ask = |arguments: &[&str]| {
        let answer = output(cluster.kubectl(parts).args(arguments), SHORT);
        answer.unwrap_or_else(|error| format!("{error:#}"))
    };
    for arguments in [
        &["get", "pods,hpa,apiservices", "--all-namespaces", "--no-headers"][..],
        &["get", "scaledobjects", "--all-namespaces", "--no-headers"],
        &[
            "get",
            "events",
            "--all-namespaces",
            "--sort-by=.metadata.creationTimestamp",
            "--no-headers",
        ],
    ] {
        let answer = ask(arguments);
        // Kubernetes' own API services are always there and never the reason.
        let lines: Vec<_> = answer.lines().filter(|line| !line.contains(" Local ")).collect();
        section(&format!("kubectl {}", arguments.join(" ")), &lines);
    }
    let pods = serde_json::from_str(&ask(&["get", "pods", "--all-namespaces", "-o", "json"]));
    for (namespace, pod) in of_dormouse(&pods.unwrap_or_default()).into_iter().take(PODS) {
        for previous in ["--previous=true", "--previous=false"] {
            let log = output(
                cluster
                    .kubectl(parts)
                    .args(["logs", "-n", &namespace, &pod, LOG_LINES, previous]),
                SHORT,
            );
            let log = log.unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            section(&format!("log of {namespace}/{pod} ({previous})"), &lines);
        }
    }
}

fn section(title: &str, lines: &[&str]) {
    if lines.is_empty() {
        return;
    }
    say(format_args!("--- {title}"));
    lines[lines.len().saturating_sub(LINES)..].iter().for_each(say);
}

/// Namespace and name of the pods that run Dormouse's image.
fn of_dormouse(pods: &Value) -> Vec<(String, String)> {
    let runs_dormouse = |pod: &&Value| {
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        containers
            .filter_map(|container| container["image"].as_str())
            .any(|image| image.contains("/dormouse:"))
    };
    let name = |pod: &Value| {
        let of = |field: &str| pod["metadata"][field].as_str().map(str::to_owned);
        Some((of("namespace")?, of("name")?))
    };
    pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(runs_dormouse)
        .filter_map(name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pods_with_the_image_are_asked_for_logs() {
        let pod = |name: &str, image: &str| {
            serde_json::json!({
                "metadata": {"namespace": "n", "name": name}, "spec": {"containers": [{"image": image}]},
            })
        };
        let pods = serde_json::json!({"items": [
            pod("a", "localhost/dormouse:dev"), pod("b", "localhost/sqs-worker:dev"),
        ]});
        assert_eq!(of_dormouse(&pods), [("n".to_owned(), "a".to_owned())]);
    }
}
