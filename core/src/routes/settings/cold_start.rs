//! What happens to requests while there is no ready pod.

use super::{ServicePort, StaticResponse};

/// What happens to requests while there is no ready pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColdStart {
    /// Who answers requests that have waited in vain.
    pub fallback: Option<ServicePort>,
    /// The answer in place of waiting.
    pub placeholder: Option<Box<StaticResponse>>,
    /// How many requests may wait at once in one interceptor, where the route says so; 0 is the interceptor's own bound.
    pub max_pending: Option<u32>,
    /// What becomes of requests that there is no room for.
    pub overflow: Overflow,
}

/// What becomes of requests that there is no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// They are rejected with 503.
    #[default]
    Reject,
    /// They get the placeholder.
    Placeholder,
}

impl ColdStart {
    /// How many requests may wait at once, where the interceptor's own bound is `own`.
    #[must_use]
    pub fn pending_bound(&self, own: u32) -> u32 {
        self.max_pending.filter(|max| *max > 0).unwrap_or(own)
    }

    /// The answer that every request gets at once. Requests wait although there is a placeholder where the route says both
    /// how many may and that the others get the placeholder.
    #[must_use]
    pub fn answer_at_once(&self) -> Option<&StaticResponse> {
        let holds = self.max_pending.is_some() && self.overflow == Overflow::Placeholder;
        self.placeholder.as_deref().filter(|_| !holds)
    }

    /// The answer to requests that there is no room for; without one they are rejected.
    #[must_use]
    pub fn answer_beyond_bound(&self) -> Option<&StaticResponse> {
        self.placeholder
            .as_deref()
            .filter(|_| self.overflow == Overflow::Placeholder)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ResponseBody;
    use super::*;

    #[test]
    fn a_placeholder_is_given_at_once_or_beyond_the_bound() {
        let placeholder = StaticResponse {
            status: 503,
            body: ResponseBody::Empty,
            headers: Vec::new(),
        };
        for (max_pending, overflow, at_once, beyond) in [
            (None, Overflow::Reject, true, false),
            (None, Overflow::Placeholder, true, true),
            (Some(5), Overflow::Reject, true, false),
            (Some(5), Overflow::Placeholder, false, true),
            (Some(0), Overflow::Placeholder, false, true),
        ] {
            let mut cold_start = ColdStart {
                fallback: None,
                placeholder: Some(Box::new(placeholder.clone())),
                max_pending,
                overflow,
            };
            let answers = |cold_start: &ColdStart| {
                (
                    cold_start.answer_at_once().is_some(),
                    cold_start.answer_beyond_bound().is_some(),
                )
            };
            assert_eq!(answers(&cold_start), (at_once, beyond), "{cold_start:?}");
            cold_start.placeholder = None;
            assert_eq!(answers(&cold_start), (false, false), "{cold_start:?}");
        }
    }

    #[test]
    fn zero_is_the_interceptors_own_bound() {
        for (max_pending, expected) in [(None, 100), (Some(0), 100), (Some(7), 7), (Some(700), 700)] {
            let cold_start = ColdStart {
                max_pending,
                ..ColdStart::default()
            };
            assert_eq!(cold_start.pending_bound(100), expected);
        }
    }
}
