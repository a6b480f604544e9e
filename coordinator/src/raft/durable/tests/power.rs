//! Power loss: of what was not synced, each sector may be there or not. Nothing that was acknowledged may be missing then.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::super::memory::MemoryLog;
use super::super::sled::SledLog;
use super::super::{DurableLog, Extent};
use crate::raft::testing::{entry, log_id};
use crate::raft::types::{LogEntry, Vote};

const SECTOR: usize = 512;

struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// All that a log holds.
type Content = (Extent, Option<Vote>, Vec<LogEntry>);

fn content(log: &dyn DurableLog) -> Content {
    (log.extent().unwrap(), log.vote().unwrap(), log.read(0..u64::MAX, usize::MAX).unwrap())
}

struct Run {
    folder: tempfile::TempDir,
    synced: Arc<Mutex<Vec<u8>>>,
    log: SledLog,
    model: MemoryLog,
    term: u64,
}

fn db(data: &Path) -> PathBuf {
    data.join("log").join("db")
}

impl Run {
    fn new(with_sync: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        drop(SledLog::open(folder.path()).unwrap());
        let made = std::fs::read(db(folder.path())).unwrap();
        let synced = Arc::new(Mutex::new(made));
        let kept = synced.clone();
        let log = match with_sync {
            true => SledLog::open_with(
                folder.path(),
                Box::new(move |file, folder| {
                    file.sync_data()?;
                    *kept.lock().unwrap() = std::fs::read(folder.join("db"))?;
                    Ok(())
                }),
            ),
            false => SledLog::without_sync(folder.path()),
        };
        Self { folder, synced, log: log.unwrap(), model: MemoryLog::default(), term: 1 }
    }

    fn synced(&self) -> Vec<u8> {
        self.synced.lock().unwrap().clone()
    }

    /// One call, to both.
    fn act(&mut self, chance: &mut Chance) {
        let Extent { purged, last } = self.model.extent().unwrap();
        let (purged, last) = (purged.map_or(0, |id| id.index), last.map_or(0, |id| id.index));
        let both = |call: &dyn Fn(&dyn DurableLog)| {
            call(&self.log);
            call(&self.model);
        };
        match chance.below(12) {
            0 => {
                self.term += 1;
                let vote = Vote::new(self.term, 1);
                both(&|log| log.save_vote(&vote).unwrap());
            }
            1 if last > purged + 2 => {
                self.term += 1;
                both(&|log| log.truncate(last - 1).unwrap());
            }
            2 if last > purged + 20 => {
                let up_to = self.model.read(last - 10..last, usize::MAX).unwrap()[0].log_id;
                both(&|log| log.purge(up_to).unwrap());
            }
            _ => {
                let count = 1 + chance.below(4);
                let bytes = usize::try_from(chance.below(10) * chance.below(4_000)).unwrap();
                let entries: Vec<_> = (1..=count).map(|n| entry(self.term, last + n, bytes)).collect();
                both(&|log| log.append(&entries).unwrap());
            }
        }
    }

    /// The folder after the power failed while `now` was in the cache and `synced` on the disk.
    fn image(&self, synced: &[u8], now: &[u8], chance: &mut Chance) -> tempfile::TempDir {
        let image = tempfile::tempdir().unwrap();
        let (from, to) = (self.folder.path(), image.path());
        std::fs::create_dir_all(to.join("log").join("blobs")).unwrap();
        std::fs::copy(from.join("log.mark"), to.join("log.mark")).unwrap();
        for entry in std::fs::read_dir(from.join("log")).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() && entry.file_name() != "db" {
                std::fs::copy(entry.path(), to.join("log").join(entry.file_name())).unwrap();
            }
        }
        let (mut bytes, kept) = (synced.to_vec(), chance.below(3));
        bytes.resize(synced.len().max(now.len()), 0);
        for (at, sector) in now.chunks(SECTOR).enumerate() {
            if kept > 0 && chance.below(3) < kept {
                bytes[at * SECTOR..at * SECTOR + sector.len()].copy_from_slice(sector);
            }
        }
        std::fs::write(db(to), bytes).unwrap();
        image
    }
}

/// Images after random calls; how many of them miss something that was acknowledged.
fn lost_of(images: u64, with_sync: bool) -> u64 {
    let mut chance = Chance(0x5EED);
    let (mut lost, mut taken) = (0, 0);
    while taken < images {
        let mut run = Run::new(with_sync);
        for _ in 0..60 {
            // The last call is under way when the power fails: what was synced before it, and any of what it wrote.
            let (acknowledged, synced) = (content(&run.model), run.synced());
            run.act(&mut chance);
            if chance.below(4) > 0 {
                continue;
            }
            let written = std::fs::read(db(run.folder.path())).unwrap();
            taken += 1;
            // While the call was under way, its mark was not written: the one of the call before is what counts.
            let image = run.image(&synced, &written, &mut chance);
            super::super::mark::tests::set_back(&image.path().join("log.mark"));
            let after = content(&run.model);
            let found = SledLog::open(image.path()).map(|log| content(&log));
            let holds = found.as_ref().is_ok_and(|found| *found == acknowledged || *found == after);
            assert!(holds || !with_sync, "image {taken}: {:?}", found.err());
            lost += u64::from(!holds);
        }
    }
    lost
}

#[test]
fn a_power_loss_takes_nothing_that_was_acknowledged() {
    assert_eq!(lost_of(200, true), 0);
}

/// The test above must be able to fail: sled's own flush is no sync.
#[test]
fn without_our_sync_a_power_loss_takes_acknowledged_entries() {
    assert!(lost_of(30, false) > 10);
}

/// An answer to a vote that is forgotten lets a node vote twice.
#[test]
fn a_vote_that_was_kept_is_there_after_a_power_loss() {
    let run = Run::new(true);
    let vote = Vote::new(7, 3);
    run.log.save_vote(&vote).unwrap();
    run.log.append(&[entry(7, 1, 10)]).unwrap();
    let synced = run.synced();
    let image = run.image(&synced, &synced, &mut Chance(1));
    let log = SledLog::open(image.path()).unwrap();
    assert_eq!((log.vote().unwrap(), log.extent().unwrap().last), (Some(vote), Some(log_id(7, 1))));
}
