//! The Kubernetes objects a user of Dormouse writes, as they travel on the wire.
//!
//! ```text
//! ScaledObject ──triggers[].authenticationRef──────────> TriggerAuthentication         (same namespace)
//!     │                                              └─> ClusterTriggerAuthentication  (whole cluster)
//!     └──triggers[].metadata.interceptorRoute──────────> InterceptorRoute              (same namespace)
//! ```
//!
//! The types are compatible with KEDA's `keda.sh/v1alpha1` and `http.keda.sh/v1beta1` field by field. They are also the
//! only description of the schema: [`crd`] turns them, doc comments included, into the manifests under `deploy/crds`, so
//! what a doc comment here says is what `kubectl explain` prints.
//!
//! Decoding is tolerant: the API server validates, these types only read. Unknown fields are ignored, and a string with a
//! closed set of values stays a string here, so that an object written under another version of the CRD is not lost to a
//! watch. Meaning is given to the values elsewhere; this crate holds shapes, names and defaults.

mod behavior;
pub mod conditions;
pub mod crd;
mod interceptor_route;
pub mod labels;
mod scaled_object;
mod trigger_authentication;

pub use conditions::{Condition, ConditionStatus};
pub use interceptor_route::{
    ColdStart, Concurrency, ConfigMapKeyRef, FallbackTarget, HeaderMatch, InterceptorRoute,
    InterceptorRouteSpec, InterceptorRouteStatus, PathMatch, Placeholder, RequestRate, RouteCondition,
    RoutingRule, ScalingMetric, ServiceRef, StaticResponse, StaticRoute, TargetRef, Timeouts, route_defaults,
};
pub use scaled_object::{
    Advanced, AuthenticationRef, Fallback, GroupVersionKindResource, HealthStatus,
    HorizontalPodAutoscalerConfig, ScaleTargetRef, ScaledObject, ScaledObjectSpec, ScaledObjectStatus,
    ScalingModifiers, Trigger, TriggerActivity, defaults,
};
pub use trigger_authentication::{
    AuthEnvironment, AwsSecretManager, AwsSecretManagerCredentials, AwsSecretManagerSecret, AzureKeyVault,
    AzureKeyVaultCloud, AzureKeyVaultCredentials, AzureKeyVaultSecret, BoundServiceAccountToken,
    ClusterTriggerAuthentication, ClusterTriggerAuthenticationSpec, ConfigMapTargetRef, GcpSecretManager,
    GcpSecretManagerCredentials, GcpSecretManagerSecret, HashiCorpVault, OAuth2, PodIdentity, SecretKeyRef,
    SecretTargetRef, SecretValue, SecretValueSource, TriggerAuthentication, TriggerAuthenticationSpec,
    TriggerAuthenticationStatus, VaultCredential, VaultPkiData, VaultSecret,
};
