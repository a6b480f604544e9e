//! What the store does: several replicas, no answers, none at all, no conditional writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use verger_kopia::error::{Error, ErrorKind};
use verger_kopia::storage::fault::{Call, Fault};
use verger_kopia::storage::{Capabilities, MemoryStorage};

use super::rig::{ADDRESS, Rig, archive, read};
use crate::ledger::archive::{Archive, object};
use crate::raft::ledger::LedgerHead;

#[test]
fn replicas_write_the_same_objects_once_and_keep_the_newest_segments() {
    let one = Rig::new(200, 2);
    assert_eq!(one.round(), 0);
    let (objects, index) = (one.objects(), one.index());
    let closed = one.index().iter().count();
    assert!(closed >= 8 && objects.len() == closed, "{objects:?}");
    assert_eq!(one.local().len(), 3, "two closed ones and the present one: {:?}", one.local());
    let ends: Vec<_> = index.iter().map(|archived| archived.end.records).collect();
    assert_eq!(ends[closed - 3..], one.local());
    let first = index.at(0).unwrap();
    assert!(first.stored_bytes < first.bytes() && first.until.0 == 1_000 + first.end.records - 1);
    assert!(objects[0].starts_with("verger.ledger.attic.00000000000000000000-"), "{objects:?}");
    let effects = one.store.effects();
    assert_eq!(one.round(), 0);
    assert_eq!(one.store.effects(), effects, "nothing is written again");
    let two = Rig::over(one.inner.clone(), 200, 0);
    assert_eq!(two.round(), 0);
    assert_eq!((two.objects(), two.index()), (objects, index));
    assert_eq!(two.local().len(), 1);
    assert_eq!(read(&two.reader()).unwrap(), read(&one.reader()).unwrap());
}

#[test]
fn only_what_a_snapshot_speaks_for_is_archived() {
    let rig = Rig::new(200, 0);
    let (folder, all) = rig.ledger.reader().segments(u64::MAX);
    let second = all.starts[2].records;
    for (known, expected) in [(0, 0), (second - 1, 1), (second, 2)] {
        let (_, segments) = rig.ledger.reader().segments(known);
        assert_eq!(rig.archive.round(&folder, &segments), 0);
        assert_eq!((rig.objects().len(), rig.local()[0]), (expected, all.starts[expected].records), "{known}");
    }
}

#[test]
fn a_store_that_does_not_answer_loses_nothing_and_is_tried_again() {
    for (call, fault) in [
        (Call::Put, Fault::Unavailable),
        (Call::Put, Fault::TimeoutBefore),
        (Call::Put, Fault::TimeoutAfter),
        (Call::Head, Fault::Unavailable),
        (Call::Get, Fault::TimeoutBefore),
        (Call::Get, Fault::Truncated(20)),
        (Call::Put, Fault::DiskFull),
        (Call::Put, Fault::Permission),
    ] {
        let rig = Rig::new(100, 0);
        let closed = rig.local().len() as u64 - 1;
        rig.store.script(call, "verger.ledger.", 1, 1, fault);
        let pending = rig.round();
        // What one object holds says nothing of the next.
        let expected = if matches!(fault, Fault::Truncated(_)) { 1 } else { closed - 1 };
        assert_eq!((pending, rig.archive.pending()), (expected, expected), "{call:?} {fault:?}");
        assert_eq!(read(&rig.reader()).unwrap().len(), 100, "{call:?} {fault:?}");
        assert_eq!(rig.round(), 0, "{call:?} {fault:?}");
        assert_eq!((rig.local().len(), rig.objects().len() as u64), (1, closed), "{call:?} {fault:?}");
        rig.forget_fetched();
        assert_eq!(read(&rig.reader()).unwrap().len(), 100, "{call:?} {fault:?}");
    }
}

#[test]
fn chance_faults_end_and_everything_is_archived() {
    for seed in 0..40 {
        let rig = Rig::new(120, 1);
        rig.store.seed(seed, 300);
        let mut rounds = 0;
        while rig.round() > 0 {
            rounds += 1;
            assert!(rounds < 200, "seed {seed}");
        }
        rig.store.heal();
        assert_eq!((rig.local().len(), read(&rig.reader()).unwrap().len()), (2, 120), "seed {seed}");
    }
}

#[test]
fn an_archive_that_cannot_be_opened_keeps_nothing_else_from_going_on() {
    let rig = Rig::new(100, 0);
    let (is_mounted, store) = (Arc::new(AtomicBool::new(false)), rig.inner.clone());
    let mounted = is_mounted.clone();
    let archive = Archive::new(ADDRESS, "attic", 0, move || match mounted.load(Ordering::SeqCst) {
        true => Ok(store.clone()),
        false => Err(Error::new(ErrorKind::NotARepository, "open the directory /mnt/attic")),
    });
    let (folder, segments) = rig.ledger.reader().segments(100);
    let before = rig.local();
    assert_eq!(archive.round(&folder, &segments), before.len() as u64 - 1);
    assert_eq!(rig.local(), before);
    is_mounted.store(true, Ordering::SeqCst);
    assert_eq!(archive.round(&folder, &segments), 0);
    assert_eq!(rig.local().len(), 1);
}

#[test]
fn stores_without_conditional_writes_are_looked_at_first() {
    let inner = Arc::new(MemoryStorage::default().with_capabilities(Capabilities::LEAST));
    let one = Rig::over(inner.clone(), 100, 0);
    assert_eq!(one.round(), 0);
    let two = Rig::over(inner, 100, 0);
    assert_eq!(two.round(), 0);
    assert_eq!((two.store.effects(), read(&two.reader()).unwrap().len()), (0, 100));
}

#[test]
fn what_is_in_another_archive_stays_there_and_the_rest_goes_to_the_new_one() {
    let rig = Rig::new(100, 2);
    assert_eq!(rig.round(), 0);
    let (old, here) = (rig.objects().len(), rig.local().len());
    let inner = Arc::new(MemoryStorage::default());
    let other = inner.clone();
    let second = Archive::new("memory://cellar", "attic", 2, move || Ok(other.clone()));
    let (folder, segments) = rig.ledger.reader().segments(100);
    assert_eq!(second.round(&folder, &segments), 0);
    let addresses: Vec<_> = rig.index().iter().map(|archived| archived.address.clone()).collect();
    let moved = addresses.iter().filter(|address| *address == "memory://cellar").count();
    assert_eq!((moved, addresses.len()), (here - 1, old), "those whose files are still here");
    // Asked for what only the first archive has, the second one says whose it is.
    let first = rig.index().at(0).unwrap().clone();
    let error = second.download(&first).unwrap_err();
    assert!(error.kind() == ErrorKind::Damaged && error.chain().contains(ADDRESS), "{error:?}");
    drop(archive(inner, 0));
}

#[test]
fn names_tell_fleets_apart_and_fit_every_store() {
    let digest = verger_proto::Digest::of(b"x");
    let long = "x".repeat(500);
    let mut names: Vec<_> = ["attic", "cellar", "a/../b", "", "ä", long.as_str(), "attic "]
        .map(|fleet| object::name(&object::fleet_part(fleet), LedgerHead::default(), LedgerHead::default(), digest))
        .to_vec();
    assert!(
        names.iter().all(|name| name.len() <= 240 && !name.contains(['/', '\\']) && !name.contains("..")),
        "{names:?}"
    );
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 7);
}
