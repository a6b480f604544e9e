//! Records of parts. Numbers are little-endian; what is short or many-valued is told by its length first.

use verger_kopia::content::{CompressionId, ContentHash, ContentId, Entry};
use verger_kopia::object::{INDIRECTION_MAX, ObjectId};
use verger_kopia::storage::BlobId;
use verger_kopia::{Error, ErrorKind, Result};

use super::read::PartReader;
use super::write::PartWriter;
use crate::task::summary::{Holds, Role};

/// Longest name of a blob in a record.
const NAME_BYTES_MAX: usize = 4096;
/// Longest text of a reason.
const TEXT_BYTES_MAX: usize = 64 << 10;

const TAG_PACK: u8 = 1;
const TAG_ENTRY: u8 = 2;
const TAG_OPAQUE: u8 = 3;
const TAG_UNREADABLE: u8 = 4;
const TAG_POINTS: u8 = 5;
const TAG_LEFT: u8 = 6;
const TAG_FIGURES: u8 = 7;
const TAG_SESSION: u8 = 8;

const ROLE_DIRECTORY: u8 = 0x80;
const COMPRESSED: u8 = 0x40;
const INDIRECTION: u8 = 0x3f;

/// What a content of a scan's shard holds, by the IDs that it names: good for the view that the order was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is neither a directory nor a seek table as a whole.
    Opaque,
    /// It could not be read.
    Unreadable,
    /// It points to these.
    Points(Holds, Vec<(Role, ObjectId)>),
}

/// A session of a shard, and the marker that stands for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedSession {
    /// The session's ID.
    pub session: String,
    /// Its marker, once it is written.
    pub marker: Option<BlobId>,
}

/// One record of a rewrite's shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// A new pack; the entries behind it lie in it.
    Pack(BlobId),
    /// An entry to publish.
    Entry(Entry),
    /// A content that could not be copied, and why.
    Left {
        /// The content.
        content: ContentId,
        /// Whether it is damage of the repository.
        is_damage: bool,
        /// The whole chain.
        text: String,
    },
    /// Stored bytes that were copied, and bytes of new packs. Once, at the end.
    Figures {
        /// Of contents.
        bytes: u64,
        /// Of packs.
        pack_bytes: u64,
    },
    /// The session, once, at the beginning.
    Session(NotedSession),
}

/// Writes entries: each pack's name once.
#[derive(Default)]
pub struct EntryPen {
    pack: Option<BlobId>,
    buffer: Vec<u8>,
}

impl EntryPen {
    /// Writes one entry.
    ///
    /// # Errors
    /// As [`PartWriter::record`].
    pub fn write(&mut self, entry: &Entry, part: &mut PartWriter) -> Result<()> {
        if self.pack.as_ref() != Some(&entry.pack) {
            self.buffer.clear();
            self.buffer.push(TAG_PACK);
            put_text(&mut self.buffer, entry.pack.as_str());
            part.record(&self.buffer)?;
            self.pack = Some(entry.pack.clone());
        }
        let out = &mut self.buffer;
        out.clear();
        out.push(TAG_ENTRY);
        put_content(out, &entry.id);
        out.push(u8::from(entry.deleted));
        out.push(entry.format_version);
        for number in [entry.offset, entry.packed_length, entry.original_length, entry.compression.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&entry.timestamp.to_le_bytes());
        part.record(out)
    }
}

/// Writes what a content holds.
///
/// # Errors
/// As [`PartWriter::record`]; `Unsupported` for more references than can be counted.
pub fn write_found(content: &ContentId, found: &Found, out: &mut Vec<u8>) -> Result<()> {
    out.clear();
    let (holds, references) = match found {
        Found::Points(holds, references) => (holds, references),
        Found::Opaque | Found::Unreadable => {
            out.push(if *found == Found::Opaque { TAG_OPAQUE } else { TAG_UNREADABLE });
            put_content(out, content);
            return Ok(());
        }
    };
    out.push(TAG_POINTS);
    put_content(out, content);
    out.push(match holds {
        Holds::Directory => 0,
        Holds::PackedDirectory => 1,
        Holds::Table => 2,
    });
    let count = u32::try_from(references.len())
        .map_err(|_| Error::unsupported("a directory with more than 4 thousand million entries in one content"))?;
    out.extend_from_slice(&count.to_le_bytes());
    for (role, object) in references {
        let role = if *role == Role::Directory { ROLE_DIRECTORY } else { 0 };
        let compressed = if object.compressed { COMPRESSED } else { 0 };
        out.push(role | compressed | (object.indirection & INDIRECTION));
        put_content(out, &object.content);
    }
    Ok(())
}

/// Writes a record of a rewrite's shard; entries go through an [`EntryPen`].
///
/// # Errors
/// As [`PartWriter::record`].
pub fn write_moved(moved: &Moved, pen: &mut EntryPen, part: &mut PartWriter) -> Result<()> {
    let mut out = Vec::new();
    match moved {
        Moved::Entry(entry) => return pen.write(entry, part),
        Moved::Pack(pack) => {
            out.push(TAG_PACK);
            put_text(&mut out, pack.as_str());
            pen.pack = Some(pack.clone());
        }
        Moved::Left { content, is_damage, text } => {
            out.push(TAG_LEFT);
            put_content(&mut out, content);
            out.push(u8::from(*is_damage));
            let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            put_text(&mut out, &text[..end]);
        }
        Moved::Figures { bytes, pack_bytes } => {
            out.push(TAG_FIGURES);
            out.extend_from_slice(&bytes.to_le_bytes());
            out.extend_from_slice(&pack_bytes.to_le_bytes());
        }
        Moved::Session(noted) => {
            out.push(TAG_SESSION);
            put_text(&mut out, &noted.session);
            put_text(&mut out, noted.marker.as_ref().map_or("", BlobId::as_str));
        }
    }
    part.record(&out)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_content(out: &mut Vec<u8>, content: &ContentId) {
    out.push(u8::try_from(content.key_length()).unwrap_or(u8::MAX));
    content.write_key(out);
}

/// Reads records of a part, one after another.
pub struct Records {
    part: PartReader,
    pack: Option<BlobId>,
}

impl Records {
    /// Of this part.
    #[must_use]
    pub fn new(part: PartReader) -> Self {
        Self { part, pack: None }
    }

    /// The part.
    #[must_use]
    pub fn part(&self) -> &PartReader {
        &self.part
    }

    /// The next entry of an order; `None` at its end.
    ///
    /// # Errors
    /// Those of [`PartError`](super::PartError); storage errors.
    pub fn entry(&mut self) -> Result<Option<Entry>> {
        loop {
            match self.moved()? {
                None => return Ok(None),
                Some(Moved::Pack(_)) => {}
                Some(Moved::Entry(entry)) => return Ok(Some(entry)),
                Some(_) => return Err(self.part.bad("this has no place in an order")),
            }
        }
    }

    /// The next record of a rewrite's shard; `None` at the end.
    ///
    /// # Errors
    /// As [`Records::entry`].
    pub fn moved(&mut self) -> Result<Option<Moved>> {
        let Some(tag) = self.tag()? else { return Ok(None) };
        let moved = match tag {
            TAG_PACK => {
                let pack = BlobId::new(self.text(NAME_BYTES_MAX)?);
                self.pack = Some(pack.clone());
                Moved::Pack(pack)
            }
            TAG_ENTRY => Moved::Entry(self.read_entry()?),
            TAG_LEFT => {
                let content = self.content()?;
                let is_damage = self.flag()?;
                Moved::Left { content, is_damage, text: self.text(TEXT_BYTES_MAX)? }
            }
            TAG_FIGURES => Moved::Figures { bytes: self.u64()?, pack_bytes: self.u64()? },
            TAG_SESSION => {
                let session = self.text(NAME_BYTES_MAX)?;
                let marker = self.text(NAME_BYTES_MAX)?;
                Moved::Session(NotedSession { session, marker: (!marker.is_empty()).then(|| BlobId::new(marker)) })
            }
            _ => return Err(self.part.bad("it has an unknown tag")),
        };
        self.part.counted();
        Ok(Some(moved))
    }

    /// What the next content of a scan's shard holds; `None` at the end.
    ///
    /// # Errors
    /// As [`Records::entry`].
    pub fn found(&mut self) -> Result<Option<(ContentId, Found)>> {
        let Some(tag) = self.tag()? else { return Ok(None) };
        let content = self.content()?;
        let found = match tag {
            TAG_OPAQUE => Found::Opaque,
            TAG_UNREADABLE => Found::Unreadable,
            TAG_POINTS => self.points()?,
            _ => return Err(self.part.bad("it has an unknown tag")),
        };
        self.part.counted();
        Ok(Some((content, found)))
    }

    /// As [`PartReader::finish`].
    ///
    /// # Errors
    /// As there.
    pub fn finish(self) -> Result<()> {
        self.part.finish()
    }

    fn points(&mut self) -> Result<Found> {
        let holds = match self.byte()? {
            0 => Holds::Directory,
            1 => Holds::PackedDirectory,
            2 => Holds::Table,
            _ => return Err(self.part.bad("it holds an unknown thing")),
        };
        let count = self.u32()?;
        // A count is only a word; what follows it is what takes memory.
        let mut references = Vec::new();
        for _ in 0..count {
            let form = self.byte()?;
            let role = if form & ROLE_DIRECTORY == 0 { Role::File } else { Role::Directory };
            let (compressed, indirection) = (form & COMPRESSED != 0, form & INDIRECTION);
            if indirection > INDIRECTION_MAX || indirection > 0 && compressed {
                return Err(self.part.bad("it refers to what no object ID can say"));
            }
            references.push((role, ObjectId { indirection, compressed, content: self.content()? }));
        }
        Ok(Found::Points(holds, references))
    }

    fn read_entry(&mut self) -> Result<Entry> {
        let pack = self.pack.clone().ok_or_else(|| self.part.bad("an entry comes before its pack"))?;
        let id = self.content()?;
        let deleted = self.flag()?;
        let format_version = self.byte()?;
        let [offset, packed_length, original_length, compression] =
            [self.u32()?, self.u32()?, self.u32()?, self.u32()?];
        let mut timestamp = [0; 8];
        self.part.fill(&mut timestamp)?;
        let compression = CompressionId(compression);
        let timestamp = i64::from_le_bytes(timestamp);
        Ok(Entry { id, timestamp, deleted, pack, offset, packed_length, original_length, compression, format_version })
    }

    fn tag(&mut self) -> Result<Option<u8>> {
        if self.part.is_at_end()? { Ok(None) } else { self.byte().map(Some) }
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.part.fill(&mut byte)?;
        Ok(byte[0])
    }

    fn flag(&mut self) -> Result<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.part.bad("it has a flag that is neither yes nor no")),
        }
    }

    fn u32(&mut self) -> Result<u32> {
        let mut bytes = [0; 4];
        self.part.fill(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn u64(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.part.fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn content(&mut self) -> Result<ContentId> {
        let mut key = [0; 1 + verger_kopia::content::HASH_BYTES_MAX];
        let length = usize::from(self.byte()?);
        let Some(key) = key.get_mut(..length) else { return Err(self.part.bad("it has too long a content ID")) };
        self.part.fill(key)?;
        let parsed = key
            .split_first()
            .and_then(|(prefix, hash)| ContentHash::from_slice(hash).and_then(|hash| ContentId::new(*prefix, hash)));
        parsed.ok_or_else(|| self.part.bad("it has no content ID"))
    }

    fn text(&mut self, most: usize) -> Result<String> {
        let length = usize::try_from(self.u32()?).ok().filter(|length| *length <= most);
        let length = length.ok_or_else(|| self.part.bad("it has too long a text"))?;
        let mut bytes = vec![0; length];
        self.part.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.part.bad("it has a text that is none"))
    }
}

/// A reason that came through a part, as a failure again.
#[must_use]
pub fn reason(is_damage: bool, text: String) -> Error {
    Error::new(if is_damage { ErrorKind::Damaged } else { ErrorKind::StoreUnavailable }, text)
}
