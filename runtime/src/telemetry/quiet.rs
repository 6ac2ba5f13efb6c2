//! Keeps a failure that lasts from filling the log.
//!
//! A warning or an error is written at most once in ten seconds for what it is about and why; all of them together at most
//! as fast as a bucket refills. What was left out is counted in the next record that is written, as its field `suppressed`.
//! Records of one outage, which a field `outage` names, count as one, whoever wrote them and about whatever.
//!
//! What happened without any failure (info and below) is told once per change by those who tell it, and is never left out.

use std::{
    collections::HashMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// How long a record keeps others like it away.
const WINDOW: Duration = Duration::from_secs(10);
/// Records that may come at once.
const BURST: u32 = 100;
/// Records per second in the long run.
const PER_SECOND: u32 = 2;
/// Records remembered before the old ones are forgotten.
const REMEMBERED: usize = 1024;
/// Fields that say what a record is about, or why. Others (messages, times, counts) may differ from one to the next.
const TELLING: [&str; 10] = [
    "object",
    "key",
    "kind",
    "namespace",
    "authentication",
    "metric",
    "reason",
    "category",
    "lease",
    "task",
];

/// What may be written now.
#[derive(Debug)]
struct Quiet {
    told: HashMap<u64, Told>,
    /// How many may still be written at once, and since when that is known.
    left: f64,
    at: Instant,
    /// Left out since the last record, whatever it was about.
    suppressed: u64,
}

#[derive(Debug)]
struct Told {
    last: Instant,
    suppressed: u64,
}

impl Quiet {
    fn new(now: Instant) -> Self {
        Self {
            told: HashMap::new(),
            left: f64::from(BURST),
            at: now,
            suppressed: 0,
        }
    }

    /// How many were left out before this record, or `None` where it is to be left out itself.
    fn admit(&mut self, record: u64, now: Instant) -> Option<u64> {
        let refill = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(PER_SECOND);
        self.left = (self.left + refill).min(f64::from(BURST));
        self.at = now;
        if let Some(told) = self.told.get_mut(&record)
            && now.saturating_duration_since(told.last) < WINDOW
        {
            told.suppressed += 1;
            return None;
        }
        if self.left < 1.0 {
            self.suppressed += 1;
            return None;
        }
        self.left -= 1.0;
        if self.told.len() >= REMEMBERED {
            self.forget_old(now);
        }
        let before = self.told.insert(
            record,
            Told {
                last: now,
                suppressed: 0,
            },
        );
        Some(std::mem::take(&mut self.suppressed) + before.map_or(0, |before| before.suppressed))
    }

    fn forget_old(&mut self, now: Instant) {
        let suppressed = &mut self.suppressed;
        self.told.retain(|_, told| {
            let stays = now.saturating_duration_since(told.last) < WINDOW;
            if !stays {
                *suppressed += told.suppressed;
            }
            stays
        });
    }
}

/// Formats records, but for those that are left out.
#[derive(Debug)]
pub(super) struct Quieted<F> {
    inner: F,
    json: bool,
    quiet: Mutex<Quiet>,
}

impl<F> Quieted<F> {
    /// `json` says that `inner` writes one JSON object to a line.
    pub(super) fn new(inner: F, json: bool) -> Self {
        Self {
            inner,
            json,
            quiet: Mutex::new(Quiet::new(Instant::now())),
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for Quieted<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        cx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut suppressed = 0;
        if *event.metadata().level() <= Level::WARN {
            let admitted = self
                .quiet
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .admit(identity(event), Instant::now());
            match admitted {
                Some(before) => suppressed = before,
                None => return Ok(()),
            }
        }
        if suppressed == 0 {
            return self.inner.format_event(cx, writer, event);
        }
        let mut line = String::new();
        self.inner.format_event(cx, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        match line.strip_suffix('}').filter(|_| self.json) {
            Some(open) => writeln!(writer, "{open},\"suppressed\":{suppressed}}}"),
            None => writeln!(writer, "{line} suppressed={suppressed}"),
        }
    }
}

/// What tells a record from others: its outage, or else where it is written and its telling fields.
fn identity(event: &Event<'_>) -> u64 {
    let mut seen = Seen {
        hasher: DefaultHasher::new(),
        outage: None,
    };
    event.metadata().callsite().hash(&mut seen.hasher);
    event.record(&mut seen);
    match seen.outage {
        Some(outage) => {
            let mut hasher = DefaultHasher::new();
            outage.hash(&mut hasher);
            hasher.finish()
        }
        None => seen.hasher.finish(),
    }
}

struct Seen {
    hasher: DefaultHasher,
    outage: Option<String>,
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "outage" {
            self.outage = Some(value.to_owned());
        } else if TELLING.contains(&field.name()) {
            (field.name(), value).hash(&mut self.hasher);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "outage" || TELLING.contains(&field.name()) {
            self.record_str(field, &format!("{value:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lasting_failure_is_told_once_in_ten_seconds_and_nothing_is_lost_count_of() {
        let start = Instant::now();
        let mut quiet = Quiet::new(start);
        let mut told = Vec::new();
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            // The same failure ten times a second, beside one of another object now and then.
            for _ in 0..10 {
                told.extend(quiet.admit(1, now).map(|suppressed| (second, suppressed)));
            }
            if second == 25 {
                assert_eq!(quiet.admit(2, now), Some(0));
            }
        }
        let times: Vec<u64> = told.iter().map(|(second, _)| *second).collect();
        assert_eq!(times, [0, 10, 20, 30, 40, 50]);
        assert_eq!(told[0].1, 0);
        assert!(
            told[1..].iter().all(|(_, suppressed)| *suppressed == 99),
            "{told:?}"
        );
    }

    #[test]
    fn all_records_together_are_bounded_and_so_is_what_is_remembered() {
        let start = Instant::now();
        let mut quiet = Quiet::new(start);
        let (mut told, mut accounted) = (0_u64, 0_u64);
        for record in 0..100_000_u64 {
            let now = start + Duration::from_millis(record);
            if let Some(suppressed) = quiet.admit(record, now) {
                told += 1;
                accounted += 1 + suppressed;
            }
        }
        let bound = u64::from(BURST) + 100 * u64::from(PER_SECOND);
        assert!(told <= bound && told >= bound - 2, "{told} records");
        assert_eq!(accounted + quiet.suppressed, 100_000);
        assert!(quiet.told.len() <= REMEMBERED);
    }

    #[test]
    fn what_is_forgotten_keeps_its_count() {
        let start = Instant::now();
        let mut quiet = Quiet::new(start);
        assert_eq!((quiet.admit(1, start), quiet.admit(1, start)), (Some(0), None));
        quiet.forget_old(start + WINDOW);
        assert!(quiet.told.is_empty());
        assert_eq!(quiet.admit(2, start + WINDOW), Some(1));
    }
}
