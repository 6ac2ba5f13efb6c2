//! Parameters from a HashiCorp Vault.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters from a HashiCorp Vault.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HashiCorpVault {
    /// URL of the Vault server.
    pub address: String,
    /// How to log in: token, or kubernetes (with the token of a ServiceAccount; needs mount and role).
    #[schemars(extend("enum" = ["token", "kubernetes"]))]
    pub authentication: String,
    /// Vault namespace, for servers that have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Role to log in with; authentication kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Path of the login method, without "auth/"; authentication kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
    /// What to log in with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<VaultCredential>,
    /// What to read, at least one.
    #[schemars(length(min = 1))]
    pub secrets: Vec<VaultSecret>,
}

/// What to log in to a Vault with.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VaultCredential {
    /// Vault token; authentication token. The operator's environment variable VAULT_TOKEN goes before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Path of a file in the operator's pod that holds a ServiceAccount token; authentication kubernetes. Default: the
    /// token of the operator itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// Name of a ServiceAccount, in the namespace of the scaled workload, whose token is requested; authentication
    /// kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
}

/// One value to read from a Vault.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VaultSecret {
    /// Parameter of the trigger.
    pub parameter: String,
    /// Path of the secret; of a version 2 engine with its "data/".
    pub path: String,
    /// Key within the secret.
    pub key: String,
    /// Engine that holds it: secret (key-value, version 1), secretV2, or pki (a certificate is issued). Left out or
    /// empty, the version of a key-value engine is told from the answer.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["", "secretV2", "secret", "pki"]))]
    pub type_: Option<String>,
    /// The certificate to issue; type pki.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pki_data: Option<VaultPkiData>,
}

/// A certificate for a Vault to issue.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VaultPkiData {
    /// Common name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
    /// Further DNS names and mail addresses, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alt_names: Option<String>,
    /// IP addresses, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_sans: Option<String>,
    /// URIs, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri_sans: Option<String>,
    /// Other names, as "oid;type:value", separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_sans: Option<String>,
    /// How long the certificate is valid, such as 24h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Encoding of what Vault returns: pem, der or pem_bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}
