//! Parameters from the secret stores of the clouds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PodIdentity, SecretValue};

/// Parameters from AWS Secrets Manager.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsSecretManager {
    /// Access keys to read the secrets with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<AwsSecretManagerCredentials>,
    /// Identity to read the secrets with, in place of access keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_identity: Option<PodIdentity>,
    /// Region of the secrets. Default: the operator's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// What to read, at least one.
    #[schemars(length(min = 1))]
    pub secrets: Vec<AwsSecretManagerSecret>,
}

/// Access keys for AWS.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsSecretManagerCredentials {
    /// ID of the access key.
    pub access_key: SecretValue,
    /// The secret access key.
    pub access_secret_key: SecretValue,
    /// Session token, for temporary keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_token: Option<SecretValue>,
}

/// One value to read from AWS Secrets Manager.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsSecretManagerSecret {
    /// Parameter of the trigger.
    pub parameter: String,
    /// Name or ARN of the secret.
    pub name: String,
    /// ID of one version of the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// Label of one version of the secret. Default: the current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_stage: Option<String>,
    /// Key within a secret that is a JSON object. Left out, the parameter is the whole secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<String>,
}

/// Parameters from an Azure Key Vault.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AzureKeyVault {
    /// URI of the vault.
    pub vault_uri: String,
    /// Application to read the vault with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<AzureKeyVaultCredentials>,
    /// Identity to read the vault with, in place of an application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_identity: Option<PodIdentity>,
    /// Cloud of the vault. Default: the public one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud: Option<AzureKeyVaultCloud>,
    /// What to read, at least one.
    #[schemars(length(min = 1))]
    pub secrets: Vec<AzureKeyVaultSecret>,
}

/// An application registered with Azure.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AzureKeyVaultCredentials {
    /// ID of the application.
    pub client_id: String,
    /// Tenant of the application.
    pub tenant_id: String,
    /// Secret of the application.
    pub client_secret: SecretValue,
}

/// A cloud of Azure's.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AzureKeyVaultCloud {
    /// AzurePublicCloud, AzureUSGovernmentCloud, AzureChinaCloud, AzureGermanCloud, or Private, which needs the other
    /// two fields.
    #[serde(rename = "type")]
    pub type_: String,
    /// Resource that tokens are asked for; type Private.
    #[serde(rename = "keyVaultResourceURL", skip_serializing_if = "Option::is_none")]
    pub key_vault_resource_url: Option<String>,
    /// Endpoint that issues the tokens; type Private.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_directory_endpoint: Option<String>,
}

/// One value to read from an Azure Key Vault.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AzureKeyVaultSecret {
    /// Parameter of the trigger.
    pub parameter: String,
    /// Name of the secret.
    pub name: String,
    /// Version of the secret. Default: the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Parameters from Google Secret Manager.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GcpSecretManager {
    /// Key file to read the secrets with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<GcpSecretManagerCredentials>,
    /// Identity to read the secrets with, in place of a key file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_identity: Option<PodIdentity>,
    /// What to read, at least one.
    #[schemars(length(min = 1))]
    pub secrets: Vec<GcpSecretManagerSecret>,
}

/// A service account of Google Cloud.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GcpSecretManagerCredentials {
    /// Its key file, in JSON.
    pub client_secret: SecretValue,
}

/// One value to read from Google Secret Manager.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GcpSecretManagerSecret {
    /// Parameter of the trigger.
    pub parameter: String,
    /// ID of the secret.
    pub id: String,
    /// Version of the secret. Default: latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}
