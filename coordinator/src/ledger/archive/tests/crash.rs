//! A process that is killed between any two steps: nothing is lost, and the next one finishes.

use std::sync::{Arc, Mutex};

use verger_kopia::storage::fault::Call;

use super::rig::{Rig, copy, read};
use crate::ledger::archive::Segments;
use crate::ledger::folder::LedgerFolder;
use crate::raft::ledger::ReplicaLedger;

/// Opens what a killed process left, as a node does, archives the rest, and reads everything.
fn goes_on(rig: &Rig, image: &std::path::Path, segments: &Segments, what: &str) {
    let before = LedgerFolder::new(image, Some(rig.restarted(0)));
    let records = read(&before).unwrap().len();
    assert_eq!(records, 100, "{what}: before");
    let ledger = ReplicaLedger::open(image, rig.ledger.head(), super::rig::SEGMENT_BYTES).unwrap();
    assert_eq!(ledger.reader().segments(100).1.starts, segments.starts, "{what}");
    let archive = rig.restarted(0);
    assert_eq!(archive.round(image, segments), 0, "{what}");
    assert_eq!(crate::ledger::segment::local(image).unwrap().len(), 1, "{what}");
    assert_eq!(read(&LedgerFolder::new(image, Some(archive))).unwrap().len(), 100, "{what}: after");
}

#[test]
fn killed_before_and_after_every_write_to_the_store() {
    let rig = Rig::new(100, 0);
    let images = Arc::new(Mutex::new(Vec::new()));
    let (path, taken) = (rig.path().to_owned(), images.clone());
    rig.store.hook(Box::new(move |effect| {
        assert_eq!(effect.call, Call::Put);
        let image = tempfile::tempdir().unwrap();
        copy(&path, image.path());
        taken.lock().unwrap().push((format!("{} {}", effect.number, effect.done), image));
        Ok(())
    }));
    let (_, segments) = rig.ledger.reader().segments(100);
    assert_eq!(rig.round(), 0);
    rig.store.hook(Box::new(|_| Ok(())));
    let images = images.lock().unwrap();
    assert_eq!(images.len(), 2 * (segments.starts.len() - 1));
    for (what, image) in images.iter() {
        goes_on(&rig, image.path(), &segments, what);
    }
}

#[test]
fn killed_around_the_index_and_between_removals() {
    let rig = Rig::new(100, 99);
    let (_, segments) = rig.ledger.reader().segments(100);
    let image = |change: &dyn Fn(&std::path::Path)| {
        let image = tempfile::tempdir().unwrap();
        copy(rig.path(), image.path());
        change(image.path());
        image
    };
    goes_on(
        &rig,
        image(&|folder| std::fs::write(folder.join("archived.new"), b"half").unwrap()).path(),
        &segments,
        "index",
    );
    assert_eq!(rig.round(), 0);
    assert_eq!(rig.local().len(), segments.starts.len(), "all are still here");
    goes_on(&rig, image(&|_| {}).path(), &segments, "before the first removal");
    for gone in 1..segments.starts.len() - 1 {
        let remove = |folder: &std::path::Path| {
            for start in &segments.starts[..gone] {
                std::fs::remove_file(crate::ledger::segment::path(folder, start.records)).unwrap();
            }
        };
        goes_on(&rig, image(&remove).path(), &segments, &format!("after {gone} removals"));
    }
}
