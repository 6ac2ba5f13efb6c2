//! Reads a page of Prometheus text format 0.0.4 as strictly as a scraper that wants to find fault: what `promtool check
//! metrics` refuses is refused, and so are doubled series and histograms that do not add up.

use std::collections::{BTreeMap, BTreeSet};

/// One metric family.
#[derive(Debug, Default)]
pub struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// Its help text.
    pub help: String,
    /// Its samples: name, labels, value.
    pub samples: Vec<Sample>,
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The name as written, suffix included.
    pub name: String,
    /// Labels by name.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

impl Family {
    /// The names of the labels that its series have, without a bucket's bound.
    #[must_use]
    pub fn label_names(&self) -> BTreeSet<Vec<&str>> {
        let all = self.samples.iter();
        all.map(|sample| {
            let names = sample.labels.keys().map(String::as_str);
            names.filter(|name| *name != "le").collect()
        })
        .collect()
    }
}

/// The families of a page, by name.
///
/// # Errors
/// The first line that a strict reader refuses, and why.
pub fn parse(page: &str) -> Result<BTreeMap<String, Family>, String> {
    if !page.is_empty() && !page.ends_with('\n') {
        return Err("the page does not end with a line feed".into());
    }
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in page.lines() {
        let fault = |what: &str| format!("{what}: {line}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or_else(|| fault("no help text"))?;
            if families.contains_key(name) {
                return Err(fault("a family twice"));
            }
            families.entry(name.to_owned()).or_default().help = help.to_owned();
            current = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(|| fault("no type"))?;
            if current.as_deref() != Some(name) {
                return Err(fault("a type without its help text before it"));
            }
            if !["counter", "gauge", "histogram"].contains(&kind) {
                return Err(fault("an unknown type"));
            }
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if line.starts_with('#') || line.is_empty() {
            return Err(fault("neither sample, help text nor type"));
        } else {
            let sample = sample(line).map_err(|what| fault(&what))?;
            let name = current
                .as_deref()
                .ok_or_else(|| fault("a sample before any family"))?;
            let family = families.entry(name.to_owned()).or_default();
            let suffix = sample
                .name
                .strip_prefix(name)
                .ok_or_else(|| fault("a sample of another family"))?;
            let fits = match family.kind.as_str() {
                "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
                _ => suffix.is_empty(),
            };
            if !fits {
                return Err(fault("a name that is not its family's"));
            }
            if family.kind == "counter" && !(name.ends_with("_total") && sample.value >= 0.0) {
                return Err(fault("a counter that is negative or not named _total"));
            }
            if family
                .samples
                .iter()
                .any(|other| other.name == sample.name && other.labels == sample.labels)
            {
                return Err(fault("a series twice"));
            }
            family.samples.push(sample);
        }
    }
    for (name, family) in &families {
        if family.kind.is_empty() || family.samples.is_empty() {
            return Err(format!("family {name} has no type or no sample"));
        }
        if family.kind == "histogram" {
            adds_up(name, family)?;
        }
    }
    Ok(families)
}

/// Buckets rise, the last is `+Inf`, and it is the count.
fn adds_up(name: &str, family: &Family) -> Result<(), String> {
    #[derive(Default)]
    struct Series {
        /// Upper bound and count.
        buckets: Vec<(f64, f64)>,
        count: Option<f64>,
    }
    let mut series: BTreeMap<BTreeMap<String, String>, Series> = BTreeMap::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        let bound = labels.remove("le");
        let entry = series.entry(labels).or_default();
        if sample.name.ends_with("_bucket") {
            let bound = bound.ok_or_else(|| format!("a bucket of {name} without le"))?;
            let bound = number(&bound).ok_or_else(|| format!("{name}: le {bound:?} is no number"))?;
            entry.buckets.push((bound, sample.value));
        } else if sample.name.ends_with("_count") {
            entry.count = Some(sample.value);
        }
    }
    for (labels, Series { buckets, count }) in series {
        let rises = buckets
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let last = buckets.last().copied().unwrap_or_default();
        if !rises || last.0 != f64::INFINITY || Some(last.1) != count {
            return Err(format!("histogram {name}{labels:?} does not add up"));
        }
    }
    Ok(())
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        text => text.parse().ok(),
    }
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name) {
        return Err("a bad name".into());
    }
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").ok_or("a label without a value")?;
            if !is_name(label) {
                return Err(format!("a bad label name {label:?}"));
            }
            let (value, after) = quoted(after)?;
            if labels.insert(label.to_owned(), value).is_some() {
                return Err(format!("label {label} twice"));
            }
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    let value = number(value).ok_or("the value is no number")?;
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// A label value up to its closing quote, unescaped, and what follows.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('\\' | '"'))) => value.push(c),
                _ => return Err("an unknown escape".into()),
            },
            c => value.push(c),
        }
    }
    Err("a label value without an end".into())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_good_page_is_read() {
        let page = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"q\\\"}\"} 2\n\
                    # HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n";
        let families = parse(page).expect("a good page");
        assert_eq!(families["a_total"].samples[0].labels["x"], "q\"}");
        assert_eq!(families["h"].samples.len(), 4);
    }

    #[test]
    fn bad_pages_are_refused() {
        let head = "# HELP a_total A.\n# TYPE a_total counter\n";
        for (page, fault) in [
            (format!("{head}a_total 1"), "line feed"),
            (format!("{head}a_total 1\na_total 1\n"), "twice"),
            (format!("{head}a_total{{x=\"1\",x=\"2\"}} 1\n"), "twice"),
            (format!("{head}a_total -1\n"), "negative"),
            (format!("{head}b_total 1\n"), "another family"),
            (format!("{head}a_total one\n"), "no number"),
            (format!("{head}a_total{{x=\"1}} 1\n"), "without an end"),
            (head.to_owned(), "no sample"),
            ("a_total 1\n".to_owned(), "before any family"),
            ("# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n".to_owned(), "add up"),
        ] {
            let error = parse(&page).expect_err(&page);
            assert!(error.contains(fault), "{error}");
        }
    }
}
