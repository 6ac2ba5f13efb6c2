//! Frames of HTTP/2, by hand.

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

/// What the server's frames say of the first stream.
pub fn said(mut bytes: &[u8]) -> String {
    const RST_STREAM: u8 = 3;
    const GOAWAY: u8 = 7;
    let mut said = Vec::new();
    while let [a, b, c, kind, _, _, _, _, stream, rest @ ..] = bytes {
        let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap();
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            break;
        };
        bytes = rest;
        match (*kind, *stream, payload.first()) {
            // The statuses that the static table of RFC 7541 has.
            (HEADERS, 1, Some(0x88)) => said.push("200"),
            (HEADERS, 1, Some(0x8c)) => said.push("400"),
            (HEADERS, 1, Some(0x8d)) => said.push("404"),
            (HEADERS, 1, _) => said.push("another status"),
            (RST_STREAM, 1, _) => said.push("stream reset"),
            (GOAWAY, _, _) => said.push("connection ended"),
            _ => {}
        }
    }
    if said.is_empty() {
        "no answer".to_owned()
    } else {
        said.join(", ")
    }
}

/// How a client opens a connection.
pub fn opening() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes
}

/// The first request of a connection.
pub fn request(fields: &[(&str, &str)], body: Option<&str>) -> Vec<u8> {
    let ends = if body.is_none() { END_STREAM } else { 0 };
    let mut bytes = frame(HEADERS, END_HEADERS | ends, 1, &block(fields));
    if let Some(body) = body {
        bytes.extend(frame(DATA, END_STREAM, 1, body.as_bytes()));
    }
    bytes
}
