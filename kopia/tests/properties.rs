//! What is written to a repository reads back from it, in whatever order it was written and is listed.

#![allow(clippy::unwrap_used, unreachable_pub, dead_code, reason = "tests")]

#[path = "../../tests/fuzz/src/golden.rs"]
mod golden;

use std::collections::BTreeMap;

use golden::{Golden, empty};
use proptest::prelude::*;
use verger_kopia::clock::{Clock, Timestamp};
use verger_kopia::content::read::read_content;
use verger_kopia::content::{CompressionId, ContentHash, ContentId, Entry};
use verger_kopia::index_set::write::write_index_set;
use verger_kopia::index_set::{load_view, watermark};
use verger_kopia::maintenance::history::{RunRecord, Task};
use verger_kopia::maintenance::schedule::RECORDS_MAX;
use verger_kopia::maintenance::{Params, Schedule};
use verger_kopia::manifest::entry::{ManifestEntry, encode};
use verger_kopia::manifest::{Manifest, ManifestSet};
use verger_kopia::pack::{PackWriter, fetch_local_index, recover_local_index};
use verger_kopia::session::{SessionId, SessionInfo, active_sessions, write_marker};
use verger_kopia::storage::{BlobId, PutOptions};

const REPOSITORIES: [&str; 3] = ["default", "format1", "ecc"];

fn write_pack(golden: &Golden, contents: &[(u8, Vec<u8>)], letter: char) -> Vec<Entry> {
    let repository = &golden.repository;
    let mut pack = PackWriter::new(repository, letter).unwrap();
    for (prefix, plain) in contents {
        pack.add_new(repository, *prefix, plain, true, 1_700_000_000).unwrap();
    }
    let session = SessionId::generate(golden.clock.now());
    let (id, bytes, entries) = pack.finish(repository, &session).unwrap();
    assert_eq!(SessionId::of_blob(&id), Some(session));
    golden.store.put_at(&id, bytes, golden.clock.now());
    entries
}

fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        (0i64..4_000_000_000, 0i32..1_000_000_000).prop_map(|(s, n)| Timestamp::new(s, n).unwrap()),
        Just(Timestamp::MIN),
        Just(Timestamp::MAX),
    ]
}

fn record() -> impl Strategy<Value = RunRecord> {
    (time(), time(), any::<bool>(), "\\PC{0,9}").prop_map(|(start, end, success, error)| {
        if success { RunRecord::success(start, end) } else { RunRecord::failure(start, end, error) }
    })
}

prop_compose! {
    fn index_entry()(
        head in 0u8..4, tail in 0u8..3, prefix in prop::sample::select(vec![0, b'k', b'm']), timestamp in 0i64..20,
        deleted: bool, pack in 0u8..3, offset in 0u32..3, length in 28u32..31,
    ) -> Entry {
        let mut hash = [head; 16];
        hash[15] = tail;
        Entry {
            id: ContentId::new(prefix, ContentHash::from_slice(&hash).unwrap()).unwrap(),
            timestamp, deleted, pack: BlobId::new(format!("p{pack}")), offset, packed_length: length, original_length: length - 28,
            compression: CompressionId(0), format_version: 1,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_pack_recovers_its_entries_and_gives_its_contents_back(
        which in 0..REPOSITORIES.len(),
        contents in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 0..400), 1usize..30, 1..12),
        letter in prop::sample::select(vec!['p', 'q']),
    ) {
        let golden = empty(REPOSITORIES[which]);
        let prefix = if letter == 'p' { 0 } else { b'k' };
        // Repeated, so that some are worth compressing.
        let contents: Vec<(u8, Vec<u8>)> = contents.into_iter().map(|(plain, times)| (prefix, plain.repeat(times))).collect();
        let entries = write_pack(&golden, &contents, letter);
        prop_assert_eq!(entries.len(), contents.len());
        for (entry, (_, plain)) in entries.iter().zip(&contents) {
            prop_assert_eq!(&read_content(&golden.repository, entry).unwrap(), plain);
        }
        let bytes = golden.store.contents()[&entries[0].pack].clone();
        let mut sorted = entries.clone();
        sorted.sort_by_key(|entry| entry.id);
        prop_assert_eq!(&recover_local_index(&golden.repository, &bytes).unwrap(), &sorted);
        prop_assert_eq!(fetch_local_index(&golden.repository, &entries[0].pack).unwrap(), sorted);
    }

    #[test]
    fn index_sets_written_in_any_order_give_the_winners(
        epochs: bool,
        sets in prop::collection::vec(prop::collection::vec(index_entry(), 1..20), 1..6),
        mark in prop::option::of(0i64..20),
    ) {
        let mut found = Vec::new();
        for turn in 0..2 {
            let golden = empty(if epochs { "default" } else { "format1" });
            let mut order = sets.clone();
            if turn == 1 {
                order.reverse();
            }
            for (number, set) in order.into_iter().enumerate() {
                write_index_set(&golden.repository, set, &format!("s{number}{turn}"), None).unwrap();
            }
            let mark = mark.filter(|_| epochs);
            if let Some(mark) = mark {
                watermark::advance(&golden.repository, mark, None).unwrap();
            }
            let view = load_view(&golden.repository, 2).unwrap();
            prop_assert_eq!(view.watermark, mark);
            let rows: Vec<Entry> = view.table.rows().map(|row| view.table.entry(row)).collect();
            for entry in sets.iter().flatten() {
                let winner = view.table.find(&entry.id).map(|row| view.table.entry(row));
                let is_hidden = mark.is_some_and(|mark| entry.deleted && entry.timestamp <= mark);
                prop_assert!(winner.map_or(is_hidden || !is_best(entry, &sets), |winner| !entry.beats(&winner)));
            }
            prop_assert!(rows.iter().all(|row| sets.iter().flatten().any(|entry| entry == row)));
            found.push(rows);
        }
        prop_assert_eq!(&found[0], &found[1]);
    }

    #[test]
    fn sessions_read_back_and_the_latest_checkpoint_counts(
        which in 0..REPOSITORIES.len(), checkpoints in prop::collection::vec(0i64..4_000_000_000, 1..5), user in "\\PC{0,9}",
    ) {
        let golden = empty(REPOSITORIES[which]);
        let id = SessionId::generate(golden.clock.now());
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        for second in &checkpoints {
            let (start_time, checkpoint_time) = (at(1), at(*second));
            let info = SessionInfo { id: id.clone(), start_time, checkpoint_time, user: user.clone(), host: "h".to_owned() };
            write_marker(&golden.repository, &info, &PutOptions::default()).unwrap();
        }
        let sessions = active_sessions(&golden.repository).unwrap();
        prop_assert!(sessions.unreadable.is_empty());
        let session = &sessions.active[&id];
        prop_assert_eq!(session.checkpoint, at(*checkpoints.iter().max().unwrap()));
        prop_assert_eq!(&session.info.as_ref().unwrap().user, &user);
    }

    #[test]
    fn manifests_spread_over_contents_in_any_way_are_the_same(
        writes in prop::collection::vec((0u8..4, 0i64..6, any::<bool>(), 0u8..3), 1..16),
    ) {
        let golden = empty("default");
        let labels = BTreeMap::from([("type".to_owned(), "policy".to_owned())]);
        let entry = |(id, second, deleted, _): &(u8, i64, bool, u8)| {
            // What a client writes at one moment is one thing.
            let body = serde_json::value::RawValue::from_string(second.to_string()).unwrap();
            let at = Timestamp::from_second(*second).unwrap();
            let id = format!("{id:032x}");
            if *deleted { ManifestEntry::deletion(id, at) } else { ManifestEntry::put(id, labels.clone(), at, body) }
        };
        let contents: Vec<(u8, Vec<u8>)> = (0..3u8)
            .map(|part| writes.iter().filter(|write| write.3 == part).map(entry).collect::<Vec<_>>())
            .filter(|entries| !entries.is_empty())
            .map(|entries| (b'm', encode(&entries)))
            .collect();
        let entries = write_pack(&golden, &contents, 'q');
        write_index_set(&golden.repository, entries, "s1", None).unwrap();
        let view = load_view(&golden.repository, 1).unwrap();
        let set = ManifestSet::load(&golden.repository, &view).unwrap();
        prop_assert!(set.unreadable.is_empty());
        let mut expected = BTreeMap::new();
        for id in 0..4u8 {
            let last = writes.iter().filter(|write| write.0 == id).max_by_key(|write| (write.1, !write.2));
            expected.extend(last.filter(|write| !write.2).map(|write| (format!("{id:032x}"), write.1.to_string())));
        }
        let body = |manifest: &Manifest| (manifest.id.clone(), manifest.data.get().to_owned());
        prop_assert_eq!(set.manifests.values().map(body).collect::<BTreeMap<_, _>>(), expected);
    }

    #[test]
    fn a_schedule_reads_back_and_stays_short(
        records in prop::collection::vec(record(), 0..80), next in prop::option::of(time()), key: [u8; 32], nonce: [u8; 12],
    ) {
        let mut schedule = Schedule { next_full: next, ..Schedule::default() };
        for record in &records {
            schedule.report(Task::SnapshotGc, record.clone());
            schedule.report(Task::CleanupLogs, record.clone());
        }
        prop_assert_eq!(schedule.history(Task::SnapshotGc).len(), records.len().min(RECORDS_MAX));
        prop_assert_eq!(schedule.history(Task::CleanupLogs).first(), records.last());
        let sealed = schedule.seal(&key, nonce).unwrap();
        prop_assert_eq!(Schedule::open(&key, &sealed).unwrap(), schedule);
        let mut other = key;
        other[0] ^= 1;
        prop_assert!(Schedule::open(&other, &sealed).is_err());
    }

    #[test]
    fn parameters_read_back(owner in "\\PC{0,12}", hours in 0u64..1_000_000, on: bool, limit: i64) {
        let mut params = Params { owner, extend_object_locks: on, ..Params::kopia_default() };
        params.full.interval = std::time::Duration::from_secs(hours * 3600);
        params.log_retention.max_count = limit;
        params.other.insert("new".to_owned(), limit.into());
        prop_assert_eq!(Params::parse("x", &params.to_json()).unwrap(), params);
    }
}

fn is_best(entry: &Entry, sets: &[Vec<Entry>]) -> bool {
    !sets.iter().flatten().any(|other| other.id == entry.id && other.beats(entry))
}
