//! Records are read the same wherever they lie.

use verger_kopia::error::ErrorKind;
use verger_proto::LogTime;

use super::rig::{Rig, SEGMENT_BYTES, append, read};
use crate::api::{Events as _, LedgerEvents};
use crate::ledger::segment;
use crate::raft::ledger::{LedgerHead, ReplicaLedger};

fn files(rig: &Rig) -> Vec<(u64, Vec<u8>)> {
    rig.local().into_iter().map(|first| (first, std::fs::read(segment::path(rig.path(), first)).unwrap())).collect()
}

#[test]
fn cuts_follow_from_the_records_alone() {
    let one = Rig::new(150, 0);
    // In pieces, over restarts, and from another's bytes.
    let mut two = Rig::new(70, 0);
    let head = two.ledger.head();
    two.ledger = ReplicaLedger::open(two.path(), head, SEGMENT_BYTES).unwrap();
    append(&mut two.ledger, 70..150);
    let mut three = Rig::new(0, 0);
    let reader = one.ledger.reader();
    while three.ledger.head() != reader.head {
        let piece = reader.read(three.ledger.head().bytes, 700).unwrap();
        three.ledger.extend(&piece, reader.head).unwrap();
    }
    // What a snapshot does not speak for comes again, too.
    let mut four = Rig::new(150, 0);
    four.ledger = ReplicaLedger::open(four.path(), head, SEGMENT_BYTES).unwrap();
    append(&mut four.ledger, 70..150);
    assert!(files(&one).len() > 5);
    for other in [&two, &three, &four] {
        assert_eq!(other.ledger.head(), one.ledger.head());
        assert!(files(other) == files(&one));
    }
    let full = |(_, bytes): &(u64, Vec<u8>)| bytes.len() as u64 >= SEGMENT_BYTES;
    assert!(files(&one).iter().rev().skip(1).all(full));
}

#[test]
fn a_ledger_is_opened_at_every_record_and_refused_where_it_breaks() {
    let rig = Rig::new(60, 0);
    let mut heads = vec![LedgerHead::default()];
    let again = tempfile::tempdir().unwrap();
    let mut ledger = ReplicaLedger::open(again.path(), LedgerHead::default(), SEGMENT_BYTES).unwrap();
    for number in 0..60 {
        append(&mut ledger, number..number + 1);
        heads.push(ledger.head());
    }
    for head in heads.into_iter().rev() {
        let opened = ReplicaLedger::open(rig.path(), head, SEGMENT_BYTES).unwrap();
        assert_eq!(opened.head(), head);
        drop(opened);
        let records = head.records;
        assert_eq!(read(&rig.reader()).unwrap().len() as u64, records, "{records}");
    }
    let rig = Rig::new(60, 0);
    let head = rig.ledger.head();
    for first in rig.local() {
        let path = segment::path(rig.path(), first);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[good.len() - 3] ^= 1;
        for bytes in [bad, good[..good.len() - 60].to_vec(), Vec::new()] {
            std::fs::write(&path, &bytes).unwrap();
            let error = ReplicaLedger::open(rig.path(), head, SEGMENT_BYTES).unwrap_err();
            assert!(error.kind() == ErrorKind::Damaged && error.chain().contains(path.to_str().unwrap()), "{error:?}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "left as it was");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(ReplicaLedger::open(rig.path(), head, SEGMENT_BYTES).unwrap_err().kind(), ErrorKind::Damaged);
        std::fs::write(&path, good).unwrap();
    }
    ReplicaLedger::open(rig.path(), head, SEGMENT_BYTES).unwrap();
}

#[test]
fn a_broken_segment_that_is_archived_names_its_object() {
    let rig = Rig::new(100, 3);
    assert_eq!(rig.round(), 0);
    let first = rig.local()[1];
    let path = segment::path(rig.path(), first);
    let mut bad = std::fs::read(&path).unwrap();
    bad[700] ^= 1;
    std::fs::write(&path, bad).unwrap();
    let error = ReplicaLedger::open(rig.path(), rig.ledger.head(), SEGMENT_BYTES).unwrap_err();
    let object = rig.index().at(first).unwrap().object.clone();
    assert!(error.fix().is_some_and(|fix| fix.contains(&object) && fix.contains("verger ledger restore")), "{error:?}");
    // Without the file, the archive has it.
    std::fs::remove_file(&path).unwrap();
    ReplicaLedger::open(rig.path(), rig.ledger.head(), SEGMENT_BYTES).unwrap();
    assert_eq!(read(&rig.reader()).unwrap().len(), 100);
}

#[test]
fn every_place_is_found_again_across_the_border() {
    let rig = Rig::new(200, 2);
    assert_eq!(rig.round(), 0);
    let events = LedgerEvents::new(rig.path()).with_archive(rig.path(), rig.archive.clone());
    assert_eq!(events.newest(), 200);
    assert_eq!(rig.store.injected(), 0);
    assert!(!rig.path().join("fetched").exists(), "the newest record is told without the archive");
    for from in (0..205).rev() {
        let mut found = Vec::new();
        events
            .read(from, &mut |record| {
                found.push(record.sequence);
                Ok(())
            })
            .unwrap();
        assert_eq!(found, (from..200).collect::<Vec<_>>(), "from {from}");
    }
    let index = rig.index();
    for archived in index.iter() {
        assert_eq!(events.not_before(archived.until), archived.first.records, "{archived:?}");
        assert_eq!(events.not_before(LogTime(archived.until.0 + 1)), archived.end.records, "{archived:?}");
    }
    assert_eq!(events.first_here(), rig.local()[0]);
    let without = LedgerEvents::new(rig.path());
    let error = without.read(0, &mut |_| Ok(())).unwrap_err();
    assert!(error.fix().is_some_and(|fix| fix.contains("--ledger-archive memory://attic")), "{error:?}");
    without.read(rig.local()[0], &mut |_| Ok(())).unwrap();
    assert_eq!(without.newest(), 200);
}

#[test]
fn whoever_is_far_behind_gets_archived_records() {
    let rig = Rig::new(200, 0);
    assert_eq!(rig.round(), 0);
    let mut reader = rig.ledger.reader();
    assert!(reader.read(0, 700).is_err(), "no archive was given");
    reader.archive = Some(rig.archive.clone());
    let mut far = Rig::new(0, 0);
    while far.ledger.head() != reader.head {
        let piece = reader.read(far.ledger.head().bytes, 700).unwrap();
        far.ledger.extend(&piece, reader.head).unwrap();
    }
    assert_eq!(read(&far.reader()).unwrap(), read(&rig.reader()).unwrap());
}

#[test]
fn a_ledger_goes_on_after_all_of_it_was_archived() {
    let mut rig = Rig::new(0, 0);
    while rig.local().len() < 4 {
        let next = rig.ledger.head().records;
        append(&mut rig.ledger, next..next + 1);
    }
    assert_eq!(rig.round(), 0);
    // The snapshot ends where a segment does, and what came after it is lost.
    let end = rig.index().iter().last().unwrap().end;
    rig.ledger = ReplicaLedger::open(rig.path(), end, SEGMENT_BYTES).unwrap();
    assert_eq!((rig.ledger.head(), rig.local()), (end, vec![end.records]));
    append(&mut rig.ledger, end.records..end.records + 40);
    assert_eq!(rig.round(), 0);
    let records = read(&rig.reader()).unwrap();
    assert_eq!(records.len() as u64, end.records + 40);
    let head = LedgerHead { records: end.records - 1, ..end };
    let error = ReplicaLedger::open(rig.path(), head, SEGMENT_BYTES).unwrap_err();
    assert!(error.kind() == ErrorKind::Damaged && error.chain().contains("archived"), "an old snapshot: {error:?}");
}
