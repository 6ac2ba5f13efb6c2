//! Where a request wants to go.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::{host, path};

/// The host and the path of a request in the form that rules are held against.
///
/// Nothing is copied where the host is in lower case and the path has no escapes.
#[derive(Clone, Debug)]
pub struct Destination<'r> {
    host: Cow<'r, str>,
    path: Cow<'r, [u8]>,
}

impl<'r> Destination<'r> {
    /// The destination of a request for `path`, as it was received and without the query, at `host`, which may have a
    /// port. What looks like an escape and is none stands for itself.
    #[must_use]
    pub fn new(host: &'r str, path: &'r str) -> Self {
        Self {
            host: host::of_request(host),
            path: percent_decode_str(path).into(),
        }
    }

    /// The host in lower case, without brackets, port and trailing dot. Empty where it is missing or too long to be one.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path without escapes and without slashes at its ends. It need not be text.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        path::trimmed(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_and_nothing_else() {
        for (path, expected) in [
            ("/", ""),
            ("*", "*"),
            ("/a%20b/%63", "a b/c"),
            ("/a%2Fb", "a/b"),
            ("/a/../%2e%2e/b", "a/../../b"),
            ("/a//b", "a//b"),
            ("/a+b", "a+b"),
            ("/100%", "100%"),
            ("/%zz", "%zz"),
            ("/%2541", "%41"),
        ] {
            let destination = Destination::new("", path);
            assert_eq!(destination.path(), expected.as_bytes(), "{path:?}");
        }
        assert_eq!(Destination::new("", "/%ff").path(), b"\xff");
    }

    #[test]
    fn the_usual_path_is_not_copied() {
        let destination = Destination::new("a.b", "/api/orders/17");
        assert!(matches!(destination.path, Cow::Borrowed(_)));
    }
}
