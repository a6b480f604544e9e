//! Objects that are gone or hold something else, and segments that rot here: named, never written over, and newer records are read.

use verger_kopia::error::{Error, ErrorKind};

use super::rig::{ADDRESS, Rig, read};
use crate::api::{Events as _, LedgerEvents};
use crate::ledger::archive::index;
use crate::ledger::folder::LedgerFolder;
use crate::ledger::segment;
use crate::raft::ledger::ReplicaLedger;

fn named(error: &Error, object: &str, what: &str) {
    assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {error:?}");
    assert!(error.chain().contains(object) && error.chain().contains(ADDRESS), "{what}: {error:?}");
    let fix = error.fix().unwrap();
    assert!(fix.contains("put the object back") && fix.contains("verger events --since"), "{what}: {fix}");
}

#[test]
fn objects_that_are_gone_or_changed_are_named_and_newer_records_are_read() {
    let rig = Rig::new(200, 2);
    assert_eq!(rig.round(), 0);
    let second = rig.index().iter().nth(1).unwrap().clone();
    let good = rig.object(&second.object);
    let other = rig.object(&rig.index().at(0).unwrap().object);
    let check = |what: &str| {
        rig.forget_fetched();
        let events = LedgerEvents::new(rig.path()).with_archive(rig.path(), rig.restarted(2));
        let mut seen = Vec::new();
        let error = events.read(0, &mut |record| {
            seen.push(record.sequence);
            Ok(())
        });
        named(&error.unwrap_err(), &second.object, what);
        assert_eq!(seen, (0..second.first.records).collect::<Vec<_>>(), "{what}: what is before it");
        let (from, mut rest) = (second.end.records, 0);
        events
            .read(from, &mut |_| {
                rest += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!((rest, events.newest()), (200 - from, 200), "{what}: what is after it");
    };
    for at in (0..good.len()).step_by(151) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        rig.set_object(&second.object, bad);
        check(&format!("byte {at}"));
        rig.set_object(&second.object, good[..at].to_vec());
        check(&format!("cut at {at}"));
    }
    rig.set_object(&second.object, other);
    check("another segment");
    rig.set_object(&second.object, vec![7; 1 << 20]);
    check("much longer");
    rig.set_object(&second.object, zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap());
    check("a bomb");
    rig.remove_object(&second.object);
    check("gone");
    rig.set_object(&second.object, good);
    rig.forget_fetched();
    assert_eq!(read(&rig.reader()).unwrap().len(), 200, "put back");
}

#[test]
fn a_name_with_other_bytes_is_never_written_over_and_its_segment_stays() {
    let (rig, names) = (Rig::new(100, 0), Rig::new(100, 0));
    assert_eq!(names.round(), 0);
    let taken = names.index().iter().nth(2).unwrap().clone();
    rig.set_object(&taken.object, b"somebody else's".to_vec());
    assert_eq!(rig.round(), 1);
    assert_eq!(rig.object(&taken.object), b"somebody else's");
    assert_eq!(rig.local().len(), 2, "it and the present one: {:?}", rig.local());
    assert!(rig.local().contains(&taken.first.records));
    assert_eq!(
        read(&rig.reader()).unwrap().len(),
        100,
        "over archived ones, one that is here, and archived ones again"
    );
    let head = rig.ledger.head();
    ReplicaLedger::open(rig.path(), head, super::rig::SEGMENT_BYTES).unwrap();
    rig.remove_object(&taken.object);
    assert_eq!((rig.round(), rig.local().len()), (0, 1));
}

#[test]
fn a_segment_that_rots_is_not_archived() {
    let rig = Rig::new(100, 0);
    let (first, second) = (rig.local()[0], rig.local()[1]);
    let (good, other) = (segment::path(rig.path(), first), segment::path(rig.path(), second));
    let bytes = std::fs::read(&good).unwrap();
    for what in 0..3 {
        let mut bad = bytes.clone();
        match what {
            0 => bad[900] ^= 4,
            1 => bad.truncate(bytes.len() - 1),
            _ => bad = std::fs::read(&other).unwrap_or_default(),
        }
        std::fs::write(&good, bad).unwrap();
        assert_eq!(rig.round(), 1, "{what}");
        assert!(good.exists() && rig.index().at(first).is_none(), "{what}");
    }
    std::fs::write(&good, bytes).unwrap();
    assert_eq!((rig.round(), rig.local().len()), (0, 1));
}

#[test]
fn fetched_files_that_rot_are_fetched_again_and_few_are_kept() {
    let rig = Rig::new(400, 0);
    assert_eq!(rig.round(), 0);
    assert_eq!(read(&rig.reader()).unwrap().len(), 400);
    let fetched = rig.path().join("fetched");
    let files: Vec<_> = std::fs::read_dir(&fetched).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 8);
    let rig = Rig::new(100, 0);
    assert_eq!((rig.round(), read(&rig.reader()).unwrap().len()), (0, 100));
    for entry in std::fs::read_dir(rig.path().join("fetched")).unwrap() {
        std::fs::write(entry.unwrap().path(), b"rot").unwrap();
    }
    let again = LedgerFolder::new(rig.path(), Some(rig.restarted(0)));
    assert_eq!(read(&again).unwrap().len(), 100);
}

#[test]
fn a_segment_that_ends_early_is_not_taken_for_the_end() {
    let rig = Rig::new(100, 0);
    let path = segment::path(rig.path(), rig.local()[1]);
    let good = std::fs::read(&path).unwrap();
    let first = verger_proto::envelope::header(&good).unwrap().record_bytes;
    for length in [good.len() - 1, first, first + 7, 0] {
        std::fs::write(&path, &good[..length]).unwrap();
        let error = read(&rig.reader()).unwrap_err();
        assert!(
            error.kind() == ErrorKind::Damaged && error.chain().contains(path.to_str().unwrap()),
            "{length}: {error:?}"
        );
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(read(&rig.reader()).unwrap_err().kind(), ErrorKind::Damaged, "gone");
    std::fs::write(&path, good).unwrap();
    assert_eq!(read(&rig.reader()).unwrap().len(), 100);
}

#[test]
fn an_index_that_does_not_hold_is_refused_and_left_as_it_is() {
    let rig = Rig::new(100, 0);
    assert_eq!(rig.round(), 0);
    let path = index::path(rig.path());
    let good = std::fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(11) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bad).unwrap();
        let error = ReplicaLedger::open(rig.path(), rig.ledger.head(), super::rig::SEGMENT_BYTES).unwrap_err();
        assert!(error.kind() == ErrorKind::Damaged && error.fix().is_some(), "byte {at}: {error:?}");
        assert!(error.chain().contains("archived"), "byte {at}: {error:?}");
        assert!(rig.round() > 0, "byte {at}");
        assert_eq!(std::fs::read(&path).unwrap(), bad);
    }
}
