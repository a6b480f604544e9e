//! Bytes of one content or object.

use verger_kopia::content::ContentId;
use verger_kopia::content::read::{ContentReader, HashCheck, read_content};
use verger_kopia::directory::{Directory, DirectoryEntry};
use verger_kopia::object::ObjectId;
use verger_kopia::object::read::ObjectReader;
use verger_kopia::{Error, ErrorKind, Result};

use super::Open;
use super::lists::ContentLine;
use crate::output::{self, Output};

/// Longest directory that is listed: 40 bytes a name make it some millions of entries.
const DIRECTORY_BYTES_MAX: usize = 1 << 30;

fn absent(id: &ContentId) -> Error {
    Error::new(ErrorKind::NotFound, format!("content {id} is not in the index"))
        .with_fix("`verger inspect contents --deleted` lists those that are")
}

/// Prints a content's plaintext; with `--json` what the index says of it.
pub(super) fn content(output: Output, open: &Open, id: &ContentId) -> Result<()> {
    let view = open.view()?;
    let entry = view.table.find(id).map(|row| view.table.entry(row)).ok_or_else(|| absent(id))?;
    if output.json {
        return output.document(&ContentLine::from(entry));
    }
    let mut reader = ContentReader::new(&open.repository).with_hash_check(HashCheck::Verify);
    output.bytes(reader.read(&entry)?).map(drop)
}

/// Prints a file's bytes, or a directory's entries.
pub(super) fn object(output: Output, open: &Open, id: ObjectId) -> Result<()> {
    let view = open.view()?;
    let fetch = |content: &ContentId| {
        let row = view.table.find(content).ok_or_else(|| absent(content).into_kind(ErrorKind::Damaged))?;
        read_content(&open.repository, &view.table.entry(row))
    };
    let mut reader = ObjectReader::open(id, fetch)?;
    if id.content.prefix() != b'k' {
        if output.json {
            return Err(Error::new(ErrorKind::Usage, format!("object {id} is no directory: it has no JSON"))
                .with_fix("Leave --json out to get its bytes"));
        }
        while let Some(chunk) = reader.next_chunk()? {
            if !output.bytes(chunk)? {
                break;
            }
        }
        return Ok(());
    }
    let mut plain = Vec::new();
    while let Some(chunk) = reader.next_chunk()? {
        if plain.len() + chunk.len() > DIRECTORY_BYTES_MAX {
            return Err(Error::new(ErrorKind::MemoryLimit, format!("directory {id} is longer than 1 GiB")));
        }
        plain.extend_from_slice(chunk);
    }
    let directory = Directory::parse(&plain).map_err(|error| error.at(format!("read directory {id}")))?;
    drop(plain);
    let entries = directory.entries.unwrap_or_default();
    if output.json { output.list(entries.iter().map(Ok)) } else { output.lines(entries.iter().map(entry_text)) }
}

fn entry_text(entry: &DirectoryEntry) -> String {
    let size = entry.summary.as_ref().map_or(entry.size, |summary| summary.size).max(0).unsigned_abs();
    let time = entry.mtime.map_or_else(|| "-".to_owned(), |time| time.strftime("%F %T UTC").to_string());
    let slash = if entry.kind == "d" { "/" } else { "" };
    format!(
        "{}{:04o} {:>9} {time} {:<34} {}{slash}",
        if entry.kind.is_empty() { "?" } else { &entry.kind },
        entry.mode.unix(),
        output::bytes(size),
        entry.obj.to_string(),
        entry.name
    )
}
