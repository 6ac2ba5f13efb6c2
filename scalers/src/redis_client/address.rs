//! Where a server listens.

use std::fmt;
use std::net::Ipv6Addr;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether an error may name it: what came from a Secret or an environment variable, it may not.
    pub(super) printable: bool,
}

impl Address {
    /// From `host:port` or `[IPv6]:port`.
    pub(super) fn parse(text: &str, printable: bool) -> Option<Self> {
        let (host, port) = text.trim().rsplit_once(':')?;
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .filter(|inner| inner.parse::<Ipv6Addr>().is_ok());
        if bare.is_none() && host.contains([':', '[', ']']) {
            return None;
        }
        Self::new(bare.unwrap_or(host), port, printable)
    }

    /// From its parts, where an IPv6 address may have its brackets or not.
    pub(super) fn new(host: &str, port: &str, printable: bool) -> Option<Self> {
        let host = host.trim().trim_start_matches('[').trim_end_matches(']');
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let named = !host.is_empty() && host.len() <= 253 && host.chars().all(known);
        if !named && host.parse::<Ipv6Addr>().is_err() {
            return None;
        }
        let port = port.trim().parse().ok().filter(|port| *port != 0)?;
        Some(Self {
            host: host.to_owned(),
            port,
            printable,
        })
    }

    /// The part of a shared client's key that tells servers apart.
    pub(super) fn text(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.printable {
            f.write_str(&self.text())
        } else {
            f.write_str("the address of the environment or authentication")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for (text, host, port) in [
            ("redis:6379", "redis", 6379),
            (" redis.shop.svc.:6379 ", "redis.shop.svc.", 6379),
            ("10.0.0.1:1", "10.0.0.1", 1),
            ("[::1]:65535", "::1", 65535),
        ] {
            let address = Address::parse(text, true).unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port), "{text}");
            assert_eq!(address.to_string(), text.trim());
        }
        for text in [
            "redis",
            "redis:",
            ":6379",
            "redis:0",
            "redis:65536",
            "redis:6379/0",
            "redis://redis:6379",
            "user:word@redis:6379",
            "::1:6379",
            "[redis]:6379",
            "a b:1",
        ] {
            assert_eq!(Address::parse(text, true), None, "{text}");
        }
    }

    #[test]
    fn an_address_out_of_a_secret_is_not_shown() {
        let address = Address::parse("canary:6379", false).unwrap();
        assert!(!address.to_string().contains("canary"));
    }
}
