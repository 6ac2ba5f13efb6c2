//! The manifests of the custom resources, made from the types of this crate.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
    JSONSchemaPropsOrBool,
};
use kube_core::CustomResourceExt;
use schemars::{Schema, SchemaGenerator, json_schema};

use crate::{ClusterTriggerAuthentication, InterceptorRoute, ScaledObject, TriggerAuthentication};

/// Columns of `kubectl get`: name, type, JSON path.
type Columns = &'static [(&'static str, &'static str, &'static str)];

const SCALED_OBJECT: Columns = &[
    ("ScaleTargetKind", "string", ".status.scaleTargetKind"),
    ("ScaleTargetName", "string", ".spec.scaleTargetRef.name"),
    ("Min", "integer", ".spec.minReplicaCount"),
    ("Max", "integer", ".spec.maxReplicaCount"),
    (
        "Ready",
        "string",
        r#".status.conditions[?(@.type=="Ready")].status"#,
    ),
    (
        "Active",
        "string",
        r#".status.conditions[?(@.type=="Active")].status"#,
    ),
    (
        "Fallback",
        "string",
        r#".status.conditions[?(@.type=="Fallback")].status"#,
    ),
    (
        "Paused",
        "string",
        r#".status.conditions[?(@.type=="Paused")].status"#,
    ),
    ("Triggers", "string", ".status.triggersTypes"),
    ("Authentications", "string", ".status.authenticationsTypes"),
    ("Age", "date", ".metadata.creationTimestamp"),
];

const TRIGGER_AUTHENTICATION: Columns = &[
    ("PodIdentity", "string", ".spec.podIdentity.provider"),
    ("Secret", "string", ".spec.secretTargetRef[*].name"),
    ("Env", "string", ".spec.env[*].name"),
    ("VaultAddress", "string", ".spec.hashiCorpVault.address"),
];

const CLUSTER_TRIGGER_AUTHENTICATION: Columns = &[
    ("PodIdentity", "string", ".spec.podIdentity.provider"),
    ("Secret", "string", ".spec.secretTargetRef[*].name"),
    ("Env", "string", ".spec.env[*].name"),
    ("FilePath", "string", ".spec.filePath"),
    ("VaultAddress", "string", ".spec.hashiCorpVault.address"),
];

const INTERCEPTOR_ROUTE: Columns = &[
    ("TargetService", "string", ".spec.target.service"),
    (
        "Ready",
        "string",
        r#".status.conditions[?(@.type=="Ready")].status"#,
    ),
    ("Age", "date", ".metadata.creationTimestamp"),
];

/// Shown only with `-o wide`.
const USERS: Columns = &[
    ("ScaledObjects", "string", ".status.scaledobjects"),
    ("ScaledJobs", "string", ".status.scaledjobs"),
];

/// All manifests, in the order in which they are listed and applied.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        manifest::<ScaledObject>(SCALED_OBJECT, &[]),
        manifest::<TriggerAuthentication>(TRIGGER_AUTHENTICATION, USERS),
        manifest::<ClusterTriggerAuthentication>(CLUSTER_TRIGGER_AUTHENTICATION, USERS),
        manifest::<InterceptorRoute>(INTERCEPTOR_ROUTE, &[]),
    ]
}

/// Name of a manifest's file: API group and plural, as KEDA names its own.
#[must_use]
pub fn file_name(crd: &CustomResourceDefinition) -> String {
    format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural)
}

fn manifest<K: CustomResourceExt>(columns: Columns, wide: Columns) -> CustomResourceDefinition {
    let mut crd = K::crd();
    for version in &mut crd.spec.versions {
        let shown = columns.iter().map(|column| (column, None));
        let wide = wide.iter().map(|column| (column, Some(1)));
        version.additional_printer_columns = Some(
            shown
                .chain(wide)
                .map(
                    |(&(name, type_, json_path), priority)| CustomResourceColumnDefinition {
                        name: name.to_owned(),
                        type_: type_.to_owned(),
                        json_path: json_path.to_owned(),
                        priority,
                        ..Default::default()
                    },
                )
                .collect(),
        );
        if let Some(schema) = version
            .schema
            .as_mut()
            .and_then(|validation| validation.open_api_v3_schema.as_mut())
        {
            tidy(schema);
        }
    }
    crd
}

/// Makes of a schema generated from Rust types one that suits Kubernetes and `kubectl explain`.
///
/// An `Option` means that a field may be absent, which the schema says by not requiring it; a null in its place is a
/// mistake of the writer. Line breaks of the source are none of the reader's.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.title = None;
    schema.description = schema.description.as_ref().map(|text| text.replace('\n', " "));
    schema
        .properties
        .iter_mut()
        .flat_map(|properties| properties.values_mut())
        .for_each(tidy);
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &mut schema.items {
        tidy(item);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &mut schema.additional_properties {
        tidy(value);
    }
}

/// Schema of a time.
pub(crate) fn date_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

/// For a field that decodes without being given, yet is not to be filled in by the API server.
pub(crate) fn without_default(schema: &mut Schema) {
    schema.remove("default");
}
