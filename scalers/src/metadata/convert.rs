//! One parameter's text as the value its type asks for.

use serde_json::{Map, Value, json};

use super::Found;
use super::field::{Field, Kind};
use super::timespan::TimeSpan;

/// How much of a wrong value an error repeats.
const ECHO_CHARS: usize = 100;

/// Converts what was found, or says what is wrong with it.
pub(super) fn convert(field: &Field, found: &Found<'_>) -> Result<Value, String> {
    value(&field.kind, found.text).map_err(|fault| {
        let name = field.names().collect::<Vec<_>>().join(",");
        let echo = if found.printable {
            let shown: String = found.text.chars().take(ECHO_CHARS).collect();
            format!(" value {shown:?}")
        } else {
            String::new()
        };
        match fault {
            Fault::NotOneOf(choices) => {
                format!("parameter {name:?}{echo} must be one of [{}]", choices.join(" "))
            }
            Fault::Expected(what) => format!("unable to set param {name:?}{echo}: expected {what}"),
        }
    })
}

enum Fault {
    NotOneOf(Vec<String>),
    Expected(String),
}

fn value(kind: &Kind, text: &str) -> Result<Value, Fault> {
    let expected = |what: &str| Fault::Expected(what.to_owned());
    match kind {
        Kind::Text => Ok(Value::from(text)),
        Kind::Bool => match text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::from(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::from(false)),
            _ => Err(expected("true or false")),
        },
        Kind::Integer { min, max } => {
            // JSON's rules, not Rust's: no leading plus sign or zeros.
            let number: i128 = serde_json::from_str::<Value>(text)
                .ok()
                .filter(Value::is_number)
                .and_then(|number| {
                    number
                        .as_i64()
                        .map(i128::from)
                        .or(number.as_u64().map(i128::from))
                })
                .ok_or_else(|| expected("a whole number"))?;
            if number < *min || number > *max {
                return Err(Fault::Expected(format!("a whole number from {min} to {max}")));
            }
            Ok(i64::try_from(number)
                .map_or_else(|_| json!(u64::try_from(number).unwrap_or(u64::MAX)), Value::from))
        }
        Kind::Number => serde_json::from_str::<Value>(text)
            .ok()
            .and_then(|number| number.as_f64())
            .map(Value::from)
            .ok_or_else(|| expected("a number")),
        Kind::TimeSpan => {
            let span = TimeSpan::parse(text).map_err(|error| Fault::Expected(error.expected().to_owned()))?;
            Ok(Value::from(span.nanos()))
        }
        Kind::OneOf(choices) => {
            if !choices.iter().any(|choice| choice == text) {
                return Err(Fault::NotOneOf(choices.clone()));
            }
            Ok(Value::from(text))
        }
        Kind::List(items) => text.split(',').map(|item| value(items, item.trim())).collect(),
        Kind::Map => {
            let mut map = Map::new();
            for pair in text.split(',') {
                let (key, value) = pair
                    .split_once('=')
                    .ok_or_else(|| expected("a list such as key=value,key2=value2"))?;
                map.insert(key.trim().to_owned(), Value::from(value.trim()));
            }
            Ok(Value::Object(map))
        }
    }
}
