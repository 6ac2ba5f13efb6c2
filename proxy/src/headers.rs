//! What of a message's headers goes on, and what is for one connection only (RFC 9110 §7.6.1).

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Whether a header is for one connection, whether or not `Connection` says so. Asked of every header of every message: one
/// look at each name costs less than to look for eight that are mostly not there.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Removes from a request what is for the client's connection only. Gives the protocol that it asks to change to, if it is
/// one that can be passed on.
pub(crate) fn strip_request(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let upgrade = requested_upgrade(headers);
    let trailers = headers
        .get_all(TE)
        .iter()
        .any(|value| has_token(value, "trailers"));
    strip(headers);
    headers.remove(TE);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    upgrade
}

/// Removes from a response what is for the endpoint's connection only.
pub(crate) fn strip_response(headers: &mut HeaderMap) {
    strip(headers);
}

/// Whether a request is a call of gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        // Not application/grpc-web, which has its status in the body.
        .is_some_and(|rest| !rest.starts_with(b"-"))
}

/// Makes a message say that its connection changes to `protocol`.
pub(crate) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// HTTP/2 is spoken by prior knowledge or not at all: a client that asks to change to it goes on as it is.
fn requested_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut protocols = headers.get_all(UPGRADE).iter();
    let protocol = protocols.next()?;
    let asked = headers
        .get_all(CONNECTION)
        .iter()
        .any(|value| has_token(value, "upgrade"));
    let passable = protocols.next().is_none() && !has_token(protocol, "h2c");
    (asked && passable).then(|| protocol.clone())
}

fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        for name in named_by_connection(headers) {
            headers.remove(name);
        }
    }
    while let Some(name) = headers.keys().find(|name| is_hop_by_hop(name)).cloned() {
        headers.remove(name);
    }
}

/// The headers that `Connection` names. What frames or addresses a message is no matter of one connection: who names it
/// wants two readers to see two different messages.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let tokens = headers.get_all(CONNECTION).iter().flat_map(tokens);
    let names = tokens.filter_map(|token| HeaderName::from_bytes(token).ok());
    names
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH && *name != TE)
        .collect()
}

/// The members of a list.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

/// Whether a list has this member, in whatever case.
pub(crate) fn has_token(value: &HeaderValue, token: &str) -> bool {
    tokens(value).any(|present| present.eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        for (name, value) in lines.iter().map(pair) {
            headers.append(name, value);
        }
        headers
    }

    /// What goes on of these lines, and the upgrade.
    fn stripped(lines: &[(&'static str, &'static str)]) -> (Vec<String>, Option<String>) {
        let mut headers = headers(lines);
        let upgrade = strip_request(&mut headers);
        let lines = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        let mut lines: Vec<_> = lines.collect();
        lines.sort();
        (lines, upgrade.map(|value| value.to_str().unwrap().to_owned()))
    }

    #[test]
    fn what_is_for_one_connection_stays_there() {
        type Lines = &'static [(&'static str, &'static str)];
        let cases: &[(Lines, &[&str])] = &[
            (&[("accept", "*/*"), ("connection", "close")], &["accept: */*"]),
            (
                &[
                    ("connection", "x-a, X-B ,,close"),
                    ("x-a", "1"),
                    ("x-b", "2"),
                    ("x-c", "3"),
                ],
                &["x-c: 3"],
            ),
            (
                &[
                    ("connection", "x-a"),
                    ("connection", "x-b"),
                    ("x-a", "1"),
                    ("x-b", "2"),
                ],
                &[],
            ),
            (
                &[
                    ("keep-alive", "5"),
                    ("proxy-connection", "x"),
                    ("transfer-encoding", "chunked"),
                ],
                &[],
            ),
            (
                &[("proxy-authorization", "secret"), ("proxy-authenticate", "x")],
                &[],
            ),
            (
                &[("te", "gzip, trailers;q=1"), ("trailer", "x-sum")],
                &["trailer: x-sum"],
            ),
            (&[("te", "gzip, trailers")], &["te: trailers"]),
            (&[("connection", "te"), ("te", "trailers")], &["te: trailers"]),
            // Hop-by-hop abuse.
            (
                &[
                    ("connection", "host, content-length"),
                    ("host", "a"),
                    ("content-length", "3"),
                ],
                &["content-length: 3", "host: a"],
            ),
            (
                &[
                    ("http2-settings", "AAMAAABk"),
                    ("upgrade", "h2c"),
                    ("connection", "upgrade, http2-settings"),
                ],
                &[],
            ),
        ];
        for (given, expected) in cases {
            let (lines, upgrade) = stripped(given);
            assert_eq!(lines, *expected, "{given:?}");
            assert_eq!(upgrade, None, "{given:?}");
        }
    }

    #[test]
    fn upgrades_are_asked_for_by_two_headers() {
        for (lines, expected) in [
            (
                &[("connection", "Upgrade"), ("upgrade", "websocket")][..],
                Some("websocket"),
            ),
            (
                &[("connection", "keep-alive, upgrade"), ("upgrade", "foo/2")],
                Some("foo/2"),
            ),
            (&[("upgrade", "websocket")], None),
            (&[("connection", "upgrade")], None),
            (&[("connection", "upgrade"), ("upgrade", "H2C")], None),
            (&[("connection", "upgrade"), ("upgrade", "websocket, h2c")], None),
            (
                &[
                    ("connection", "upgrade"),
                    ("upgrade", "websocket"),
                    ("upgrade", "h2c"),
                ],
                None,
            ),
        ] {
            assert_eq!(stripped(lines).1.as_deref(), expected, "{lines:?}");
        }
    }
}
