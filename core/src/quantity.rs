//! Numbers as Kubernetes writes them: `1500m`, `2Gi`, `12e6`.
//!
//! A quantity is held in billionths, the finest step the format knows, with the family of suffixes it was written in:
//!
//! ```text
//! "1.5Ki" ── parse ──> 1_536_000_000_000 billionths, binary ── Display ──> "1536"
//! ```

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
const NANO_DIGITS: i64 = 9;
const DECIMAL_SUFFIXES: [(&str, i64); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY_SUFFIXES: [(&str, u32); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];

/// A number of the Kubernetes API, exact to one billionth. Equality and order are those of the value: `1k` is `1000`.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    family: Family,
}

/// The suffixes a quantity was written with, which its canonical form keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Decimal,
    Exponent,
    Binary,
}

/// Text that is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Nothing at all.
    #[error("a quantity must not be empty")]
    Empty,
    /// What follows the digits is no suffix, or there are no digits where some are needed.
    #[error(
        "a quantity is a signed number with one of the suffixes n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei, or e<exponent>"
    )]
    Suffix,
    /// Beyond about 1.7e29.
    #[error("the quantity is too large")]
    TooLarge,
}

impl Quantity {
    /// Reads a quantity. More than nine decimal places are rounded away from zero, so that asking for something never
    /// becomes asking for nothing; binary quantities end at 2^63-1.
    ///
    /// # Errors
    /// See [`QuantityError`].
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Empty);
        }
        let (negative, unsigned) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, rest) = split_digits(unsigned);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => split_digits(rest),
            None => ("", rest),
        };
        let (magnitude, family) = if let Some(bits) = lookup(&BINARY_SUFFIXES, suffix) {
            binary(whole, fraction, bits)
        } else if let Some(exponent) = lookup(&DECIMAL_SUFFIXES, suffix) {
            (decimal(whole, fraction, exponent)?, Family::Decimal)
        } else {
            (decimal(whole, fraction, exponent(suffix)?)?, Family::Exponent)
        };
        Ok(Self {
            nanos: if negative { -magnitude } else { magnitude },
            family,
        })
    }

    /// A quantity of so many thousandths.
    #[must_use]
    pub fn from_milli(milli: i64) -> Self {
        Self {
            nanos: i128::from(milli) * 1_000_000,
            family: Family::Decimal,
        }
    }

    /// `value` cut off after three decimals, as KEDA makes the values it serves. What does not fit in 64 bits of
    /// thousandths ends at the nearest bound, and not-a-number is 0.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "truncation and saturation are what is asked for"
    )]
    pub fn from_f64_milli(value: f64) -> Self {
        Self::from_milli((value * 1000.0) as i64)
    }

    /// The whole number at or beyond this one, away from zero; ends at the bounds of `i64`.
    #[must_use]
    pub fn value_rounded_up(&self) -> i64 {
        saturate(away_from_zero(self.nanos, NANO))
    }

    /// Thousandths, rounded away from zero; ends at the bounds of `i64`.
    #[must_use]
    pub fn milli_rounded_up(&self) -> i64 {
        saturate(away_from_zero(self.nanos, NANO / 1000))
    }

    /// The nearest floating-point number.
    #[must_use]
    pub fn as_f64(&self) -> f64 {
        // Text keeps it correctly rounded; dividing two rounded floats would not.
        format!("{}e-9", self.nanos).parse().unwrap_or(f64::NAN)
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(
        text.bytes()
            .position(|b| !b.is_ascii_digit())
            .unwrap_or(text.len()),
    )
}

fn lookup<T: Copy>(table: &[(&str, T)], suffix: &str) -> Option<T> {
    table
        .iter()
        .find(|(name, _)| *name == suffix)
        .map(|(_, value)| *value)
}

fn exponent(suffix: &str) -> Result<i64, QuantityError> {
    let digits = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let exponent: i32 = digits.parse().map_err(|_| QuantityError::Suffix)?;
    Ok(exponent.into())
}

/// Billionths of `whole.fraction * 10^exponent`, rounded up.
fn decimal(whole: &str, fraction: &str, exponent: i64) -> Result<i128, QuantityError> {
    let digits = whole.bytes().chain(fraction.bytes()).skip_while(|b| *b == b'0');
    let digits: Vec<u8> = digits.collect();
    if digits.iter().all(|b| *b == b'0') {
        return Ok(0);
    }
    let count = i64::try_from(digits.len()).map_err(|_| QuantityError::TooLarge)?;
    let fraction_count = i64::try_from(fraction.len()).map_err(|_| QuantityError::TooLarge)?;
    let shift = exponent - fraction_count + NANO_DIGITS;
    if count + shift > 39 {
        return Err(QuantityError::TooLarge);
    }
    let kept = usize::try_from((count + shift.min(0)).max(0)).map_err(|_| QuantityError::TooLarge)?;
    let (kept, dropped) = digits.split_at(kept);
    let mut nanos = number(kept).ok_or(QuantityError::TooLarge)?;
    for _ in 0..shift.max(0) {
        nanos = nanos.checked_mul(10).ok_or(QuantityError::TooLarge)?;
    }
    let round_up = i128::from(dropped.iter().any(|b| *b != b'0'));
    nanos.checked_add(round_up).ok_or(QuantityError::TooLarge)
}

/// Billionths of `whole.fraction * 2^bits`, rounded up. Digits after the eighteenth decimal count only as rounding up.
fn binary(whole: &str, fraction: &str, bits: u32) -> (i128, Family) {
    const DECIMALS: usize = 18;
    let largest = i128::from(i64::MAX) * NANO;
    let factor = 1_i128 << bits;
    let whole = number(whole.as_bytes()).and_then(|n| n.checked_mul(factor)?.checked_mul(NANO));
    let mut padded = [b'0'; DECIMALS];
    for (slot, digit) in padded.iter_mut().zip(fraction.bytes()) {
        *slot = digit;
    }
    let beyond = fraction.bytes().skip(DECIMALS).any(|b| b != b'0');
    // Eighteen digits times 2^60 stay below 2^120.
    let scaled = number(&padded).unwrap_or(0) * factor + i128::from(beyond);
    let fraction = away_from_zero(scaled, NANO);
    let nanos = whole
        .and_then(|n| n.checked_add(fraction))
        .map_or(largest, |n| n.min(largest));
    let family = if (1..NANO).contains(&nanos) {
        Family::Decimal
    } else {
        Family::Binary
    };
    (nanos, family)
}

fn number(digits: &[u8]) -> Option<i128> {
    digits.iter().try_fold(0_i128, |n, b| {
        n.checked_mul(10)?.checked_add(i128::from(b - b'0'))
    })
}

fn away_from_zero(value: i128, unit: i128) -> i128 {
    value / unit + (value % unit).signum()
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that loses nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        if self.family == Family::Binary && self.nanos.abs() >= 1024 * NANO {
            let mut value = away_from_zero(self.nanos, NANO);
            let mut step = 0;
            while value % 1024 == 0 && step < BINARY_SUFFIXES.len() {
                value /= 1024;
                step += 1;
            }
            let suffix = step.checked_sub(1).map_or("", |i| BINARY_SUFFIXES[i].0);
            return write!(f, "{value}{suffix}");
        }
        let highest = if self.family == Family::Exponent {
            i64::MAX
        } else {
            18
        };
        let mut value = self.nanos;
        let mut exponent = -NANO_DIGITS;
        while value % 1000 == 0 && exponent < highest {
            value /= 1000;
            exponent += 3;
        }
        match (self.family, lookup_exponent(exponent)) {
            (Family::Exponent, _) if exponent != 0 => write!(f, "{value}e{exponent}"),
            (_, suffix) => write!(f, "{value}{suffix}"),
        }
    }
}

fn lookup_exponent(exponent: i64) -> &'static str {
    DECIMAL_SUFFIXES
        .iter()
        .find(|(_, e)| *e == exponent)
        .map_or("", |(suffix, _)| suffix)
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}
