//! A trigger's references turned into values: its authentication, Secrets, ConfigMaps and the container's environment.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use dormouse_api::{AuthenticationRef, ScaledObject, Trigger, TriggerAuthenticationSpec, labels};
use dormouse_scalers::clients::HostList;
use dormouse_scalers::{AuthParams, PodIdentity, Sensitive, TriggerParams};
use k8s_openapi::api::core::v1::PodSpec;

use crate::environment;
use crate::objects::{Objects, ObjectsError};

/// Resolves the references of one ScaledObject.
pub struct Resolver<'a> {
    objects: &'a dyn Objects,
    object: &'a ScaledObject,
    namespace: &'a str,
    settings: &'a ResolverSettings,
}

/// What of the process the resolution depends on.
#[derive(Clone, Debug, Default)]
pub struct ResolverSettings {
    /// Where a ClusterTriggerAuthentication's Secrets and ConfigMaps are (`KEDA_CLUSTER_OBJECT_NAMESPACE`).
    pub cluster_object_namespace: String,
    /// `KEDA_RESTRICT_SECRET_ACCESS`: Secrets are read from the cluster object namespace only.
    pub restrict_secret_access: bool,
    /// `--require-allowed-hosts`: a ClusterTriggerAuthentication must say who may see its credentials.
    pub require_allowed_hosts: bool,
}

/// Parameters, and what was missing on the way. A missing piece is no error: the trigger may do without, and if not, its
/// own error says what it lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The parameters.
    pub params: TriggerParams,
    /// One sentence for each thing that was referred to and not found. They name objects and keys, never values.
    pub missing: Vec<String>,
}

/// Why the parameters cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// A look-up failed; try again.
    #[error(transparent)]
    Lookup(#[from] ObjectsError),
    /// The authentication asks for something that cannot be had.
    #[error("{kind} {name:?}: {message}")]
    Authentication {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// What is wrong and what is accepted.
        message: String,
    },
}

impl<'a> Resolver<'a> {
    /// A resolver for `object`.
    #[must_use]
    pub fn new(objects: &'a dyn Objects, object: &'a ScaledObject, settings: &'a ResolverSettings) -> Self {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        Self {
            objects,
            object,
            namespace,
            settings,
        }
    }

    /// Resolves one trigger.
    ///
    /// # Errors
    /// A look-up failed, or the authentication asks for something that cannot be had.
    pub async fn resolve(&self, trigger: &Trigger) -> Result<Resolved, ResolveError> {
        let mut missing = Vec::new();
        let env = self.trigger_environment(trigger).await?;
        let auth = match &trigger.authentication_ref {
            Some(reference) => self.authentication(reference, &mut missing).await?,
            None => AuthParams::default(),
        };
        let params = TriggerParams {
            trigger_type: trigger.type_.clone(),
            metadata: trigger.metadata.clone(),
            env,
            auth,
        };
        Ok(Resolved { params, missing })
    }

    /// The variables that `<parameter>FromEnv` keys name. Nothing is looked up where no key does.
    async fn trigger_environment(
        &self,
        trigger: &Trigger,
    ) -> Result<BTreeMap<String, Sensitive>, ObjectsError> {
        let from_env = |(key, _): &(&String, &String)| key.ends_with("FromEnv");
        let wanted: Vec<&String> = trigger
            .metadata
            .iter()
            .filter(from_env)
            .map(|(_, variable)| variable)
            .collect();
        if wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        let container = self
            .object
            .spec
            .scale_target_ref
            .env_source_container_name
            .as_deref();
        let mut env = self.environment(container).await?;
        env.retain(|name, _| wanted.contains(&name));
        Ok(env)
    }

    async fn environment(
        &self,
        container: Option<&str>,
    ) -> Result<BTreeMap<String, Sensitive>, ObjectsError> {
        let Some(pod) = self.objects.pod_spec().await? else {
            return Ok(BTreeMap::new());
        };
        let skip_secrets =
            self.settings.restrict_secret_access && self.namespace != self.settings.cluster_object_namespace;
        environment::of_container(self.objects, self.namespace, &pod, container, skip_secrets).await
    }

    async fn authentication(
        &self,
        reference: &AuthenticationRef,
        missing: &mut Vec<String>,
    ) -> Result<AuthParams, ResolveError> {
        let kind = reference.kind();
        let cluster_wide = kind == "ClusterTriggerAuthentication";
        let found: Option<Arc<TriggerAuthenticationSpec>> = if cluster_wide {
            self.objects
                .cluster_trigger_authentication(&reference.name)
                .await?
        } else {
            self.objects
                .trigger_authentication(self.namespace, &reference.name)
                .await?
        };
        let Some(spec) = found else {
            missing.push(format!("{kind} {:?} not found", reference.name));
            return Ok(AuthParams::default());
        };
        let refuse = |message: String| ResolveError::Authentication {
            kind: kind.to_owned(),
            name: reference.name.clone(),
            message,
        };
        if let Some(block) = unsupported_block(&spec) {
            return Err(refuse(format!(
                "spec.{block} is not supported yet: use secretTargetRef, configMapTargetRef, env or podIdentity"
            )));
        }
        let allowed_hosts = if cluster_wide {
            self.allowed_hosts(&reference.name).await?.map_err(refuse)?
        } else {
            None
        };
        let home = if cluster_wide {
            self.settings.cluster_object_namespace.as_str()
        } else {
            self.namespace
        };
        let mut params = BTreeMap::new();
        self.take_environment(&spec, &mut params).await?;
        self.take_config_maps(&spec, home, &mut params, missing).await?;
        self.take_secrets(&spec, home, &mut params, missing).await?;
        let pod_identity = self.pod_identity(&spec).await?.map_err(refuse)?;
        Ok(AuthParams {
            params,
            pod_identity,
            allowed_hosts,
        })
    }

    /// Every namespace may use a ClusterTriggerAuthentication, but its credentials are someone else's: it can say which
    /// hosts may see them.
    async fn allowed_hosts(&self, name: &str) -> Result<Result<Option<HostList>, String>, ObjectsError> {
        let annotations = self
            .objects
            .cluster_trigger_authentication_annotations(name)
            .await?;
        let list = annotations.and_then(|mut annotations| annotations.remove(labels::ALLOWED_HOSTS));
        Ok(match list {
            Some(list) => list
                .parse()
                .map(Some)
                .map_err(|error| format!("annotation {}: {error}", labels::ALLOWED_HOSTS)),
            None if self.settings.require_allowed_hosts => Err(format!(
                "annotation {} is missing, and --require-allowed-hosts asks for it: a list of the hosts that may see these credentials",
                labels::ALLOWED_HOSTS
            )),
            None => Ok(None),
        })
    }

    async fn take_environment(
        &self,
        spec: &TriggerAuthenticationSpec,
        params: &mut BTreeMap<String, Sensitive>,
    ) -> Result<(), ObjectsError> {
        let mut by_container: BTreeMap<Option<&str>, BTreeMap<String, Sensitive>> = BTreeMap::new();
        for wanted in &spec.env {
            let env = match by_container.entry(wanted.container_name.as_deref()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(slot) => {
                    let env = self.environment(wanted.container_name.as_deref()).await?;
                    slot.insert(env)
                }
            };
            if let Some(value) = env.get(&wanted.name) {
                params.insert(wanted.parameter.clone(), value.clone());
            }
        }
        Ok(())
    }

    async fn take_config_maps(
        &self,
        spec: &TriggerAuthenticationSpec,
        home: &str,
        params: &mut BTreeMap<String, Sensitive>,
        missing: &mut Vec<String>,
    ) -> Result<(), ObjectsError> {
        for reference in &spec.config_map_target_ref {
            let values = self.objects.config_map(home, &reference.name).await?;
            let object = format!("ConfigMap {home}/{}", reference.name);
            let found = values.map(|mut values| values.remove(&reference.key).map(Sensitive::new));
            take(
                found,
                &object,
                &reference.key,
                &reference.parameter,
                params,
                missing,
            );
        }
        Ok(())
    }

    async fn take_secrets(
        &self,
        spec: &TriggerAuthenticationSpec,
        home: &str,
        params: &mut BTreeMap<String, Sensitive>,
        missing: &mut Vec<String>,
    ) -> Result<(), ObjectsError> {
        for reference in &spec.secret_target_ref {
            let object = format!("Secret {home}/{}", reference.name);
            if self.settings.restrict_secret_access && home != self.settings.cluster_object_namespace {
                missing.push(format!(
                    "{object} not read: access to Secrets is restricted to the operator's namespace"
                ));
                continue;
            }
            let values = self.objects.secret(home, &reference.name).await?;
            let found = values.map(|mut values| values.remove(&reference.key));
            take(
                found,
                &object,
                &reference.key,
                &reference.parameter,
                params,
                missing,
            );
        }
        Ok(())
    }

    async fn pod_identity(
        &self,
        spec: &TriggerAuthenticationSpec,
    ) -> Result<Result<Option<PodIdentity>, String>, ObjectsError> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let Some(identity) = spec
            .pod_identity
            .as_ref()
            .filter(|identity| identity.provider != "none")
        else {
            return Ok(Ok(None));
        };
        let mut role_arn = given(&identity.role_arn);
        let of_workload = identity.identity_owner.as_deref() == Some("workload");
        if identity.provider == "aws" && of_workload && role_arn.is_some() {
            return Ok(Err(
                "spec.podIdentity: roleArn can't be set if identityOwner is workload".into(),
            ));
        }
        if identity.provider == "aws-eks" || (identity.provider == "aws" && of_workload) {
            role_arn = self.workload_role().await?;
            if role_arn.is_none() && of_workload {
                return Ok(Err(format!(
                    "spec.podIdentity.identityOwner is workload, but the ServiceAccount of the scale target has no annotation {}",
                    labels::AWS_ROLE_ARN
                )));
            }
        }
        let external_id = given(&identity.external_id);
        Ok(Ok(Some(PodIdentity {
            provider: identity.provider.clone(),
            role_arn,
            external_id,
        })))
    }

    /// The role that the scale target's own ServiceAccount takes.
    async fn workload_role(&self) -> Result<Option<String>, ObjectsError> {
        let Some(pod) = self.objects.pod_spec().await? else {
            return Ok(None);
        };
        let account = pod.service_account_name.as_deref().unwrap_or("default");
        let annotations = self
            .objects
            .service_account_annotations(self.namespace, account)
            .await?;
        Ok(annotations.and_then(|mut annotations| annotations.remove(labels::AWS_ROLE_ARN)))
    }
}

fn take(
    found: Option<Option<Sensitive>>,
    object: &str,
    key: &str,
    parameter: &str,
    params: &mut BTreeMap<String, Sensitive>,
    missing: &mut Vec<String>,
) {
    match found {
        Some(Some(value)) => drop(params.insert(parameter.to_owned(), value)),
        Some(None) => missing.push(format!("{object} has no key {key:?}")),
        None => missing.push(format!("{object} not found")),
    }
}

/// The first part of an authentication that exists in the API but cannot be used yet.
fn unsupported_block(spec: &TriggerAuthenticationSpec) -> Option<&'static str> {
    [
        (spec.file_path.is_some(), "filePath"),
        (spec.hashi_corp_vault.is_some(), "hashiCorpVault"),
        (spec.azure_key_vault.is_some(), "azureKeyVault"),
        (spec.gcp_secret_manager.is_some(), "gcpSecretManager"),
        (spec.aws_secret_manager.is_some(), "awsSecretManager"),
        (
            !spec.bound_service_account_token.is_empty(),
            "boundServiceAccountToken",
        ),
        (spec.oauth2.is_some(), "oauth2"),
    ]
    .into_iter()
    .find_map(|(used, name)| used.then_some(name))
}

/// The pod template of any workload that has one at `spec.template`, as Deployments, StatefulSets and their like do.
#[must_use]
pub fn pod_spec_of(workload: &serde_json::Value) -> Option<PodSpec> {
    let spec = workload.pointer("/spec/template/spec")?;
    serde_json::from_value(spec.clone()).ok()
}

#[cfg(test)]
mod tests;
