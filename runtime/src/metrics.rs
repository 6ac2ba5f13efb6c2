//! The process's metrics, in the two text formats Prometheus reads.
//!
//! Metrics are kept in a `prometheus_client` registry, which speaks OpenMetrics. Dashboards and rules written for KEDA name
//! what the older text format 0.0.4 shows, so this module derives that one from the same output: a counter registered as
//! `keda_scaler_detail_errors` is the family `keda_scaler_detail_errors_total` there, and a gauge keeps its name even when
//! it ends in `_total`.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{encoding::text, registry::Registry};

/// A text format a scraper can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4: the default.
    Classic,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format for a request's `Accept` header: OpenMetrics only where it is named and not ranked below plain text.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Self {
        let rank = |media_type: &str| {
            accept.unwrap_or_default().split(',').find_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                (parts.next()? == media_type).then(|| {
                    parts
                        .find_map(|p| p.strip_prefix("q=")?.parse::<f32>().ok())
                        .unwrap_or(1.0)
                })
            })
        };
        match rank("application/openmetrics-text") {
            Some(open) if open > 0.0 && open >= rank("text/plain").unwrap_or(0.0) => Self::OpenMetrics,
            _ => Self::Classic,
        }
    }

    /// The `Content-Type` of a page in this format.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A shared handle on the process's metric registry.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    // Registration happens at start and a scrape every few seconds: no hot path takes this lock, and it is never held
    // over an await.
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `register` add metrics and hands back what it made of them.
    ///
    /// Counters are named without `_total`, and help texts end without a full stop: the registry adds both.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The page a scraper gets.
    #[must_use]
    pub fn encode(&self, format: Format) -> String {
        let mut page = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        text::encode(&mut page, &registry).expect("writing to a String cannot fail");
        drop(registry);
        match format {
            Format::OpenMetrics => page,
            Format::Classic => classic(&page),
        }
    }
}

/// Rewrites an OpenMetrics page as text format 0.0.4.
fn classic(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(help) = line.strip_prefix("# HELP ") else {
            if !line.starts_with('#') {
                sample(&mut out, line);
            }
            continue;
        };
        let (name, help) = help.split_once(' ').unwrap_or((help, ""));
        let kind = lines
            .next_if(|next| next.starts_with("# TYPE "))
            .and_then(|next| next.rsplit(' ').next())
            .unwrap_or("unknown");
        // A family without samples is left out, as client libraries of the older format do.
        if lines
            .peek()
            .is_none_or(|next| next.starts_with("# HELP ") || *next == "# EOF")
        {
            continue;
        }
        let (suffix, kind) = match kind {
            "counter" => ("_total", "counter"),
            "info" => ("_info", "gauge"),
            "unknown" => ("", "untyped"),
            other => ("", other),
        };
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n"
        );
    }
    out
}

/// Copies one sample: exemplars are dropped, and whole numbers lose the `.0` that the older format never wrote, above all
/// in `le`, whose text is part of a series' identity.
fn sample(out: &mut String, line: &str) {
    let (series, value) = match labels_end(line) {
        Some(end) => line.split_at(end),
        None => line.split_at(line.find(' ').unwrap_or(line.len())),
    };
    let value = value.split(" # ").next().unwrap_or(value).trim();
    // The encoder writes a bucket's bound before its other labels.
    match series
        .split_once("_bucket{le=\"")
        .and_then(|(name, rest)| Some((name, rest.split_once('"')?)))
    {
        Some((name, (bound, rest))) => {
            let _ = write!(out, "{name}_bucket{{le=\"{}\"{rest}", whole(bound));
        }
        None => out.push_str(series),
    }
    let _ = writeln!(out, " {}", whole(value));
}

fn whole(number: &str) -> &str {
    number.strip_suffix(".0").unwrap_or(number)
}

/// The offset just behind a sample's labels, if it has any: the first `}` outside of quotes.
fn labels_end(line: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    let start = line.find(['{', ' '])?;
    if line.as_bytes()[start] != b'{' {
        return None;
    }
    for (at, byte) in line.bytes().enumerate().skip(start) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};

    use super::*;

    fn labels() -> [(&'static str, &'static str); 2] {
        [("namespace", "cap"), ("scaledObject", "full")]
    }

    fn page(format: Format, register: impl FnOnce(&mut Registry)) -> String {
        let metrics = Metrics::new();
        metrics.register(register);
        metrics.encode(format)
    }

    #[test]
    fn a_counter_is_named_in_full_and_typed_as_a_recorded_page_shows_it() {
        let errors = Family::<[(&str, &str); 2], Counter>::default();
        errors.get_or_create(&labels()).inc_by(0);
        let register = |registry: &mut Registry| {
            registry.register(
                "keda_scaled_object_errors",
                "The number of errors that have occurred for each ScaledObject",
                errors.clone(),
            );
        };
        assert_eq!(
            page(Format::Classic, register),
            "# HELP keda_scaled_object_errors_total The number of errors that have occurred for each ScaledObject.\n\
             # TYPE keda_scaled_object_errors_total counter\n\
             keda_scaled_object_errors_total{namespace=\"cap\",scaledObject=\"full\"} 0\n"
        );
        let open = page(Format::OpenMetrics, register);
        assert!(
            open.contains("# TYPE keda_scaled_object_errors counter\n") && open.ends_with("# EOF\n"),
            "{open}"
        );
    }

    #[test]
    fn a_gauge_keeps_a_name_that_ends_in_total_and_whole_values_have_no_fraction() {
        let triggers = Family::<[(&str, &str); 1], Gauge<f64, AtomicU64>>::default();
        triggers.get_or_create(&[("type", "cron")]).set(2.0);
        triggers.get_or_create(&[("type", "cron")]).inc();
        let text = page(Format::Classic, |registry| {
            registry.register(
                "keda_trigger_registered_total",
                "Total number of triggers",
                triggers.clone(),
            );
        });
        assert!(
            text.contains("# TYPE keda_trigger_registered_total gauge\n"),
            "{text}"
        );
        assert!(
            text.ends_with("\nkeda_trigger_registered_total{type=\"cron\"} 3\n"),
            "{text}"
        );
    }

    #[test]
    fn a_histogram_has_the_bounds_of_a_recorded_page() {
        let family = Family::<[(&str, &str); 2], Histogram, _>::new_with_constructor(|| {
            Histogram::new([0.005, 1.0, 2.5])
        });
        family
            .get_or_create(&[("scaler", "metrics-api"), ("status_code", "200")])
            .observe(0.5);
        let text = page(Format::Classic, |registry| {
            registry.register(
                "keda_scaler_http_request_duration_seconds",
                "Duration",
                family.clone(),
            );
        });
        let line = |text: &str| format!("keda_scaler_http_request_duration_seconds{text}\n");
        for expected in [
            "_bucket{le=\"0.005\",scaler=\"metrics-api\",status_code=\"200\"} 0",
            "_bucket{le=\"1\",scaler=\"metrics-api\",status_code=\"200\"} 1",
            "_bucket{le=\"+Inf\",scaler=\"metrics-api\",status_code=\"200\"} 1",
            "_sum{scaler=\"metrics-api\",status_code=\"200\"} 0.5",
            "_count{scaler=\"metrics-api\",status_code=\"200\"} 1",
        ] {
            assert!(text.contains(&line(expected)), "{expected} is not in\n{text}");
        }
    }

    #[test]
    fn label_values_with_quotes_braces_and_spaces_survive() {
        let gauges = Family::<[(&str, String); 1], Gauge>::default();
        gauges.get_or_create(&[("path", "a\"}b # c\\".to_owned())]).set(7);
        let text = page(Format::Classic, |registry| {
            registry.register("g", "G", gauges.clone())
        });
        assert!(text.ends_with("g{path=\"a\\\"}b # c\\\\\"} 7\n"), "{text}");
    }

    #[test]
    fn a_family_without_samples_is_not_shown() {
        let text = page(Format::Classic, |registry| {
            registry.register(
                "empty",
                "Nothing yet",
                Family::<[(&str, &str); 1], Counter>::default(),
            );
            registry.register("up", "One", Gauge::<i64>::default());
        });
        assert_eq!(text, "# HELP up One.\n# TYPE up gauge\nup 0\n");
    }

    #[test]
    fn openmetrics_is_spoken_only_to_those_who_prefer_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert_eq!(Format::accepted(Some(prometheus)), Format::OpenMetrics);
        for classic in [
            None,
            Some("*/*"),
            Some("text/plain"),
            Some("application/openmetrics-text;q=0.1,text/plain"),
        ] {
            assert_eq!(Format::accepted(classic), Format::Classic, "{classic:?}");
        }
    }
}
