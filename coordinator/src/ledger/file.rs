//! A ledger in one file: chain records, one after the other.
//!
//! A record that a crash cut short at the very end was never acknowledged and is cut off. Anything else that does not fit is
//! damage, and refused: whole records missing from the end alone cannot be noticed here.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::LogTime;
use verger_proto::chain::ChainHead;
use verger_proto::envelope::{self, Kind};

use super::folder::{self, LedgerFolder, Place, failed};
pub use super::segment::FILE_NAME;
use super::{Entry, Ledger, Record};
use crate::files::{make_folders, sync_folder};

/// A ledger in one file, locked against a second process.
#[derive(Debug)]
pub struct FileLedger {
    file: File,
    path: PathBuf,
    head: ChainHead,
    length: u64,
    broken: bool,
}

/// What was found on opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Opened {
    /// Records.
    pub records: u64,
    /// Bytes of an unfinished record that were cut off.
    pub cut_bytes: u64,
}

impl FileLedger {
    /// Opens or makes the ledger in `folder`, verifies the whole chain, and gives each record to `visit`.
    ///
    /// # Errors
    /// `Locked` if another process has it, `Damaged` if the chain does not hold, `Permission` or `DiskFull` if it cannot be
    /// written, and whatever `visit` says.
    pub fn open(folder: &Path, mut visit: impl FnMut(Record) -> Result<()>) -> Result<(Self, Opened)> {
        make_folders(folder).map_err(|error| failed(folder, "make the folder", error))?;
        let path = folder.join(FILE_NAME);
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(&path);
        let file = file.map_err(|error| failed(&path, "open the ledger", error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let step = format!("another verger is at work on this repository ({} is locked)", path.display());
                return Err(Error::new(ErrorKind::Locked, step).with_fix("wait until it is done, or stop it"));
            }
            Err(TryLockError::Error(error)) => return Err(failed(&path, "lock the ledger", error)),
        }
        let size = file.metadata().map_err(|error| failed(&path, "read the ledger", error))?.len();
        let reader = BufReader::with_capacity(1 << 16, &file);
        let (head, length) = folder::scan(reader, size, &path, Place::default(), &mut |record, _, _| visit(record))?;
        let (ledger, cut_bytes) = (Self { file, path, head, length, broken: false }, size.saturating_sub(length));
        if cut_bytes > 0 {
            tracing::warn!(path = %ledger.path.display(), bytes = cut_bytes, "cut off a record that was never finished");
            ledger.file.set_len(length).map_err(|error| failed(&ledger.path, "shorten", error))?;
        }
        ledger.file.sync_all().map_err(|error| failed(&ledger.path, "sync", error))?;
        sync_folder(folder).map_err(|error| failed(folder, "sync the folder", error))?;
        let opened = Opened { records: ledger.head.next, cut_bytes };
        Ok((ledger, opened))
    }

    /// Reads a ledger that another process may be writing, and all segments of it that are here: an unfinished record at the end is left
    /// alone.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`, or whatever `visit` says.
    pub fn read(folder: &Path, mut visit: impl FnMut(Record) -> Result<()>) -> Result<Opened> {
        let ledger = LedgerFolder::new(folder, None);
        let (place, cut_bytes) = ledger.scan(Place::default(), &mut |record, _| visit(record))?;
        Ok(Opened { records: place.next(), cut_bytes })
    }
}

impl Ledger for FileLedger {
    fn append(&mut self, at: LogTime, entry: &Entry) -> Result<()> {
        if self.broken {
            let step = format!("the ledger {} could not be written before", self.path.display());
            return Err(Error::new(ErrorKind::DiskFull, step).with_fix("make room, then start again"));
        }
        let too_long = |error| Error::new(ErrorKind::Internal, "write a ledger record").with_source(error);
        let body = envelope::encode(Kind::Entry, entry).map_err(too_long)?;
        let mut head = self.head;
        let bytes = head.append(at, body).map_err(too_long)?;
        // After a failed sync nobody knows what is on the disk: nothing is taken any more until the next opening has looked.
        self.broken = true;
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            let _ = self.file.set_len(self.length);
            return Err(failed(&self.path, "write the ledger", error));
        }
        self.broken = false;
        (self.head, self.length) = (head, self.length.saturating_add(bytes.len() as u64));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::of_version;
    use verger_proto::{Command, CycleId, Event, Refusal};

    fn entry(number: u64) -> Entry {
        let command = Command::ParkCycle { cycle: CycleId(number) };
        let reason = Refusal::UnknownCycle;
        let (cycle, job) = (Some(CycleId(number)), None);
        Entry { command, events: vec![Event::CommandRefused { command: "park_cycle".to_owned(), cycle, job, reason }] }
    }

    fn open(folder: &Path) -> Result<(FileLedger, Opened, Vec<Record>)> {
        let mut records = Vec::new();
        let (ledger, opened) = FileLedger::open(folder, |record| {
            records.push(record);
            Ok(())
        })?;
        Ok((ledger, opened, records))
    }

    fn small() -> (tempfile::TempDir, Vec<u8>, Vec<u64>) {
        let folder = tempfile::tempdir().unwrap();
        let mut ends = Vec::new();
        let (mut ledger, _, _) = open(folder.path()).unwrap();
        for number in 0..3 {
            ledger.append(LogTime(100 + number), &entry(number)).unwrap();
            ends.push(ledger.length);
        }
        let bytes = std::fs::read(folder.path().join(FILE_NAME)).unwrap();
        (folder, bytes, ends)
    }

    #[test]
    fn what_was_appended_is_there_and_the_chain_goes_on() {
        let (folder, _, _) = small();
        let (mut ledger, opened, records) = open(folder.path()).unwrap();
        assert_eq!(opened, Opened { records: 3, cut_bytes: 0 });
        assert_eq!(records.iter().map(|r| r.entry.clone()).collect::<Vec<_>>(), [entry(0), entry(1), entry(2)]);
        ledger.append(LogTime(7), &entry(3)).unwrap();
        drop(ledger);
        let (_, _, records) = open(folder.path()).unwrap();
        assert_eq!((records.len(), records[3].sequence, records[3].at), (4, 3, LogTime(7)));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let (folder, bytes, _) = small();
        let path = folder.path().join(FILE_NAME);
        for at in 0..bytes.len() {
            for bit in [0, 7] {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                std::fs::write(&path, &bad).unwrap();
                let error = open(folder.path()).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Damaged, "byte {at}");
                assert!(error.fix().is_some());
                assert_eq!(std::fs::read(&path).unwrap(), bad, "a refused ledger is left as it was");
            }
        }
    }

    #[test]
    fn a_record_that_was_cut_short_goes_and_only_that_one() {
        let (folder, bytes, ends) = small();
        let path = folder.path().join(FILE_NAME);
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let whole = ends.iter().filter(|end| **end <= length as u64).count();
            let kept = whole.checked_sub(1).map_or(0, |last| ends[last]);
            let (ledger, opened, records) = open(folder.path()).unwrap();
            assert_eq!(opened, Opened { records: whole as u64, cut_bytes: length as u64 - kept });
            assert_eq!((records.len(), ledger.length), (whole, kept));
            drop(ledger);
            assert_eq!(std::fs::read(&path).unwrap(), bytes[..usize::try_from(kept).unwrap()]);
        }
    }

    /// A record of these bytes, whatever they say, that continues the chain.
    fn goes_on_with(folder: &Path, body: Vec<u8>) -> Vec<u8> {
        let mut head = open(folder).unwrap().0.head;
        let bytes = [std::fs::read(folder.join(FILE_NAME)).unwrap(), head.append(LogTime(7), body).unwrap()].concat();
        std::fs::write(folder.join(FILE_NAME), &bytes).unwrap();
        bytes
    }

    #[test]
    fn what_a_newer_program_wrote_is_refused_by_its_version_and_nothing_changes() {
        let newer = |version: u16| of_version(&envelope::encode(Kind::Entry, &entry(3)).unwrap(), version);
        // A kind of event that is not known here: of a list of one, the number of its variant.
        let unknown = envelope::encode(Kind::Entry, &(Command::Tick, vec![9_999_u32])).unwrap();
        for (body, says) in
            [(newer(2), "version 2 is not known"), (newer(7), "version 7"), (unknown, "does not decode")]
        {
            let (folder, _, _) = small();
            let bytes = goes_on_with(folder.path(), body);
            let error = open(folder.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
            assert!(error.chain().contains(says) && error.to_string().contains("record 3 of the ledger"), "{error:?}");
            assert!(error.fix().is_some_and(|fix| fix.contains("the verger that wrote it")), "{error:?}");
            assert_eq!(std::fs::read(folder.path().join(FILE_NAME)).unwrap(), bytes);
        }
    }

    #[test]
    fn zeros_at_the_end_are_cut_and_a_record_lost_in_the_middle_is_refused() {
        let (folder, bytes, ends) = small();
        let path = folder.path().join(FILE_NAME);
        std::fs::write(&path, [bytes.clone(), vec![0; 5000]].concat()).unwrap();
        assert_eq!(open(folder.path()).unwrap().1, Opened { records: 3, cut_bytes: 5000 });
        let (first, second) = (usize::try_from(ends[0]).unwrap(), usize::try_from(ends[1]).unwrap());
        std::fs::write(&path, [&bytes[..first], &bytes[second..]].concat()).unwrap();
        assert_eq!(open(folder.path()).unwrap_err().kind(), ErrorKind::Damaged);
        std::fs::write(&path, [&bytes[..first], &bytes[..first]].concat()).unwrap();
        assert_eq!(open(folder.path()).unwrap_err().kind(), ErrorKind::Damaged);
    }

    #[test]
    fn after_a_failed_write_nothing_is_taken_until_the_next_opening() {
        let (folder, bytes, _) = small();
        let path = folder.path().join(FILE_NAME);
        let (mut ledger, _, _) = open(folder.path()).unwrap();
        let good = std::mem::replace(&mut ledger.file, File::open(&path).unwrap());
        assert!(ledger.append(LogTime(7), &entry(3)).is_err(), "a file that is open for reading takes no record");
        ledger.file = good;
        assert!(ledger.append(LogTime(7), &entry(3)).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        drop(ledger);
        open(folder.path()).unwrap().0.append(LogTime(7), &entry(3)).unwrap();
    }

    #[test]
    fn a_second_process_is_locked_out_and_may_read() {
        let (folder, _, _) = small();
        let held = open(folder.path()).unwrap();
        assert_eq!(open(folder.path()).unwrap_err().kind(), ErrorKind::Locked);
        let mut seen = 0;
        FileLedger::read(folder.path(), |_| {
            seen += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, 3);
        drop(held);
        open(folder.path()).unwrap();
    }
}
