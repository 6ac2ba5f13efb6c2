use std::sync::Mutex;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::*;
use crate::error::ReadErrorKind;
use crate::metadata::parse;
use crate::testing::{context, params};

/// A namespace with this many pods, that remembers what was asked.
struct Pods {
    count: Result<u32, ReadError>,
    asked: Mutex<Vec<(String, String, CountedBy)>>,
}

impl CountPods for Pods {
    fn count<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a str,
        counted: CountedBy,
    ) -> BoxFuture<'a, Result<u32, ReadError>> {
        self.asked
            .lock()
            .unwrap()
            .push((namespace.to_owned(), selector.to_owned(), counted));
        let count = self.count.clone();
        async move { count }.boxed()
    }
}

fn connected(metadata: &[(&str, &str)], pods: Option<Arc<Pods>>) -> Result<KubernetesWorkload, String> {
    let mut cx = context(params("kubernetes-workload", metadata, &[]));
    cx.pods = pods.map(|pods| pods as Arc<dyn CountPods>);
    parse(&cx.params)
        .and_then(|metadata| KubernetesWorkload::connect(metadata, &cx))
        .map_err(|error| error.to_string())
}

fn namespace_with(count: Result<u32, ReadError>) -> Arc<Pods> {
    Arc::new(Pods {
        count,
        asked: Mutex::default(),
    })
}

#[tokio::test]
async fn pods_or_nodes_of_the_own_namespace() {
    let pods = namespace_with(Ok(3));
    for (group, activation, counted, active) in [
        ("false", "2.5", CountedBy::Pod, true),
        ("true", "3", CountedBy::Node, false),
    ] {
        let metadata = [
            ("podSelector", "app in (a, b)"),
            ("value", "0.5"),
            ("activationValue", activation),
            ("groupByNode", group),
        ];
        let scaler = connected(&metadata, Some(pods.clone())).unwrap();
        assert_eq!(
            Scaler::metric(&scaler),
            MetricSpec {
                base_name: "workload-default".into(),
                target: Target::Decimal(0.5)
            }
        );
        assert_eq!(Scaler::read(&scaler).await, Ok(Observed { value: 3.0, active }));
        let asked = pods.asked.lock().unwrap().pop();
        assert_eq!(asked, Some(("default".into(), "app in (a, b)".into(), counted)));
    }
    let denied = ReadError::new(ReadErrorKind::Denied, "no");
    let metadata = [("podSelector", "app"), ("value", "1")];
    let scaler = connected(&metadata, Some(namespace_with(Err(denied.clone())))).unwrap();
    assert_eq!(Scaler::read(&scaler).await, Err(denied));
}

#[test]
fn what_is_wrong_is_named() {
    for (metadata, expected) in [
        (
            &[("value", "1")][..],
            "missing required parameter \"podSelector\"",
        ),
        (&[("podSelector", "app")], "value must be a float greater than 0"),
        (
            &[("podSelector", "app"), ("value", "-1")],
            "value must be a float greater than 0",
        ),
        (
            &[("podSelector", "app"), ("value", "few")],
            "unable to set param \"value\" value \"few\"",
        ),
        (
            &[("podSelector", "a=b c"), ("value", "1")],
            "error parsing pod selector: \"b c\" is no label value",
        ),
        (
            &[("podSelector", "app"), ("value", "1")],
            "needs a Kubernetes cluster",
        ),
    ] {
        let fault = connected(metadata, None).err().unwrap_or_default();
        assert!(
            fault.starts_with("error parsing kubernetes workload metadata: "),
            "{fault}"
        );
        assert!(fault.contains(expected), "{metadata:?}: {fault}");
    }
}
