//! Prometheus' text format, as far as finding one sample needs it.

use std::collections::HashMap;

/// A metric name and labels that a sample must have.
pub(super) struct Selector {
    text: String,
    name: String,
    labels: Vec<(String, String)>,
}

/// `name`, `{label="value"...}` and what follows.
struct Series<'a> {
    name: &'a str,
    labels: Vec<(String, String)>,
    rest: &'a str,
}

impl Selector {
    /// Parses `name{label="value"}`, or the same with the name as the label `__name__`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let unusable = || {
            format!(
                "valueLocation {text:?} must be a metric name with labels that are equal to something, \
                 such as waiting{{queue=\"a\"}}"
            )
        };
        let series = series(text.trim(), &['"', '\''])
            .filter(|s| s.rest.trim().is_empty())
            .ok_or_else(unusable)?;
        let mut name = series.name.to_owned();
        let mut labels = series.labels;
        if let Some(index) = labels.iter().position(|(label, _)| label == "__name__") {
            let (_, value) = labels.remove(index);
            if !name.is_empty() {
                return Err(unusable());
            }
            name = value;
        }
        if name.is_empty() {
            return Err(unusable());
        }
        Ok(Self {
            text: text.to_owned(),
            name,
            labels,
        })
    }

    /// The value of the first sample that matches and belongs to no histogram or summary.
    pub(super) fn find(&self, body: &str) -> Result<f64, String> {
        let mut types: HashMap<&str, &str> = HashMap::new();
        let mut found = None;
        for (number, line) in body.lines().enumerate() {
            let line = line.trim();
            if let Some(comment) = line.strip_prefix('#') {
                let mut words = comment.split_whitespace();
                if words.next() == Some("TYPE")
                    && let (Some(name), Some(kind)) = (words.next(), words.next())
                {
                    types.insert(name, kind);
                }
                continue;
            }
            if line.is_empty() {
                continue;
            }
            let (series, value) = sample(line).ok_or_else(|| {
                format!(
                    "line {} of the answer is not in Prometheus' text format",
                    number + 1
                )
            })?;
            let matches = found.is_none()
                && series.name == self.name
                && self.labels.iter().all(|label| series.labels.contains(label))
                && single(&types, series.name);
            if matches {
                found = Some(value);
            }
        }
        found.ok_or_else(|| {
            format!(
                "no untyped, counter or gauge sample matches valueLocation {:?}",
                self.text
            )
        })
    }
}

/// Whether the samples called `name` are plain values, not parts of a histogram or summary.
fn single(types: &HashMap<&str, &str>, name: &str) -> bool {
    let compound = |name: &str| {
        matches!(
            types.get(name),
            Some(&"histogram" | &"summary" | &"gaugehistogram")
        )
    };
    let part = ["_bucket", "_sum", "_count"]
        .iter()
        .any(|s| name.strip_suffix(s).is_some_and(compound));
    !compound(name) && (!part || types.contains_key(name))
}

fn sample(line: &str) -> Option<(Series<'_>, f64)> {
    let series = series(line, &['"']).filter(|series| !series.name.is_empty())?;
    let mut words = series.rest.split_whitespace();
    let value = words.next()?.parse().ok()?;
    if let Some(timestamp) = words.next() {
        timestamp.parse::<i64>().ok()?;
    }
    words.next().is_none().then_some((series, value))
}

fn series<'a>(text: &'a str, quotes: &[char]) -> Option<Series<'a>> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let Some(mut rest) = rest.trim_start().strip_prefix('{') else {
        return (rest.is_empty() || rest.starts_with(char::is_whitespace)).then_some(Series {
            name,
            labels: Vec::new(),
            rest,
        });
    };
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix('}') {
            return Some(Series { name, labels, rest });
        }
        let (label, after) = rest.split_once('=')?;
        let label = label.trim_end();
        if label.is_empty() || !label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return None;
        }
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| quotes.contains(c))?;
        let (value, after) = quoted(&after[1..], quote)?;
        labels.push((label.to_owned(), value));
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.starts_with('}') => {}
            None => return None,
        }
    }
}

/// A text up to its closing quote, with escapes undone, and what follows.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            c if c == quote => return Some((value, &text[index + c.len_utf8()..])),
            c => value.push(c),
        }
    }
    None
}
