//! The flattened schema, line by line: where each line's field is in an object, and what would break its limits.

use std::fmt;

use serde_json::{Value, json};

const SCHEMA: &str = include_str!("../../../api/tests/data/schema.txt");

/// One field of a schema.
#[derive(Debug)]
pub(crate) struct Field {
    /// The whole line.
    pub(crate) line: &'static str,
    path: Vec<Step>,
    type_: &'static str,
    limits: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Key(&'static str),
    Item,
    Entry,
}

/// An object that breaks one rule of its schema.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) rule: String,
    /// The field, as the API server names it.
    pub(crate) field: Place,
    pub(crate) object: Value,
}

/// Where a value is in an object.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Place(Vec<Segment>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Segment {
    Key(String),
    Index(usize),
}

/// The fields of a kind.
pub(crate) fn fields(kind: &str) -> Vec<Field> {
    lines(kind)
        .filter(|line| line.starts_with("spec") || line.starts_with("status"))
        .map(Field::parse)
        .collect()
}

/// The columns of a kind, each with its priority.
pub(crate) fn columns(kind: &str) -> Vec<(&'static str, i32)> {
    let columns = lines(kind).filter_map(|line| line.strip_prefix("column "));
    columns
        .map(|column| {
            let (name, _) = column.split_once(' ').expect("column NAME type path priority=N");
            let (_, priority) = column
                .rsplit_once("priority=")
                .expect("column NAME type path priority=N");
            (name, priority.parse().expect("number"))
        })
        .collect()
}

fn lines(kind: &str) -> impl Iterator<Item = &'static str> {
    let header = format!("## {kind} ");
    let section = SCHEMA.lines().skip_while(move |line| !line.starts_with(&header));
    section.skip(1).take_while(|line| !line.starts_with("## "))
}

impl Field {
    fn parse(line: &'static str) -> Self {
        let (path, rest) = line.split_once(": ").expect("path: type limits");
        let (type_, limits) = rest.split_once(' ').unwrap_or((rest, ""));
        let mut steps = Vec::new();
        for segment in path.split('.') {
            let key = segment.trim_end_matches("[]").trim_end_matches("{}");
            steps.push(Step::Key(key));
            match &segment[key.len()..] {
                "" => {}
                "[]" => steps.push(Step::Item),
                "{}" => steps.push(Step::Entry),
                other => unreachable!("{other} in {line}"),
            }
        }
        Self {
            line,
            path: steps,
            type_,
            limits,
        }
    }

    /// What the API server fills in when the field is left out.
    pub(crate) fn default(&self) -> Option<Value> {
        self.limit("default=")
            .map(|text| serde_json::from_str(text).expect("JSON"))
    }

    /// The values that the field's limits just allow.
    pub(crate) fn allowed(&self) -> Vec<Value> {
        let mut allowed: Vec<Value> = Vec::new();
        for limit in ["enum=", "minimum="] {
            if let Some(text) = self.limit(limit) {
                let value = serde_json::Deserializer::from_str(text)
                    .into_iter::<Value>()
                    .next();
                match value.expect("a value").expect("JSON") {
                    Value::Array(values) => allowed.extend(values),
                    minimum => allowed.push(minimum),
                }
            }
        }
        allowed
    }

    /// Every place at which `object` has this field.
    pub(crate) fn places(&self, object: &Value) -> Vec<Place> {
        let mut places = vec![Place::default()];
        for step in &self.path {
            places = places.iter().flat_map(|place| place.next(step, object)).collect();
        }
        places
    }

    /// The first of `objects` that has this field, broken in each way that the field's line forbids, at its first place.
    pub(crate) fn violations(&self, objects: &[Value]) -> Vec<Violation> {
        let places = objects
            .iter()
            .flat_map(|object| self.places(object).into_iter().map(move |place| (object, place)));
        let (object, place) = places.into_iter().next().expect("the corpus has every field");
        let mut violations = Vec::new();
        let mut broken = |rule: &str, value: Option<Value>| {
            violations.push(Violation {
                rule: format!("{} | {rule}", self.line),
                field: place.clone(),
                object: place.replaced(object, value),
            });
        };
        let other_type = match self.type_ {
            "string" => json!(7),
            "integer" => json!("seven"),
            "boolean" => json!("yes"),
            "object" | "array" => json!("text"),
            "int-or-string" => json!(true),
            other => unreachable!("type {other}"),
        };
        broken("another type", Some(other_type));
        if self.limits.starts_with("REQUIRED") && self.default().is_none() {
            // A status is written as a merge patch, in which null is the way to leave something out.
            broken("left out", place.is_status().then_some(Value::Null));
        }
        for (limit, value) in [
            ("format=\"int32\"", json!(i64::from(i32::MAX) + 1)),
            ("format=\"date-time\"", json!("yesterday")),
            ("enum=", json!("no-such-value")),
            ("minLength=1", json!("")),
            ("minItems=1", json!([])),
            ("pattern=", json!("very tolerant")),
        ] {
            if self.limit(limit).is_some() {
                broken(limit, Some(value));
            }
        }
        if let Some(minimum) = self.limit("minimum=") {
            let minimum: i64 = minimum
                .split(' ')
                .next()
                .and_then(|text| text.parse().ok())
                .expect("number");
            broken("below the minimum", Some(json!(minimum - 1)));
        }
        violations
    }

    /// The limit's value, or an empty text where the name says it all, up to the next limit.
    fn limit(&self, name: &str) -> Option<&'static str> {
        let (before, value) = self.limits.split_once(name)?;
        (before.is_empty() || before.ends_with(' ')).then_some(value)
    }
}

impl Place {
    /// A place by its keys.
    pub(crate) fn of(keys: &[&str]) -> Self {
        Self(keys.iter().map(|key| Segment::Key((*key).to_owned())).collect())
    }

    /// Whether it is in the status, which has a subresource of its own.
    pub(crate) fn is_status(&self) -> bool {
        self.0.first() == Some(&Segment::Key("status".to_owned()))
    }

    /// How the API server names the field in front of what is wrong, or at the end where a number has too many bits;
    /// there, a path begins below `status`.
    pub(crate) fn names(&self) -> [String; 2] {
        let path = self.to_string();
        [
            format!("{path}: "),
            format!("format int32 in {}", path.trim_start_matches("status.")),
        ]
    }

    fn next(&self, step: &Step, object: &Value) -> Vec<Self> {
        let value = self.value(object).expect("a place within the object");
        let segments: Vec<_> = match (step, value) {
            (Step::Key(key), Value::Object(fields)) if fields.contains_key(*key) => {
                vec![Segment::Key((*key).to_owned())]
            }
            (Step::Item, Value::Array(items)) => (0..items.len()).map(Segment::Index).collect(),
            (Step::Entry, Value::Object(entries)) => entries.keys().cloned().map(Segment::Key).collect(),
            _ => vec![],
        };
        segments
            .into_iter()
            .map(|segment| Self([self.0.clone(), vec![segment]].concat()))
            .collect()
    }

    fn value<'v>(&self, object: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(object, |value, segment| match segment {
            Segment::Key(key) => value.get(key),
            Segment::Index(index) => value.get(index),
        })
    }

    /// The value at this place.
    pub(crate) fn get<'v>(&self, object: &'v Value) -> &'v Value {
        self.value(object).unwrap_or(&Value::Null)
    }

    /// `object` with another value, or none, at this place.
    pub(crate) fn replaced(&self, object: &Value, new: Option<Value>) -> Value {
        let mut object = object.clone();
        let (last, parents) = self.0.split_last().expect("a place below the root");
        let parent = parents.iter().fold(&mut object, |value, segment| match segment {
            Segment::Key(key) => &mut value[key.as_str()],
            Segment::Index(index) => &mut value[*index],
        });
        match (last, new) {
            (Segment::Key(key), Some(new)) => parent[key.as_str()] = new,
            (Segment::Index(index), Some(new)) => parent[*index] = new,
            (Segment::Key(key), None) => {
                parent.as_object_mut().expect("an object").remove(key);
            }
            (Segment::Index(_), None) => unreachable!("an item cannot be left out"),
        }
        object
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if position == 0 => write!(f, "{key}")?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
