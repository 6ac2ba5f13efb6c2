//! What is wrong with an InterceptorRoute, gathered.

use std::fmt::{self, Debug, Display};

use dormouse_core::routes::RouteKey;

use crate::Refusal;

/// How many faults a message lists; the others are counted.
const LISTED: usize = 8;
/// How many characters of a wrong value a message shows.
const SHOWN: usize = 80;

/// An InterceptorRoute that cannot be run. The message is for the Ready condition and the Event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("InterceptorRoute {route}: {}", Listed(faults))]
pub struct RouteRefusal {
    /// The object.
    pub route: RouteKey,
    /// Everything that is wrong with it; each names the field, what is wrong and what is accepted.
    pub faults: Vec<Refusal>,
}

struct Listed<'a>(&'a [Refusal]);

impl Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().take(LISTED).enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{fault}")?;
        }
        match self.0.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// The faults found so far. What is made of a field beside a fault is never used.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Refusal>);

impl Faults {
    pub(super) fn add(&mut self, sentence: impl Into<String>) {
        self.0.push(Refusal::new(sentence));
    }

    /// A field whose value is wrong.
    pub(super) fn refuse(&mut self, field: impl Display, value: impl Debug, accepted: impl Display) {
        let mut value = format!("{value:?}");
        if let Some((end, _)) = value.char_indices().nth(SHOWN) {
            value.truncate(end);
            value.push_str("...");
        }
        self.add(format!("{field} is {value}: {accepted} is accepted"));
    }

    /// The value of a field, unless it is wrong; the error says what is accepted.
    pub(super) fn check<T, E: Display>(
        &mut self,
        field: impl Display,
        value: impl Debug,
        parsed: Result<T, E>,
    ) -> Option<T> {
        parsed
            .map_err(|accepted| self.refuse(field, value, accepted))
            .ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn of(self, route: RouteKey) -> RouteRefusal {
        RouteRefusal {
            route,
            faults: self.0,
        }
    }
}
