//! The manifests of the custom resources, made from the types of this crate.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube_core::CustomResourceExt;
use schemars::{Schema, SchemaGenerator, json_schema};

use crate::{ClusterTriggerAuthentication, ScaledObject, TriggerAuthentication};

/// All manifests, in the order in which they are listed and applied.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        ScaledObject::crd(),
        TriggerAuthentication::crd(),
        ClusterTriggerAuthentication::crd(),
    ];
    for crd in &mut crds {
        for version in &mut crd.spec.versions {
            let schema = version
                .schema
                .as_mut()
                .and_then(|validation| validation.open_api_v3_schema.as_mut());
            schema.map(refuse_null);
        }
    }
    crds
}

/// Name of a manifest's file: API group and plural, as KEDA names its own.
#[must_use]
pub fn file_name(crd: &CustomResourceDefinition) -> String {
    format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural)
}

/// An `Option` means that a field may be absent, which the schema says by not requiring it; a null in its place is a
/// mistake of the writer.
fn refuse_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema
        .properties
        .iter_mut()
        .flat_map(|properties| properties.values_mut())
        .for_each(refuse_null);
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &mut schema.items {
        refuse_null(item);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &mut schema.additional_properties {
        refuse_null(value);
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
