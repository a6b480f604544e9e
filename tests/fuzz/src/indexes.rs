//! Index blobs.

use std::collections::BTreeMap;
use std::sync::Arc;

use verger_kopia::content::{CompressionId, ContentHash, ContentId, Entry};
use verger_kopia::index::write::{BuildOptions, build, build_from_table};
use verger_kopia::index::{Index, Table, TableBuilder};

use super::bytes::Bytes;
use super::within;

const LENGTHS: [usize; 4] = [16, 20, 28, 32];
/// Beyond this many entries not every one is looked up by a scan.
const SCANNED_MAX: usize = 100;

fn table_of(index: &Arc<Index>, hash_length: usize) -> Table {
    let mut builder = TableBuilder::new(hash_length, None);
    builder.add(Arc::clone(index)).unwrap();
    builder.build(1).unwrap()
}

/// First byte: hash length; then an index of either version.
pub fn index(data: &[u8]) {
    let mut rest = Bytes(data);
    let hash_length = LENGTHS[usize::from(rest.byte()) % LENGTHS.len()];
    let plain = rest.0.to_vec();
    // A pack name of two bytes becomes an Arc in a list; version 1 has a map of them and a table of 256 formats.
    let Ok(index) = within(2048, 8, plain.len(), || Index::parse(plain.clone(), hash_length)) else { return };
    let index = Arc::new(index);
    let entries: Vec<Entry> = index.entries().map(Result::unwrap).collect();
    assert_eq!(entries.len(), index.len());
    assert!(entries.is_sorted_by(|a, b| a.id < b.id));

    let table = within(2048, 12, plain.len(), || table_of(&index, hash_length));
    assert_eq!(table.rows().map(|row| table.entry(row)).collect::<Vec<_>>(), entries);
    for entry in entries.iter().take(SCANNED_MAX) {
        look_up(&table, &entries, entry.id);
        let mut hash = entry.id.hash().as_bytes().to_vec();
        hash[hash_length - 1] ^= 1;
        look_up(&table, &entries, ContentId::new(entry.id.prefix(), ContentHash::from_slice(&hash).unwrap()).unwrap());
        assert_eq!(entry.id.to_string().parse::<ContentId>().unwrap(), entry.id);
    }
    for version in [1, 2] {
        let options = BuildOptions { version, hash_length, random_tail: false };
        let Ok(payloads) = build(entries.clone(), &options) else { continue };
        assert_eq!(build_from_table(&table, |_| true, &options).unwrap(), payloads);
        assert_eq!(payloads.len(), usize::from(!entries.is_empty()));
        for payload in payloads {
            let again = Index::parse(payload, hash_length).unwrap();
            assert_eq!(again.entries().map(Result::unwrap).collect::<Vec<_>>(), entries);
        }
    }
}

fn look_up(table: &Table, entries: &[Entry], id: ContentId) {
    let expected = entries.iter().position(|entry| entry.id == id).map(|row| u32::try_from(row).unwrap());
    assert_eq!(table.find(&id), expected);
    let mut rows = Vec::new();
    table.find_many([id, id].iter(), &mut rows);
    assert_eq!(rows, [expected, expected]);
}

/// Eight bytes an entry, up to four indexes: merged in any order, the winners are those that a plain search finds.
pub fn index_merge(data: &[u8]) {
    let mut rest = Bytes(data);
    let (options, watermark) = (rest.byte(), rest.byte());
    let watermark = (options & 1 == 1).then_some(i64::from(watermark % 32));
    let hash_length = LENGTHS[usize::from(options >> 1) % LENGTHS.len()];
    let mut groups: [Vec<Entry>; 4] = Default::default();
    while !rest.is_empty() {
        let group = usize::from(rest.byte() % 4);
        groups[group].push(entry(&mut rest, hash_length));
    }
    let mut all: Vec<Entry> = groups.iter().flatten().cloned().collect();
    let indexes: Vec<Arc<Index>> = groups
        .into_iter()
        .enumerate()
        .flat_map(|(at, group)| {
            let version = 1 + (options >> (4 + at) & 1);
            build(group, &BuildOptions { version, hash_length, random_tail: false }).unwrap()
        })
        .map(|plain| Arc::new(Index::parse(plain, hash_length).unwrap()))
        .collect();

    all.sort_by(|a, b| order(a).cmp(&order(b)));
    let winners: BTreeMap<ContentId, &Entry> = all.iter().map(|entry| (entry.id, entry)).collect();
    let hides = |entry: &Entry| entry.deleted && watermark.is_some_and(|watermark| entry.timestamp <= watermark);
    let (hidden, visible): (Vec<&Entry>, Vec<&Entry>) = winners.into_values().partition(|entry| hides(entry));
    for entry in &all {
        let winner = visible.iter().chain(&hidden).find(|winner| winner.id == entry.id).unwrap();
        assert!(!entry.beats(winner));
    }
    for turn in 0..indexes.len() * 2 {
        let mut order: Vec<_> = indexes.clone();
        order.rotate_left(turn % indexes.len());
        if turn >= indexes.len() {
            order.reverse();
        }
        let mut builder = TableBuilder::new(hash_length, watermark);
        order.into_iter().for_each(|index| builder.add(index).unwrap());
        let table = builder.build(1 + turn % 2).unwrap();
        assert_eq!(
            table.rows().map(|row| table.entry(row)).collect::<Vec<_>>(),
            visible.iter().map(|e| (*e).clone()).collect::<Vec<_>>()
        );
        assert_eq!(table.hidden_count(), hidden.len() as u64);
        assert!(hidden.iter().all(|entry| table.hidden_packs().contains(&entry.pack)));
        assert!(table.packs().is_sorted() && table.packs().iter().all(|pack| visible.iter().any(|e| e.pack == *pack)));
        let sizes: u64 = table.pack_sizes().iter().map(|size| size.bytes).sum();
        assert_eq!(sizes, visible.iter().map(|entry| u64::from(entry.packed_length)).sum::<u64>());
    }
}

/// Kopia's rule, then the rest of the entry.
fn order(e: &Entry) -> impl Ord + use<> {
    let rule = (e.timestamp, !e.deleted, e.pack.as_str().to_owned());
    (rule, e.offset, e.packed_length, e.original_length, e.format_version)
}

fn entry(rest: &mut Bytes<'_>, hash_length: usize) -> Entry {
    let (head, tail, flags) = (rest.byte(), rest.byte(), rest.byte());
    let mut hash = vec![head; hash_length];
    hash[hash_length - 1] = tail;
    let prefix = [0, b'g', b'k', b'z'][usize::from(flags & 3)];
    let length = 28 + u32::from(rest.byte());
    Entry {
        id: ContentId::new(prefix, ContentHash::from_slice(&hash).unwrap()).unwrap(),
        timestamp: i64::from(rest.byte() % 32),
        deleted: flags & 4 != 0,
        pack: if flags & 8 == 0 { "p1" } else { "q2" }.into(),
        offset: u32::from(rest.byte()),
        packed_length: length,
        original_length: length - 28,
        compression: CompressionId(0),
        format_version: 1 + (flags >> 4 & 1),
    }
}
