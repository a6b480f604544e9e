//! Seek tables, and objects over them.

use std::cell::Cell;
use std::collections::BTreeSet;

use verger_kopia::content::ContentId;
use verger_kopia::directory::parse_object;
use verger_kopia::object::{ObjectId, ObjectReader, SeekTable, resolve};
use verger_kopia::{Error, Result};

use super::within;

/// Reads after which an object is given up: a few tables can honestly stand for more chunks than anybody reads.
const READS_MAX: u32 = 2000;

/// A seek table.
pub fn seek_table(data: &[u8]) {
    let Ok(table) = within(4096, 24, data.len(), || SeekTable::parse(data)) else { return };
    let mut end = 0;
    for entry in &table.entries {
        assert_eq!(entry.start, end);
        end += entry.length;
    }
    assert_eq!(table.length(), end);
    let entries: Vec<_> =
        table.entries.iter().map(|e| serde_json::json!({ "s": e.start, "l": e.length, "o": e.object })).collect();
    let written = serde_json::json!({ "stream": "kopia:indirect", "entries": entries });
    assert_eq!(SeekTable::parse(&serde_json::to_vec(&written).unwrap()).unwrap(), table);
}

/// First line: an object ID; each further line: a content, whose number is the first byte of its ID's hash.
pub fn object(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let Some(root) = lines.next().and_then(|line| std::str::from_utf8(line).ok()?.parse::<ObjectId>().ok()) else {
        return;
    };
    let contents: Vec<&[u8]> = lines.collect();
    let reads = Cell::new(0);
    let fetch = |id: &ContentId| -> Result<Vec<u8>> {
        reads.set(reads.get() + 1);
        let content = contents.get(usize::from(id.hash().as_bytes()[0]));
        let content = content.filter(|_| reads.get() <= READS_MAX);
        content.map(|bytes| bytes.to_vec()).ok_or_else(|| Error::damaged("no such content"))
    };
    let mut resolved = BTreeSet::new();
    let mut fetch_table = fetch;
    let parts = resolve(&root, &mut fetch_table, &mut |found| {
        resolved.insert(found.id);
    });
    assert!(reads.get() <= READS_MAX || parts.is_err());
    reads.set(0);
    // A chunk at a time, but for tables that lie in chunks themselves: those are held whole.
    let mut length = 0;
    let read = ObjectReader::open(root, fetch).and_then(|mut reader| {
        while let Some(chunk) = reader.next_chunk()? {
            length += chunk.len() as u64;
            if reads.get() > READS_MAX {
                return Err(Error::damaged("too long for a test"));
            }
        }
        Ok(reader.length())
    });
    if let (Ok(Some(stated)), Ok(parts)) = (&read, &parts) {
        assert_eq!((length, parts.length), (*stated, Some(*stated)));
    }
    assert!(read.is_err() || parts.is_ok(), "what can be read can be resolved");
    reads.set(0);
    let _ = parse_object(root, fetch, |_| {});
}
