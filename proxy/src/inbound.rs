//! Which requests are let in: those that every reader down the line takes for the same one request.

use http::header::{CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Uri, Version, request};

use crate::failure::Failure;

/// Checks a request's head and puts it into one form: the host in `Host`, the path alone in the target.
///
/// # Errors
/// It could be read in two ways, or asks for what is not served.
pub(crate) fn normalize(head: &mut request::Parts) -> Result<(), Failure> {
    if head.method == Method::CONNECT {
        return Err(Failure::Connect);
    }
    check_framing(head.version, &head.headers)?;
    let host = host(head)?;
    normalize_target(&mut head.uri)?;
    if let Some(host) = host {
        head.headers.insert(HOST, host);
    }
    if head.version == Version::HTTP_2 {
        join_cookies(&mut head.headers);
    }
    Ok(())
}

/// HTTP/2 may send cookies piece by piece; everybody else expects them in one line (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let all = headers.get_all(COOKIE);
    if all.iter().nth(1).is_none() {
        return;
    }
    let pieces: Vec<&[u8]> = all.iter().map(HeaderValue::as_bytes).collect();
    if let Ok(mut whole) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        whole.set_sensitive(all.iter().any(HeaderValue::is_sensitive));
        headers.insert(COOKIE, whole);
    }
}

/// The host of a normalised request; empty for an HTTP/1.0 one without.
pub(crate) fn host_of(headers: &HeaderMap) -> &str {
    headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default()
}

/// One length or `chunked` is understood by all. hyper takes any list that ends in `chunked`, and would pass on the body of
/// another coding without its name; HTTP/2 lets several lengths pass. What contradicts itself it has refused before.
fn check_framing(version: Version, headers: &HeaderMap) -> Result<(), Failure> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next()
        && (lengths.next().is_some() || !length.as_bytes().iter().all(u8::is_ascii_digit))
    {
        return Err(Failure::BadRequest("Content-Length is not one number"));
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(only), None)
            if version == Version::HTTP_11 && only.as_bytes().eq_ignore_ascii_case(b"chunked") =>
        {
            Ok(())
        }
        _ => Err(Failure::BadRequest("Transfer-Encoding is not chunked")),
    }
}

/// The value that `Host` has to get, if it is not right as it is.
fn host(head: &request::Parts) -> Result<Option<HeaderValue>, Failure> {
    let mut lines = head.headers.get_all(HOST).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(Failure::BadRequest("more than one Host"));
    }
    if let Some(line) = line {
        check_authority(line)?;
    }
    let Some(authority) = head.uri.authority() else {
        return match line {
            None if head.version != Version::HTTP_10 => Err(Failure::BadRequest("no Host")),
            _ => Ok(None),
        };
    };
    if authority.as_str().contains('@') {
        return Err(Failure::BadRequest("a user in the target"));
    }
    // The target decides (RFC 9112 §3.2.2, RFC 9113 §8.3.1), and nobody further on may decide otherwise.
    if line.is_some_and(|line| {
        !line
            .as_bytes()
            .eq_ignore_ascii_case(authority.as_str().as_bytes())
    }) {
        return Err(Failure::BadRequest("Host differs from the target"));
    }
    let value = HeaderValue::from_str(authority.as_str());
    value
        .map(Some)
        .map_err(|_| Failure::BadRequest("a host that cannot be a header"))
}

/// A name or an address, perhaps with a port. The grammar allows more, of which every reader makes something else.
fn check_authority(host: &HeaderValue) -> Result<(), Failure> {
    let bytes = host.as_bytes();
    let (host, rest) = match bytes.strip_prefix(b"[") {
        Some(address) => split_at_byte(address, b']'),
        None => match split_at_byte(bytes, b':') {
            (host, Some(port)) => (host, Some(port)),
            (host, None) => (host, Some(&[][..])),
        },
    };
    let is_address = bytes.starts_with(b"[");
    let allowed =
        |byte: &u8| byte.is_ascii_alphanumeric() || b".-_".contains(byte) || (is_address && *byte == b':');
    let port = match rest {
        Some(rest) if is_address => rest.strip_prefix(b":").or(rest.is_empty().then_some(rest)),
        rest => rest,
    };
    let is_valid = !host.is_empty()
        && host.iter().all(allowed)
        && port.is_some_and(|port| port.len() <= 5 && port.iter().all(u8::is_ascii_digit));
    if is_valid {
        Ok(())
    } else {
        Err(Failure::BadRequest("Host is no host"))
    }
}

/// What is before the first such byte, and what is after it.
fn split_at_byte(bytes: &[u8], byte: u8) -> (&[u8], Option<&[u8]>) {
    let mut parts = bytes.splitn(2, |other| *other == byte);
    (parts.next().unwrap_or_default(), parts.next())
}

/// Leaves the path and the query, byte by byte as they came.
fn normalize_target(target: &mut Uri) -> Result<(), Failure> {
    if target
        .scheme()
        .is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS)
    {
        return Err(Failure::BadRequest("a target that is no HTTP"));
    }
    if !target.path().starts_with('/') && target.path() != "*" {
        return Err(Failure::BadRequest("a target without a path"));
    }
    if target.authority().is_some() {
        let path = target
            .path_and_query()
            .cloned()
            .unwrap_or(PathAndQuery::from_static("/"));
        *target = Uri::from(path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn normalized(
        version: Version,
        target: &str,
        lines: &[(&str, &str)],
    ) -> Result<(String, String), Failure> {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        normalize(&mut head)?;
        Ok((host_of(&head.headers).to_owned(), head.uri.to_string()))
    }

    #[test]
    fn the_host_and_the_target_are_put_into_one_form() {
        for (target, lines, expected) in [
            ("/a?b=%20", &[("host", "A.b:80")][..], ("A.b:80", "/a?b=%20")),
            ("*", &[("host", "a")], ("a", "*")),
            ("http://a.b:80/c?d", &[("host", "A.B:80")], ("a.b:80", "/c?d")),
            ("http://a.b?d", &[], ("a.b", "/?d")),
            ("/", &[("host", "[::1]:80")], ("[::1]:80", "/")),
            ("/", &[("host", "[::1]")], ("[::1]", "/")),
            ("/", &[("host", "a_b.c-d.:")], ("a_b.c-d.:", "/")),
            ("/a/%2e%2e//b", &[("host", "a")], ("a", "/a/%2e%2e//b")),
        ] {
            let seen = normalized(Version::HTTP_11, target, lines).unwrap();
            assert_eq!((seen.0.as_str(), seen.1.as_str()), expected, "{target} {lines:?}");
        }
        assert_eq!(
            normalized(Version::HTTP_10, "/", &[]),
            Ok((String::new(), "/".to_owned()))
        );
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (target, lines) in [
            ("/", &[][..]),
            ("/", &[("host", "a"), ("host", "a")]),
            ("/", &[("host", "")]),
            ("/", &[("host", "a b")]),
            ("/", &[("host", "a,b")]),
            ("/", &[("host", "a@b")]),
            ("/", &[("host", "a/b")]),
            ("/", &[("host", "a:1:2")]),
            ("/", &[("host", "a:x")]),
            ("/", &[("host", "a:123456")]),
            ("/", &[("host", ":80")]),
            ("/", &[("host", "[::1")]),
            ("/", &[("host", "[::1]x")]),
            ("/", &[("host", "[]:80")]),
            ("/", &[("host", "a%2eb")]),
            ("http://a/", &[("host", "b")]),
            ("http://u@a/", &[("host", "a")]),
            ("ftp://a/", &[("host", "a")]),
            ("a:80", &[("host", "a:80")]),
            ("/", &[("host", "a"), ("transfer-encoding", "identity")]),
            ("/", &[("host", "a"), ("transfer-encoding", "gzip, chunked")]),
            (
                "/",
                &[
                    ("host", "a"),
                    ("transfer-encoding", "chunked"),
                    ("transfer-encoding", "chunked"),
                ],
            ),
        ] {
            let seen = normalized(Version::HTTP_11, target, lines);
            assert!(
                matches!(seen, Err(Failure::BadRequest(_))),
                "{target} {lines:?}: {seen:?}"
            );
        }
    }
}
