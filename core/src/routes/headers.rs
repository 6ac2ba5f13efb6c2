//! Headers that a request must have.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

/// The headers of a request, whatever holds them.
pub trait HeaderSet {
    /// Whether there is a header `name`, which is in lower case, and, if `value` is given, one with exactly this value.
    fn has(&self, name: &str, value: Option<&str>) -> bool;
}

/// A header that a request must have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeaderRule {
    name: Arc<str>,
    value: Option<Arc<str>>,
}

/// Text that no header can be called; the message says what is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a header name of letters, digits and any of !#$%&'*+-.^_`|~")]
pub struct HeaderNameError(());

impl HeaderRule {
    /// The header `name`, in whatever case, with exactly this value, or with any.
    ///
    /// # Errors
    /// No header can be called so.
    pub fn new(name: &str, value: Option<&str>) -> Result<Self, HeaderNameError> {
        if !is_token(name) {
            return Err(HeaderNameError(()));
        }
        Ok(Self {
            name: name.to_ascii_lowercase().into(),
            value: value.map(Into::into),
        })
    }
}

impl fmt::Display for HeaderRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.value {
            Some(value) => write!(f, "={value}"),
            None => Ok(()),
        }
    }
}

/// Whether text can be the name of a header (RFC 9110 §5.6.2).
#[must_use]
pub fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Headers, all of which a request must have. Two of these are equal when the same requests have them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeaderRules(Arc<[HeaderRule]>);

impl HeaderRules {
    /// All of `rules`. What follows from another of them is left out: a header that must have a value must be there.
    #[must_use]
    pub fn new(mut rules: Vec<HeaderRule>) -> Self {
        // Within a name, the rule without a value comes last.
        rules.sort_by(|a, b| b.cmp(a));
        rules.dedup_by(|rule, before| rule == before || (rule.value.is_none() && rule.name == before.name));
        rules.reverse();
        Self(rules.into())
    }

    /// Whether a request has them all.
    pub(super) fn match_all(&self, headers: &impl HeaderSet) -> bool {
        self.0
            .iter()
            .all(|rule| headers.has(&rule.name, rule.value.as_deref()))
    }

    /// Sorts the more specific first: by how many there are, then by how many of them have a value.
    pub(super) fn precedence(&self) -> (Reverse<usize>, Reverse<usize>) {
        let valued = self.0.iter().filter(|rule| rule.value.is_some()).count();
        (Reverse(self.0.len()), Reverse(valued))
    }

    /// Whether a request needs none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for HeaderRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rule) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{rule}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, value: Option<&str>) -> HeaderRule {
        HeaderRule::new(name, value).unwrap()
    }

    #[test]
    fn names_are_tokens_in_any_case() {
        assert_eq!(rule("X-Tenant", Some("Blue")).to_string(), "x-tenant=Blue");
        for bad in ["", "a b", "a:", "\u{e4}", "a\n"] {
            assert_eq!(HeaderRule::new(bad, None), Err(HeaderNameError(())), "{bad:?}");
        }
    }

    #[test]
    fn what_follows_from_another_rule_is_left_out() {
        let rules = HeaderRules::new(vec![
            rule("b", None),
            rule("a", Some("2")),
            rule("A", None),
            rule("a", Some("1")),
            rule("B", None),
        ]);
        assert_eq!(rules.to_string(), "a=1, a=2, b");
        assert_eq!(
            rules,
            HeaderRules::new(vec![rule("a", Some("2")), rule("b", None), rule("a", Some("1"))])
        );
        assert!(HeaderRules::new(Vec::new()).is_empty());
    }
}
