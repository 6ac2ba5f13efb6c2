//! Paths in whole segments.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// The beginning of a path: `/api` covers `/api` and `/api/orders`, and not `/apis`. The root covers everything.
///
/// The order is that of the segments: a prefix comes before all that it covers, and nothing else comes in between.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PathPrefix(Arc<str>);

impl PathPrefix {
    /// The prefix `text`, as it reads without escapes. Slashes at both ends do not matter.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim_matches('/').into())
    }

    /// Whether `path`, without slashes at its ends, is this one or below it.
    pub(super) fn covers(&self, path: &[u8]) -> bool {
        self.covers_given(path, shared(self.as_bytes(), path))
    }

    /// The same, where `shared` is known: in how many first bytes `path` agrees with this prefix, or with a longer one that
    /// this one covers.
    pub(super) fn covers_given(&self, path: &[u8], shared: usize) -> bool {
        let length = self.0.len();
        length == 0 || (length <= shared && path.get(length).is_none_or(|&next| next == b'/'))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Ord for PathPrefix {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.as_bytes(), other.as_bytes())
    }
}

impl PartialOrd for PathPrefix {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}

/// The order of [`PathPrefix`]: byte by byte, with the slash before all other bytes.
pub(super) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let shared = shared(a, b);
    match (a.get(shared), b.get(shared)) {
        (Some(b'/'), Some(_)) => Ordering::Less,
        (Some(_), Some(b'/')) => Ordering::Greater,
        (a, b) => a.cmp(&b),
    }
}

/// In how many first bytes both agree.
pub(super) fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// `path` without slashes at its ends.
pub(super) fn trimmed(mut path: &[u8]) -> &[u8] {
    while let [b'/', rest @ ..] | [rest @ .., b'/'] = path {
        path = rest;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_on_borders_of_segments() {
        for (prefix, path, expected) in [
            ("/", "", true),
            ("", "a/b", true),
            ("/api", "api", true),
            ("/api/", "api/orders", true),
            ("api", "apis", false),
            ("/api", "ap", false),
            ("/api/v1", "api", false),
            ("//api//", "api/", true),
            ("/a//b", "a/b", false),
            ("/a/../b", "a/../b/c", true),
        ] {
            assert_eq!(
                PathPrefix::new(prefix).covers(path.as_bytes()),
                expected,
                "{prefix:?} {path:?}"
            );
        }
    }

    #[test]
    fn what_a_prefix_covers_comes_right_after_it() {
        let mut paths: Vec<_> = ["a.b", "a", "a/b/c", "b", "a b", "", "a/b", "ab", "a\u{1}", "a/"].to_vec();
        paths.sort_by(|a, b| compare(a.as_bytes(), b.as_bytes()));
        assert_eq!(
            paths,
            ["", "a", "a/", "a/b", "a/b/c", "a\u{1}", "a b", "a.b", "ab", "b"]
        );
    }

    #[test]
    fn slashes_at_the_ends_go() {
        for (path, expected) in [("", ""), ("/", ""), ("///", ""), ("//a/b//", "a/b"), ("a", "a")] {
            assert_eq!(trimmed(path.as_bytes()), expected.as_bytes());
        }
    }
}
