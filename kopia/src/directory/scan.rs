//! One entry of a directory: by the field order that Kopia writes, or else by any.

use super::token::{Cursor, Step, Stop, digit_prefix, plain_prefix};
use super::{EntryType, Reference};
use crate::object::ObjectId;

/// Digits of a hash of 16 bytes, as Kopia's default has it.
const ID_DIGITS: usize = 32;

/// Takes the entry at the cursor, which stands on its `{`.
#[inline]
pub(super) fn entry(cursor: &mut Cursor<'_>) -> Step<Reference> {
    match entry_in_order(cursor) {
        Some(reference) => Ok(reference),
        None => entry_in_any_order(cursor),
    }
}

/// The fields in the order of `snapshot.DirEntry`, without white space or escapes. `None`: it is not so, and nothing was taken.
#[inline]
fn entry_in_order(cursor: &mut Cursor<'_>) -> Option<Reference> {
    let mut bytes = cursor.rest().strip_prefix(br#"{"name":""#)?;
    bytes = text(bytes)?.1;
    let kind = match bytes {
        [b',', b'"', b't', b'y', b'p', b'e', b'"', b':', b'"', kind, b'"', rest @ ..] => {
            bytes = rest;
            match kind {
                b'f' => EntryType::File,
                b'd' => EntryType::Directory,
                b's' => EntryType::Symlink,
                b'"' | b'\\' | 0..=0x1f => return None,
                _ => EntryType::Unknown,
            }
        }
        _ => return None,
    };
    if let Some(rest) = bytes.strip_prefix(br#","mode":""#) {
        bytes = match rest {
            [b'0', b'0'..=b'7', b'0'..=b'7', b'0'..=b'7', b'"', rest @ ..] => rest,
            _ => text(rest)?.1,
        };
    }
    if let Some(rest) = bytes.strip_prefix(br#","size":"#) {
        bytes = number(rest)?;
    }
    if let Some(rest) = bytes.strip_prefix(br#","mtime":""#) {
        bytes = text(rest)?.1;
    }
    if let Some(rest) = bytes.strip_prefix(br#","uid":"#) {
        bytes = number(rest)?;
    }
    if let Some(rest) = bytes.strip_prefix(br#","gid":"#) {
        bytes = number(rest)?;
    }
    let (object, mut bytes) = object_text(bytes.strip_prefix(br#","obj":""#)?)?;
    if let Some(rest) = bytes.strip_prefix(br#","summ":"#) {
        let mut summary = Cursor { bytes: rest, position: 0 };
        summary.skip_value().ok()?;
        bytes = summary.rest();
    }
    let rest = bytes.strip_prefix(b"}")?;
    cursor.position = cursor.bytes.len() - rest.len();
    Some(Reference { kind, object })
}

/// An object ID after its opening quote, and what follows the closing one. What is an ID holds no quote and no escape, so where the
/// quote is looked for first, at the length of nearly all of them, nothing else has to be looked at.
#[inline(always)]
fn object_text(bytes: &[u8]) -> Option<(ObjectId, &[u8])> {
    for length in [ID_DIGITS, ID_DIGITS + 1] {
        if let Some((text, [b'"', rest @ ..])) = bytes.split_at_checked(length)
            && let Some(object) = ObjectId::from_bytes(text)
        {
            return Some((object, rest));
        }
    }
    let (object, rest) = text(bytes)?;
    Some((ObjectId::from_bytes(object)?, rest))
}

/// The rest of a string without escapes after its opening quote, and what follows the closing one.
#[inline(always)]
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (text, rest) = bytes.split_at_checked(plain_prefix(bytes))?;
    Some((text, rest.strip_prefix(b"\"")?))
}

/// What follows an integer above zero. (Kopia omits zeros.)
#[inline(always)]
fn number(bytes: &[u8]) -> Option<&[u8]> {
    let (digits, rest) = bytes.split_at_checked(digit_prefix(bytes))?;
    // A fraction or an exponent does not match what comes next either, so it ends in the other way.
    digits.first().is_some_and(|&first| first != b'0').then_some(rest)
}

/// Any well-formed JSON object with an object ID in it. What Go would settle by its order (two fields of one name) is refused.
#[cold]
fn entry_in_any_order(cursor: &mut Cursor<'_>) -> Step<Reference> {
    let mut at = *cursor;
    at.expect(b'{', "an entry should begin here")?;
    let (mut kind, mut object) = (None, None);
    if at.peek()? == b'}' {
        return Err(Stop::Bad("an entry without an object"));
    }
    loop {
        let key = at.key()?;
        if key.is_field("obj") {
            if object.is_some() {
                return Err(Stop::Bad("an entry with two objects"));
            }
            object = Some(object_value(&mut at)?);
        } else if key.is_field("type") {
            if kind.is_some() {
                return Err(Stop::Bad("an entry with two types"));
            }
            kind = Some(type_value(&mut at)?);
        } else {
            at.skip_value()?;
        }
        match at.peek()? {
            b',' => at.position += 1,
            b'}' => break,
            _ => return Err(Stop::Bad("a comma or the end of an entry should stand here")),
        }
    }
    at.position += 1;
    let object = object.ok_or(Stop::Bad("an entry without an object"))?;
    *cursor = at;
    Ok(Reference { kind: kind.unwrap_or_default(), object })
}

fn object_value(cursor: &mut Cursor<'_>) -> Step<ObjectId> {
    const BAD: Stop = Stop::Bad("a malformed object ID");
    if cursor.peek()? != b'"' {
        return Err(BAD);
    }
    let raw = cursor.string()?;
    let object =
        if raw.escaped { raw.decode().and_then(|text| text.parse().ok()) } else { ObjectId::from_bytes(raw.text) };
    object.ok_or(BAD)
}

fn type_value(cursor: &mut Cursor<'_>) -> Step<EntryType> {
    match cursor.peek()? {
        b'"' => Ok(cursor.string()?.decode().map_or(EntryType::Unknown, |text| EntryType::from_text(&text))),
        b'n' => cursor.literal(b"null").map(|()| EntryType::Unknown),
        _ => Err(Stop::Bad("a type that is not a string")),
    }
}
