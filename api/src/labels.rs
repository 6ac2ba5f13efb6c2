//! Names that other people's manifests, policies and dashboards contain: annotations, labels, the finalizer, and the
//! Services and the ServiceAccount that a default install makes. They are KEDA's, so that nothing has to be renamed.

/// Finalizer on every object whose removal has something to undo.
pub const FINALIZER: &str = "finalizer.keda.sh";

/// Prefix of the settings that exist in Dormouse alone: `dormouse.dev/<name>`.
pub const DORMOUSE_PREFIX: &str = "dormouse.dev/";

/// Annotation of a ClusterTriggerAuthentication: the hosts that may see its credentials, separated by commas;
/// `*.example.org` for all below one.
pub const ALLOWED_HOSTS: &str = "dormouse.dev/allowed-hosts";

/// Annotation of a ScaledObject: truthy = neither the operator nor an HPA scales the target.
pub const PAUSED: &str = "autoscaling.keda.sh/paused";
/// Annotation of a ScaledObject: a count of replicas; its presence alone pauses, and the target is set to that count.
pub const PAUSED_REPLICAS: &str = "autoscaling.keda.sh/paused-replicas";
/// Annotation of a ScaledObject: truthy = the target is never scaled down.
pub const PAUSED_SCALE_IN: &str = "autoscaling.keda.sh/paused-scale-in";
/// Annotation of a ScaledObject: truthy = the target is never scaled up.
pub const PAUSED_SCALE_OUT: &str = "autoscaling.keda.sh/paused-scale-out";
/// Annotation of a ScaledObject: truthy = treated as active whatever its triggers read.
pub const FORCE_ACTIVATION: &str = "autoscaling.keda.sh/force-activation";
/// Annotation of a ScaledObject: exactly `true` = an HPA that already exists under the configured name is taken over.
pub const TRANSFER_HPA_OWNERSHIP: &str = "scaledobject.keda.sh/transfer-hpa-ownership";
/// Annotation of a ScaledObject: label keys, separated by commas, that its HPA does not inherit.
pub const HPA_EXCLUDED_LABELS: &str = "scaledobject.keda.sh/hpa-excluded-labels";
/// Annotation of a HorizontalPodAutoscaler: exactly `false` = it does not count as a second owner of its target.
pub const HPA_OWNERSHIP: &str = "validations.keda.sh/hpa-ownership";

/// Label of a ScaledObject and of its HPA, and the selector of the HPA's external metrics; the ScaledObject's name.
pub const SCALED_OBJECT_NAME: &str = "scaledobject.keda.sh/name";
/// Label of the Jobs of a ScaledJob and of their pods; the ScaledJob's name.
pub const SCALED_JOB_NAME: &str = "scaledjob.keda.sh/name";
/// Annotation of a Job: the generation of its ScaledJob when it was made.
pub const SCALED_JOB_GENERATION: &str = "scaledjob.keda.sh/generation";
/// Annotation of a ScaledJob: label keys, separated by commas, that its Jobs do not inherit.
pub const JOB_EXCLUDED_LABELS: &str = "scaledjob.keda.sh/job-excluded-labels";

/// Annotation of a ServiceAccount: the AWS role its pods take; read for pod identities of the providers `aws`, `aws-eks`.
pub const AWS_ROLE_ARN: &str = "eks.amazonaws.com/role-arn";

/// Label of everything the operator makes: the object's own name, cut to a label's 63 characters.
pub const APP_NAME: &str = "app.kubernetes.io/name";
/// Label of everything the operator makes: the operator's version.
pub const APP_VERSION: &str = "app.kubernetes.io/version";
/// Label of everything the operator makes: the name of the ScaledObject it was made for.
pub const APP_PART_OF: &str = "app.kubernetes.io/part-of";
/// Label of everything the operator makes; its value is [`MANAGED_BY`].
pub const APP_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of the label [`APP_MANAGED_BY`], and the operator's name as the reporter of Events.
pub const MANAGED_BY: &str = "keda-operator";

/// Namespace that the documentation installs into.
pub const INSTALL_NAMESPACE: &str = "keda";
/// ServiceAccount and Service of the operator; trust policies of cloud identities name it.
pub const OPERATOR_SERVICE: &str = "keda-operator";
/// Service behind the external metrics API.
pub const METRICS_SERVICE: &str = "keda-metrics-apiserver";
/// Service of the interceptor's proxy, port 8080; Ingresses and Gateways name it.
pub const INTERCEPTOR_PROXY_SERVICE: &str = "keda-add-ons-http-interceptor-proxy";
/// Service of the interceptor's admin listener, port 9090.
pub const INTERCEPTOR_ADMIN_SERVICE: &str = "keda-add-ons-http-interceptor-admin";
/// Service of the external scaler for HTTP demand, port 9090; ScaledObjects name it as their `scalerAddress`.
pub const HTTP_EXTERNAL_SCALER_SERVICE: &str = "keda-add-ons-http-external-scaler";
