//! The manifests under `deploy/crds` are what the types generate, and offer the schema that KEDA's clients rely on.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use dormouse_api::crd;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

const EXPECTED: &str = include_str!("data/schema.txt");

/// Lines of the expected schema that ours may lack or state differently, each with its reason.
const EXCEPTIONS: &[(&str, &str)] = &[];

#[test]
fn schema_has_every_line_that_clients_rely_on() {
    let ours: String = crd::all().iter().map(flatten).collect::<Vec<_>>().join("\n");
    let (ours, expected) = (lines(&ours), lines(EXPECTED));
    assert!(
        expected.len() > 450,
        "the expected schema is cut short: {} lines",
        expected.len()
    );
    let excepted: BTreeSet<String> = EXCEPTIONS.iter().map(|(line, _)| (*line).to_owned()).collect();
    let missing: Vec<_> = expected
        .difference(&ours)
        .filter(|line| !excepted.contains(*line))
        .collect();
    let added: Vec<_> = ours
        .difference(&expected)
        .filter(|line| !excepted.contains(*line))
        .collect();
    assert!(
        missing.is_empty() && added.is_empty(),
        "missing: {missing:#?}\nadded: {added:#?}"
    );
    let unused: Vec<_> = excepted.intersection(&ours).collect();
    assert!(unused.is_empty(), "excepted, yet there: {unused:#?}");
}

#[test]
fn manifests_are_what_the_types_generate() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds");
    let mut files: Vec<_> = fs::read_dir(&directory)
        .expect("directory")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("name"))
        .collect();
    files.sort();
    let mut generated = crd::all();
    generated.sort_by_key(crd::file_name);
    assert_eq!(files, generated.iter().map(crd::file_name).collect::<Vec<_>>());
    for crd in generated {
        let name = crd::file_name(&crd);
        let text = fs::read_to_string(directory.join(&name)).expect("manifest");
        let written: CustomResourceDefinition = serde_saphyr::from_str(&text).expect("manifest");
        assert!(
            written == crd,
            "{name} is out of date: cargo run -p dormouse-api --profile ci --example write_crds -- deploy/crds"
        );
    }
}

#[test]
fn trigger_authentications_differ_in_scope_names_and_columns_alone() {
    let [namespaced, cluster] = ["TriggerAuthentication", "ClusterTriggerAuthentication"].map(|kind| {
        let mut all = crd::all().into_iter();
        all.find(|crd| crd.spec.names.kind == kind).expect(kind)
    });
    assert_eq!(
        (&*namespaced.spec.scope, &*cluster.spec.scope),
        ("Namespaced", "Cluster")
    );
    for part in ["spec", "status"] {
        let [one, other] = [&namespaced, &cluster].map(|crd| root(crd)["properties"][part].clone());
        assert!(
            one["properties"].is_object() && one["properties"] == other["properties"],
            "{part} differs"
        );
        assert_eq!(one["required"], other["required"]);
    }
}

#[test]
fn every_field_explains_itself() {
    for crd in crd::all() {
        let schema = root(&crd);
        let mut silent = Vec::new();
        undescribed(&schema, crd.spec.names.kind.clone(), &mut silent);
        assert!(silent.is_empty(), "without a description: {silent:#?}");
    }
}

fn lines(text: &str) -> BTreeSet<String> {
    let mut kind = "";
    let mut lines = BTreeSet::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("# "))
    {
        if let Some(header) = line.strip_prefix("## ") {
            kind = header.split(' ').next().expect("kind");
        }
        lines.insert(format!("{kind} | {line}"));
    }
    lines
}

fn root(crd: &CustomResourceDefinition) -> Value {
    let validation = crd.spec.versions[0].schema.as_ref().expect("schema");
    serde_json::to_value(&validation.open_api_v3_schema).expect("JSON")
}

fn flatten(crd: &CustomResourceDefinition) -> String {
    let spec = &crd.spec;
    let quoted: Vec<_> = spec
        .names
        .short_names
        .iter()
        .flatten()
        .map(|short_name| format!("'{short_name}'"))
        .collect();
    let mut out = vec![format!(
        "## {}  {}  plural={} short=[{}] scope={}",
        spec.names.kind,
        spec.group,
        spec.names.plural,
        quoted.join(", "),
        spec.scope
    )];
    assert_eq!(spec.versions.len(), 1);
    let version = &spec.versions[0];
    let subresources = serde_json::to_value(&version.subresources).expect("JSON");
    let subresources: Vec<_> = subresources
        .as_object()
        .expect("subresources")
        .keys()
        .map(|name| format!("'{name}'"))
        .collect();
    out.push(format!(
        "version {} served={} storage={} deprecated={} subresources=[{}]",
        version.name,
        capital(version.served),
        capital(version.storage),
        capital(version.deprecated.unwrap_or(false)),
        subresources.join(", ")
    ));
    for column in version.additional_printer_columns.iter().flatten() {
        let (name, type_, path) = (&column.name, &column.type_, &column.json_path);
        out.push(format!(
            "column {name} {type_} {path} priority={}",
            column.priority.unwrap_or(0)
        ));
    }
    flatten_fields(&root(crd), "", &mut out);
    out.join("\n")
}

fn capital(flag: bool) -> &'static str {
    if flag { "True" } else { "False" }
}

fn flatten_fields(schema: &Value, prefix: &str, out: &mut Vec<String>) {
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let is_required = required.iter().any(|required| *required == name);
        flatten_field(field, &format!("{prefix}{name}"), is_required, out);
    }
}

fn flatten_field(field: &Value, path: &str, is_required: bool, out: &mut Vec<String>) {
    let int_or_string = field["x-kubernetes-int-or-string"] == true;
    let mut line = format!(
        "{path}: {}",
        if int_or_string {
            "int-or-string"
        } else {
            text(&field["type"])
        }
    );
    if is_required {
        line += " REQUIRED";
    }
    for (key, shown) in [
        ("format", "format"),
        ("enum", "enum"),
        ("default", "default"),
        ("minimum", "minimum"),
        ("maximum", "maximum"),
        ("minLength", "minLength"),
        ("maxLength", "maxLength"),
        ("pattern", "pattern"),
        ("minItems", "minItems"),
        ("maxItems", "maxItems"),
        ("nullable", "nullable"),
        ("x-kubernetes-preserve-unknown-fields", "preserve-unknown-fields"),
        ("x-kubernetes-list-map-keys", "list-map-keys"),
        ("x-kubernetes-list-type", "list-type"),
        ("x-kubernetes-map-type", "map-type"),
    ] {
        if let Some(value) = field.get(key) {
            line += &format!(" {shown}={}", limit(value));
        }
    }
    for rule in field["x-kubernetes-validations"].as_array().into_iter().flatten() {
        line += &format!(" cel: {} -> {}", quoted(&rule["rule"]), quoted(&rule["message"]));
    }
    out.push(line);
    flatten_fields(field, &format!("{path}."), out);
    for (key, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
        if field[key].is_object() {
            flatten_field(&field[key], &format!("{path}{suffix}"), false, out);
        }
    }
}

fn limit(value: &Value) -> String {
    match value {
        Value::Number(number) => number.as_f64().expect("number").to_string(),
        Value::Array(items) => {
            format!(
                "[{}]",
                items.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")
            )
        }
        other => other.to_string(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

/// Text in single quotes, or in double ones where it has single ones itself.
fn quoted(value: &Value) -> String {
    let text = text(value);
    let quote = if text.contains('\'') { '"' } else { '\'' };
    format!("{quote}{text}{quote}")
}

fn undescribed(schema: &Value, path: String, silent: &mut Vec<String>) {
    if text_len(&schema["description"]) < 10 {
        silent.push(path.clone());
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        undescribed(field, format!("{path}.{name}"), silent);
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].get("properties").is_some() {
            undescribed(&schema[key], format!("{path}[]"), silent);
        }
    }
}

fn text_len(value: &Value) -> usize {
    value.as_str().map_or(0, str::len)
}
