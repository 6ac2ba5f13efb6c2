//! What endpoints are told about the client: `X-Forwarded-*`, and `Forwarded` where it is in use.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::client::Client;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// What others have invented for the same: a client that is not believed cannot say it in other words either.
const OTHERS: [HeaderName; 3] = [
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-real-ip"),
];

/// Adds the client to what a request says about where it came from. What it already says counts if its sender is believed.
///
/// `Forwarded` is continued and never begun: who reads it prefers it to the `X-Forwarded-*` of the proxies before, which
/// know more.
pub(crate) fn add(headers: &mut HeaderMap, client: &Client, host: Option<&HeaderValue>) {
    let proto = if client.secure { "https" } else { "http" };
    add_to(headers, client.address.ip(), proto, client.trusted, host);
}

fn add_to(
    headers: &mut HeaderMap,
    client: IpAddr,
    proto: &'static str,
    trusted: bool,
    host: Option<&HeaderValue>,
) {
    if !trusted {
        for name in [FOR, HOST, PROTO, FORWARDED].iter().chain(&OTHERS) {
            headers.remove(name);
        }
    }
    let mut text = String::new();
    join(&mut text, headers, &FOR);
    // An address can always be written to a string and stand in a header.
    write!(text, "{client}").ok();
    set(headers, FOR, text);
    if headers.contains_key(FORWARDED) {
        let mut text = String::new();
        join(&mut text, headers, &FORWARDED);
        let written = match client {
            IpAddr::V4(address) => write!(text, "for={address};proto={proto}"),
            IpAddr::V6(address) => write!(text, "for=\"[{address}]\";proto={proto}"),
        };
        written.ok();
        set(headers, FORWARDED, text);
    }
    if let Some(host) = host {
        headers.entry(HOST).or_insert_with(|| host.clone());
    }
    headers.entry(PROTO).or_insert(HeaderValue::from_static(proto));
}

/// The lines of a list as one that can be continued.
fn join(text: &mut String, headers: &HeaderMap, name: &HeaderName) {
    for line in headers.get_all(name).iter().filter_map(|line| line.to_str().ok()) {
        let line = line.trim_matches([' ', '\t', ',']);
        if !line.is_empty() {
            text.push_str(line);
            text.push_str(", ");
        }
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(lines: &[(&'static str, &'static str)], client: &str, trusted: bool) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let host = HeaderValue::from_static("shop.example.com");
        add_to(
            &mut headers,
            client.parse().unwrap(),
            "http",
            trusted,
            Some(&host),
        );
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_first_proxy_says_all() {
        let expected = [
            "x-forwarded-for: 10.0.0.1",
            "x-forwarded-host: shop.example.com",
            "x-forwarded-proto: http",
        ];
        assert_eq!(forwarded(&[], "10.0.0.1", true), expected);
        assert_eq!(
            forwarded(&[("x-forwarded-for", " ,")], "10.0.0.1", true),
            expected
        );
    }

    #[test]
    fn a_later_one_adds_itself() {
        let incoming = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2, 3.3.3.3"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "outside"),
            ("forwarded", "for=1.1.1.1;proto=https"),
        ];
        assert_eq!(
            forwarded(&incoming, "fd00::1", true),
            [
                "forwarded: for=1.1.1.1;proto=https, for=\"[fd00::1]\";proto=http",
                "x-forwarded-for: 1.1.1.1, 2.2.2.2, 3.3.3.3, fd00::1",
                "x-forwarded-host: outside",
                "x-forwarded-proto: https",
            ]
        );
    }

    #[test]
    fn who_is_not_believed_says_nothing() {
        let incoming = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "inside"),
            ("x-real-ip", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
        ];
        assert_eq!(
            forwarded(&incoming, "10.0.0.1", false),
            forwarded(&[], "10.0.0.1", true)
        );
    }
}
