//! Packs, contents and session markers of real repositories.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::clock::{SetClock, Timestamp};
use crate::compression::Decompressor;
use crate::content::read::{ContentReader, HashCheck, open_content, read_content};
use crate::content::{CompressionId, Entry};
use crate::error::ErrorKind;
use crate::repository::Repository;
use crate::session::{SessionId, active_sessions, delete_markers, start_session, write_marker};
use crate::storage::memory::MemoryStorage;
use crate::storage::{BlobId, ByteRange, PutOptions, Storage};

const NOW: &str = "2026-11-22T00:00:00Z";

/// Entries of the merged index, as the real program listed them.
struct Golden {
    repository: Repository,
    storage: Arc<MemoryStorage>,
    entries: Vec<Entry>,
}

fn golden(name: &str) -> Golden {
    let path = format!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/{}.tar.gz"), name);
    let clock = Arc::new(SetClock::new(NOW.parse().unwrap()));
    let storage = Arc::new(MemoryStorage::new(clock.clone()));
    let mut expect = serde_json::Value::Null;
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()));
    for file in archive.entries().unwrap() {
        let mut file = file.unwrap();
        let path = file.path().unwrap().to_str().unwrap().to_owned();
        let mut data = Vec::new();
        file.read_to_end(&mut data).unwrap();
        if path.ends_with("expect.json") {
            expect = serde_json::from_slice(&data).unwrap();
        } else if let Some(id) = path.strip_prefix(&format!("{name}/repo/")).and_then(|path| path.strip_suffix(".f")) {
            let timestamp = Timestamp::from_second(file.header().mtime().unwrap() as i64).unwrap();
            storage.put_at(&BlobId::new(id.replace('/', "")), Bytes::from(data), timestamp);
        }
    }
    let repository = Repository::open(storage.clone(), "golden", clock).unwrap();
    let entries = expect["before"]["contents"].as_array().unwrap().iter().map(entry).collect();
    Golden { repository, storage, entries }
}

fn entry(json: &serde_json::Value) -> Entry {
    let number = |key: &str| u32::try_from(json[key].as_u64().unwrap_or(0)).unwrap();
    Entry {
        id: json["contentID"].as_str().unwrap().parse().unwrap(),
        timestamp: json["time"].as_i64().unwrap(),
        deleted: json["deleted"].as_bool().unwrap(),
        pack: json["packFile"].as_str().unwrap().into(),
        offset: number("packOffset"),
        packed_length: number("length"),
        original_length: number("originalLength"),
        compression: CompressionId(number("compression")),
        format_version: u8::try_from(number("formatVersion")).unwrap(),
    }
}

impl Golden {
    fn get(&self, id: &BlobId) -> Bytes {
        self.storage.get(id, ByteRange::All).unwrap()
    }

    fn packs(&self) -> BTreeSet<BlobId> {
        self.entries.iter().map(|entry| entry.pack.clone()).collect()
    }

    fn replace(&self, id: &BlobId, data: Vec<u8>) {
        self.storage.put_at(id, Bytes::from(data), NOW.parse().unwrap());
    }
}

fn names() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|file| Some(file.unwrap().file_name().to_str()?.strip_suffix(".tar.gz")?.to_owned()))
        .collect();
    names.sort();
    names
}

#[test]
fn every_content_of_every_golden_repository_has_its_hash() {
    let names = names();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let golden = golden(&name);
        let mut reader = ContentReader::new(&golden.repository).with_hash_check(HashCheck::Verify);
        let mut decompressor = Decompressor::new();
        let mut out = Vec::new();
        let mut z_objects = 0;
        for entry in &golden.entries {
            let plain = reader.read(entry).unwrap_or_else(|error| panic!("{name}: {error:?}"));
            assert_eq!(plain.len(), entry.original_length as usize, "{name} {}", entry.id);
            let pack = golden.get(&entry.pack);
            let stored = stored_bytes(&pack, entry).unwrap();
            open_content(&golden.repository, entry, stored, &mut decompressor, &mut out).unwrap();
            assert!(out == plain, "{name} {}", entry.id);
            if !entry.id.is_prefixed() && plain.starts_with(&[0, 0, 0x10]) {
                Decompressor::new().decompress_headed(plain, 8 << 20, &mut out).unwrap();
                assert!(out.len() > plain.len(), "{name} {}", entry.id);
                z_objects += 1;
            }
        }
        assert_eq!(z_objects > 0, name == "v1-gzip", "{name}: {z_objects} objects compressed by their writer");
    }
}

#[test]
fn every_pack_tells_its_contents_itself() {
    for name in ["default", "ecc", "format1", "v1-gzip", "hmac-sha256", "hmac-sha3-224", "split-fixed-128k-large-dirs"]
    {
        let golden = golden(name);
        for pack in golden.packs() {
            let recovered = recover_local_index(&golden.repository, &golden.get(&pack)).unwrap();
            assert_eq!(fetch_local_index(&golden.repository, &pack).unwrap(), recovered, "{name} {pack}");
            let recovered: BTreeMap<_, _> = recovered.into_iter().map(|entry| (entry.id, entry)).collect();
            for entry in golden.entries.iter().filter(|entry| entry.pack == pack) {
                let own = &recovered[&entry.id];
                // The winner may be a later mark of the same bytes.
                let own = Entry { deleted: entry.deleted, timestamp: entry.timestamp, ..own.clone() };
                assert_eq!(own, *entry, "{name}");
            }
        }
    }
}

#[test]
fn r19_a_pack_of_copies_reads_like_the_old_ones() {
    let session = SessionId::generate(NOW.parse().unwrap());
    for name in ["default", "ecc", "format1", "v1-gzip", "hmac-sha256", "meta-s2", "format1-upgraded"] {
        let golden = golden(name);
        for letter in ['p', 'q'] {
            let mut writer = PackWriter::new(&golden.repository, letter).unwrap();
            let chosen: Vec<_> = golden.entries.iter().filter(|entry| entry.id.pack_letter() == letter).collect();
            for entry in &chosen {
                let pack = golden.get(&entry.pack);
                let stored = stored_bytes(&pack, entry).unwrap();
                writer.add_copy(&golden.repository, entry, stored, entry.timestamp + 7).unwrap();
            }
            let (id, data, entries) = writer.finish(&golden.repository, &session).unwrap();
            assert!(id.as_str().starts_with(letter) && SessionId::of_blob(&id).as_ref() == Some(&session), "{id}");
            assert_eq!(entries.len(), chosen.len());
            let (postamble, _) = Postamble::find(&data).unwrap();
            assert_eq!(postamble.offset % 4096, 0, "{name}");
            let end = entries.iter().map(|entry| entry.offset + entry.packed_length).max().unwrap();
            assert!((1..=4096).contains(&(postamble.offset - end)), "{name}");

            golden.storage.put(&id, data.clone(), &PutOptions::default()).unwrap();
            let mut reader = ContentReader::new(&golden.repository).with_hash_check(HashCheck::Verify);
            for (new, old) in entries.iter().zip(&chosen) {
                let moved =
                    Entry { pack: id.clone(), offset: new.offset, timestamp: old.timestamp + 7, ..(*old).clone() };
                assert_eq!(*new, moved, "{name}");
                let old_pack = golden.get(&old.pack);
                assert_eq!(stored_bytes(&data, new).unwrap(), stored_bytes(&old_pack, old).unwrap());
                reader.read(new).unwrap();
            }
            let mut sorted = entries;
            sorted.sort_by_key(|entry| entry.id);
            assert_eq!(fetch_local_index(&golden.repository, &id).unwrap(), sorted, "{name}");
        }
    }
}

#[test]
fn the_replica_of_old_repositories_is_kopias_byte_for_byte() {
    let golden = golden("format1");
    assert!(!golden.repository.config().enable_password_change);
    let entry = golden.entries.iter().find(|entry| entry.id.pack_letter() == 'p').unwrap();
    let pack = golden.get(&entry.pack);
    let mut writer = PackWriter::new(&golden.repository, 'p').unwrap();
    let replica = writer.len() - 32;
    assert_eq!(replica, golden.repository.format_blob().len() + 36);
    let stored = stored_bytes(&pack, entry).unwrap();
    writer.add_copy(&golden.repository, entry, stored, 1).unwrap();
    let (_, data, entries) = writer.finish(&golden.repository, &SessionId::generate(NOW.parse().unwrap())).unwrap();
    assert_eq!(data[..replica], pack[..replica]);
    assert_eq!(entries[0].offset as usize, replica + 32);
}

#[test]
fn r19_what_is_damaged_is_not_copied_and_what_ecc_repairs_is_sealed_anew() {
    for name in ["default", "ecc"] {
        let golden = golden(name);
        let entry = golden.entries.iter().max_by_key(|entry| (!entry.id.is_prefixed(), entry.packed_length)).unwrap();
        let pack = golden.get(&entry.pack);
        let mut stored = stored_bytes(&pack, entry).unwrap().to_vec();
        let middle = stored.len() / 2;
        stored[middle] ^= 1;
        let mut writer = PackWriter::new(&golden.repository, 'p').unwrap();
        let copied = writer.add_copy(&golden.repository, entry, &stored, 1);
        if name == "default" {
            assert_eq!(copied.unwrap_err().kind(), ErrorKind::Damaged);
            assert!(writer.is_empty());
            continue;
        }
        copied.unwrap();
        let session = SessionId::generate(NOW.parse().unwrap());
        let (_, data, entries) = writer.finish(&golden.repository, &session).unwrap();
        assert_eq!(entries[0].packed_length, entry.packed_length);
        let fresh = stored_bytes(&data, &entries[0]).unwrap();
        let (_, repaired) = golden.repository.cipher().open(entry.id.hash().iv(), fresh).unwrap();
        assert!(!repaired.0, "nothing is left to repair");
        let mut out = Vec::new();
        let opened = open_content(&golden.repository, entry, &stored, &mut Decompressor::new(), &mut out).unwrap();
        assert!(opened.0, "the flipped bit was repaired");
        open_content(&golden.repository, &entries[0], fresh, &mut Decompressor::new(), &mut out).unwrap();
        assert_eq!(out, read_content(&golden.repository, entry).unwrap());
    }
}

#[test]
fn new_contents_are_sealed_compressed_where_the_index_can_say_so_and_fill_a_pack() {
    for (name, compression) in [("default", 0x1101), ("format1", 0)] {
        let golden = golden(name);
        let repository = &golden.repository;
        let plain = b"{\"entries\":[]}".repeat(100);
        let mut writer = PackWriter::new(repository, 'q').unwrap();
        let id = writer.add_new(repository, b'm', &plain, true, 1_800_000_000).unwrap();
        assert_eq!(writer.add_new(repository, 0, &plain, true, 1).unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(writer.add_new(repository, b'a', &plain, true, 1).unwrap_err().kind(), ErrorKind::Usage);
        assert!(!writer.is_full());
        while !writer.is_full() {
            writer.add_new(repository, b'k', &vec![0; 1 << 20], false, 1_800_000_000).unwrap();
        }
        let limit = usize::try_from(repository.config().max_pack_size).unwrap();
        assert!((limit..limit + (1 << 20) + 28).contains(&writer.len()));
        let (pack, data, entries) = writer.finish(repository, &SessionId::generate(NOW.parse().unwrap())).unwrap();
        golden.storage.put(&pack, data, &PutOptions::default()).unwrap();
        let entry = &entries[0];
        assert_eq!((entry.id, entry.compression), (id, CompressionId(compression)));
        assert_eq!(entry.format_version, repository.config().version);
        assert_eq!(read_content(repository, entry).unwrap(), plain);
    }
}

#[test]
fn a_missing_pack_is_damage_that_names_pack_and_content() {
    let golden = golden("default");
    let entry = &golden.entries[0];
    golden.storage.delete(std::slice::from_ref(&entry.pack), None);
    let error = read_content(&golden.repository, entry).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(
        error.to_string().contains(&entry.id.to_string()) && error.to_string().contains(entry.pack.as_str()),
        "{error}"
    );
}

#[test]
fn a_flipped_bit_or_a_wrong_entry_is_damage() {
    let golden = golden("default");
    let kind = |entry: &Entry| read_content(&golden.repository, entry).unwrap_err().kind();
    let compressed = golden.entries.iter().find(|entry| entry.compression != CompressionId(0)).unwrap();
    let plain = golden.entries.iter().find(|entry| entry.compression == CompressionId(0)).unwrap();
    for entry in [compressed, plain] {
        let length = entry.original_length;
        for original_length in [0, 1, length - 1, length + 1, u32::MAX] {
            assert_eq!(kind(&Entry { original_length, ..entry.clone() }), ErrorKind::Damaged);
        }
        assert_eq!(kind(&Entry { offset: entry.offset + 1, ..entry.clone() }), ErrorKind::Damaged);
        assert_eq!(kind(&Entry { packed_length: u32::MAX, ..entry.clone() }), ErrorKind::Damaged);
        assert_eq!(kind(&Entry { packed_length: 27, ..entry.clone() }), ErrorKind::Damaged);
    }
    assert_eq!(kind(&Entry { compression: CompressionId(0x1100), ..compressed.clone() }), ErrorKind::Damaged);
    assert_eq!(kind(&Entry { compression: CompressionId(0x9999), ..compressed.clone() }), ErrorKind::Unsupported);
    let mut pack = golden.get(&plain.pack).to_vec();
    pack[plain.offset as usize + 20] ^= 4;
    golden.replace(&plain.pack, pack);
    assert_eq!(kind(plain), ErrorKind::Damaged);
}

#[test]
fn a_cut_or_flipped_local_index_is_damage() {
    let golden = golden("default");
    let pack = golden.packs().into_iter().next().unwrap();
    let data = golden.get(&pack).to_vec();
    let recover = |data: &[u8]| recover_local_index(&golden.repository, data);
    for end in (0..data.len()).rev().step_by(97).chain(0..3) {
        assert_eq!(recover(&data[..end]).unwrap_err().kind(), ErrorKind::Damaged, "{end}");
    }
    let (postamble, length) = Postamble::find(&data).unwrap();
    for at in (postamble.offset as usize..data.len()).step_by(5) {
        let mut flipped = data.clone();
        flipped[at] ^= 0x10;
        assert_eq!(recover(&flipped).unwrap_err().kind(), ErrorKind::Damaged, "{at}");
    }
    // A postamble that holds but points elsewhere.
    for (offset, span) in [(u32::MAX, 1), (0, u32::MAX), (u32::MAX, u32::MAX), (postamble.offset + 1, postamble.length)]
    {
        let forged = Postamble { offset, length: span, ..postamble.clone() }.encode();
        let forged = [&data[..data.len() - length], &forged].concat();
        assert_eq!(recover(&forged).unwrap_err().kind(), ErrorKind::Damaged);
        golden.replace(&pack, forged);
        if span != postamble.length {
            assert_eq!(fetch_local_index(&golden.repository, &pack).unwrap_err().kind(), ErrorKind::Damaged);
        }
    }
}

#[test]
fn r11_r21_markers_come_and_go_and_an_unreadable_one_still_protects() {
    let golden = golden("default");
    let repository = &golden.repository;
    assert!(active_sessions(repository).unwrap().active.is_empty());
    let options = PutOptions::default();
    let (mut info, first) = start_session(repository, "owner", "golden", &options).unwrap();
    assert!(first.as_str().starts_with('s') && first.as_str().ends_with(info.id.as_str()), "{first}");
    info.checkpoint_time += Duration::from_secs(3600);
    let second = write_marker(repository, &info, &options).unwrap();
    let sessions = active_sessions(repository).unwrap();
    let session = &sessions.active[&info.id];
    assert_eq!((session.markers.len(), session.info.as_ref()), (2, Some(&info)));
    assert!(sessions.unreadable.is_empty());

    golden.replace(&"sffff-sdeadbeefdeadbeef147".into(), b"not a marker".to_vec());
    golden.replace(&"snonsense".into(), b"not a name".to_vec());
    let sessions = active_sessions(repository).unwrap();
    assert_eq!((sessions.active.len(), sessions.unreadable.len()), (2, 2));
    let pack = BlobId::from("p00-sdeadbeefdeadbeef147");
    let after = |hours: i64| NOW.parse::<Timestamp>().unwrap() + jiff::SignedDuration::from_hours(hours);
    let expiry = Duration::from_secs(96 * 3600);
    assert!(sessions.protects(&pack, after(95), expiry));
    assert!(!sessions.protects(&pack, after(96), expiry));

    delete_markers(repository, &[first, second]).unwrap();
    assert_eq!(active_sessions(repository).unwrap().active.len(), 1);
}
