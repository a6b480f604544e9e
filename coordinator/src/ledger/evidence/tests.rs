use std::path::Path;
use std::sync::Arc;

use verger_kopia::storage::fault::{Call, Fault, FaultStorage};
use verger_kopia::storage::{MemoryStorage, Storage};
use verger_proto::{Batch, RepositoryId, Stage};

use super::*;
use crate::drive;
use crate::ledger::archive::Archive;
use crate::testing::repository;

fn batch(number: u32) -> Batch {
    Batch { stage: Stage::Delete, number, first: 0, items: 2, digest: Digest::of(b"b") }
}

fn evidence(number: u32, names: &[&str]) -> Evidence {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Evidence { batch: batch(number), rule: "unreferenced-pack".to_owned(), names }
}

/// A folder of work, a store for its archive, and everything that goes between them.
struct Rig {
    work: tempfile::TempDir,
    memory: Arc<MemoryStorage>,
    faults: Arc<FaultStorage>,
}

impl Rig {
    fn new() -> Self {
        let memory = Arc::new(MemoryStorage::default());
        let faults = Arc::new(FaultStorage::new(memory.clone()));
        Self { work: tempfile::tempdir().unwrap(), memory, faults }
    }

    fn archive(&self) -> Arc<Archive> {
        let store: Arc<dyn Storage> = self.faults.clone();
        Arc::new(Archive::new("memory://", "fleet", 0, move || Ok(store.clone())).with_evidence(self.work.path()))
    }

    fn folder(&self, repository: &RepositoryId) -> EvidenceFolder {
        EvidenceFolder::beside(&drive::folder(self.work.path(), repository))
    }

    fn keep(&self, cycle: u64, names: &[&str]) {
        self.folder(&repository()).append(CycleId(cycle), Digest::default(), &evidence(0, names)).unwrap();
    }

    /// Cycles that name is found in, and whether it was read from the archive.
    fn find(&self, archive: Option<Arc<Archive>>, name: &str) -> Vec<(u64, bool)> {
        let search = Shelf::new(self.work.path(), archive).find(&[repository()], name);
        assert!(search.unread.is_empty(), "{:?}", search.unread);
        search.hits.iter().map(|hit| (hit.cycle.0, hit.object.is_some())).collect()
    }
}

fn all_over(_: CycleId) -> bool {
    true
}

#[test]
fn s6_evidence_reads_back_with_the_digest_that_the_ledger_got() {
    let folder = tempfile::tempdir().unwrap();
    let kept = EvidenceFolder::beside(folder.path());
    let one = evidence(0, &["p01", "p02"]);
    let first = kept.append(CycleId(7), Digest::of(b"view"), &one).unwrap();
    let again = kept.append(CycleId(7), Digest::of(b"view"), &one).unwrap();
    assert_eq!((first.count, first.name.as_str()), (2, "evidence/7"));
    let expected = [(first.digest, one.clone()), (again.digest, one)];
    assert_eq!(kept.read(CycleId(7)).unwrap(), expected);
    assert_eq!(kept.read(CycleId(8)).unwrap_err().kind(), ErrorKind::NotFound);
    let path = kept.path(CycleId(7));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[60] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(kept.read(CycleId(7)).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn s6_what_is_kept_after_a_record_that_was_cut_short_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let write = |number| {
        let kept = EvidenceFolder::beside(folder.path());
        kept.append(CycleId(7), Digest::default(), &evidence(number, &["p01"])).unwrap();
    };
    write(0);
    let path = EvidenceFolder::beside(folder.path()).path(CycleId(7));
    let whole = std::fs::read(&path).unwrap();
    write(1);
    let two = std::fs::read(&path).unwrap();
    for cut in whole.len()..two.len() {
        for zeros in [false, true] {
            let mut bytes = two[..cut].to_vec();
            if zeros {
                bytes.truncate(whole.len());
                bytes.resize(cut, 0);
            }
            std::fs::write(&path, bytes).unwrap();
            write(2);
            let read = EvidenceFolder::beside(folder.path()).read(CycleId(7)).unwrap();
            let numbers: Vec<u32> = read.iter().map(|(_, one)| one.batch.number).collect();
            assert_eq!(numbers, [0, 2], "cut at {cut}, zeros {zeros}");
        }
    }
}

#[test]
fn s6_what_a_cycle_did_is_found_here_in_the_archive_and_by_others() {
    let rig = Rig::new();
    (1..=20).for_each(|cycle| rig.keep(cycle, &[&format!("p{cycle:02}"), "shared"]));
    assert_eq!(rig.find(None, "p03"), [(3, false)]);
    let archive = rig.archive();
    assert_eq!(archive.keep_all_evidence(&|cycle| cycle != CycleId(20)), 0);
    let here = rig.folder(&repository()).cycles().unwrap();
    let left: Vec<u64> = here.keys().map(|cycle| cycle.0).collect();
    assert_eq!(left, (4..=20).collect::<Vec<_>>(), "the newest sixteen that are over, and the one that is not");
    assert_eq!(rig.memory.contents().len(), 19, "what is not over is not archived");
    assert_eq!(rig.find(Some(archive.clone()), "p03"), [(3, true)]);
    assert_eq!(rig.find(Some(archive.clone()), "p17"), [(17, false)]);
    assert_eq!(rig.find(Some(archive.clone()), "shared").len(), 20);
    assert!(rig.find(Some(archive), "p99").is_empty());
    // Another node has none of the files, and does not know the objects either.
    let other = Rig { work: tempfile::tempdir().unwrap(), memory: rig.memory.clone(), faults: rig.faults.clone() };
    assert_eq!(other.find(Some(other.archive()), "p03"), [(3, true)]);
    assert!(other.find(None, "p99").is_empty(), "what is known of the archive is asked without it");
    let search = Shelf::new(other.work.path(), None).find(&[repository()], "p03");
    assert!(search.hits.is_empty() && search.unread.len() == 1, "what cannot be read is not absent: {search:?}");
}

#[test]
fn a_round_that_is_stopped_anywhere_loses_nothing_and_the_next_one_goes_on() {
    let total = {
        let rig = Rig::new();
        (1..=20).for_each(|cycle| rig.keep(cycle, &[&format!("p{cycle:02}")]));
        rig.archive().keep_all_evidence(&all_over);
        rig.faults.effects()
    };
    for effects in 1..=total {
        let rig = Rig::new();
        (1..=20).for_each(|cycle| rig.keep(cycle, &[&format!("p{cycle:02}")]));
        rig.faults.stop_after(effects);
        rig.archive().keep_all_evidence(&all_over);
        rig.faults.heal();
        let archive = rig.archive();
        assert_eq!(archive.keep_all_evidence(&all_over), 0);
        for cycle in 1..=20 {
            assert_eq!(
                rig.find(Some(archive.clone()), &format!("p{cycle:02}")).len(),
                1,
                "cycle {cycle} after {effects}"
            );
        }
        assert_eq!(rig.memory.contents().len(), 20);
    }
}

#[test]
fn nothing_local_goes_before_it_was_read_back() {
    for fault in [Fault::Truncated(10), Fault::Unavailable, Fault::Permission] {
        let rig = Rig::new();
        (1..=20).for_each(|cycle| rig.keep(cycle, &["p01"]));
        rig.faults.script(Call::Get, "verger.evidence", 0, 1_000, fault);
        let archive = rig.archive();
        assert_eq!(archive.keep_all_evidence(&all_over), 20, "{fault:?}");
        assert_eq!((archive.pending(), rig.folder(&repository()).cycles().unwrap().len()), (20, 20));
        rig.faults.heal();
        assert_eq!(archive.keep_all_evidence(&all_over), 0);
        assert_eq!((archive.pending(), rig.folder(&repository()).cycles().unwrap().len()), (0, 16));
    }
}

#[test]
fn what_is_kept_late_is_archived_too() {
    let rig = Rig::new();
    (1..=17).for_each(|cycle| rig.keep(cycle, &["p01"]));
    let archive = rig.archive();
    archive.keep_all_evidence(&all_over);
    // The file of cycle 1 is gone; that of cycle 2 is still here. Whoever drove both comes back and speaks on.
    rig.keep(1, &["late-one"]);
    rig.keep(2, &["late-two"]);
    assert_eq!(archive.keep_all_evidence(&all_over), 0);
    let other = Rig { work: tempfile::tempdir().unwrap(), memory: rig.memory.clone(), faults: rig.faults.clone() };
    for (name, cycle) in [("late-one", 1), ("late-two", 2)] {
        assert_eq!(other.find(Some(other.archive()), name), [(cycle, true)], "{name}");
    }
    assert_eq!(
        other.find(Some(other.archive()), "p01").len(),
        17,
        "what came before it is still there, and counts once"
    );
}

#[test]
fn a_broken_object_is_told_and_a_broken_file_is_put_back() {
    let rig = Rig::new();
    (1..=17).for_each(|cycle| rig.keep(cycle, &[&format!("p{cycle:02}")]));
    let archive = rig.archive();
    archive.keep_all_evidence(&all_over);
    let ledger = crate::ledger::folder::LedgerFolder::new(rig.work.path(), None);
    let path = rig.folder(&repository()).path(CycleId(5));
    let good = std::fs::read(&path).unwrap();
    spoil(&path);
    let index = rig.folder(&repository()).folder.join("archived");
    let checked = check(rig.work.path(), &ledger, Some(&archive)).unwrap();
    assert_eq!((checked.files, checked.parts, checked.objects_read, checked.problems.len()), (16, 17, 17, 1));
    assert_eq!(restore(rig.work.path(), &[], &archive).unwrap(), std::slice::from_ref(&path));
    assert_eq!(std::fs::read(&path).unwrap(), good);
    // What is known of the archive is lost.
    spoil(&index);
    assert_eq!(check(rig.work.path(), &ledger, Some(&archive)).unwrap().problems.len(), 1);
    assert_eq!(restore(rig.work.path(), &[], &archive).unwrap(), [index]);
    assert_eq!(rig.find(Some(archive.clone()), "p01"), [(1, true)]);
    let first = rig.memory.contents().into_keys().next().unwrap();
    rig.memory.put(&first, "other".into(), &verger_kopia::storage::PutOptions::default()).unwrap();
    let search = Shelf::new(rig.work.path(), Some(archive.clone())).find(&[repository()], "p01");
    assert!(search.hits.is_empty() && search.unread.len() == 1, "{search:?}");
    let problems = check(rig.work.path(), &ledger, Some(&archive)).unwrap().problems;
    assert!(problems.len() == 1 && problems[0].chain().contains(first.as_str()), "{problems:?}");
}

fn spoil(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}
