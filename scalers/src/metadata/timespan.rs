//! Spans of time as Go writes them.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

/// A span of time in a manifest: a Go duration such as `1m30s`, or a whole number of **milliseconds**.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct TimeSpan(u64);

/// What kept a text from being a [`TimeSpan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeSpanError {
    /// Neither form.
    #[error("expected {}", self.expected())]
    Malformed,
    /// Below 0.
    #[error("expected {}", self.expected())]
    Negative,
    /// Beyond what 64 bits of nanoseconds hold, about 292 years.
    #[error("expected {}", self.expected())]
    TooLong,
}

impl TimeSpanError {
    /// What would have been accepted.
    #[must_use]
    pub fn expected(self) -> &'static str {
        match self {
            Self::Malformed => "a duration such as 1m30s or 500ms, or a whole number of milliseconds",
            Self::Negative => "a duration that is not negative",
            Self::TooLong => "a duration of less than 292 years",
        }
    }
}

impl TimeSpan {
    /// Reads a span.
    ///
    /// # Errors
    /// The text is no such span; the error says what is accepted.
    pub fn parse(text: &str) -> Result<Self, TimeSpanError> {
        if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
            let milliseconds: u64 = text.parse().map_err(|_| TimeSpanError::TooLong)?;
            return milliseconds
                .checked_mul(1_000_000)
                .and_then(Self::bounded)
                .ok_or(TimeSpanError::TooLong);
        }
        if let Some(rest) = text.strip_prefix('-') {
            let zero = rest.parse::<u64>().is_ok_and(|n| n == 0) || Self::parse_units(rest) == Ok(Self(0));
            return if zero {
                Ok(Self(0))
            } else {
                Err(TimeSpanError::Negative)
            };
        }
        Self::parse_units(text.strip_prefix('+').unwrap_or(text))
    }

    fn parse_units(mut text: &str) -> Result<Self, TimeSpanError> {
        if text.is_empty() {
            return Err(TimeSpanError::Malformed);
        }
        if text == "0" {
            return Ok(Self(0));
        }
        let mut nanos = 0_u64;
        while !text.is_empty() {
            let (whole, rest) = digits(text);
            let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), digits);
            if whole.is_empty() && fraction.is_empty() {
                return Err(TimeSpanError::Malformed);
            }
            let end = rest
                .find(|c: char| c == '.' || c.is_ascii_digit())
                .unwrap_or(rest.len());
            let (unit, rest) = rest.split_at(end);
            let unit: u64 = match unit {
                "ns" => 1,
                "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60 * 1_000_000_000,
                "h" => 3600 * 1_000_000_000,
                _ => return Err(TimeSpanError::Malformed),
            };
            let whole = if whole.is_empty() {
                Ok(0)
            } else {
                whole.parse::<u64>()
            };
            let part = whole
                .ok()
                .and_then(|whole| whole.checked_mul(unit)?.checked_add(part_of(fraction, unit)))
                .ok_or(TimeSpanError::TooLong)?;
            nanos = nanos.checked_add(part).ok_or(TimeSpanError::TooLong)?;
            text = rest;
        }
        Self::bounded(nanos).ok_or(TimeSpanError::TooLong)
    }

    fn bounded(nanos: u64) -> Option<Self> {
        i64::try_from(nanos).is_ok().then_some(Self(nanos))
    }

    /// The span in nanoseconds.
    #[must_use]
    pub fn nanos(self) -> u64 {
        self.0
    }

    /// The span as the standard library holds it.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(
        text.bytes()
            .position(|b| !b.is_ascii_digit())
            .unwrap_or(text.len()),
    )
}

/// `0.fraction` of `unit` nanoseconds, rounded down. The finest unit that counts is 1/3600e9, so 18 digits are plenty.
fn part_of(fraction: &str, unit: u64) -> u64 {
    let (mut digits, mut scale) = (0_u128, 1_u128);
    for digit in fraction.bytes().take(18) {
        digits = digits * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    u64::try_from(digits * u128::from(unit) / scale).unwrap_or(unit)
}

impl JsonSchema for TimeSpan {
    fn schema_name() -> Cow<'static, str> {
        "TimeSpan".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "format": "timespan" })
    }

    fn inline_schema() -> bool {
        true
    }
}
