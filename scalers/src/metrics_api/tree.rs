//! XML as a tree like JSON's, and paths of names and numbers through such trees.

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};
use serde_json::{Map, Value};

/// How deep an answer may be nested.
pub(super) const MAX_DEPTH: usize = 128;
pub(super) const TOO_DEEP: &str = "the answer is nested too deeply";
const INVALID: &str = "the answer is not a valid XML document";

/// Follows `path`, whose parts are keys, or places in lists.
pub(super) fn pick<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(document, |value, part| match value {
        Value::Object(map) => map.get(part),
        Value::Array(list) => list.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// An element that is still open.
struct Open {
    name: String,
    children: Map<String, Value>,
    text: String,
}

impl Open {
    fn close(mut self) -> (String, Value) {
        let text = self.text.trim();
        let value = match (self.children.is_empty(), text.is_empty()) {
            (true, _) => Value::from(text),
            (false, true) => Value::Object(self.children),
            (false, false) => {
                let text = Value::from(text);
                self.children.insert("#text".to_owned(), text);
                Value::Object(self.children)
            }
        };
        (self.name, value)
    }
}

/// An element with children or attributes becomes a map (`-name` for attributes, `#text` for its text), one with text
/// alone that text, and elements of the same name a list. Nothing outside the text is ever loaded or expanded.
pub(super) fn from_xml(text: &str) -> Result<Value, String> {
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Open> = Vec::new();
    let mut root = Map::new();
    loop {
        match reader.read_event().map_err(|_| INVALID)? {
            Event::Start(start) => {
                if open.len() >= MAX_DEPTH {
                    return Err(TOO_DEEP.to_owned());
                }
                open.push(opened(&start)?);
            }
            Event::Empty(start) => {
                let (name, value) = opened(&start)?.close();
                add(
                    open.last_mut().map_or(&mut root, |parent| &mut parent.children),
                    name,
                    value,
                );
            }
            Event::End(_) => {
                let (name, value) = open.pop().ok_or(INVALID)?.close();
                add(
                    open.last_mut().map_or(&mut root, |parent| &mut parent.children),
                    name,
                    value,
                );
            }
            Event::Text(text) => append(&mut open, &text.decode().map_err(|_| INVALID)?)?,
            Event::CData(text) => append(&mut open, &text.decode().map_err(|_| INVALID)?)?,
            Event::GeneralRef(reference) => match reference.resolve_char_ref().map_err(|_| INVALID)? {
                Some(character) => append(&mut open, character.encode_utf8(&mut [0; 4]))?,
                None => {
                    let name = reference.decode().map_err(|_| INVALID)?;
                    append(&mut open, resolve_predefined_entity(&name).ok_or(INVALID)?)?;
                }
            },
            Event::Eof => break,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    if !open.is_empty() || root.len() != 1 {
        return Err(INVALID.to_owned());
    }
    Ok(Value::Object(root))
}

fn opened(start: &BytesStart<'_>) -> Result<Open, String> {
    let name = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| INVALID);
    let mut children = Map::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|_| INVALID)?;
        let value = attribute.unescape_value().map_err(|_| INVALID)?;
        children.insert(
            format!("-{}", name(attribute.key.as_ref())?),
            Value::from(value.into_owned()),
        );
    }
    Ok(Open {
        name: name(start.name().as_ref())?,
        children,
        text: String::new(),
    })
}

fn append(open: &mut [Open], text: &str) -> Result<(), String> {
    match open.last_mut() {
        Some(element) => element.text.push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err(INVALID.to_owned()),
    }
    Ok(())
}

fn add(siblings: &mut Map<String, Value>, name: String, value: Value) {
    match siblings.get_mut(&name) {
        None => {
            siblings.insert(name, value);
        }
        Some(Value::Array(list)) => list.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
    }
}
