use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::spooled::{Place, SpooledIndex, merge_spooled};
use super::write::testing::build_small;
use super::write::{BuildOptions, build, build_from_table};
use super::*;
use crate::spill::SpillFolder;

const V2: BuildOptions = BuildOptions { version: 2, hash_length: 16, random_tail: false };
const V1: BuildOptions = BuildOptions { version: 1, hash_length: 16, random_tail: false };

/// kopia-format vectors A.1 (version 2) and A.3 (version 1): the only entry of a fresh repository's first index blob.
const A1: &str = "02110010000000010000000101000000006d1f12c09083c5e9f82b87fd8c91876bf96b016431000000200002850002a10000360000003d\
0000000003007130356339633633366332316336306564656634323139383061636562666664362d7333383133386236333234396264616636313437";
const A3: &str = "01110014000000016ddc647eea2a9a95c6fa09e813efc52c7400006b0162ae01360000002d00000447000002a67164653634663866\
626564353438336361373530643838366239343938343739342d7336396461663965333461386662303564313437";

fn vector(version: u8) -> (Vec<u8>, Entry) {
    let entry = |id: &str, timestamp, pack: &str, offset, packed, original, format_version| Entry {
        id: id.parse().unwrap(),
        timestamp,
        deleted: false,
        pack: pack.into(),
        offset,
        packed_length: packed,
        original_length: original,
        compression: CompressionId(0),
        format_version,
    };
    if version == 2 {
        let pack = "q05c9c636c21c60edef421980acebffd6-s38138b63249bdaf6147";
        let id = "m1f12c09083c5e9f82b87fd8c91876bf9";
        (hex::decode(A1).unwrap(), entry(id, 1_795_253_297, pack, 32, 673, 645, 3))
    } else {
        let pack = "qde64f8fbed5483ca750d886b94984794-s69daf9e34a8fb05d147";
        let id = "mdc647eea2a9a95c6fa09e813efc52c74";
        (hex::decode(A3).unwrap(), entry(id, 1_795_252_910, pack, 1095, 678, 650, 1))
    }
}

#[test]
fn vectors_are_read_and_written_byte_for_byte() {
    for (version, options) in [(1, V1), (2, V2)] {
        let (bytes, entry) = vector(version);
        let index = Index::parse(bytes.clone(), 16).unwrap();
        let entries: Vec<Entry> = index.entries().map(Result::unwrap).collect();
        assert_eq!(entries, [entry]);
        assert_eq!(build(entries.clone(), &options).unwrap(), std::slice::from_ref(&bytes));

        let tailed = build(entries, &BuildOptions { random_tail: true, ..options }).unwrap().remove(0);
        assert_eq!((tailed.len(), &tailed[..bytes.len()]), (bytes.len() + 32, &bytes[..]));
        assert_eq!(Index::parse(tailed, 16).unwrap().len(), 1);
    }
}

#[test]
fn hostile_input_is_an_error_and_never_a_panic() {
    for version in [1, 2] {
        let (bytes, _) = vector(version);
        for length in 0..bytes.len() {
            assert!(Index::parse(bytes[..length].to_vec(), 16).is_err(), "version {version} cut at {length}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bent = bytes.clone();
                bent[at] ^= 1 << bit;
                if let Ok(index) = Index::parse(bent, 16) {
                    assert!(index.entries().all(|entry| entry.is_ok()));
                }
            }
        }
        assert!(Index::parse(bytes, 32).is_err(), "keys of another length");
    }
}

#[test]
fn what_is_refused_in_memory_is_refused_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = SpillFolder::new(folder.path()).file().unwrap();
    let mut differ = 0;
    for version in [1, 2] {
        let (bytes, _) = vector(version);
        let mut cases: Vec<Vec<u8>> = (0..bytes.len()).map(|length| bytes[..length].to_vec()).collect();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bent = bytes.clone();
                bent[at] ^= 1 << bit;
                cases.push(bent);
            }
        }
        for case in cases {
            let at = file.append(&case).unwrap();
            let spooled = SpooledIndex::open(Arc::new(file.clone()), at, case.len() as u64, 16);
            // A name inside the entries is never written; only in memory it is read.
            differ += usize::from(spooled.is_ok() != Index::parse(case.clone(), 16).is_ok());
            assert!(spooled.is_err() || Index::parse(case, 16).is_ok());
        }
    }
    assert!(differ < 4, "{differ}");
}

#[test]
fn a_full_disk_ends_the_merge() {
    let folder = tempfile::tempdir().unwrap();
    let file = SpillFolder::new(folder.path()).file().unwrap();
    let bytes = build((0..100).map(|n| sample(n, 1, 1)).collect(), &V2).unwrap().remove(0);
    let at = file.append(&bytes).unwrap();
    let index = SpooledIndex::open(Arc::new(file.clone()), at, bytes.len() as u64, 16).unwrap();
    let place = Place::Files { folder: SpillFolder::new(folder.path()).with_limit(1000), cache: 1 };
    let error = merge_spooled(vec![index], (16, None), 1, 10, &place).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::DiskFull);
}

#[test]
fn hashes_that_are_all_alike_are_merged_however_many() {
    let entries: Vec<Entry> = (0..500u32)
        .map(|n| Entry { id: format!("{:032x}", 5u128 << 96 | u128::from(n)).parse().unwrap(), ..sample(1, 1, n % 9) })
        .collect();
    let in_files = |folder: &SpillFolder| Place::Files { folder: folder.clone(), cache: 1 };
    check_table(
        std::slice::from_ref(&entries),
        &V2,
        None,
        spooled(std::slice::from_ref(&entries), &V2, None, 8, in_files),
    );
}

#[test]
fn claimed_counts_allocate_nothing() {
    let mut bytes = vec![2, 17, 0, 16, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(Index::parse(bytes.clone(), 16).is_err());
    bytes[4..12].copy_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
    assert!(Index::parse(bytes, 16).is_err());
}

#[test]
fn pack_names_that_overlap_cannot_multiply_the_input() {
    let mut bytes = vec![2, 17, 0, 16, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 0, 0];
    for _ in 0..40 {
        bytes.extend_from_slice(&[200, 0, 0, 0, 217]);
    }
    bytes.extend_from_slice(&[b'p'; 200]);
    let error = Index::parse(bytes, 16).unwrap_err();
    assert!(error.to_string().contains("longer than the index"), "{error}");
}

#[test]
fn names_that_are_no_pack_are_refused() {
    let (bytes, entry) = vector(2);
    let at = bytes.len() - entry.pack.as_str().len();
    for bad in [b'/', b'.', 0, 0xFF, b' '] {
        let mut bent = bytes.clone();
        bent[at + 3] = bad;
        assert!(Index::parse(bent, 16).is_err());
    }
    let mut other = bytes;
    other[at] = b'k';
    assert!(Index::parse(other, 16).is_err());
}

#[test]
fn order_and_duplicates_are_checked() {
    let entries = vec![sample(1, 1, 1), sample(2, 1, 1)];
    let good = build(entries, &V2).unwrap().remove(0);
    let (stride, first) = (33, 17);
    let mut swapped = good.clone();
    swapped[first..first + 2 * stride].rotate_left(stride);
    assert!(Index::parse(swapped, 16).is_err());
    let mut twice = good;
    twice.copy_within(first..first + stride, first + stride);
    assert!(Index::parse(twice, 16).is_err());
}

fn sample(id: u32, timestamp: i64, pack: u32) -> Entry {
    Entry {
        id: format!("{:032x}", u128::from(id) << 96).parse().unwrap(),
        timestamp,
        deleted: false,
        pack: format!("p{pack:032x}").as_str().into(),
        offset: id,
        packed_length: 128,
        original_length: 100,
        compression: CompressionId(0),
        format_version: 3,
    }
}

#[test]
fn entry_size_follows_what_has_to_fit() {
    let size = |entries: Vec<Entry>| {
        let bytes = build(entries.clone(), &V2).unwrap().remove(0);
        let back: Vec<Entry> = Index::parse(bytes.clone(), 16).unwrap().entries().map(Result::unwrap).collect();
        assert_eq!(back.len(), entries.len());
        assert!(back.iter().all(|entry| entries.contains(entry)) || entries.len() > 100);
        bytes[3]
    };
    let other_format = Entry { compression: CompressionId(0x1100), ..sample(2, 1, 1) };
    let long = Entry { original_length: (1 << 28) - 1, packed_length: (1 << 24) + 7, ..sample(3, 1, 1) };
    assert_eq!(size(vec![sample(1, 1, 1)]), 16);
    assert_eq!(size(vec![sample(1, 1, 1), other_format]), 17);
    assert_eq!(size((0..65_536).map(|n| sample(n, 1, n)).collect()), 16);
    assert_eq!(size((0..65_537).map(|n| sample(n, 1, n)).collect()), 18);
    assert_eq!(size(vec![sample(1, 1, 1), long]), 19);
}

#[test]
fn more_than_65536_packs_keep_their_names() {
    let entries: Vec<Entry> = (0..70_000).map(|n| sample(n, 1, 70_000 - n)).collect();
    let index = Index::parse(build(entries.clone(), &V2).unwrap().remove(0), 16).unwrap();
    assert!(index.entries().map(Result::unwrap).eq(entries));
}

#[test]
fn what_does_not_fit_is_refused() {
    for (entry, options) in [
        (Entry { packed_length: 1 << 28, ..sample(1, 1, 1) }, V2),
        (Entry { offset: 1 << 30, ..sample(1, 1, 1) }, V2),
        (Entry { timestamp: -1, ..sample(1, 1, 1) }, V2),
        (Entry { timestamp: 1 << 32, ..sample(1, 1, 1) }, V2),
        (Entry { compression: CompressionId(1), ..sample(1, 1, 1) }, V1),
        (Entry { original_length: 99, ..sample(1, 1, 1) }, V1),
        (sample(1, 1, 1), BuildOptions { version: 3, ..V2 }),
        (sample(1, 1, 1), BuildOptions { hash_length: 32, ..V2 }),
    ] {
        assert!(build(vec![entry], &options).is_err());
    }
    assert!(build(Vec::new(), &V2).unwrap().is_empty());
}

#[test]
fn shards_go_by_the_text_of_the_id() {
    let entries: Vec<Entry> = (0..1000).map(|n| sample(n, 1, n % 7)).collect();
    let shards = build_small(entries.clone(), &V2, 300);
    assert_eq!(shards.len(), 4);
    let mut all = Vec::new();
    for (shard, bytes) in shards.into_iter().enumerate() {
        for entry in Index::parse(bytes, 16).unwrap().entries().map(Result::unwrap) {
            let text = entry.id.to_string();
            let fnv = text.bytes().fold(2_166_136_261u32, |h, b| (h ^ u32::from(b)).wrapping_mul(16_777_619));
            assert_eq!(fnv as usize % 4, shard);
            all.push(entry);
        }
    }
    all.sort_by_key(|entry| entry.id);
    assert_eq!(all, entries);
}

/// The rule of the format, and where it leaves a tie the rest of the entry.
fn order(e: &Entry) -> impl Ord + use<> {
    let place = (e.offset, e.packed_length, e.original_length, e.compression, e.format_version);
    ((e.timestamp, !e.deleted), e.pack.as_str().to_owned(), place)
}

fn oracle(indexes: &[Vec<Entry>]) -> BTreeMap<ContentId, Entry> {
    let mut winners: BTreeMap<ContentId, Entry> = BTreeMap::new();
    for entry in indexes.iter().flatten() {
        let old = winners.entry(entry.id).or_insert_with(|| entry.clone());
        assert_eq!(entry.beats(old), order(entry) > order(old) && (key3(entry) != key3(old)));
        if order(entry) > order(old) {
            *old = entry.clone();
        }
    }
    winners
}

fn key3(e: &Entry) -> (i64, bool, &str) {
    (e.timestamp, e.deleted, e.pack.as_str())
}

fn table(indexes: &[Vec<Entry>], options: &BuildOptions, watermark: Option<i64>, threads: usize) -> Table {
    let mut builder = TableBuilder::new(options.hash_length, watermark);
    for entries in indexes {
        for bytes in build(entries.clone(), options).unwrap() {
            builder.add(Arc::new(Index::parse(bytes, options.hash_length).unwrap())).unwrap();
        }
    }
    builder.build(threads).unwrap()
}

/// The same through files, a few entries at a time.
fn spooled(
    indexes: &[Vec<Entry>],
    options: &BuildOptions,
    watermark: Option<i64>,
    at_once: usize,
    place: impl Fn(&SpillFolder) -> Place,
) -> Table {
    let folder = tempfile::tempdir().unwrap();
    let folder = SpillFolder::new(folder.path());
    let file = folder.file().unwrap();
    let mut opened = Vec::new();
    for entries in indexes {
        for bytes in build(entries.clone(), options).unwrap() {
            let at = file.append(&bytes).unwrap();
            opened
                .push(SpooledIndex::open(Arc::new(file.clone()), at, bytes.len() as u64, options.hash_length).unwrap());
        }
    }
    merge_spooled(opened, (options.hash_length, watermark), 2, at_once, &place(&folder)).unwrap()
}

fn check_against_oracle(indexes: &[Vec<Entry>], options: &BuildOptions, watermark: Option<i64>, threads: usize) {
    check_table(indexes, options, watermark, table(indexes, options, watermark, threads));
    let at_once = 5 + indexes.iter().map(Vec::len).sum::<usize>() / 7;
    check_table(indexes, options, watermark, spooled(indexes, options, watermark, at_once, |_| Place::Memory));
    let in_files = |folder: &SpillFolder| Place::Files { folder: folder.clone(), cache: 1 };
    let table = spooled(indexes, options, watermark, at_once, in_files);
    assert!(!table.is_in_memory());
    check_table(indexes, options, watermark, table);
}

fn check_table(indexes: &[Vec<Entry>], options: &BuildOptions, watermark: Option<i64>, table: Table) {
    let hidden = |e: &Entry| e.deleted && watermark.is_some_and(|watermark| e.timestamp <= watermark);
    let (hidden, visible): (Vec<Entry>, Vec<Entry>) = oracle(indexes).into_values().partition(hidden);
    let rows: Vec<Entry> = table.rows().map(|row| table.entry(row)).collect();
    assert_eq!(rows, visible);
    assert_eq!(table.len(), visible.len());
    assert!(table.ids().eq(visible.iter().map(|entry| entry.id)));
    for (row, entry) in (0u32..).zip(&visible) {
        assert_eq!(table.find(&entry.id), Some(row));
        assert_eq!(table.prefix(row), entry.id.prefix());
        assert!(table.row_range_of_prefix(entry.id.prefix()).contains(&row));
    }
    assert!(hidden.iter().all(|entry| table.find(&entry.id).is_none()));
    // Many at once, in any order, some of them not there.
    let mut wanted: Vec<ContentId> = visible.iter().chain(&hidden).map(|entry| entry.id).collect();
    wanted.sort_by_key(|id| blake3::hash(id.hash().as_bytes()).to_string());
    let mut found = vec![Some(7)];
    table.find_many(wanted.iter(), &mut found);
    assert_eq!(found[1..], wanted.iter().map(|id| table.find(id)).collect::<Vec<_>>());
    assert_eq!(table.hidden_count(), hidden.len() as u64);
    let names = |entries: &[Entry]| {
        let mut packs: Vec<BlobId> = entries.iter().map(|entry| entry.pack.clone()).collect();
        packs.sort();
        packs.dedup();
        packs
    };
    assert_eq!(table.packs(), names(&visible));
    assert_eq!(table.hidden_packs(), names(&hidden));
    check_packs(&table);
    let rebuilt = build_from_table(&table, |_| true, options).unwrap();
    assert_eq!(rebuilt, build(visible, options).unwrap());
}

fn check_packs(table: &Table) {
    let (rows, sizes) = (table.pack_rows(), table.pack_sizes());
    let mut seen = 0;
    for (pack, size) in (0u32..).zip(&sizes) {
        let of = rows.of(pack);
        assert!(of.iter().all(|row| table.pack(*row) == pack));
        assert!(of.windows(2).all(|pair| table.offset(pair[0]) <= table.offset(pair[1])));
        assert_eq!(size.rows as usize, of.len());
        assert_eq!(size.bytes, of.iter().map(|row| u64::from(table.packed_length(*row))).sum::<u64>());
        assert_eq!(size.live_rows as usize, of.iter().filter(|row| !table.is_deleted(**row)).count());
        assert_eq!(table.find_pack(&table.packs()[pack as usize]), Some(pack));
        seen += of.len();
    }
    assert_eq!(seen, table.len());
}

prop_compose! {
    /// Few IDs, packs and times, so that everything collides; IDs that share their first 8 bytes too.
    fn entries(v1: bool, hash_length: usize)(
        prefix in prop::sample::select(vec![0, b'g', b'k', b'm', b'x', b'z']),
        head in 0u8..6,
        tail in 0u8..3,
        timestamp in prop_oneof![0i64..5, Just(i64::from(u32::MAX) - 1), Just(i64::from(u32::MAX)), 1i64 << 32..(1 << 32) + 3],
        deleted in any::<bool>(),
        pack in 0u8..5,
        offset in 0u32..3,
        packed in prop_oneof![28u32..31, Just((1u32 << 28) - 1)],
        original in prop_oneof![0u32..3, Just(1u32 << 24)],
        compression in 0u32..3,
        format_version in 1u8..4,
    ) -> Entry {
        let mut hash = vec![0u8; hash_length];
        hash[0] = head.wrapping_mul(50);
        hash[hash_length - 1] = tail;
        Entry {
            id: ContentId::new(prefix, crate::content::ContentHash::from_slice(&hash).unwrap()).unwrap(),
            timestamp: if v1 { timestamp } else { timestamp.min(i64::from(u32::MAX)) },
            deleted,
            pack: format!("{}{pack:032x}-s1", if prefix == 0 { 'p' } else { 'q' }).as_str().into(),
            offset,
            packed_length: packed,
            original_length: if v1 { packed - 28 } else { original },
            compression: CompressionId(if v1 { 0 } else { compression }),
            format_version,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_indexes_merge_as_the_oracle_says(
        mut indexes in prop::collection::vec(prop::collection::vec(entries(false, 16), 0..40), 0..7),
        watermark in prop::option::of(0i64..6),
        threads in 1usize..4,
    ) {
        check_against_oracle(&indexes, &V2, watermark, threads);
        indexes.reverse();
        check_against_oracle(&indexes, &V2, watermark, threads);
    }

    #[test]
    fn long_hashes_and_version_1_merge_too(
        v1 in prop::collection::vec(prop::collection::vec(entries(true, 16), 0..40), 0..4),
        long in prop::collection::vec(prop::collection::vec(entries(false, 32), 0..40), 0..4),
        watermark in prop::option::of(0i64..6),
    ) {
        check_against_oracle(&v1, &V1, watermark, 1);
        check_against_oracle(&long, &BuildOptions { hash_length: 32, ..V2 }, watermark, 2);
    }

    #[test]
    fn what_is_written_is_read_back(entries in prop::collection::vec(entries(false, 28), 1..60)) {
        let options = BuildOptions { hash_length: 28, ..V2 };
        let expected: Vec<Entry> = {
            let mut sorted = entries.clone();
            sorted.sort_by_key(|entry| entry.id);
            let mut kept: Vec<Entry> = Vec::new();
            for entry in sorted {
                if let Some(last) = kept.last_mut().filter(|last| last.id == entry.id) {
                    if order(&entry) > order(last) {
                        *last = entry;
                    }
                } else {
                    kept.push(entry);
                }
            }
            kept
        };
        let bytes = build(entries, &options).unwrap().remove(0);
        let back: Vec<Entry> = Index::parse(bytes, 28).unwrap().entries().map(Result::unwrap).collect();
        prop_assert_eq!(back, expected);
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), version in 1u8..3) {
        if bytes.len() > 8 {
            bytes[0] = version;
            bytes[1] = 17;
            bytes[2] = 0;
            bytes[3] = if version == 1 { 20 } else { 16 + bytes[3] % 4 };
            bytes[4..7].fill(0);
        }
        if let Ok(index) = Index::parse(bytes, 16) {
            prop_assert!(index.entries().all(|entry| entry.is_ok()));
        }
    }
}

#[test]
fn many_random_contents_merge_in_any_number_of_ranges() {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 16
    };
    let indexes: Vec<Vec<Entry>> = (0..3)
        .map(|_| {
            (0..60_000u32)
                .map(|n| {
                    let prefix = if n % 5 == 0 { "k" } else { "" };
                    let id =
                        format!("{prefix}{:016x}{:016x}", (next() % 100_000).wrapping_mul(0x9E37_79B9_7F4A_7C15), 7);
                    Entry { id: id.parse().unwrap(), deleted: n % 3 == 0, ..sample(1, i64::from(n % 9), n % 50) }
                })
                .collect()
        })
        .collect();
    check_against_oracle(&indexes, &V2, Some(4), 3);
}
