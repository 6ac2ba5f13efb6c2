use std::sync::Mutex;

use dormouse_api::{AuthEnvironment, ConfigMapTargetRef, HashiCorpVault, ScaledObjectSpec, SecretTargetRef};
use futures::FutureExt;
use futures::executor::block_on;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, SecretKeySelector};

use super::*;

/// A cluster in memory that remembers what it was asked for.
#[derive(Default)]
struct Cluster {
    authentications: BTreeMap<String, Arc<TriggerAuthenticationSpec>>,
    secrets: BTreeMap<String, BTreeMap<String, String>>,
    config_maps: BTreeMap<String, BTreeMap<String, String>>,
    account_annotations: BTreeMap<String, String>,
    authentication_annotations: BTreeMap<String, String>,
    pod: Option<PodSpec>,
    unreachable: bool,
    asked: Mutex<Vec<String>>,
}

impl Cluster {
    fn answer<T: Send + 'static>(
        &self,
        what: String,
        value: Option<T>,
    ) -> BoxFuture<'static, Result<Option<T>, ObjectsError>> {
        self.asked.lock().unwrap().push(what.clone());
        let answer = if self.unreachable {
            Err(ObjectsError {
                what,
                message: "no answer".into(),
            })
        } else {
            Ok(value)
        };
        async move { answer }.boxed()
    }
}

impl Objects for Cluster {
    fn trigger_authentication<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<TriggerAuthenticationSpec>>, ObjectsError>> {
        let key = format!("{namespace}/{name}");
        self.answer(
            format!("authentication {key}"),
            self.authentications.get(&key).cloned(),
        )
    }

    fn cluster_trigger_authentication<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<TriggerAuthenticationSpec>>, ObjectsError>> {
        self.answer(
            format!("authentication {name}"),
            self.authentications.get(name).cloned(),
        )
    }

    fn cluster_trigger_authentication_annotations<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, String>>, ObjectsError>> {
        let known = self.authentications.contains_key(name);
        self.answer(
            format!("annotations of authentication {name}"),
            known.then(|| self.authentication_annotations.clone()),
        )
    }

    fn secret<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, Sensitive>>, ObjectsError>> {
        let key = format!("{namespace}/{name}");
        let values = self.secrets.get(&key).map(|values| {
            values
                .iter()
                .map(|(key, value)| (key.clone(), Sensitive::new(value)))
                .collect::<BTreeMap<_, _>>()
        });
        self.answer(format!("secret {key}"), values)
    }

    fn config_map<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, String>>, ObjectsError>> {
        let key = format!("{namespace}/{name}");
        self.answer(format!("configmap {key}"), self.config_maps.get(&key).cloned())
    }

    fn service_account_annotations<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, String>>, ObjectsError>> {
        self.answer(
            format!("account {namespace}/{name}"),
            Some(self.account_annotations.clone()),
        )
    }

    fn pod_spec(&self) -> BoxFuture<'_, Result<Option<PodSpec>, ObjectsError>> {
        self.answer("pod".into(), self.pod.clone())
    }
}

fn pairs(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn trigger(metadata: &[(&str, &str)], authentication: Option<(&str, &str)>) -> Trigger {
    Trigger {
        type_: "aws-sqs-queue".into(),
        metadata: pairs(metadata),
        authentication_ref: authentication.map(|(kind, name)| AuthenticationRef {
            name: name.into(),
            kind: Some(kind.into()),
        }),
        ..Default::default()
    }
}

fn resolve_with(
    cluster: &Cluster,
    trigger: &Trigger,
    settings: &ResolverSettings,
) -> Result<Resolved, ResolveError> {
    let mut object = ScaledObject::new("orders", ScaledObjectSpec::default());
    object.metadata.namespace = Some("shop".into());
    block_on(Resolver::new(cluster, &object, settings).resolve(trigger))
}

fn resolve(cluster: &Cluster, trigger: &Trigger) -> Result<Resolved, ResolveError> {
    let settings = ResolverSettings {
        cluster_object_namespace: "keda".into(),
        ..ResolverSettings::default()
    };
    resolve_with(cluster, trigger, &settings)
}

fn secret_ref(parameter: &str, name: &str, key: &str) -> SecretTargetRef {
    SecretTargetRef {
        parameter: parameter.into(),
        name: name.into(),
        key: key.into(),
    }
}

#[test]
fn nothing_is_looked_up_that_no_trigger_names() {
    let cluster = Cluster::default();
    resolve(&cluster, &trigger(&[("queueURL", "q")], None)).unwrap();
    assert!(cluster.asked.lock().unwrap().is_empty());
}

#[test]
fn later_sources_win_and_missing_pieces_are_named_without_values() {
    let spec = TriggerAuthenticationSpec {
        config_map_target_ref: vec![ConfigMapTargetRef {
            parameter: "user".into(),
            name: "names".into(),
            key: "user".into(),
        }],
        secret_target_ref: vec![
            secret_ref("user", "keys", "user"),
            secret_ref("password", "keys", "nope"),
            secret_ref("token", "gone", "token"),
        ],
        ..Default::default()
    };
    let mut cluster = Cluster::default();
    cluster.authentications.insert("shop/auth".into(), Arc::new(spec));
    cluster
        .config_maps
        .insert("shop/names".into(), pairs(&[("user", "from-map")]));
    cluster
        .secrets
        .insert("shop/keys".into(), pairs(&[("user", "canary")]));
    let resolved = resolve(&cluster, &trigger(&[], Some(("TriggerAuthentication", "auth")))).unwrap();
    assert_eq!(resolved.params.auth.params["user"].reveal(), "canary");
    assert_eq!(
        resolved.missing,
        [
            "Secret shop/keys has no key \"nope\"",
            "Secret shop/gone not found"
        ]
    );
    assert!(!format!("{resolved:?}").contains("canary"));
}

#[test]
fn a_cluster_wide_authentication_reads_the_operators_namespace() {
    let spec = TriggerAuthenticationSpec {
        secret_target_ref: vec![secret_ref("token", "keys", "token")],
        ..Default::default()
    };
    let mut cluster = Cluster::default();
    cluster.authentications.insert("auth".into(), Arc::new(spec));
    cluster
        .secrets
        .insert("keda/keys".into(), pairs(&[("token", "t")]));
    let resolved = resolve(
        &cluster,
        &trigger(&[], Some(("ClusterTriggerAuthentication", "auth"))),
    )
    .unwrap();
    assert_eq!(resolved.params.auth.params["token"].reveal(), "t");
}

#[test]
fn not_knowing_is_an_error_and_not_an_empty_answer() {
    let cluster = Cluster {
        unreachable: true,
        ..Default::default()
    };
    let error = resolve(&cluster, &trigger(&[], Some(("TriggerAuthentication", "auth")))).unwrap_err();
    assert!(matches!(error, ResolveError::Lookup(_)), "{error}");
}

#[test]
fn a_missing_authentication_leaves_the_trigger_to_say_what_it_lacks() {
    let resolved = resolve(
        &Cluster::default(),
        &trigger(&[], Some(("TriggerAuthentication", "auth"))),
    )
    .unwrap();
    assert_eq!(resolved.missing, ["TriggerAuthentication \"auth\" not found"]);
    assert_eq!(resolved.params.auth, AuthParams::default());
}

#[test]
fn parts_that_are_not_there_yet_are_refused_by_name() {
    let spec = TriggerAuthenticationSpec {
        hashi_corp_vault: Some(HashiCorpVault::default()),
        ..Default::default()
    };
    let mut cluster = Cluster::default();
    cluster.authentications.insert("shop/auth".into(), Arc::new(spec));
    let error = resolve(&cluster, &trigger(&[], Some(("TriggerAuthentication", "auth"))))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("TriggerAuthentication \"auth\": spec.hashiCorpVault is not supported yet"),
        "{error}"
    );
}

fn pod() -> PodSpec {
    let secret = |name: &str, key: &str| EnvVarSource {
        secret_key_ref: Some(SecretKeySelector {
            name: name.into(),
            key: key.into(),
            optional: None,
        }),
        ..Default::default()
    };
    let plain = |name: &str, value: &str| EnvVar {
        name: name.into(),
        value: Some(value.into()),
        value_from: None,
    };
    PodSpec {
        service_account_name: Some("worker".into()),
        containers: vec![
            Container {
                name: "main".into(),
                env: Some(vec![
                    plain("HOST", "queue"),
                    plain("QUEUE", "http://$(HOST)/a"),
                    EnvVar {
                        name: "KEY".into(),
                        value: None,
                        value_from: Some(secret("keys", "key")),
                    },
                ]),
                ..Default::default()
            },
            Container {
                name: "side".into(),
                env: Some(vec![plain("QUEUE", "other")]),
                ..Default::default()
            },
        ],
        ..Default::default()
    }
}

#[test]
fn the_environment_of_the_target_is_read_where_a_key_names_it() {
    let spec = TriggerAuthenticationSpec {
        env: vec![AuthEnvironment {
            parameter: "queue".into(),
            name: "QUEUE".into(),
            container_name: Some("side".into()),
        }],
        ..Default::default()
    };
    let mut cluster = Cluster {
        pod: Some(pod()),
        ..Default::default()
    };
    cluster.authentications.insert("shop/auth".into(), Arc::new(spec));
    cluster
        .secrets
        .insert("shop/keys".into(), pairs(&[("key", "canary")]));
    let metadata = [("queueURLFromEnv", "QUEUE"), ("awsSecretAccessKeyFromEnv", "KEY")];
    let authentication = Some(("TriggerAuthentication", "auth"));
    let resolved = resolve(&cluster, &trigger(&metadata, authentication)).unwrap();
    assert_eq!(resolved.params.env["QUEUE"].reveal(), "http://queue/a");
    assert_eq!(resolved.params.env["KEY"].reveal(), "canary");
    assert_eq!(resolved.params.auth.params["queue"].reveal(), "other");

    let restricted = ResolverSettings {
        cluster_object_namespace: "keda".into(),
        restrict_secret_access: true,
        ..ResolverSettings::default()
    };
    let resolved = resolve_with(&cluster, &trigger(&metadata, None), &restricted).unwrap();
    assert!(!resolved.params.env.contains_key("KEY"));
}

#[test]
fn workload_identity_takes_the_role_of_the_targets_account() {
    let identity = |role_arn: Option<&str>| TriggerAuthenticationSpec {
        pod_identity: Some(dormouse_api::PodIdentity {
            provider: "aws".into(),
            identity_owner: Some("workload".into()),
            role_arn: role_arn.map(Into::into),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut cluster = Cluster {
        pod: Some(pod()),
        ..Default::default()
    };
    let authentication = trigger(&[], Some(("TriggerAuthentication", "auth")));

    cluster
        .authentications
        .insert("shop/auth".into(), Arc::new(identity(None)));
    let missing = resolve(&cluster, &authentication).unwrap_err().to_string();
    assert!(
        missing.contains("has no annotation eks.amazonaws.com/role-arn"),
        "{missing}"
    );

    cluster.account_annotations = pairs(&[(labels::AWS_ROLE_ARN, "arn:aws:iam::1:role/worker")]);
    let resolved = resolve(&cluster, &authentication).unwrap();
    let identity_of = resolved.params.auth.pod_identity.unwrap();
    assert_eq!(
        identity_of.role_arn.as_deref(),
        Some("arn:aws:iam::1:role/worker")
    );

    cluster
        .authentications
        .insert("shop/auth".into(), Arc::new(identity(Some("arn:x"))));
    let both = resolve(&cluster, &authentication).unwrap_err().to_string();
    assert!(
        both.contains("roleArn can't be set if identityOwner is workload"),
        "{both}"
    );
}

#[test]
fn a_cluster_wide_authentication_says_who_may_see_it() {
    let mut cluster = Cluster::default();
    let spec = Arc::new(TriggerAuthenticationSpec::default());
    cluster.authentications.insert("keys".into(), spec.clone());
    cluster.authentications.insert("shop/keys".into(), spec);
    let by_all = trigger(&[], Some(("ClusterTriggerAuthentication", "keys")));
    let by_one = trigger(&[], Some(("TriggerAuthentication", "keys")));
    let strict = ResolverSettings {
        require_allowed_hosts: true,
        ..ResolverSettings::default()
    };
    assert_eq!(
        resolve(&cluster, &by_all).unwrap().params.auth.allowed_hosts,
        None
    );
    assert_eq!(
        resolve_with(&cluster, &by_all, &strict).unwrap_err().to_string(),
        "ClusterTriggerAuthentication \"keys\": annotation dormouse.dev/allowed-hosts is missing, and \
         --require-allowed-hosts asks for it: a list of the hosts that may see these credentials"
    );
    resolve_with(&cluster, &by_one, &strict).unwrap();
    cluster.authentication_annotations = pairs(&[("dormouse.dev/allowed-hosts", "*.shop.svc")]);
    let hosts = resolve_with(&cluster, &by_all, &strict)
        .unwrap()
        .params
        .auth
        .allowed_hosts
        .unwrap();
    assert!(hosts.contains("redis.shop.svc") && !hosts.contains("evil.example"));
    cluster.authentication_annotations = pairs(&[("dormouse.dev/allowed-hosts", "http://x")]);
    let error = resolve(&cluster, &by_all).unwrap_err().to_string();
    assert!(error.contains("\"http://x\" is no host"), "{error}");
}
