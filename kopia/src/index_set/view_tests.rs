use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::clock::{Clock as _, Timestamp};
use crate::index_set::testing::{Golden, entry, golden};
use crate::index_set::write::write_index_set;
use crate::storage::Storage;

/// Entries of `kopia content list --deleted`, in the fields that it prints.
fn expected_contents(golden: &Golden) -> Vec<String> {
    let contents = golden.expect["before"]["contents"].as_array().unwrap();
    let text = |c: &serde_json::Value| {
        format!(
            "{} {} {} {} {} {} {} {} v{}",
            c["contentID"].as_str().unwrap(),
            c["time"],
            c["deleted"],
            c["packFile"].as_str().unwrap(),
            c["packOffset"].as_u64().unwrap_or(0),
            c["length"],
            c["originalLength"].as_u64().unwrap_or(0),
            c["compression"].as_u64().unwrap_or(0),
            c["formatVersion"],
        )
    };
    let mut lines: Vec<String> = contents.iter().map(text).collect();
    lines.sort();
    lines
}

fn seen_contents(view: &IndexView) -> Vec<String> {
    let text = |e: Entry| {
        format!(
            "{} {} {} {} {} {} {} {} v{}",
            e.id,
            e.timestamp,
            e.deleted,
            e.pack,
            e.offset,
            e.packed_length,
            e.original_length,
            e.compression.0,
            e.format_version
        )
    };
    let mut lines: Vec<String> = view.table.rows().map(|row| text(view.table.entry(row))).collect();
    lines.sort();
    lines
}

fn check(name: &str) {
    let golden = golden(name);
    let view = load_view(&golden.repository, 2).unwrap();
    let mut indexes: Vec<&str> =
        golden.expect["before"]["indexes"].as_array().unwrap().iter().map(|b| b["id"].as_str().unwrap()).collect();
    indexes.sort_unstable();
    let seen: Vec<&str> = view.blobs.iter().map(|blob| blob.id.as_str()).collect();
    assert_eq!(seen, indexes, "{name}");
    assert_eq!(seen_contents(&view), expected_contents(&golden), "{name}");
    assert_eq!(view.digest(), list_active(&golden.repository).unwrap().digest());
}

#[test]
fn views_are_what_the_real_program_says() {
    for name in ["epochs", "format1", "format1-upgraded", "default"] {
        check(name);
    }
}

#[test]
fn every_golden_repository_reads_as_the_real_program_says() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        if let Some(name) = file.strip_suffix(".tar.gz") {
            check(name);
            count += 1;
        }
    }
    assert!(count >= 27, "{count} golden repositories");
}

#[test]
fn r11_an_unreadable_index_blob_is_an_error_after_a_second_look() {
    let golden = golden("default");
    let id = load_view(&golden.repository, 1).unwrap().blobs[0].id.clone();
    let whole = golden.store.memory.contents()[&id].clone();
    for bad in [whole.slice(..whole.len() - 1), whole.slice(..0)] {
        golden.store.memory.put_at(&id, bad, golden.store.memory.head(&id).unwrap().timestamp);
        golden.store.take_requests();
        let error = load_view(&golden.repository, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().contains(id.as_str()) && error.fix().is_some(), "{error:?}");
        let looked = golden.store.take_requests().into_iter().filter(|r| *r == format!("get {id}")).count();
        assert_eq!(looked, 2);
    }
}

#[test]
fn a_blob_that_vanishes_is_looked_for_in_a_new_listing() {
    let golden = golden("epochs");
    let before = load_view(&golden.repository, 1).unwrap();
    // The blob is gone at its first three readings and listed again in between.
    let victim = before.blobs[0].clone();
    let (id, bytes) = (victim.id.clone(), golden.store.memory.contents()[&victim.id].clone());
    let times = AtomicU32::new(0);
    golden.store.on_request(move |request, memory| {
        if request == format!("get {id}") {
            if times.fetch_add(1, Ordering::Relaxed) < 3 {
                memory.delete(std::slice::from_ref(&id), None);
            }
        } else if request.starts_with("list") {
            memory.put_at(&id, bytes.clone(), victim.timestamp);
        }
    });
    let slept = golden.clock.since_boot();
    let view = load_view(&golden.repository, 1).unwrap();
    assert_eq!((view.digest(), view.table.len()), (before.digest(), before.table.len()));
    assert_eq!(golden.clock.since_boot() - slept, Duration::from_millis(100 + 200 + 400));
}

#[test]
fn blobs_that_go_on_vanishing_are_an_error_that_may_pass() {
    let golden = golden("default");
    let id = load_view(&golden.repository, 1).unwrap().blobs[0].id.clone();
    let bytes = golden.store.memory.contents()[&id].clone();
    golden.store.on_request(move |request, memory| {
        if request.starts_with("get") {
            memory.delete(std::slice::from_ref(&id), None);
        } else {
            memory.put_at(&id, bytes.clone(), Timestamp::UNIX_EPOCH);
        }
    });
    assert_eq!(load_view(&golden.repository, 1).unwrap_err().kind(), ErrorKind::StoreUnavailable);
}

#[test]
fn r11_a_set_of_xn_blobs_that_stays_incomplete_is_an_error() {
    let golden = golden("default");
    let view = load_view(&golden.repository, 1).unwrap();
    let whole = &view.blobs[0].id;
    let lone = BlobId::new(format!("{}-sabc147-c2", whole.as_str().split_once('-').unwrap().0));
    let bytes = golden.store.memory.contents()[whole].clone();
    golden.store.memory.put_at(&lone, bytes, golden.clock.now());
    assert!(load_view(&golden.repository, 1).is_ok(), "its other half may still be on its way");
    golden.clock.advance(Duration::from_secs(3601));
    let error = load_view(&golden.repository, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.chain().contains(lone.as_str()), "{error:?}");
}

#[test]
fn newer_reads_only_what_is_new() {
    for name in ["default", "format1"] {
        let golden = golden(name);
        let view = load_view(&golden.repository, 1).unwrap();
        golden.store.take_requests();
        assert!(view.newer(&golden.repository, 1).unwrap().is_none());
        assert!(golden.store.take_requests().iter().all(|request| request.starts_with("list")));

        let version = golden.repository.config().index_version;
        let mut new = entry(7, 1_795_300_000);
        new.format_version = version;
        let written = write_index_set(&golden.repository, vec![new.clone()], "sabc147", None).unwrap();
        golden.store.take_requests();
        let delta = view.newer(&golden.repository, 1).unwrap().unwrap();
        assert_eq!(delta.blobs.iter().map(|blob| blob.id.clone()).collect::<Vec<_>>(), written);
        assert_eq!((delta.entries, delta.gone), (vec![new], vec![]));
        let gets = golden.store.take_requests().into_iter().filter(|request| request.starts_with("get")).count();
        assert_eq!(gets, 1);

        let victim = view.blobs[0].id.clone();
        golden.store.memory.delete(std::slice::from_ref(&victim), None);
        let delta = view.newer(&golden.repository, 1).unwrap().unwrap();
        assert_eq!((delta.gone, delta.entries), (vec![victim], vec![]));
    }
}

#[test]
fn a_moved_watermark_is_news_and_hides_marks() {
    let golden = golden("epochs");
    let before = load_view(&golden.repository, 1).unwrap();
    let marks: Vec<Entry> =
        before.table.rows().filter(|row| before.table.is_deleted(*row)).map(|row| before.table.entry(row)).collect();
    let live = before.table.entry(before.table.rows().find(|row| !before.table.is_deleted(*row)).unwrap());
    let mark = Entry { deleted: true, timestamp: live.timestamp + 1, ..live };
    write_index_set(&golden.repository, vec![mark.clone()], "sabc147", None).unwrap();
    super::super::watermark::advance(&golden.repository, mark.timestamp, None).unwrap();
    let delta = before.newer(&golden.repository, 1).unwrap().unwrap();
    assert_eq!((delta.watermark, &delta.entries[..]), (Some(mark.timestamp), &[mark.clone()][..]));
    let after = load_view(&golden.repository, 1).unwrap();
    let hidden = marks.iter().filter(|old| old.timestamp <= mark.timestamp).count() as u64 + 1;
    assert_eq!(after.table.hidden_count(), before.table.hidden_count() + hidden);
    assert!(after.table.find(&mark.id).is_none());
    assert!(after.table.hidden_packs().contains(&mark.pack));
}

fn aside(folder: &tempfile::TempDir, in_files: bool) -> Aside {
    let folder = SpillFolder::new(folder.path());
    let place = if in_files { Place::Files { folder: folder.clone(), cache: 1 } } else { Place::Memory };
    Aside { folder, at_once: 7, place, requests: 2 }
}

#[test]
fn a_view_put_aside_is_the_same_for_every_golden_index() {
    let folder = tempfile::tempdir().unwrap();
    let goldens = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden")).unwrap();
    let names = goldens.map(|file| file.unwrap().file_name().into_string().unwrap());
    for name in names.filter_map(|name| Some(name.strip_suffix(".tar.gz")?.to_owned())) {
        let golden = golden(&name);
        let expected = load_view(&golden.repository, 2).unwrap();
        for (in_files, is_local) in [(false, false), (true, false), (false, true)] {
            golden.store.is_local.store(is_local, Ordering::Relaxed);
            let view = load_view_aside(&golden.repository, 2, &aside(&folder, in_files)).unwrap();
            assert_eq!(view.table.is_in_memory(), !in_files);
            assert_eq!((view.digest(), view.entry_count), (expected.digest(), expected.entry_count), "{name}");
            let (one, other) = (&view.table, &expected.table);
            assert_eq!(one.packs(), other.packs(), "{name}");
            assert_eq!((one.hidden_packs(), one.hidden_count()), (other.hidden_packs(), other.hidden_count()));
            assert_eq!((one.pack_sizes(), one.rows()), (other.pack_sizes(), other.rows()));
            assert!(one.rows().all(|row| one.entry(row) == other.entry(row) && one.hash(row) == other.hash(row)));
            assert!(one.ids().eq(other.ids()) && one.ids().zip(0..).all(|(id, row)| one.find(&id) == Some(row)));
            assert!(one.rows().all(|row| one.prefix(row) == other.prefix(row) && one.pack(row) == other.pack(row)));
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn r26_a_bent_index_blob_is_refused_before_anything_of_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["default", "format1", "ecc"] {
        let golden = golden(name);
        let id = load_view(&golden.repository, 1).unwrap().blobs[0].id.clone();
        let good = golden.store.memory.contents()[&id].clone();
        for at in [0, 13, good.len() / 2, good.len() - 1] {
            let mut bent = good.to_vec();
            bent[at] ^= 1;
            if name == "ecc" {
                // Beyond repair.
                bent.iter_mut().for_each(|byte| *byte ^= 0x55);
            }
            golden.store.memory.put_at(&id, bent.into(), golden.clock.now());
            for is_local in [false, true] {
                golden.store.is_local.store(is_local, Ordering::Relaxed);
                let error = load_view_aside(&golden.repository, 1, &aside(&folder, true)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Damaged);
                assert!(error.chain().contains(id.as_str()) && error.fix().is_some(), "{}", error.chain());
            }
        }
    }
}

#[test]
fn no_room_for_temporary_files_is_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let golden = golden("default");
    let full = Aside { folder: SpillFolder::new(folder.path()).with_limit(10), ..aside(&folder, false) };
    let error = load_view_aside(&golden.repository, 1, &full).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFull);
}
