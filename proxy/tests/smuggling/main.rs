//! Request smuggling: whatever a client sends, an endpoint gets exactly one request for it, or none.
//!
//! An endpoint that writes down every byte judges, by a reader of its own that is stricter than any server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is test code"
)]

#[path = "../common/mod.rs"]
mod common;
mod http2;
mod judge;
mod table;

use judge::Fate::{Last, One, Refused};
use judge::{CHUNKS, SMUGGLED, judge_all, post};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths_and_codings() {
    let with_next = |rest: &str| format!("{rest}{SMUGGLED}");
    let cl = |value: &str| post(&format!("Content-Length: {value}\r\n"), "hello");
    let te = |value: &str| post(&format!("Transfer-Encoding: {value}\r\n"), CHUNKS);
    judge_all(
        "Lengths and codings",
        vec![
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
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_and_targets() {
    let raw = |text: &str| text.as_bytes().to_vec();
    let target = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
    let lines = |lines: &str| format!("GET /one HTTP/1.1\r\n{lines}\r\n").into_bytes();
    judge_all(
        "Lines and targets",
        vec![
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
        ],
    )
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
    judge_all(
        "Chunks and trailers",
        vec![
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
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_and_expectations() {
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    judge_all("Upgrades and expectations", vec![
        ("a change to h2c, and its preface", format!("GET /one HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n{preface}").into_bytes(), Last("")),
        ("a change among others", format!("GET /one HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n{preface}").into_bytes(), Last("")),
        ("a change that is refused, and early bytes", format!("GET /one HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n{SMUGGLED}").into_bytes(), Last("")),
        ("a change with a body that is refused", post("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n", &format!("hello{SMUGGLED}")), Last("hello")),
        ("half a preface", b"PRI * HTTP/2.0\r\n\r\nGET /one HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Refused),
        ("an expectation that nobody knows", post("Expect: 200-ok\r\nContent-Length: 5\r\n", "hello"), One("hello")),
    ])
    .await;
}
