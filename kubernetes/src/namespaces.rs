//! Which namespaces are watched.

use std::{collections::BTreeSet, str::FromStr};

/// The namespaces in scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    /// The whole cluster.
    All,
    /// These, at least one, sorted and each once.
    These(Vec<String>),
}

/// A namespace list that cannot be meant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "WATCH_NAMESPACE has {name:?}, which is no namespace name: accepted are lower case letters, digits and '-', separated by commas"
)]
pub struct NamespacesError {
    name: String,
}

impl Namespaces {
    /// Whether an object of `namespace` is in scope.
    #[must_use]
    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names
                .binary_search_by(|name| name.as_str().cmp(namespace))
                .is_ok(),
        }
    }
}

impl FromStr for Namespaces {
    type Err = NamespacesError;

    /// Reads `WATCH_NAMESPACE` as KEDA does: nothing, or a pair of quotes, is the whole cluster; else a comma list.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() || text == "\"\"" {
            return Ok(Self::All);
        }
        let names: BTreeSet<&str> = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .collect();
        let legal = |name: &&str| {
            name.len() <= 63
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !name.starts_with('-')
                && !name.ends_with('-')
        };
        match names.iter().find(|name| !legal(name)) {
            Some(name) => Err(NamespacesError {
                name: name.chars().take(80).collect(),
            }),
            None if names.is_empty() => Err(NamespacesError {
                name: text.chars().take(80).collect(),
            }),
            None => Ok(Self::These(names.into_iter().map(Into::into).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_a_pair_of_quotes_are_the_whole_cluster() {
        for text in ["", "  ", "\"\""] {
            assert_eq!(text.parse(), Ok(Namespaces::All), "{text:?}");
        }
    }

    #[test]
    fn a_list_holds_each_name_once_and_nothing_else_is_in_scope() {
        let some: Namespaces = "b, a,,b".parse().unwrap();
        assert_eq!(some, Namespaces::These(vec!["a".into(), "b".into()]));
        assert!(some.contains("a") && !some.contains("c") && !some.contains(""));
    }

    #[test]
    fn what_cannot_be_a_namespace_is_refused_by_name() {
        for text in ["A", "a b", "-a", ",", "a,b_c"] {
            assert!(text.parse::<Namespaces>().is_err(), "{text:?} was accepted");
        }
        let error = "team-a,Team_B".parse::<Namespaces>().unwrap_err().to_string();
        assert!(error.contains("\"Team_B\""), "{error}");
    }
}
