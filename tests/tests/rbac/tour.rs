//! Everything that users do and that needs a right, over and over.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context as _, Result};
use dormouse_tests::stage::{gated, podless, scaled_object};
use dormouse_tests::{Cluster, Namespace, Upstream, Visitor, manifest};
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::permission::Right;

/// What is done with the objects of one round, one after the other.
const STEP: Duration = Duration::from_millis(1500);

pub(crate) struct Tour<'a> {
    pub(crate) cluster: &'a Cluster,
    /// Namespace of the operator.
    pub(crate) home: &'a str,
    pub(crate) watched: &'a Namespace,
    pub(crate) lane: usize,
    /// Of the objects; unique in the lane.
    pub(crate) name: String,
    pub(crate) upstream: &'a Upstream,
}

impl Tour<'_> {
    /// Creates, changes, pauses and deletes until it is dropped.
    pub(crate) async fn go_round(&self) -> Result<Infallible> {
        for round in 0.. {
            let name = format!("{}-{round}", self.name);
            self.prepare(&name).await?;
            let kinds = ["Deployment", "StatefulSet", "ReplicaSet"];
            for kind in kinds {
                self.apply(self.scaled(&name, kind, 5)).await?;
            }
            self.apply(measured(&name)).await?;
            let _held = self.hold(&name).await?;
            sleep(STEP).await;
            self.apply(self.scaled(&name, "Deployment", 6)).await?;
            self.touch(&name).await?;
            sleep(STEP).await;
            let mut paused = self.scaled(&name, "Deployment", 6);
            paused["metadata"]["annotations"] = json!({"autoscaling.keda.sh/paused": "true"});
            self.apply(paused).await?;
            sleep(STEP).await;
            for kind in kinds {
                self.delete("scaledobject", &object_name(&name, kind)).await?;
            }
            self.delete("triggerauthentication", &name).await?;
            self.delete("interceptorroute", &name).await?;
            sleep(STEP).await;
        }
        unreachable!("a loop without an end")
    }

    /// Deletes what the operator would otherwise find from before and not make again.
    pub(crate) async fn forget_what_was_kept(&self, right: &Right) -> Result<()> {
        let in_home = |kind: &'static str, name: &'static str| async move {
            let arguments = [
                "delete",
                kind,
                name,
                "--namespace",
                self.home,
                "--ignore-not-found",
            ];
            self.cluster.kubectl(&arguments).await.map(drop)
        };
        match (right.resource.as_str(), right.verb.as_str()) {
            ("leases", "create") => in_home("lease", "operator.keda.sh").await,
            ("configmaps", "create") => in_home("configmap", "kedaorg-ca").await,
            ("configmaps", "patch") => {
                let nothing = r#"{"data":{"ca.crt":""}}"#;
                let arguments = [
                    "patch",
                    "configmap",
                    "kedaorg-ca",
                    "--namespace",
                    self.home,
                    "--type=merge",
                    "-p",
                    nothing,
                ];
                self.cluster.kubectl(&arguments).await.map(drop)
            }
            ("secrets", "create") => in_home("secret", "kedaorg-certs").await,
            ("secrets", "patch") => {
                let nothing = r#"{"data":{"tls.crt":"","tls.key":"","ca.crt":"","ca.key":""}}"#;
                let arguments = [
                    "patch",
                    "secret",
                    "kedaorg-certs",
                    "--namespace",
                    self.home,
                    "--type=merge",
                    "-p",
                    nothing,
                ];
                self.cluster.kubectl(&arguments).await.map(drop)
            }
            ("apiservices", "patch") => {
                let nothing = r#"{"spec":{"caBundle":null}}"#;
                let arguments = [
                    "patch",
                    "apiservice",
                    "v1beta1.external.metrics.k8s.io",
                    "--type=merge",
                    "-p",
                    nothing,
                ];
                self.cluster.kubectl(&arguments).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    pub(crate) async fn clean_up(&self) -> Result<()> {
        let all = ["scaledobject", "triggerauthentication"];
        for kind in all {
            let arguments = [
                "delete",
                kind,
                "--all",
                "--namespace",
                self.watched.name(),
                "--wait=false",
            ];
            self.cluster.kubectl(&arguments).await?;
        }
        let lane = format!("lane={}", self.lane);
        let arguments = [
            "delete",
            "clustertriggerauthentication",
            "--selector",
            &lane,
            "--wait=false",
        ];
        self.cluster.kubectl(&arguments).await.map(drop)
    }

    /// A request that waits for a pod, for as long as the answer lives.
    async fn hold(&self, name: &str) -> Result<AbortOnDropHandle<()>> {
        let service = format!("{name}-web");
        for object in [
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": service},
                // What has a selector has pods to come, which are followed while requests wait for them.
                "spec": {"clusterIP": "None", "ports": [{"port": 80}], "selector": {"app": service}},
            }),
            // Nobody listens there, and the operator has to look what would be a proof that somebody does.
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
                "endpoints": [{
                    "addresses": ["10.244.0.254"], "conditions": {"ready": false},
                    "targetRef": {"kind": "Pod", "namespace": self.watched.name(), "name": service, "uid": service},
                }],
                "ports": [{"port": 80}],
            }),
            json!({
                "apiVersion": "http.keda.sh/v1beta1", "kind": "InterceptorRoute", "metadata": {"name": name},
                "spec": {
                    "target": {"service": service, "port": 80}, "rules": [{"hosts": [name]}],
                    "scalingMetric": {"concurrency": {"targetValue": 10}},
                },
            }),
        ] {
            self.apply(object).await?;
        }
        let arguments = [
            "--namespace",
            self.home,
            "get",
            "service",
            "keda-add-ons-http-interceptor-proxy",
            "--output=jsonpath={.spec.clusterIP}:{.spec.ports[0].port}",
        ];
        let address = self.cluster.kubectl(&arguments).await?;
        let address = address
            .parse()
            .with_context(|| format!("{address:?} is no address"))?;
        let visitor = Visitor::at(address, name);
        Ok(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                // An interceptor that lacks a right is not ready: there is nobody to ask then.
                drop(visitor.ask("/").await);
                sleep(Duration::from_millis(200)).await;
            }
        })))
    }

    async fn apply(&self, object: Value) -> Result<()> {
        manifest::apply_value(self.cluster, self.watched.name(), object).await
    }

    async fn delete(&self, kind: &str, name: &str) -> Result<()> {
        let arguments = ["delete", kind, name, "--wait=false", "--ignore-not-found"];
        self.watched
            .kubectl(&arguments)
            .await
            .with_context(|| format!("deleting {kind} {name}"))
            .map(drop)
    }

    /// What the ScaledObjects of a round refer to.
    async fn prepare(&self, name: &str) -> Result<()> {
        let shared = self.shared(name);
        for namespace in [self.watched.name(), self.home] {
            for object in [
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"token": "t"}}),
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"user": "u"}}),
            ] {
                manifest::apply_value(self.cluster, namespace, object).await?;
            }
        }
        let references = json!({
            "secretTargetRef": [{"parameter": "token", "name": name, "key": "token"}],
            "configMapTargetRef": [{"parameter": "user", "name": name, "key": "user"}],
        });
        let lane = json!({"lane": self.lane.to_string()});
        let authentication = |kind: &str, name: &str, spec: Value| {
            json!({
                "apiVersion": "keda.sh/v1alpha1", "kind": kind, "metadata": {"name": name, "labels": lane}, "spec": spec,
            })
        };
        let role = json!({"podIdentity": {"provider": "aws", "identityOwner": "workload"}});
        let address = self.upstream.address();
        for object in [
            json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": name, "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/r"}},
            }),
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                "spec": {"clusterIP": "None", "ports": [{"port": address.port()}]},
            }),
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
                "endpoints": [{"addresses": [address.ip()], "conditions": {"ready": true}}],
                "ports": [{"port": address.port()}],
            }),
            authentication("TriggerAuthentication", name, references.clone()),
            authentication("TriggerAuthentication", &format!("{name}-role"), role),
            authentication("ClusterTriggerAuthentication", &shared, references),
        ] {
            self.apply(object).await?;
        }
        for mut target in [podless(name, 0), gated("StatefulSet", name, 0)] {
            let pod = &mut target["spec"]["template"]["spec"];
            pod["serviceAccountName"] = json!(name);
            pod["containers"][0]["env"] = json!([
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": name, "key": "token"}}},
                {"name": "USER_NAME", "valueFrom": {"configMapKeyRef": {"name": name, "key": "user"}}},
            ]);
            self.apply(target).await?;
        }
        self.apply(podless(&format!("{name}-cpu"), 0)).await?;
        let mut replica_set = gated("ReplicaSet", &format!("{name}-rs"), 0);
        replica_set["spec"]["template"]["spec"]["serviceAccountName"] = json!(name);
        self.apply(replica_set).await
    }

    /// Changes what is referred to.
    async fn touch(&self, name: &str) -> Result<()> {
        self.apply(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"token": "other"},
        }))
        .await
    }

    fn shared(&self, name: &str) -> String {
        format!("rbac-{}-{name}", self.lane)
    }

    fn scaled(&self, name: &str, kind: &str, max: u32) -> Value {
        let target = if kind == "ReplicaSet" {
            format!("{name}-rs")
        } else {
            name.to_owned()
        };
        let port = self.upstream.address().port();
        let service = format!("http://{name}.{}:{port}/depth", self.watched.name());
        let api = |url: &str, reference: Value| {
            json!({
                "type": "metrics-api", "authenticationRef": reference,
                "metadata": {"url": url, "valueLocation": "value", "targetValue": "5", "authMode": "bearer"},
            })
        };
        let direct = self.upstream.url("/depth");
        let mut triggers = vec![api(&direct, json!({"name": name}))];
        if kind == "Deployment" {
            let mut every_pod = api(
                &service,
                json!({"name": self.shared(name), "kind": "ClusterTriggerAuthentication"}),
            );
            every_pod["metadata"]["aggregateFromKubeServiceEndpoints"] = json!("true");
            triggers.push(every_pod);
            triggers.push(json!({
                "type": "kubernetes-workload", "metadata": {"podSelector": "app=nobody", "value": "1"},
            }));
        }
        if kind != "Deployment" {
            triggers.push(json!({
                "type": "aws-sqs-queue", "authenticationRef": {"name": format!("{name}-role")},
                "metadata": {"queueURL": "https://sqs.us-east-1.amazonaws.com/1/q", "awsRegion": "us-east-1"},
            }));
        }
        let spec = json!({
            "scaleTargetRef": {"name": target, "kind": kind}, "pollingInterval": 1, "cooldownPeriod": 1,
            "maxReplicaCount": max, "triggers": triggers,
        });
        scaled_object(&object_name(name, kind), spec)
    }
}

/// One that the HPA scales on what the kubelet measures.
fn measured(name: &str) -> Value {
    let name = format!("{name}-cpu");
    let trigger = json!({"type": "cpu", "metricType": "Utilization", "metadata": {"value": "50"}});
    scaled_object(
        &name,
        json!({"scaleTargetRef": {"name": name}, "minReplicaCount": 1, "triggers": [trigger]}),
    )
}

fn object_name(name: &str, kind: &str) -> String {
    format!("{name}-{}", kind.to_lowercase())
}
