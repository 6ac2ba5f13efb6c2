//! Schedules of five fields and the moments they name.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// How far ahead a moment is looked for; 29 February returns within eight years, but KEDA looks no further than five.
const HORIZON_YEARS: i16 = 5;
const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// What is wrong with a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScheduleError {
    #[error(
        "expected exactly 5 fields (minute, hour, day of month, month, day of week), found {found}: {spec:?}"
    )]
    Fields { found: usize, spec: String },
    #[error("{part:?} is not a valid {field}: {accepted}")]
    Field {
        field: &'static str,
        part: String,
        accepted: String,
    },
    #[error("descriptors such as @daily are not accepted: {0:?}")]
    Descriptor(String),
    #[error(transparent)]
    Zone(#[from] ZoneError),
}

/// No zone has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown time zone {0}")]
pub(crate) struct ZoneError(String);

/// The zone called `name`; blank is UTC.
pub(crate) fn zone(name: &str) -> Result<TimeZone, ZoneError> {
    if name.is_empty() {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).map_err(|_| ZoneError(name.to_owned()))
}

/// A parsed schedule. Each field is a set of bits, one per value.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether the day of month or the day of week was left open (`*` or `?`), so that the other one alone decides.
    day_is_open: bool,
    zone: Option<TimeZone>,
}

struct Bounds {
    field: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const FIELDS: [Bounds; 5] = [
    Bounds {
        field: "minute",
        min: 0,
        max: 59,
        names: &[],
    },
    Bounds {
        field: "hour",
        min: 0,
        max: 23,
        names: &[],
    },
    Bounds {
        field: "day of month",
        min: 1,
        max: 31,
        names: &[],
    },
    Bounds {
        field: "month",
        min: 1,
        max: 12,
        names: &MONTHS,
    },
    Bounds {
        field: "day of week",
        min: 0,
        max: 6,
        names: &WEEKDAYS,
    },
];

impl Schedule {
    /// Parses `[TZ=<zone> ]minute hour day-of-month month day-of-week`.
    pub(crate) fn parse(spec: &str) -> Result<Self, ScheduleError> {
        let (own_zone, fields) = match spec.strip_prefix("TZ=").or_else(|| spec.strip_prefix("CRON_TZ=")) {
            Some(rest) => {
                let (name, fields) = rest.split_once(' ').unwrap_or((rest, ""));
                (Some(zone(name)?), fields)
            }
            None => (None, spec),
        };
        if fields.trim_start().starts_with('@') {
            return Err(ScheduleError::Descriptor(spec.to_owned()));
        }
        let parts: Vec<&str> = fields.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts[..] else {
            return Err(ScheduleError::Fields {
                found: parts.len(),
                spec: spec.to_owned(),
            });
        };
        let (minutes, _) = field(minute, &FIELDS[0])?;
        let (hours, _) = field(hour, &FIELDS[1])?;
        let (days, days_open) = field(day, &FIELDS[2])?;
        let (months, _) = field(month, &FIELDS[3])?;
        let (weekdays, weekdays_open) = field(weekday, &FIELDS[4])?;
        Ok(Self {
            minutes,
            hours,
            days,
            months,
            weekdays,
            day_is_open: days_open || weekdays_open,
            zone: own_zone,
        })
    }

    /// The first moment after `from`, or `None` when there is none for years. `zone` is used where the schedule names
    /// none itself.
    pub(crate) fn next(&self, from: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let zone = self.zone.as_ref().unwrap_or(zone);
        let today = zone.to_datetime(from).date();
        let last = today.checked_add(HORIZON_YEARS.years()).ok()?;
        let mut day = today;
        while day <= last {
            if self.names_day(day) {
                // Where the clocks go back over midnight, the next day's first moments lie before this day's last.
                let tomorrow = day.tomorrow().ok().filter(|d| self.names_day(*d));
                let first = [Some(day), tomorrow]
                    .into_iter()
                    .flatten()
                    .filter_map(|day| self.first_on(day, from, zone))
                    .min();
                if first.is_some() {
                    return first;
                }
            }
            day = day.tomorrow().ok()?;
        }
        None
    }

    fn names_day(&self, day: Date) -> bool {
        let weekday = has(
            self.weekdays,
            u32::from(day.weekday().to_sunday_zero_offset().unsigned_abs()),
        );
        let month_day = has(self.days, u32::from(day.day().unsigned_abs()));
        let named = if self.day_is_open {
            month_day && weekday
        } else {
            month_day || weekday
        };
        named && has(self.months, u32::from(day.month().unsigned_abs()))
    }

    fn first_on(&self, day: Date, from: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut first: Option<Timestamp> = None;
        for hour in (0..24_i8).filter(|h| has(self.hours, u32::from(h.unsigned_abs()))) {
            for minute in (0..60_i8).filter(|m| has(self.minutes, u32::from(m.unsigned_abs()))) {
                let local = DateTime::from_parts(day, Time::constant(hour, minute, 0, 0));
                for moment in moments(local, zone)
                    .into_iter()
                    .flatten()
                    .filter(|moment| *moment > from)
                {
                    first = Some(first.map_or(moment, |first| first.min(moment)));
                }
            }
        }
        first
    }
}

/// The moments at which clocks show `local`: none where they jump over it, two where they go back over it.
fn moments(local: DateTime, zone: &TimeZone) -> [Option<Timestamp>; 2] {
    let ambiguous = zone.to_ambiguous_timestamp(local);
    match ambiguous.offset() {
        jiff::tz::AmbiguousOffset::Unambiguous { offset } => [offset.to_timestamp(local).ok(), None],
        jiff::tz::AmbiguousOffset::Gap { .. } => [None, None],
        jiff::tz::AmbiguousOffset::Fold { before, after } => {
            [before.to_timestamp(local).ok(), after.to_timestamp(local).ok()]
        }
    }
}

fn has(bits: u64, value: u32) -> bool {
    bits & (1 << value) != 0
}

/// The values a field names, and whether it leaves the choice open.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), ScheduleError> {
    let mut bits = 0;
    let mut open = false;
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (part_bits, part_open) = range(part, bounds).ok_or_else(|| ScheduleError::Field {
            field: bounds.field,
            part: part.to_owned(),
            accepted: format!(
                "*, a number from {} to {}, a range such as {}-{}, either with a step such as /2, or a list of these",
                bounds.min,
                bounds.max,
                bounds.min,
                bounds.min + 3
            ),
        })?;
        bits |= part_bits;
        open |= part_open;
    }
    if bits == 0 {
        return Err(ScheduleError::Field {
            field: bounds.field,
            part: text.to_owned(),
            accepted: "at least one value".to_owned(),
        });
    }
    Ok((bits, open))
}

/// `*`, `?`, `n`, `n-m`, each with `/step`; `n/step` runs to the end. A step above 1 closes an open field.
fn range(text: &str, bounds: &Bounds) -> Option<(u64, bool)> {
    let (span, step) = match text.split_once('/') {
        Some((span, step)) => (
            span,
            Some(
                step.parse::<u32>()
                    .ok()
                    .filter(|s| *s > 0 && !step.starts_with('+'))?,
            ),
        ),
        None => (text, None),
    };
    let (low, high, open) = match span.split_once('-') {
        _ if span == "*" || span == "?" => (bounds.min, bounds.max, true),
        Some((low, high)) => (number(low, bounds)?, number(high, bounds)?, false),
        None => {
            let low = number(span, bounds)?;
            (low, if step.is_some() { bounds.max } else { low }, false)
        }
    };
    if low < bounds.min || high > bounds.max || low > high {
        return None;
    }
    let step = step.unwrap_or(1);
    let bits = (low..=high)
        .step_by(usize::try_from(step).ok()?)
        .fold(0, |bits, value| bits | 1 << value);
    Some((bits, open && step == 1))
}

fn number(text: &str, bounds: &Bounds) -> Option<u32> {
    let name = text.to_ascii_lowercase();
    if let Some(index) = bounds.names.iter().position(|n| *n == name) {
        return u32::try_from(index).ok().map(|index| index + bounds.min);
    }
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests;
