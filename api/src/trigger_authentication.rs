//! [`TriggerAuthentication`] and [`ClusterTriggerAuthentication`]: where triggers get their credentials. One spec for both.

mod cloud;
mod vault;

use std::collections::BTreeMap;
use std::ops::Deref;

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cloud::{
    AwsSecretManager, AwsSecretManagerCredentials, AwsSecretManagerSecret, AzureKeyVault, AzureKeyVaultCloud,
    AzureKeyVaultCredentials, AzureKeyVaultSecret, GcpSecretManager, GcpSecretManagerCredentials,
    GcpSecretManagerSecret,
};
pub use vault::{HashiCorpVault, VaultCredential, VaultPkiData, VaultSecret};

/// Where the credentials come from. Every part fills parameters of the trigger; where two fill the same one, the later
/// in this order counts: env, configMapTargetRef, secretTargetRef, hashiCorpVault, azureKeyVault, gcpSecretManager,
/// awsSecretManager, boundServiceAccountToken, oauth2. A filePath replaces all but env.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "keda.sh",
    version = "v1alpha1",
    kind = "TriggerAuthentication",
    plural = "triggerauthentications",
    shortname = "ta",
    shortname = "triggerauth",
    namespaced,
    status = "TriggerAuthenticationStatus",
    derive = "PartialEq",
    derive = "Default",
    crates(kube_core = "::kube_core"),
    doc = "Credentials for the triggers of this namespace: an identity of the pod, or values from Secrets, ConfigMaps, \
           environment variables and secret stores."
)]
#[serde(rename_all = "camelCase")]
pub struct TriggerAuthenticationSpec {
    /// An identity from the platform, so that no credential has to be stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_identity: Option<PodIdentity>,
    /// Parameters from Secrets, in the namespace of the object (for a ClusterTriggerAuthentication: of the operator).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_target_ref: Vec<SecretTargetRef>,
    /// Parameters from ConfigMaps, in the namespace of the object (for a ClusterTriggerAuthentication: of the operator).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub config_map_target_ref: Vec<ConfigMapTargetRef>,
    /// Parameters from environment variables of the scaled workload's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<AuthEnvironment>,
    /// A file that the operator has mounted: a JSON object of parameters. Relative to the directory that the operator is
    /// told, without "..". Only a ClusterTriggerAuthentication may use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_path: Option<String>,
    /// Parameters from a HashiCorp Vault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hashi_corp_vault: Option<HashiCorpVault>,
    /// Parameters from an Azure Key Vault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azure_key_vault: Option<AzureKeyVault>,
    /// Parameters from Google Secret Manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gcp_secret_manager: Option<GcpSecretManager>,
    /// Parameters from AWS Secrets Manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws_secret_manager: Option<AwsSecretManager>,
    /// Parameters that hold a short-lived token of a ServiceAccount. The operator must be allowed to request it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bound_service_account_token: Vec<BoundServiceAccountToken>,
    /// Access tokens from an OAuth 2.0 server, for triggers that speak HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oauth2: Option<OAuth2>,
}

/// Where the credentials come from. The parts, and which of them counts where two fill the same parameter, are those of a
/// TriggerAuthentication.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "keda.sh",
    version = "v1alpha1",
    kind = "ClusterTriggerAuthentication",
    plural = "clustertriggerauthentications",
    shortname = "cta",
    shortname = "clustertriggerauth",
    status = "TriggerAuthenticationStatus",
    derive = "PartialEq",
    derive = "Default",
    crates(kube_core = "::kube_core"),
    doc = "Credentials for the triggers of every namespace: an identity of the pod, or values from Secrets, ConfigMaps, \
           environment variables, files and secret stores. Secrets and ConfigMaps are looked up in the namespace of the \
           operator."
)]
#[serde(transparent)]
#[schemars(transparent)]
pub struct ClusterTriggerAuthenticationSpec(pub TriggerAuthenticationSpec);

impl Deref for ClusterTriggerAuthenticationSpec {
    type Target = TriggerAuthenticationSpec;

    fn deref(&self) -> &TriggerAuthenticationSpec {
        &self.0
    }
}

impl From<TriggerAuthenticationSpec> for ClusterTriggerAuthenticationSpec {
    fn from(spec: TriggerAuthenticationSpec) -> Self {
        Self(spec)
    }
}

/// Who uses the credentials.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct TriggerAuthenticationStatus {
    /// Names of the ScaledObjects that refer to this object, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaledobjects: Option<String>,
    /// Names of the ScaledJobs that refer to this object, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaledjobs: Option<String>,
}

/// An identity that the platform gives to a pod.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodIdentity {
    /// The platform: aws (IAM roles for service accounts, or pod identities), aws-eks (its older form; prefer aws),
    /// azure-workload, gcp, or none.
    #[schemars(extend("enum" = ["azure-workload", "gcp", "aws", "aws-eks", "none"]))]
    pub provider: String,
    /// azure-workload: client ID of the identity to use in place of the operator's own. Not empty where given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_id: Option<String>,
    /// azure-workload: tenant of that identity, when it is not the operator's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_tenant_id: Option<String>,
    /// azure-workload: host that issues the tokens, when it is not the default of the cloud. Needs identityTenantId.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_authority_host: Option<String>,
    /// aws: role that the operator takes to read the source. Not together with identityOwner workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// aws: external ID to show when taking the role. Needs roleArn.
    #[serde(rename = "externalID", skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// aws: whose role counts, that of the operator (keda, the default) or that of the scaled workload's ServiceAccount
    /// (workload).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["keda", "workload"]))]
    pub identity_owner: Option<String>,
}

/// A parameter from a Secret.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretTargetRef {
    /// Parameter of the trigger.
    pub parameter: String,
    /// Name of the Secret.
    pub name: String,
    /// Key within the Secret.
    pub key: String,
}

/// A parameter from a ConfigMap.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapTargetRef {
    /// Parameter of the trigger.
    pub parameter: String,
    /// Name of the ConfigMap.
    pub name: String,
    /// Key within the ConfigMap.
    pub key: String,
}

/// A parameter from an environment variable of the scaled workload.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthEnvironment {
    /// Parameter of the trigger.
    pub parameter: String,
    /// Name of the environment variable.
    pub name: String,
    /// Container that has it. Default: the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
}

/// A parameter that holds a short-lived token of a ServiceAccount.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BoundServiceAccountToken {
    /// Parameter of the trigger.
    pub parameter: String,
    /// Name of the ServiceAccount whose token is requested.
    pub service_account_name: String,
}

/// Access tokens from an OAuth 2.0 server.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["clientId", "tokenUrl", "type"]))]
pub struct OAuth2 {
    /// The grant. clientCredentials, the default, is the only one.
    #[serde(rename = "type", default = "client_credentials")]
    #[schemars(extend("enum" = ["clientCredentials"]))]
    pub type_: String,
    /// ID of the client.
    pub client_id: String,
    /// Secret of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<SecretValue>,
    /// http or https URL at which tokens are issued.
    pub token_url: String,
    /// Scopes to ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Further form parameters of the token request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub token_url_params: BTreeMap<String, String>,
}

/// A value that is kept in a Secret.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretValue {
    /// Where the value is kept.
    pub value_from: SecretValueSource,
}

/// Where a value is kept.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretValueSource {
    /// A key of a Secret, in the namespace of the object (for a ClusterTriggerAuthentication: of the operator).
    pub secret_key_ref: SecretKeyRef,
}

/// A key of a Secret.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    pub name: String,
    /// Key within the Secret.
    pub key: String,
}

fn client_credentials() -> String {
    "clientCredentials".to_owned()
}
