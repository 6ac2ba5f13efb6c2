//! Where in an answer the value stands, and how it becomes a number.

use dormouse_core::Quantity;
use gjson::Kind;
use serde_json::Value;

use super::Format;
use super::prometheus::Selector;
use super::tree;

/// Paths are followed by recursion, too.
const MAX_LOCATION: usize = 1024;

/// A parsed `valueLocation`.
pub(super) enum Locator {
    Json(String),
    Prometheus(Selector),
    Xml(String),
    Yaml(String),
}

impl Locator {
    /// Checks what can be checked without an answer.
    pub(super) fn new(format: Format, location: &str) -> Result<Self, String> {
        if location.len() > MAX_LOCATION {
            return Err(format!(
                "parameter \"valueLocation\" must not be longer than {MAX_LOCATION} bytes"
            ));
        }
        Ok(match format {
            Format::Json => Self::Json(location.to_owned()),
            Format::Prometheus => Self::Prometheus(Selector::parse(location)?),
            Format::Xml => Self::Xml(location.to_owned()),
            Format::Yaml => Self::Yaml(location.to_owned()),
        })
    }

    /// The value in `body`. What is wrong is said without repeating any of the body.
    pub(super) fn find(&self, body: &[u8]) -> Result<f64, String> {
        let body = std::str::from_utf8(body).map_err(|_| "the answer is not UTF-8 text")?;
        match self {
            Self::Json(path) => json(body, path),
            Self::Prometheus(selector) => selector.find(body),
            Self::Xml(path) => number_at(&tree::from_xml(body)?, path),
            Self::Yaml(path) => {
                let document: Value =
                    serde_saphyr::from_str(body).map_err(|_| "the answer is not a valid YAML document")?;
                number_at(&document, path)
            }
        }
    }
}

fn json(body: &str, path: &str) -> Result<f64, String> {
    if depth(body) > tree::MAX_DEPTH {
        return Err(tree::TOO_DEEP.to_owned());
    }
    // GJSON reads on through anything, so that a cut-off or broken answer could pass for a number. Paths that begin
    // with two dots read JSON lines, which are no single document.
    if !path.starts_with("..") && !gjson::valid(body) {
        return Err("the answer is not a valid JSON document".to_owned());
    }
    let value = get(body, path);
    match value.kind() {
        Kind::Number => value.json().parse().map_err(|_| no_number(path, "Number")),
        Kind::String => quantity(value.str()).ok_or_else(|| no_number(path, "String")),
        Kind::Null => Err(no_number(path, "Null")),
        Kind::True => Err(no_number(path, "True")),
        Kind::False => Err(no_number(path, "False")),
        Kind::Array | Kind::Object => Err(no_number(path, "JSON")),
    }
}

/// A GJSON path as the Go implementation reads it.
fn get<'a>(body: &'a str, path: &'a str) -> gjson::Value<'a> {
    gjson::get(body, path)
}

/// How deep a JSON text is nested. The path library descends by recursion, so that a hostile answer could end the
/// process.
fn depth(body: &str) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in body.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn number_at(document: &Value, path: &str) -> Result<f64, String> {
    match tree::pick(document, path) {
        Some(Value::Number(number)) => number.as_f64().ok_or_else(|| no_number(path, "Number")),
        Some(Value::String(text)) => quantity(text).ok_or_else(|| no_number(path, "String")),
        Some(Value::Bool(_)) => Err(no_number(path, "Bool")),
        Some(Value::Array(_)) => Err(no_number(path, "List")),
        Some(Value::Object(_)) => Err(no_number(path, "Map")),
        Some(Value::Null) | None => Err(no_number(path, "Null")),
    }
}

fn quantity(text: &str) -> Option<f64> {
    Quantity::parse(text.trim())
        .ok()
        .map(|quantity| quantity.as_f64())
}

fn no_number(path: &str, found: &str) -> String {
    format!(
        "valueLocation {path:?} must point to a numeric value or a string parseable as a Quantity, got {found}"
    )
}

#[cfg(test)]
mod tests;
