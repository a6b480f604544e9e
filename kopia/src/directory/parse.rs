//! The document around the entries, whole or in pieces.

use super::token::{Cursor, RawString, Step, Stop};
use super::{Reference, scan};
use crate::error::{Error, Result};

/// Visits all entries of a directory that lies whole in `bytes`. Same-named entries are all visited.
///
/// # Errors
/// `Damaged` if it is not one well-formed directory from start to end; a fragment of a directory never is. What was visited
/// before the error must then be discarded.
pub fn parse_slice(bytes: &[u8], mut visit: impl FnMut(Reference)) -> Result<()> {
    let mut machine = Machine::default();
    let mut cursor = Cursor { bytes, position: 0 };
    machine.run(&mut cursor, &mut visit).map_err(|what| damaged(what, cursor.position))?;
    machine.end(cursor.position)
}

/// The same for a directory that comes in pieces, cut anywhere. Holds the bytes of one unfinished entry at a time.
#[derive(Default)]
pub struct Parser {
    machine: Machine,
    /// Bytes not yet understood.
    pending: Vec<u8>,
    /// Length of `pending` at which trying again pays: twice what was too short, so that the work stays linear.
    retry_at: usize,
    /// Bytes of the document before `pending`.
    consumed: usize,
}

impl Parser {
    /// A parser at the start of a directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// `Damaged` if no continuation can make it a directory.
    pub fn push(&mut self, bytes: &[u8], mut visit: impl FnMut(Reference)) -> Result<()> {
        if self.pending.is_empty() {
            let taken = self.advance(bytes, &mut visit)?;
            self.pending.extend_from_slice(bytes.get(taken..).unwrap_or_default());
        } else {
            self.pending.extend_from_slice(bytes);
            if self.pending.len() < self.retry_at {
                return Ok(());
            }
            self.retry(&mut visit)?;
        }
        self.retry_at = self.pending.len().saturating_mul(2);
        Ok(())
    }

    /// Ends the document, visiting what the last piece left.
    ///
    /// # Errors
    /// `Damaged` if the directory is not whole.
    pub fn finish(mut self, mut visit: impl FnMut(Reference)) -> Result<()> {
        self.retry(&mut visit)?;
        self.machine.end(self.consumed)
    }

    fn retry(&mut self, visit: &mut impl FnMut(Reference)) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        let taken = self.advance(&pending, visit)?;
        self.pending = pending;
        self.pending.drain(..taken);
        Ok(())
    }

    fn advance(&mut self, bytes: &[u8], visit: &mut impl FnMut(Reference)) -> Result<usize> {
        let mut cursor = Cursor { bytes, position: 0 };
        let outcome = self.machine.run(&mut cursor, visit);
        self.consumed = self.consumed.saturating_add(cursor.position);
        outcome.map_err(|what| damaged(what, self.consumed))?;
        Ok(cursor.position)
    }
}

fn damaged(what: &'static str, position: usize) -> Error {
    Error::damaged(format!("parse a directory: {what} (at byte {position})"))
}

/// Where in the document the next token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    Start,
    /// After `{`: a key or the end.
    FirstKey,
    Key,
    /// The value of a field.
    Value(Field),
    /// A comma or the end.
    AfterValue,
    /// After `[`: an entry or the end.
    FirstEntry,
    Entry,
    AfterEntry,
    /// After the last `}`.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Stream,
    Entries,
    Other,
}

#[derive(Default)]
struct Machine {
    place: Place,
    has_stream: bool,
    has_entries: bool,
}

impl Machine {
    /// Goes as far as `cursor` reaches, token by token; one that is not whole is left for later.
    fn run(&mut self, cursor: &mut Cursor<'_>, visit: &mut impl FnMut(Reference)) -> Result<(), &'static str> {
        loop {
            let mut next = *cursor;
            next.skip_space();
            if next.rest().is_empty() {
                *cursor = next;
                return Ok(());
            }
            match self.step(&mut next, visit) {
                Ok(place) => (self.place, *cursor) = (place, next),
                Err(Stop::Incomplete) => return Ok(()),
                Err(Stop::Bad(what)) => return Err(what),
            }
        }
    }

    /// Takes one token; the cursor is at a byte that is not white space. Gives the next place.
    fn step(&mut self, cursor: &mut Cursor<'_>, visit: &mut impl FnMut(Reference)) -> Step<Place> {
        let byte = cursor.peek()?;
        match (self.place, byte) {
            (Place::Start, _) => cursor.expect(b'{', "a directory should begin here").map(|()| Place::FirstKey),
            (Place::FirstKey | Place::AfterValue, b'}') => {
                cursor.position += 1;
                Ok(Place::End)
            }
            (Place::FirstKey | Place::Key, _) => self.field(&cursor.key()?).map(Place::Value),
            (Place::Value(field), _) => self.value(field, cursor),
            (Place::AfterValue, _) => cursor.expect(b',', "a comma should follow a field").map(|()| Place::Key),
            (Place::FirstEntry | Place::AfterEntry, b']') => {
                cursor.position += 1;
                Ok(Place::AfterValue)
            }
            (Place::AfterEntry, _) => cursor.expect(b',', "a comma should follow an entry").map(|()| Place::Entry),
            (Place::FirstEntry | Place::Entry, _) => {
                visit(scan::entry(cursor)?);
                entries(cursor, visit);
                Ok(Place::AfterEntry)
            }
            (Place::End, _) => Err(Stop::Bad("something follows the directory")),
        }
    }

    fn field(&mut self, key: &RawString<'_>) -> Step<Field> {
        if key.is_field("stream") {
            if std::mem::replace(&mut self.has_stream, true) {
                return Err(Stop::Bad("two fields named stream"));
            }
            return Ok(Field::Stream);
        }
        if key.is_field("entries") {
            // Go would decode the second list over the first.
            if std::mem::replace(&mut self.has_entries, true) {
                return Err(Stop::Bad("two fields named entries"));
            }
            return Ok(Field::Entries);
        }
        Ok(Field::Other)
    }

    fn value(&mut self, field: Field, cursor: &mut Cursor<'_>) -> Step<Place> {
        match field {
            Field::Stream => {
                if cursor.string()?.decode().as_deref() != Some("kopia:directory") {
                    return Err(Stop::Bad("the stream is not \"kopia:directory\""));
                }
            }
            Field::Entries if cursor.peek()? == b'[' => {
                cursor.position += 1;
                return Ok(Place::FirstEntry);
            }
            Field::Entries => cursor.literal(b"null")?,
            Field::Other => cursor.skip_value()?,
        }
        Ok(Place::AfterValue)
    }

    fn end(&self, position: usize) -> Result<()> {
        match self {
            Self { place: Place::End, has_stream: true, has_entries: true } => Ok(()),
            Self { place: Place::End, .. } => Err(damaged("no stream or no entries", position)),
            _ => Err(damaged("it ends early", position)),
        }
    }
}

/// Entries that follow one another as Kopia writes them: the loop that a scan spends its time in. Stops before anything that
/// is not exactly so.
fn entries(cursor: &mut Cursor<'_>, visit: &mut impl FnMut(Reference)) {
    while cursor.rest().first() == Some(&b',') {
        let mut next = *cursor;
        next.position += 1;
        next.skip_space();
        let Ok(reference) = scan::entry(&mut next) else { return };
        visit(reference);
        *cursor = next;
    }
}
