//! The same of HTTP/2, by frames made by hand.

use crate::common::raw::{Raw, Recorder};
use crate::common::{Rig, frames};
use crate::judge::{ANSWER, QUIET, Seen, is_next, next_is_whole, reached, read_requests};
use crate::table::{Row, compare};

/// Its name, its fields, and its body.
type Http2Case<'c> = (&'static str, Vec<(&'c str, &'c str)>, Option<&'c str>);

/// What becomes of an HTTP/2 request: what the endpoint got, whether more came of it than whole requests, and what we said.
async fn requests_for(fields: &[(&str, &str)], body: Option<&str>) -> (Vec<Seen>, bool, String) {
    let endpoint = Recorder::start(ANSWER).await;
    let rig = Rig::serving(endpoint.address);
    let mut client = Raw::connect(rig.address()).await;
    client.send(frames::opening()).await;
    client.send(frames::request(fields, body)).await;
    let answer = client.rest(QUIET).await;
    next_is_whole(&rig, &endpoint).await.unwrap();
    let (mut whole, mut part) = (Vec::new(), false);
    for connection in endpoint.seen() {
        let (requests, rest) = read_requests(&connection);
        whole.extend(requests.into_iter().filter(|seen| !is_next(seen)));
        part |= rest.is_err();
    }
    (whole, part, frames::said(&answer))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_fields() {
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/one"),
    ];
    let and = |more: &[(&'static str, &'static str)]| [&usual[..], more].concat();
    let with = |name: &'static str, value: &'static str| {
        usual
            .iter()
            .map(|field| if field.0 == name { (name, value) } else { *field })
            .collect::<Vec<_>>()
    };
    let without = |name: &str| {
        usual
            .iter()
            .copied()
            .filter(|field| field.0 != name)
            .collect::<Vec<_>>()
    };
    let sound: Vec<Http2Case<'_>> = vec![
        ("as it should be", usual.to_vec(), Some("hello")),
        (
            "a length that is right",
            and(&[("content-length", "5")]),
            Some("hello"),
        ),
        (
            "a Host that is the authority",
            and(&[("host", "a")]),
            Some("hello"),
        ),
        (
            "trailers are understood",
            and(&[("te", "trailers")]),
            Some("hello"),
        ),
    ];
    let mut rows = Vec::new();
    for (name, fields, body) in sound {
        let (seen, part, did) = requests_for(&fields, body).await;
        assert!(
            !part && matches!(seen.as_slice(), [one] if one.body == "hello"),
            "{name}: {seen:?}"
        );
        let reached = reached(&seen);
        rows.push(Row {
            case: name,
            did,
            reached,
        });
    }
    let unsound: Vec<Http2Case<'_>> = vec![
        (
            "a coding",
            and(&[("transfer-encoding", "chunked")]),
            Some("0\r\n\r\n"),
        ),
        ("Connection", and(&[("connection", "close")]), None),
        ("Keep-Alive", and(&[("keep-alive", "5")]), None),
        ("Proxy-Connection", and(&[("proxy-connection", "close")]), None),
        ("Upgrade", and(&[("upgrade", "websocket")]), None),
        ("TE of more than trailers", and(&[("te", "gzip")]), None),
        ("a name in capitals", and(&[("X-A", "1")]), None),
        ("a name with a colon", and(&[("x: y\r\nx", "1")]), None),
        ("a name with a space", and(&[("x y", "1")]), None),
        (
            "a value with a line",
            and(&[("x-a", "1\r\ntransfer-encoding: chunked")]),
            None,
        ),
        ("a value with a line feed", and(&[("x-a", "1\nx-b: 2")]), None),
        ("a value with a CR", and(&[("x-a", "1\rx-b: 2")]), None),
        ("a value with a NUL", and(&[("x-a", "1\0")]), None),
        (
            "a value with a request",
            and(&[("x-a", "1\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a")]),
            None,
        ),
        (
            "a length that is too long",
            and(&[("content-length", "9")]),
            Some("hello"),
        ),
        (
            "a length that is too short",
            and(&[("content-length", "1")]),
            Some("hello"),
        ),
        ("a length without a body", and(&[("content-length", "5")]), None),
        (
            "two lengths",
            and(&[("content-length", "5"), ("content-length", "1")]),
            Some("hello"),
        ),
        (
            "a length that is none",
            and(&[("content-length", "5x")]),
            Some("hello"),
        ),
        (
            "a Host that is not the authority",
            and(&[("host", "b")]),
            Some("hello"),
        ),
        ("two Hosts", and(&[("host", "a"), ("host", "a")]), Some("hello")),
        ("two paths", and(&[(":path", "/smuggled")]), None),
        ("two authorities", and(&[(":authority", "b")]), None),
        (
            "a pseudo-header after a header",
            [("x-a", "1")].into_iter().chain(usual).collect(),
            None,
        ),
        (
            "a pseudo-header that nobody knows",
            and(&[(":smuggled", "1")]),
            None,
        ),
        ("a pseudo-header of responses", and(&[(":status", "200")]), None),
        ("no method", without(":method"), None),
        ("no path", without(":path"), None),
        ("no authority", without(":authority"), None),
        ("an empty path", with(":path", ""), None),
        ("a path that is none", with(":path", "one"), None),
        (
            "a path with a request line",
            with(":path", "/one HTTP/1.1\r\nHost: b\r\n\r\n"),
            None,
        ),
        ("a path with a space", with(":path", "/one /smuggled"), None),
        ("a path with a line", with(":path", "/one\r\nx: y"), None),
        (
            "a method with a request line",
            with(":method", "GET /smuggled HTTP/1.1\r\nx:"),
            None,
        ),
        ("a method with a space", with(":method", "GET /smuggled"), None),
        ("an authority with a line", with(":authority", "a\r\nx: y"), None),
        ("an authority with a user", with(":authority", "u@a"), None),
        ("an authority with a path", with(":authority", "a/b"), None),
        ("a scheme with a line", with(":scheme", "http\r\nx: y"), None),
        ("another scheme", with(":scheme", "ftp"), None),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "a")], None),
        (
            "an extended CONNECT",
            [(":protocol", "websocket")]
                .into_iter()
                .chain(with(":method", "CONNECT"))
                .collect(),
            None,
        ),
    ];
    let mut wrong = Vec::new();
    let judged = unsound
        .iter()
        .map(|(name, fields, body)| async move { (name, requests_for(fields, *body).await) });
    for (&name, (seen, _, did)) in futures::future::join_all(judged).await {
        if !seen.is_empty() || did == "no answer" {
            wrong.push(format!("{name}: {did}, {seen:?}"));
        }
        let reached = reached(&seen);
        rows.push(Row {
            case: name,
            did,
            reached,
        });
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    compare("HTTP/2", &rows);
}
