//! Directories: the scanner of garbage collection, in one piece and in many, against a plain reading by `serde_json`.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use verger_kopia::Result;
use verger_kopia::directory::{Directory, EntryType, Parser, Reference, parse_slice};
use verger_kopia::object::ObjectId;

use super::within;

/// First byte: how the rest is cut into pieces; then a directory.
pub fn directory(data: &[u8]) {
    let Some((&cut, text)) = data.split_first() else { return };
    let whole = scan(text);
    // The scanner itself allocates nothing but what an error says.
    let found = within(1024, 0, text.len(), || parse_slice(text, |_| {}).is_ok());
    assert_eq!(found, whole.is_some());
    let pieces = within(1024, 4, text.len(), || in_pieces(text, usize::from(cut) + 1, &mut |_| {}).is_ok());
    assert_eq!(pieces, whole.is_some(), "whole or in pieces");
    if let Some(whole) = &whole {
        let mut again = Vec::new();
        in_pieces(text, usize::from(cut) + 1, &mut |reference| again.push(reference)).unwrap();
        assert_eq!(again, *whole, "whole or in pieces");
    }
    // Field names of another case are known to the scanner alone, as they are to Go.
    let value = serde_json::from_slice(text).ok().filter(has_exact_names);
    plainly(text, value.as_ref(), whole.as_deref());
    for_people(text, whole.as_deref().filter(|_| value.is_some()));
}

fn scan(text: &[u8]) -> Option<Vec<Reference>> {
    let mut found = Vec::new();
    parse_slice(text, |reference| found.push(reference)).ok().map(|()| found)
}

fn in_pieces(text: &[u8], length: usize, visit: &mut dyn FnMut(Reference)) -> Result<()> {
    let mut parser = Parser::new();
    text.chunks(length).try_for_each(|piece| parser.push(piece, &mut *visit))?;
    parser.finish(visit)
}

#[derive(Deserialize)]
struct Plain {
    stream: String,
    entries: Option<Vec<PlainEntry>>,
}

#[derive(Deserialize)]
struct PlainEntry {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    obj: ObjectId,
}

/// What the scanner takes is well-formed JSON. What a reader of exact names takes it takes too, with the same references.
fn plainly(text: &[u8], value: Option<&Value>, scanned: Option<&[Reference]>) {
    let is_json = serde_json::from_slice::<IgnoredAny>(text).is_ok();
    // The scanner does not look whether names are UTF-8 (Go does not), nor at pairs of \u escapes.
    if scanned.is_some() && !text.contains(&b'\\') && std::str::from_utf8(text).is_ok() {
        assert!(is_json, "taken, and no JSON");
    }
    let (Ok(plain), Some(value)) = (serde_json::from_slice::<Plain>(text), value) else { return };
    if plain.stream != "kopia:directory" || !is_of_objects(value) {
        return;
    }
    let Some(scanned) = scanned else {
        // Names that come twice, or are meant twice, are refused on purpose; so is deep nesting.
        assert!(!is_plain(text, value), "a directory that serde reads is refused");
        return;
    };
    let entries = plain.entries.into_iter().flatten();
    let expected: Vec<Reference> = entries
        .map(|entry| Reference {
            kind: entry.kind.map_or(EntryType::Unknown, |k| EntryType::from_text(&k)),
            object: entry.obj,
        })
        .collect();
    assert_eq!(scanned, expected);
}

/// serde takes a list for an object whose fields are in order.
fn is_of_objects(value: &Value) -> bool {
    let entries = value.get("entries").filter(|entries| !entries.is_null());
    value.is_object() && entries.is_none_or(|e| e.as_array().is_some_and(|e| e.iter().all(Value::is_object)))
}

/// Whether no field that matters, here or in an entry, is written in another case or with a letter that folds to one of its own.
fn has_exact_names(value: &Value) -> bool {
    let fold = |name: &str| name.to_lowercase().replace('\u{17f}', "s");
    let odd =
        |name: &String| ["stream", "entries", "obj", "type"].iter().any(|known| fold(name) == *known && name != known);
    let exact = |value: &Value| value.as_object().is_none_or(|fields| !fields.keys().any(odd));
    let entries =
        value.as_object().into_iter().flat_map(|fields| fields.values()).filter_map(Value::as_array).flatten();
    exact(value) && entries.into_iter().all(exact)
}

/// Neither a field name twice nor in another case anywhere (`serde_json` keeps the last of equal ones silently), and `entries` is there.
fn is_plain(text: &[u8], value: &Value) -> bool {
    let written = serde_json::to_vec(value).unwrap_or_default();
    let lower = String::from_utf8_lossy(text).to_lowercase();
    let names = |word: &str| lower.matches(word).count();
    let count = value["entries"].as_array().map_or(0, Vec::len);
    let same_length = text.iter().filter(|b| !b.is_ascii_whitespace()).count()
        == written.iter().filter(|b| !b.is_ascii_whitespace()).count();
    value.get("entries").is_some()
        && same_length
        && names("obj") == count
        && names("type") <= count
        && names("entries") == 1
        && names("stream") == 1
        && !text.contains(&b'\\')
}

/// The reader that gives people all fields: what it reads and writes again it and the scanner read alike.
fn for_people(text: &[u8], scanned: Option<&[Reference]>) {
    let Ok(directory) = within(4096, 64, text.len(), || Directory::parse(text)) else { return };
    let written = serde_json::to_vec(&directory).unwrap();
    assert_eq!(Directory::parse(&written).unwrap(), directory);
    let again = scan(&written).expect("a directory as it is written");
    let entries = directory.entries.as_deref().unwrap_or_default();
    let expected: Vec<Reference> =
        entries.iter().map(|e| Reference { kind: EntryType::from_text(&e.kind), object: e.obj }).collect();
    assert_eq!(again, expected);
    if let Some(scanned) = scanned {
        assert_eq!(scanned, expected, "two readers of one directory");
    }
}
