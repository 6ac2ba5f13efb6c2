//! Label selectors, as far as this API takes them: equality requirements joined by commas.

use std::collections::BTreeMap;

/// A selector that cannot be used, with the part of it that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SelectorError {
    #[error(
        "labelSelector: {requirement:?} is not accepted: only requirements of the form key=value or key==value are"
    )]
    NotEquality { requirement: String },
    #[error(
        "labelSelector: {key:?} is no label key: an optional DNS subdomain and a slash, then 1 to 63 letters, digits, '-', '_' or '.', beginning and ending with a letter or digit"
    )]
    Key { key: String },
    #[error(
        "labelSelector: {value:?} is no label value: at most 63 letters, digits, '-', '_' or '.', beginning and ending with a letter or digit"
    )]
    Value { value: String },
}

const MAX_NAME: usize = 63;
const MAX_PREFIX: usize = 253;
/// Error texts quote the input up to here.
const MAX_QUOTED: usize = 100;

/// The labels a selector requires. An empty selector requires none.
pub(crate) fn parse(selector: &str) -> Result<BTreeMap<&str, &str>, SelectorError> {
    if selector.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    selector.split(',').map(requirement).collect()
}

fn requirement(text: &str) -> Result<(&str, &str), SelectorError> {
    let not_equality = || SelectorError::NotEquality {
        requirement: quoted(text),
    };
    let (key, rest) = text.split_once('=').ok_or_else(not_equality)?;
    let value = rest.strip_prefix('=').unwrap_or(rest).trim();
    let key = key.trim();
    if key.ends_with('!') || value.contains('=') || key.contains(char::is_whitespace) {
        return Err(not_equality());
    }
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if !is_name(name) || prefix.is_some_and(|prefix| !is_subdomain(prefix)) {
        return Err(SelectorError::Key { key: quoted(key) });
    }
    if !value.is_empty() && !is_name(value) {
        return Err(SelectorError::Value { value: quoted(value) });
    }
    Ok((key, value))
}

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    bytes.len() <= MAX_NAME
        && first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_PREFIX
        && text.split('.').all(|label| {
            is_name(label)
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        })
}

fn quoted(text: &str) -> String {
    text.chars().take(MAX_QUOTED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_requirements_become_labels() {
        let labels = parse("scaledobject.keda.sh/name=orders, team == blue,empty=").unwrap();
        assert_eq!(
            labels.into_iter().collect::<Vec<_>>(),
            [
                ("empty", ""),
                ("scaledobject.keda.sh/name", "orders"),
                ("team", "blue")
            ]
        );
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn every_other_operator_is_refused_by_name() {
        for selector in [
            "a in (b)",
            "a notin (b,c)",
            "a!=b",
            "a",
            "!a",
            "a>1",
            "a=b,",
            ",",
            "a===b",
            "a=b=c",
        ] {
            let error = parse(selector).unwrap_err();
            assert!(
                matches!(error, SelectorError::NotEquality { .. }),
                "{selector}: {error}"
            );
        }
    }

    #[test]
    fn malformed_keys_and_values_are_refused() {
        for selector in ["=b", "-a=b", "a/b/c=d", "UPPER.example/x=y", "a%20=b", "/a=b"] {
            assert!(
                matches!(parse(selector), Err(SelectorError::Key { .. })),
                "{selector}"
            );
        }
        let long = format!("a={}", "x".repeat(64));
        for selector in ["a=-b", "a=b c", "a=é", long.as_str()] {
            assert!(
                matches!(parse(selector), Err(SelectorError::Value { .. })),
                "{selector}"
            );
        }
    }
}
