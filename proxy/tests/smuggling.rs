//! Request smuggling: whatever a client sends, an endpoint gets exactly one request for it, or none.
//!
//! An endpoint that writes down every byte judges, by a reader of its own that is stricter than any server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is test code"
)]

mod common;

use std::time::Duration;

use common::Rig;
use common::raw::{Raw, Recorder};
use tokio::task::JoinSet;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// How long nothing must come before all is taken to be there.
const QUIET: Duration = Duration::from_millis(400);

/// What must become of a client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The endpoint gets no whole request, and the client's connection ends.
    Refused,
    /// The endpoint gets one request, with this body.
    One(&'static str),
    /// As before, and then the client's connection ends.
    Last(&'static str),
}
use Fate::{Last, One, Refused};

/// A request as the endpoint saw it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    head: String,
    body: String,
}

/// Reads requests, and nothing but requests: `Err` has what is none, or is not whole.
fn read_requests(mut text: &str) -> (Vec<Seen>, Result<(), String>) {
    let mut requests = Vec::new();
    while !text.is_empty() {
        let Some((head, rest)) = text.split_once("\r\n\r\n") else {
            return (requests, Err(text.to_owned()));
        };
        if let Some(fault) = fault_of(head) {
            return (requests, Err(format!("{fault}: {head}")));
        }
        let values = |name: &str| -> Vec<&str> {
            let lines = head
                .split("\r\n")
                .skip(1)
                .filter_map(|line| line.split_once(": "));
            lines
                .filter(|(key, _)| *key == name)
                .map(|(_, value)| value)
                .collect()
        };
        let body = match (
            values("transfer-encoding").as_slice(),
            values("content-length").as_slice(),
        ) {
            ([], []) => Some((String::new(), rest)),
            (["chunked"], []) => read_chunks(rest),
            ([], [length]) => length.parse().ok().and_then(|length| {
                rest.is_char_boundary(length)
                    .then(|| (rest[..length].to_owned(), &rest[length..]))
            }),
            framing => return (requests, Err(format!("framed by {framing:?}: {head}"))),
        };
        let Some((body, rest)) = body else {
            return (requests, Err(text.to_owned()));
        };
        requests.push(Seen {
            head: head.to_owned(),
            body,
        });
        text = rest;
    }
    (requests, Ok(()))
}

fn fault_of(head: &str) -> Option<&'static str> {
    let mut lines = head.split("\r\n");
    let line: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    if line.len() != 3 || line[2] != "HTTP/1.1" || !line[1].starts_with(['/', '*']) {
        return Some("no request line");
    }
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte))
    };
    let lines: Vec<&str> = lines.collect();
    if !lines
        .iter()
        .all(|line| line.split_once(": ").is_some_and(|(name, _)| is_name(name)))
    {
        return Some("a line that is no header");
    }
    if head.replace("\r\n", "").contains(['\r', '\n', '\0']) {
        return Some("a bare CR, LF or NUL");
    }
    if lines.iter().filter(|line| line.starts_with("host: ")).count() != 1 {
        return Some("not one Host");
    }
    None
}

fn read_chunks(mut text: &str) -> Option<(String, &str)> {
    let mut body = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            // What trailers there are is not looked at.
            let rest = match rest.strip_prefix("\r\n") {
                Some(rest) => rest,
                None => rest.split_once("\r\n\r\n")?.1,
            };
            return Some((body, rest));
        }
        body.push_str(rest.get(..size)?);
        text = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

/// Sends the bytes and judges what came of them.
async fn judge(name: &str, bytes: Vec<u8>, fate: Fate) -> Result<(), String> {
    let endpoint = Recorder::start(ANSWER).await;
    let rig = Rig::serving(endpoint.address);
    let mut client = Raw::connect(rig.address()).await;
    client.send(bytes).await;
    // The end of what a client says must not be what makes the difference: it stays.
    let answer = client.rest(QUIET).await;
    let is_closed = client.is_closed_within(QUIET).await;
    let (mut whole, mut broken) = (Vec::new(), 0);
    for connection in endpoint.seen() {
        let (requests, rest) = read_requests(&connection);
        whole.extend(requests);
        broken += usize::from(rest.is_err());
    }
    let context = || {
        format!(
            "{name}: {whole:?}, {broken} broken, closed: {is_closed}, answer {:?}",
            String::from_utf8_lossy(&answer)
        )
    };
    if whole.iter().any(|seen| seen.head.contains("/smuggled")) {
        return Err(context());
    }
    let as_expected = match fate {
        Refused => whole.is_empty() && is_closed && !answer.starts_with(b"HTTP/1.1 2"),
        One(body) => broken == 0 && matches!(whole.as_slice(), [one] if one.body == body),
        Last(body) => broken == 0 && is_closed && matches!(whole.as_slice(), [one] if one.body == body),
    };
    if as_expected { Ok(()) } else { Err(context()) }
}

async fn judge_all(cases: Vec<(&'static str, Vec<u8>, Fate)>) {
    let mut running = JoinSet::new();
    for (name, bytes, fate) in cases {
        running.spawn(async move { judge(name, bytes, fate).await });
    }
    let mut wrong = Vec::new();
    while let Some(result) = running.join_next().await {
        wrong.extend(result.unwrap().err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A POST with these lines in its head, and what follows.
fn post(lines: &str, rest: &str) -> Vec<u8> {
    format!("POST /one HTTP/1.1\r\nHost: a\r\n{lines}\r\n{rest}").into_bytes()
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths_and_codings() {
    let with_next = |rest: &str| format!("{rest}{SMUGGLED}");
    let cl = |value: &str| post(&format!("Content-Length: {value}\r\n"), "hello");
    let te = |value: &str| post(&format!("Transfer-Encoding: {value}\r\n"), CHUNKS);
    judge_all(vec![
        ("a length", cl("5"), One("hello")),
        ("chunks", te("chunked"), One("hello")),
        (
            "a length, then chunks",
            post(
                "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
                &with_next(CHUNKS),
            ),
            Last("hello"),
        ),
        (
            "chunks, then a length",
            post(
                "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
                &with_next(CHUNKS),
            ),
            Last("hello"),
        ),
        (
            "a length that cuts the chunks",
            post(
                "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
                &with_next(CHUNKS),
            ),
            Last("hello"),
        ),
        (
            "chunks that end before the length",
            post(
                "Content-Length: 60\r\nTransfer-Encoding: chunked\r\n",
                &with_next("0\r\n\r\n"),
            ),
            Last(""),
        ),
        (
            "the same length twice",
            post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
            One("hello"),
        ),
        (
            "two lengths",
            post("Content-Length: 5\r\nContent-Length: 0\r\n", "hello"),
            Refused,
        ),
        (
            "two lengths, the other way",
            post("Content-Length: 0\r\nContent-Length: 5\r\n", "hello"),
            Refused,
        ),
        ("a list of equal lengths", cl("5, 5"), Refused),
        ("a list of lengths", cl("5, 0"), Refused),
        ("a signed length", cl("+5"), Refused),
        ("a negative length", cl("-5"), Refused),
        ("a hexadecimal length", cl("0x5"), Refused),
        ("a length with a fraction", cl("5.0"), Refused),
        ("no length", cl(""), Refused),
        (
            "a length beyond all numbers",
            cl("99999999999999999999999"),
            Refused,
        ),
        ("a length with a parameter", cl("5;a=b"), Refused),
        ("a length with a space in it", cl("1 0"), Refused),
        ("a length with spaces around", cl("  5  "), One("hello")),
        ("a length with a letter", cl("5a"), Refused),
        ("two codings", te("chunked, chunked"), Refused),
        ("identity", te("identity"), Refused),
        ("chunked, then identity", te("chunked, identity"), Refused),
        ("another coding, then chunked", te("gzip, chunked"), Refused),
        ("a coding that nobody knows", te("xchunked"), Refused),
        ("a coding and half of one", te("chunkedx"), Refused),
        ("a coding with a parameter", te("chunked;q=1"), Refused),
        ("a quoted coding", te("\"chunked\""), Refused),
        ("an empty coding", te(""), Refused),
        ("a coding after a comma", te(", chunked"), Refused),
        ("chunked in capitals", te("CHUNKED"), One("hello")),
        ("chunked after a tab", te("\tchunked"), One("hello")),
        ("chunked before a vertical tab", te("chunked\u{b}"), Refused),
        ("chunked before a NUL", te("chunked\0"), Refused),
        (
            "two lines of codings",
            post(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
                CHUNKS,
            ),
            Refused,
        ),
        (
            "two lines, the other way",
            post(
                "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
                CHUNKS,
            ),
            Refused,
        ),
        (
            "two lines of chunked",
            post(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                CHUNKS,
            ),
            Refused,
        ),
        (
            "a coding with a space before its colon",
            post("Content-Length: 5\r\nTransfer-Encoding : chunked\r\n", "hello"),
            Refused,
        ),
        (
            "a coding by another name",
            post("Content-Length: 5\r\nTransfer_Encoding: chunked\r\n", "hello"),
            One("hello"),
        ),
        (
            "a coding on a folded line",
            post("Content-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n", "hello"),
            Refused,
        ),
        (
            "chunks in HTTP/1.0",
            b"POST /one HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
                .to_vec(),
            Refused,
        ),
        (
            "a request in the body of a GET",
            format!(
                "GET /one HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{SMUGGLED}",
                SMUGGLED.len()
            )
            .into_bytes(),
            One(SMUGGLED),
        ),
        (
            "a length in the list of what is for one connection",
            post("Connection: content-length\r\nContent-Length: 5\r\n", "hello"),
            One("hello"),
        ),
        (
            "a coding in that list",
            post(
                "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n",
                CHUNKS,
            ),
            One("hello"),
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_and_targets() {
    let raw = |text: &str| text.as_bytes().to_vec();
    let target = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
    let lines = |lines: &str| format!("GET /one HTTP/1.1\r\n{lines}\r\n").into_bytes();
    judge_all(vec![
        (
            "bare line feeds",
            raw("GET /one HTTP/1.1\nHost: a\nX: b\n\n"),
            One(""),
        ),
        (
            "one bare line feed",
            post("X: a\nTransfer-Encoding: chunked\r\n", CHUNKS),
            One("hello"),
        ),
        ("a bare CR in a value", lines("Host: a\r\nX: a\rb\r\n"), Refused),
        (
            "a bare CR as the end of a line",
            lines("Host: a\rX: b\r\n"),
            Refused,
        ),
        ("two CRs", lines("Host: a\r\r\n"), Refused),
        ("a NUL in a value", lines("Host: a\r\nX: a\0b\r\n"), Refused),
        (
            "an empty line before the request",
            raw("\r\nGET /one HTTP/1.1\r\nHost: a\r\n\r\n"),
            One(""),
        ),
        ("a folded line", lines("Host: a\r\nX: a\r\n b\r\n"), Refused),
        (
            "a first line that is folded",
            raw("GET /one HTTP/1.1\r\n Host: a\r\n\r\n"),
            Refused,
        ),
        ("a space in a name", lines("Host: a\r\nX Y: a\r\n"), Refused),
        ("a space before a colon", lines("Host : a\r\n"), Refused),
        ("no colon", lines("Host: a\r\nXY\r\n"), Refused),
        ("no name", lines("Host: a\r\n: b\r\n"), Refused),
        (
            "a control character in a name",
            lines("Host: a\r\nX\u{1}: b\r\n"),
            Refused,
        ),
        (
            "tabs in the request line",
            raw("GET\t/one\tHTTP/1.1\r\nHost: a\r\n\r\n"),
            Refused,
        ),
        (
            "two spaces in the request line",
            raw("GET  /one HTTP/1.1\r\nHost: a\r\n\r\n"),
            Refused,
        ),
        ("no version", raw("GET /one\r\nHost: a\r\n\r\n"), Refused),
        (
            "version 1.2",
            raw("GET /one HTTP/1.2\r\nHost: a\r\n\r\n"),
            Refused,
        ),
        (
            "version 2.0 by hand",
            raw("GET /one HTTP/2.0\r\nHost: a\r\n\r\n"),
            Refused,
        ),
        (
            "a version in small letters",
            raw("GET /one http/1.1\r\nHost: a\r\n\r\n"),
            Refused,
        ),
        (
            "a version with more digits",
            raw("GET /one HTTP/1.10\r\nHost: a\r\n\r\n"),
            Refused,
        ),
        ("a space in the target", target("/one /smuggled"), Refused),
        (
            "a header that looks like the end of a request line",
            target("/one HTTP/1.1\r\nX:"),
            One(""),
        ),
        ("a control character in the target", target("/o\u{1}ne"), Refused),
        ("an absolute target", target("http://a/one"), One("")),
        (
            "an absolute target of another host",
            target("http://b/one"),
            Refused,
        ),
        (
            "an absolute target with a user",
            target("http://a@a/one"),
            Refused,
        ),
        ("a target without a path", target("a"), Refused),
        (
            "CONNECT",
            raw("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
            Refused,
        ),
        ("no Host", lines(""), Refused),
        ("two Hosts", lines("Host: a\r\nHost: b\r\n"), Refused),
        ("one Host twice", lines("Host: a\r\nHost: a\r\n"), Refused),
        ("two hosts in one line", lines("Host: a, b\r\n"), Refused),
        ("a Host with a path", lines("Host: a/b\r\n"), Refused),
        ("an empty Host", lines("Host:\r\n"), Refused),
        (
            "Host in the list of what is for one connection",
            lines("Host: a\r\nConnection: host\r\n"),
            One(""),
        ),
        (
            "a head beyond all bounds",
            lines(&format!("Host: a\r\nX: {}\r\n", "x".repeat(200_000))),
            Refused,
        ),
        (
            "more headers than any request has",
            lines(&format!("Host: a\r\n{}", "X: y\r\n".repeat(500))),
            Refused,
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_and_trailers() {
    let chunks = |chunks: &str| post("Transfer-Encoding: chunked\r\n", chunks);
    let with_trailer = |trailer: &str| {
        post(
            "Trailer: x-a, content-length, host, transfer-encoding\r\nTransfer-Encoding: chunked\r\n",
            &format!("5\r\nhello\r\n0\r\n{trailer}\r\n"),
        )
    };
    judge_all(vec![
        (
            "an extension",
            chunks("5;a=b\r\nhello\r\n0\r\n\r\n"),
            One("hello"),
        ),
        (
            "an extension of the last",
            chunks("5\r\nhello\r\n0;a\r\n\r\n"),
            One("hello"),
        ),
        (
            "an extension with a line feed",
            chunks(&format!("5;a\nhello\r\n0\r\n\r\n{SMUGGLED}")),
            Refused,
        ),
        (
            "an extension with a CR",
            chunks("5;a\rb\r\nhello\r\n0\r\n\r\n"),
            Refused,
        ),
        (
            "an endless extension",
            chunks(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(100_000))),
            Refused,
        ),
        ("a signed size", chunks("+5\r\nhello\r\n0\r\n\r\n"), Refused),
        ("a negative size", chunks("-5\r\nhello\r\n0\r\n\r\n"), Refused),
        (
            "a size with a prefix",
            chunks("0x5\r\nhello\r\n0\r\n\r\n"),
            Refused,
        ),
        ("no size", chunks("\r\nhello\r\n0\r\n\r\n"), Refused),
        (
            "a size beyond all numbers",
            chunks("fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
            Refused,
        ),
        (
            "a size that wraps around",
            chunks("10000000000000005\r\nhello\r\n0\r\n\r\n"),
            Refused,
        ),
        (
            "a size with leading zeros",
            chunks("0005\r\nhello\r\n0\r\n\r\n"),
            One("hello"),
        ),
        (
            "a size with a letter",
            chunks("5g\r\nhello\r\n0\r\n\r\n"),
            Refused,
        ),
        ("more than its size", chunks("3\r\nhello\r\n0\r\n\r\n"), Refused),
        (
            "less than its size",
            chunks("9\r\nhello\r\n0\r\n\r\nxxxx"),
            Refused,
        ),
        ("line feeds alone", chunks("5\nhello\n0\n\n"), Refused),
        (
            "no end of the last",
            chunks(&format!("5\r\nhello\r\n0\r\n{SMUGGLED}")),
            Refused,
        ),
        (
            "a request after a chunk",
            chunks(&format!("5\r\nhello{SMUGGLED}")),
            Refused,
        ),
        ("a trailer", with_trailer("X-A: 1\r\n"), One("hello")),
        (
            "a length as a trailer",
            with_trailer("Content-Length: 0\r\n"),
            One("hello"),
        ),
        (
            "a coding as a trailer",
            with_trailer("Transfer-Encoding: chunked\r\n"),
            One("hello"),
        ),
        ("a host as a trailer", with_trailer("Host: b\r\n"), One("hello")),
        (
            "a trailer that is none",
            with_trailer("GET /smuggled HTTP/1.1\r\n"),
            Refused,
        ),
        ("a folded trailer", with_trailer("X-A: 1\r\n 2\r\n"), Refused),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_and_expectations() {
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    judge_all(vec![
        ("a change to h2c, and its preface", format!("GET /one HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n{preface}").into_bytes(), Last("")),
        ("a change among others", format!("GET /one HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n{preface}").into_bytes(), Last("")),
        ("a change that is refused, and early bytes", format!("GET /one HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n{SMUGGLED}").into_bytes(), Last("")),
        ("a change with a body that is refused", post("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n", &format!("hello{SMUGGLED}")), Last("hello")),
        ("half a preface", b"PRI * HTTP/2.0\r\n\r\nGET /one HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Refused),
        ("an expectation that nobody knows", post("Expect: 200-ok\r\nContent-Length: 5\r\n", "hello"), One("hello")),
    ])
    .await;
}

/// Frames of HTTP/2, by hand.
mod frames {
    const HEADERS: u8 = 1;
    const DATA: u8 = 0;
    const SETTINGS: u8 = 4;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// Literals, never indexed: any bytes can be said so.
    fn block(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0x10);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend(text.as_bytes());
            }
        }
        block
    }

    /// A connection with one request.
    pub(super) fn request(fields: &[(&str, &str)], body: Option<&str>) -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(SETTINGS, 0, 0, &[]));
        let ends = if body.is_none() { END_STREAM } else { 0 };
        bytes.extend(frame(HEADERS, END_HEADERS | ends, 1, &block(fields)));
        if let Some(body) = body {
            bytes.extend(frame(DATA, END_STREAM, 1, body.as_bytes()));
        }
        bytes
    }
}

/// Its name, its fields, and its body.
type Http2Case<'c> = (&'c str, Vec<(&'c str, &'c str)>, Option<&'c str>);

/// What becomes of an HTTP/2 request: how many whole ones the endpoint got.
async fn requests_for(fields: &[(&str, &str)], body: Option<&str>) -> Vec<Seen> {
    let endpoint = Recorder::start(ANSWER).await;
    let rig = Rig::serving(endpoint.address);
    let mut client = Raw::connect(rig.address()).await;
    client.send(frames::request(fields, body)).await;
    client.rest(QUIET).await;
    let mut whole = Vec::new();
    for connection in endpoint.seen() {
        whole.extend(read_requests(&connection).0);
    }
    whole
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
    for (name, fields, body) in sound {
        let seen = requests_for(&fields, body).await;
        assert!(
            matches!(seen.as_slice(), [one] if one.body == "hello"),
            "{name}: {seen:?}"
        );
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
    for (name, seen) in futures::future::join_all(judged).await {
        if !seen.is_empty() {
            wrong.push(format!("{name}: {seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
