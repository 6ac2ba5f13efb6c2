//! From the strings of a manifest to one typed, documented struct per trigger type.
//!
//! ```text
//! struct XMetadata: Deserialize + JsonSchema ── schema ──> fields ──> manual page (docs/triggers)
//!                                                            │
//! metadata, authentication, environment ── first non-blank ──┴─> values ── serde ──> XMetadata
//! ```
//!
//! What the schema of a metadata struct says, beyond names, types, defaults and documentation:
//! - `x-sources`: where a parameter is looked for, in this order, out of `metadata`, `auth` and `env`
//!   (`<parameter>FromEnv` in the metadata names a variable of the target's container). Without it: `metadata`.
//! - `x-aliases`: further names of the same parameter, asked after its own.
//! - a type of [`Sensitive`](crate::Sensitive): its value never appears in an error.

mod convert;
mod field;
mod manual;
mod timespan;

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::connect::TriggerParams;
use crate::error::ConfigError;
use field::{Field, Source};

pub(crate) use manual::page;
pub use timespan::TimeSpan;

/// The parameters of one trigger type.
pub trait Metadata: DeserializeOwned + JsonSchema + Send + 'static {
    /// How an error about these parameters begins, such as `error parsing SQS queue metadata`.
    const CONTEXT: &'static str;
    /// What KEDA puts between [`CONTEXT`](Self::CONTEXT) and the faults of single parameters; often the same text again.
    const PARSING: &'static str;

    /// Checks what concerns more than one parameter.
    ///
    /// # Errors
    /// One sentence that says what is wrong.
    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

/// A value found for a parameter.
struct Found<'a> {
    text: &'a str,
    /// Whether an error may repeat it: only what stands in the manifest itself.
    printable: bool,
}

/// Reads the parameters of `M`, collecting every fault.
///
/// # Errors
/// All parameters that are missing or wrong, in one sentence.
pub fn parse<M: Metadata>(params: &TriggerParams) -> Result<M, ConfigError> {
    let mut values = Map::new();
    let mut faults = Vec::new();
    for field in field::of::<M>() {
        match find(&field, params) {
            Some(found) => match convert::convert(&field, &found) {
                Ok(value) => {
                    values.insert(field.name, value);
                }
                Err(fault) => faults.push(fault),
            },
            None if field.required => faults.push(format!(
                "missing required parameter {:?} in [{}]",
                field.names().collect::<Vec<_>>().join(","),
                field
                    .sources
                    .iter()
                    .map(|s| s.keda_name())
                    .collect::<Vec<_>>()
                    .join(" "),
            )),
            None => {}
        }
    }
    if !faults.is_empty() {
        return Err(error::<M>(&faults.join(", ")));
    }
    // The values have the schema's types by now. Should serde still disagree, its message could quote a secret.
    let metadata: M = serde_json::from_value(Value::Object(values))
        .map_err(|_| error::<M>("the parameters do not fit together"))?;
    metadata.validate().map_err(|fault| error::<M>(&fault))?;
    Ok(metadata)
}

fn error<M: Metadata>(faults: &str) -> ConfigError {
    ConfigError::Metadata {
        context: M::CONTEXT,
        message: format!("{}: {faults}", M::PARSING),
    }
}

fn find<'a>(field: &Field, params: &'a TriggerParams) -> Option<Found<'a>> {
    field.sources.iter().find_map(|source| {
        field.names().find_map(|name| {
            let (text, printable) = match source {
                Source::Metadata => (params.metadata.get(name)?.as_str(), !field.sensitive),
                Source::Auth => (params.auth.params.get(name)?.reveal(), false),
                Source::Env => {
                    let variable = params.metadata.get(&format!("{name}FromEnv"))?;
                    (params.env.get(variable.trim())?.reveal(), false)
                }
            };
            let text = text.trim();
            (!text.is_empty()).then_some(Found { text, printable })
        })
    })
}

/// Keys of the trigger's metadata that no parameter of `M` reads, in alphabetical order.
#[must_use]
pub fn unmatched<M: Metadata>(params: &TriggerParams) -> Vec<String> {
    let mut known = BTreeSet::new();
    for field in field::of::<M>() {
        for source in &field.sources {
            for name in field.names() {
                match source {
                    Source::Metadata => known.insert(name.to_owned()),
                    Source::Env => known.insert(format!("{name}FromEnv")),
                    Source::Auth => false,
                };
            }
        }
    }
    params
        .metadata
        .keys()
        .filter(|key| !known.contains(*key))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests;
