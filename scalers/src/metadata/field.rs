//! What the schema of a metadata struct says about each parameter.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Metadata;

/// Where a parameter may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Metadata,
    Auth,
    Env,
}

impl Source {
    /// The name in KEDA's error texts.
    pub(super) fn keda_name(self) -> &'static str {
        match self {
            Self::Metadata => "triggerMetadata",
            Self::Auth => "authParams",
            Self::Env => "resolvedEnv",
        }
    }
}

/// What a parameter's text is turned into.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Text,
    Bool,
    Integer { min: i128, max: i128 },
    Number,
    TimeSpan,
    OneOf(Vec<String>),
    List(Box<Kind>),
    Map,
}

/// One parameter.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) sources: Vec<Source>,
    pub(super) kind: Kind,
    pub(super) required: bool,
    pub(super) sensitive: bool,
    /// `None` also where the default depends on other things.
    pub(super) default: Option<Value>,
    pub(super) description: String,
}

impl Field {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.name)
            .chain(&self.aliases)
            .map(String::as_str)
    }
}

/// The schema of `M` with every type written out in place.
pub(super) fn schema_of<M: Metadata>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<M>().to_value()
}

/// The parameters of `M`: required ones first, each part in alphabetical order.
pub(super) fn of<M: Metadata>() -> Vec<Field> {
    let schema = schema_of::<M>();
    let required = texts(&schema["required"]);
    let Some(properties) = schema["properties"].as_object() else {
        return Vec::new();
    };
    let mut fields: Vec<Field> = properties
        .iter()
        .map(|(name, property)| Field {
            name: name.clone(),
            aliases: texts(&property["x-aliases"]),
            sources: sources(&property["x-sources"]),
            kind: kind(property),
            required: required.contains(name),
            sensitive: property["x-sensitive"] == true,
            default: property.get("default").filter(|d| !d.is_null()).cloned(),
            description: property["description"].as_str().unwrap_or_default().to_owned(),
        })
        .collect();
    fields.sort_by_cached_key(|f| (!f.required, f.name.to_lowercase()));
    fields
}

fn texts(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn sources(value: &Value) -> Vec<Source> {
    let named: Vec<Source> = texts(value)
        .iter()
        .filter_map(|name| match name.as_str() {
            "metadata" => Some(Source::Metadata),
            "auth" => Some(Source::Auth),
            "env" => Some(Source::Env),
            _ => None,
        })
        .collect();
    if named.is_empty() {
        vec![Source::Metadata]
    } else {
        named
    }
}

fn kind(property: &Value) -> Kind {
    let one_of = choices(property);
    if !one_of.is_empty() {
        return Kind::OneOf(one_of);
    }
    // An optional enumeration is "one of these, or null".
    if let Some(inner) = property["anyOf"]
        .as_array()
        .and_then(|any| any.iter().find(|s| s["type"] != "null"))
    {
        return kind(inner);
    }
    let types = match &property["type"] {
        Value::String(name) => vec![name.clone()],
        other => texts(other),
    };
    match types.first().map(String::as_str) {
        Some("boolean") => Kind::Bool,
        Some("integer") if property["format"] == "timespan" => Kind::TimeSpan,
        Some("integer") => {
            let bounds: (i128, i128) = match property["format"].as_str() {
                Some("int32") => (i32::MIN.into(), i32::MAX.into()),
                Some("uint64") => (0, u64::MAX.into()),
                Some("uint32") => (0, u32::MAX.into()),
                Some("uint16") => (0, u16::MAX.into()),
                _ => (i64::MIN.into(), i64::MAX.into()),
            };
            let bound = |name: &str| property[name].as_i64().map(i128::from);
            Kind::Integer {
                min: bound("minimum").unwrap_or(bounds.0).max(bounds.0),
                max: bound("maximum").unwrap_or(bounds.1).min(bounds.1),
            }
        }
        Some("number") => Kind::Number,
        Some("array") => Kind::List(Box::new(kind(&property["items"]))),
        Some("object") => Kind::Map,
        _ => Kind::Text,
    }
}

/// The values of an enumeration, however the schema spells it.
fn choices(property: &Value) -> Vec<String> {
    let plain = texts(&property["enum"]);
    if !plain.is_empty() {
        return plain;
    }
    property["oneOf"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|choice| {
            choice["const"]
                .as_str()
                .map(|c| vec![c.to_owned()])
                .unwrap_or_else(|| choices(choice))
        })
        .collect()
}
