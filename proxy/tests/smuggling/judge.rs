//! The judge: an endpoint that writes down every byte, and a reader of its own that is stricter than any server.

use std::time::Duration;

use crate::common::Rig;
use crate::common::raw::{Raw, Recorder, get};
use crate::table::{Row, compare};

pub(crate) const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// How long nothing must come before all is taken to be there.
pub(crate) const QUIET: Duration = Duration::from_millis(400);

/// What must become of a client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The endpoint gets no whole request, and the client's connection ends.
    Refused,
    /// The endpoint gets one request, with this body.
    One(&'static str),
    /// As before, and then the client's connection ends.
    Last(&'static str),
}

/// A request as the endpoint saw it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Reads requests, and nothing but requests: `Err` has what is none, or is not whole.
pub(crate) fn read_requests(mut text: &str) -> (Vec<Seen>, Result<(), String>) {
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

pub(crate) fn fault_of(head: &str) -> Option<&'static str> {
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

pub(crate) fn read_chunks(mut text: &str) -> Option<(String, &str)> {
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

/// Has somebody else ask: what was left on a connection to the endpoint would be the beginning of his request, and what was
/// answered to nobody his answer.
///
/// # Errors
/// The endpoint got something else, or he did.
pub(crate) async fn next_is_whole(rig: &Rig, endpoint: &Recorder) -> Result<(), String> {
    let answer = get(rig.address(), "/next").await;
    let seen = endpoint.seen();
    let connection = seen.iter().find(|connection| connection.contains("/next"));
    let (requests, rest) = read_requests(connection.ok_or("the next request did not come")?);
    match (requests.last(), rest, answer.status) {
        (Some(last), Ok(()), 200) if is_next(last) && last.body.is_empty() => Ok(()),
        other => Err(format!("the next request came as {other:?}")),
    }
}

/// Whether it is the one of [`next_is_whole`].
pub(crate) fn is_next(seen: &Seen) -> bool {
    seen.head.starts_with("GET /next ")
}

/// Sends the bytes and judges what came of them.
async fn judge(name: &'static str, bytes: Vec<u8>, fate: Fate) -> Result<Row, String> {
    let endpoint = Recorder::start(ANSWER).await;
    let rig = Rig::serving(endpoint.address);
    let mut client = Raw::connect(rig.address()).await;
    client.send(bytes).await;
    // The end of what a client says must not be what makes the difference: it stays.
    let answer = client.rest(QUIET).await;
    let is_closed = client.is_closed_within(QUIET).await;
    next_is_whole(&rig, &endpoint)
        .await
        .map_err(|fault| format!("{name}: {fault}"))?;
    let (mut whole, mut broken) = (Vec::new(), 0);
    for connection in endpoint.seen() {
        let (requests, rest) = read_requests(&connection);
        whole.extend(requests.into_iter().filter(|seen| !is_next(seen)));
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
        Fate::Refused => whole.is_empty() && is_closed && !answer.starts_with(b"HTTP/1.1 2"),
        Fate::One(body) => broken == 0 && matches!(whole.as_slice(), [one] if one.body == body),
        Fate::Last(body) => broken == 0 && is_closed && matches!(whole.as_slice(), [one] if one.body == body),
    };
    if !as_expected {
        return Err(context());
    }
    let status = answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let status = status.map_or("no answer".into(), String::from_utf8_lossy);
    let end = if is_closed { "closed" } else { "open" };
    Ok(Row {
        case: name,
        did: format!("{status}, {end}"),
        reached: reached(&whole),
    })
}

/// What an endpoint got, in words.
pub(crate) fn reached(whole: &[Seen]) -> String {
    match whole {
        // Whether its beginning got there depends on how soon what is wrong with the rest came.
        [] => "no whole request".to_owned(),
        [one] if one.body.is_empty() => "one request without a body".to_owned(),
        [one] => format!("one request, body {:?}", one.body),
        more => format!("{} requests", more.len()),
    }
}

/// Judges all cases of a section, and compares them with the document.
pub(crate) async fn judge_all(section: &str, cases: Vec<(&'static str, Vec<u8>, Fate)>) {
    let running = cases
        .into_iter()
        .map(|(name, bytes, fate)| judge(name, bytes, fate));
    let judged = futures::future::join_all(running).await;
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for outcome in judged {
        match outcome {
            Ok(row) => rows.push(row),
            Err(fault) => wrong.push(fault),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    compare(section, &rows);
}

/// A POST with these lines in its head, and what follows.
pub(crate) fn post(lines: &str, rest: &str) -> Vec<u8> {
    format!("POST /one HTTP/1.1\r\nHost: a\r\n{lines}\r\n{rest}").into_bytes()
}

pub(crate) const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
pub(crate) const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";
