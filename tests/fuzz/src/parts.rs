//! Parts of the exchange: stored bytes as anybody could put them there, and records as only a key could seal them.

use std::sync::Arc;

use verger_kopia::Result;
use verger_kopia::spill::SpillFolder;
use verger_kopia::storage::MemoryStorage;
use verger_proto::job::OutputRef;
use verger_proto::{CycleId, Digest, RepositoryId, Shard};
use verger_worker::exchange::{
    EntryPen, Exchange, ExchangeKey, Expected, PartKind, PartReader, PartWriter, Parts, Records, write_found,
    write_moved,
};
use verger_worker::limit::MemoryLimit;

use super::golden::empty;
use super::within;

const NAME: &str = "x/0123456789abcdef/7/scan--1-00000000";

/// First byte even: the rest is a stored part; odd: the rest is what a sealed one holds.
pub fn part(data: &[u8]) {
    let Some((&options, rest)) = data.split_first() else { return };
    if options & 1 == 0 { stored(rest) } else { sealed(rest) }
}

fn repository() -> RepositoryId {
    format!("{}-{}", "ab".repeat(32), "01".repeat(16)).parse().unwrap()
}

/// Nobody knows the key, so nothing opens, and nothing that is asked for is taken at its word.
fn stored(bytes: &[u8]) {
    let (name, view) = (NAME.to_owned(), Digest::default());
    let reported = OutputRef { name: name.clone(), digest: Digest::of(bytes), count: 0, view };
    let expected =
        Expected { repository: repository(), cycle: CycleId(7), kind: PartKind::Scan, name, reported: Some(reported) };
    let read = within(64 << 10, 8, bytes.len(), || {
        PartReader::of_bytes(bytes, &ExchangeKey::from_bytes([5; 32]), expected).and_then(PartReader::finish)
    });
    assert!(read.is_err(), "a frame that opens by chance");
}

fn written(parts: &Parts, write: impl FnOnce(&mut PartWriter) -> Result<()>) -> OutputRef {
    let folder = SpillFolder::new(std::env::temp_dir());
    let mut part = parts.write(PartKind::Scan, &Shard::whole(), 1, Digest::default(), &folder).unwrap();
    write(&mut part).unwrap();
    part.finish(&MemoryLimit::new(1 << 30)).unwrap()
}

/// Reads all that can be read; whether it is whole does not matter.
fn read<T>(parts: &Parts, part: &OutputRef, next: impl Fn(&mut Records) -> Result<Option<T>>) -> Vec<T> {
    let mut records = Records::new(parts.read(part, PartKind::Scan).unwrap());
    let mut all = Vec::new();
    while let Ok(Some(record)) = next(&mut records) {
        all.push(record);
    }
    let _ = records.finish();
    all
}

/// Whatever is in a part, its records end with an error or read back as what they are.
fn sealed(plain: &[u8]) {
    let golden = empty("default");
    let exchange = Exchange::open(Arc::new(MemoryStorage::default())).unwrap();
    let parts = exchange.parts(&golden.repository, &repository(), CycleId(7));
    let part = written(&parts, |part| part.record(plain));
    let found = within(4 << 20, 256, plain.len(), || read(&parts, &part, Records::found));
    let moved = within(4 << 20, 256, plain.len(), || read(&parts, &part, Records::moved));
    let _ = read(&parts, &part, Records::entry);

    let again = written(&parts, |part| {
        let mut line = Vec::new();
        found.iter().try_for_each(|(content, found)| {
            write_found(content, found, &mut line)?;
            part.record(&line)
        })
    });
    assert_eq!(read(&parts, &again, Records::found), found);
    let again = written(&parts, |part| {
        let mut pen = EntryPen::default();
        moved.iter().try_for_each(|moved| write_moved(moved, &mut pen, part))
    });
    assert_eq!(read(&parts, &again, Records::moved), moved);
}
