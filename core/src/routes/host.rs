//! Hosts: what a rule says of them, and what a request's authority comes to.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

/// The longest name that DNS has.
const LONGEST: usize = 253;

/// The hosts that a rule matches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// `*`: all of them, and requests that name none.
    Any,
    /// `*.b.c`: every name of more labels that ends so, here without the `*.`.
    Wildcard(Arc<str>),
    /// One name or address.
    Exact(Arc<str>),
}

/// Text that is no [`HostPattern`]; the message says what is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternError {
    /// An asterisk elsewhere than in front.
    #[error("a wildcard as the whole first label, as in *.example.com, or * alone")]
    Wildcard,
    /// Longer than any name can be.
    #[error("a host of at most {LONGEST} characters")]
    TooLong,
    /// Neither a name nor an address.
    #[error(
        "an IP address or a host name of letters, digits, '-', '_' and '.' (other alphabets in their xn-- form)"
    )]
    Malformed,
}

impl HostPattern {
    /// Reads a pattern. A port and a trailing dot are dropped, as they are from requests; an empty text is `*`.
    ///
    /// # Errors
    /// See [`HostPatternError`].
    pub fn parse(text: &str) -> Result<Self, HostPatternError> {
        let host = bare(text);
        if text.is_empty() || host == "*" {
            return Ok(Self::Any);
        }
        if host.len() > LONGEST {
            return Err(HostPatternError::TooLong);
        }
        if let Ok(address) = host.parse::<Ipv6Addr>() {
            return Ok(Self::Exact(address.to_string().into()));
        }
        let host = host.to_ascii_lowercase();
        let (name, pattern): (_, fn(Arc<str>) -> Self) = match host.strip_prefix("*.") {
            Some(suffix) => (suffix, Self::Wildcard),
            None => (host.as_str(), Self::Exact),
        };
        if name.contains('*') {
            return Err(HostPatternError::Wildcard);
        }
        if !name.split('.').all(is_label) {
            return Err(HostPatternError::Malformed);
        }
        Ok(pattern(name.into()))
    }

    /// Whether it matches a host in the form that [`of_request`] gives.
    pub(super) fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => **name == *host,
            Self::Wildcard(suffix) => host
                .strip_suffix(&**suffix)
                .and_then(|front| front.strip_suffix('.'))
                .is_some_and(|front| !front.is_empty()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::Exact(name) => f.write_str(name),
        }
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// The host of a request's authority as patterns hold it. Empty, so that only [`HostPattern::Any`] matches, where it is
/// longer than a pattern can be: the work that a client can cause is bounded.
pub(super) fn of_request(authority: &str) -> Cow<'_, str> {
    let host = bare(authority);
    if host.len() > LONGEST {
        return Cow::Borrowed("");
    }
    if host.contains(':')
        && let Ok(address) = host.parse::<Ipv6Addr>()
    {
        return Cow::Owned(address.to_string());
    }
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(host.to_ascii_lowercase());
    }
    Cow::Borrowed(host)
}

/// The host without brackets, port and trailing dot.
fn bare(authority: &str) -> &str {
    if let Some((address, _)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    let host = match authority.rsplit_once(':') {
        // With more colons it is an address without brackets, and has no port.
        Some((host, _)) if !host.contains(':') => host,
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let exact = |name: &str| Ok(HostPattern::Exact(name.into()));
        let wildcard = |suffix: &str| Ok(HostPattern::Wildcard(suffix.into()));
        for (text, expected) in [
            ("", Ok(HostPattern::Any)),
            ("*", Ok(HostPattern::Any)),
            ("*:8080", Ok(HostPattern::Any)),
            ("*.", Ok(HostPattern::Any)),
            ("Shop.Example.com", exact("shop.example.com")),
            ("shop.example.com.", exact("shop.example.com")),
            ("shop.example.com:8080", exact("shop.example.com")),
            ("shop.example.com.:8080", exact("shop.example.com")),
            ("localhost", exact("localhost")),
            ("_sip.xn--bcher-kva", exact("_sip.xn--bcher-kva")),
            ("10.0.0.1:80", exact("10.0.0.1")),
            ("[::1]", exact("::1")),
            ("[0:0::1]:80", exact("::1")),
            ("::1", exact("::1")),
            ("FE80::A", exact("fe80::a")),
            ("*.Example.com.:80", wildcard("example.com")),
            ("*.com", wildcard("com")),
            (".", Err(HostPatternError::Malformed)),
            (":80", Err(HostPatternError::Malformed)),
            ("a..b", Err(HostPatternError::Malformed)),
            (".a", Err(HostPatternError::Malformed)),
            ("a b", Err(HostPatternError::Malformed)),
            ("a/b", Err(HostPatternError::Malformed)),
            ("[::1", Err(HostPatternError::Malformed)),
            ("b\u{fc}cher.example", Err(HostPatternError::Malformed)),
            ("a.*.b", Err(HostPatternError::Wildcard)),
            ("a*.b", Err(HostPatternError::Wildcard)),
            ("*..b", Err(HostPatternError::Malformed)),
            ("*.*.b", Err(HostPatternError::Wildcard)),
            ("**", Err(HostPatternError::Wildcard)),
        ] {
            assert_eq!(HostPattern::parse(text), expected, "{text:?}");
        }
        let long = format!("{}.example", "a".repeat(246));
        assert_eq!(HostPattern::parse(&long), Err(HostPatternError::TooLong));
        assert!(HostPattern::parse(&long[1..]).is_ok());
    }

    #[test]
    fn authorities() {
        for (authority, expected) in [
            ("", ""),
            ("a.b", "a.b"),
            ("a.b:80", "a.b"),
            ("a.b:", "a.b"),
            ("a.b.", "a.b"),
            ("a.b.:80", "a.b"),
            ("A.b", "a.b"),
            ("[::1]:80", "::1"),
            ("[0::0001]", "::1"),
            ("0::1", "::1"),
            ("[::FFFF]", "::ffff"),
            ("[nonsense]:80", "nonsense"),
            ("[open", "[open"),
        ] {
            assert_eq!(of_request(authority), expected, "{authority:?}");
        }
        assert_eq!(of_request(&"a.".repeat(200)), "");
    }

    #[test]
    fn the_usual_host_is_not_copied() {
        for authority in ["shop.example.com", "shop.example.com:8080", "10.0.0.1:80"] {
            assert!(matches!(of_request(authority), Cow::Borrowed(_)), "{authority:?}");
        }
    }

    #[test]
    fn wildcards_match_names_of_more_labels() {
        let pattern = HostPattern::parse("*.b.c").unwrap();
        for (host, expected) in [
            ("a.b.c", true),
            ("y.x.b.c", true),
            ("b.c", false),
            (".b.c", false),
            ("ab.c", false),
            ("a.b.c.d", false),
            ("", false),
        ] {
            assert_eq!(pattern.matches(host), expected, "{host:?}");
        }
    }
}
