//! The manual page of a trigger type, written from its metadata struct.

use std::fmt::Write;

use serde_json::Value;

use super::Metadata;
use super::field::{self, Field, Kind, Source};

/// The page of `M` in Markdown: what the struct's documentation says, then one row per parameter.
pub(crate) fn page<M: Metadata>(trigger_type: &str) -> String {
    let schema = field::schema_of::<M>();
    let description = schema["description"].as_str().unwrap_or_default();
    let mut page = format!("# {trigger_type}\n\n{}\n\n## Parameters\n\n", description.trim());
    page.push_str("| parameter | where | type | default | meaning |\n|---|---|---|---|---|\n");
    for field in field::of::<M>() {
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} |",
            field
                .names()
                .map(|n| format!("`{n}`"))
                .collect::<Vec<_>>()
                .join(" or "),
            places(&field),
            type_of(&field.kind, field.sensitive),
            default_of(&field),
            cell(&field.description),
        );
    }
    page.push_str(
        "\nWhere a parameter may stand in several places, the first one that is not blank counts, in the order given. \
         *metadata* is the trigger's `metadata`, *authentication* a parameter of its TriggerAuthentication or \
         ClusterTriggerAuthentication, and a name that ends in `FromEnv` is a metadata key whose value names an \
         environment variable of the scaled container.\n",
    );
    page
}

fn places(field: &Field) -> String {
    let places: Vec<String> = field
        .sources
        .iter()
        .map(|source| match source {
            Source::Metadata => "metadata".to_owned(),
            Source::Auth => "authentication".to_owned(),
            Source::Env => format!("`{}FromEnv`", field.name),
        })
        .collect();
    places.join(", ")
}

fn type_of(kind: &Kind, sensitive: bool) -> String {
    match kind {
        Kind::Text if sensitive => "secret text".to_owned(),
        Kind::Text => "text".to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::Integer { .. } => "whole number".to_owned(),
        Kind::Number => "number".to_owned(),
        Kind::TimeSpan => "duration (`1m30s`) or milliseconds".to_owned(),
        Kind::OneOf(choices) => choices
            .iter()
            .map(|c| format!("`{c}`"))
            .collect::<Vec<_>>()
            .join(", "),
        Kind::List(items) => format!("comma-separated list of {}", type_of(items, sensitive)),
        Kind::Map => "comma-separated `key=value` pairs".to_owned(),
    }
}

fn default_of(field: &Field) -> String {
    match (&field.default, &field.kind) {
        _ if field.required => "required".to_owned(),
        (None, _) => String::new(),
        (Some(Value::Array(items)), _) if items.is_empty() => String::new(),
        (Some(Value::String(text)), _) if text.is_empty() => String::new(),
        (Some(Value::String(text)), _) => format!("`{text}`"),
        (Some(Value::Number(number)), Kind::Number) => {
            let number = number.as_f64().unwrap_or_default();
            format!("`{number}`")
        }
        (Some(other), _) => format!("`{other}`"),
    }
}

fn cell(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}
