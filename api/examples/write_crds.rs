//! Writes the manifests of the custom resources into a directory, one file each:
//! `cargo run -p dormouse-api --profile ci --example write_crds -- deploy/crds`.

use std::path::PathBuf;
use std::{env, error, fs};

use dormouse_api::crd;
use serde_json::{Value, json};

const HEADER: &str = "# Made from the types in api/src by api/examples/write_crds.rs; change those.\n";

fn main() -> Result<(), Box<dyn error::Error>> {
    let directory = PathBuf::from(env::args_os().nth(1).ok_or("name the directory to write to")?);
    for crd in crd::all() {
        let path = directory.join(crd::file_name(&crd));
        let options = serde_saphyr::ser_options! { folded_wrap_chars: 100 };
        let manifest =
            serde_saphyr::to_string_with_options(&whole_numbers(serde_json::to_value(&crd)?), options)?;
        fs::write(&path, format!("{HEADER}{manifest}"))
            .map_err(|error| format!("unable to write {}: {error}", path.display()))?;
    }
    Ok(())
}

/// Limits are floating-point numbers in the types; `minimum: 1` reads better than `minimum: 1.0`.
fn whole_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if float.fract() == 0.0 => json!(float as i64),
            _ => Value::Number(number),
        },
        Value::Array(items) => items.into_iter().map(whole_numbers).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| (key, whole_numbers(value)))
            .collect(),
        other => other,
    }
}
