//! Damage: bits flipped, pages zeroed, files cut or gone. Either an error that says what helps, or everything is there all the same.

use std::path::{Path, PathBuf};

use super::super::DurableLog;
use super::super::sled::SledLog;
use crate::raft::testing::{entry, log_id};
use crate::raft::types::{LogEntry, Vote};
use verger_kopia::error::ErrorKind;

const PAGE: usize = 4096;

fn content(log: &dyn DurableLog) -> (super::Extent, Option<Vote>, Vec<LogEntry>) {
    (log.extent().unwrap(), log.vote().unwrap(), log.read(0..u64::MAX, usize::MAX).unwrap())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Damages of one file, as bytes that it holds afterwards; none: the file is gone.
fn damages(bytes: &[u8]) -> Vec<(String, Option<Vec<u8>>)> {
    let mut all = vec![("gone".to_owned(), None), ("empty".to_owned(), Some(Vec::new()))];
    let used = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    let step = if used > 16 * PAGE { PAGE } else { used.div_ceil(16).max(1) };
    for start in (0..used).step_by(step) {
        let end = (start + step).min(used);
        let at = start + (start * 31) % (end - start);
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (start % 8);
        all.push((format!("bit at {at}"), Some(flipped)));
        let mut zeroed = bytes.to_vec();
        zeroed[start..end].fill(0);
        if zeroed != bytes {
            all.push((format!("zeros at {start}"), Some(zeroed)));
        }
        if start > 0 && start % (4 * step) == 0 {
            all.push((format!("cut at {start}"), Some(bytes[..start].to_vec())));
        }
    }
    all
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let log = folder.join("log");
    let within = std::fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path());
    within.filter(|path| path.is_file()).chain([folder.join("log.mark")]).collect()
}

#[test]
fn damage_of_any_file_of_the_log_is_an_error_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let log = SledLog::open(folder.path()).unwrap();
    for index in 1..=30 {
        log.append(&[entry(1, index, 3_000)]).unwrap();
    }
    log.purge(log_id(1, 5)).unwrap();
    log.save_vote(&Vote::new(2, 1)).unwrap();
    log.truncate(25).unwrap();
    log.append(&[entry(2, 25, 40_000)]).unwrap();
    let expected = content(&log);
    log.close();
    drop(log);
    // Opened once more, so that there is a snapshot of sled's, too.
    drop(SledLog::open(folder.path()).unwrap());
    let (mut refused, mut tried) = (0, 0);
    for path in files(folder.path()) {
        let name = path.strip_prefix(folder.path()).unwrap();
        for (what, bytes) in damages(&std::fs::read(&path).unwrap()) {
            let image = tempfile::tempdir().unwrap();
            copy(folder.path(), image.path());
            match bytes {
                Some(bytes) => std::fs::write(image.path().join(name), bytes).unwrap(),
                None => std::fs::remove_file(image.path().join(name)).unwrap(),
            }
            tried += 1;
            match SledLog::open(image.path()) {
                Ok(log) => assert!(content(&log) == expected, "{}: {what}", name.display()),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Damaged, "{}: {what}: {error:?}", name.display());
                    assert!(error.fix().is_some_and(|fix| fix.contains("replace")), "{error:?}");
                    // sled may have changed its file on the way: that must not make it look sound.
                    let again = SledLog::open(image.path());
                    assert!(
                        again.is_err() || content(&again.unwrap()) == expected,
                        "{}: {what}, twice",
                        name.display()
                    );
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > tried / 3, "{refused} of {tried}");
}

/// sled alone takes damage at the end of its log for a write that a crash cut short: the mark tells them apart.
#[test]
fn a_log_that_lost_its_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = SledLog::open(folder.path()).unwrap();
    log.append(&[entry(1, 1, 10)]).unwrap();
    log.close();
    drop(log);
    let old = tempfile::tempdir().unwrap();
    copy(&folder.path().join("log"), old.path());
    let log = SledLog::open(folder.path()).unwrap();
    log.append(&[entry(1, 2, 10)]).unwrap();
    log.append(&[entry(1, 3, 10)]).unwrap();
    log.close();
    drop(log);
    std::fs::remove_dir_all(folder.path().join("log")).unwrap();
    copy(old.path(), &folder.path().join("log"));
    let error = SledLog::open(folder.path()).unwrap_err();
    assert!(error.chain().contains("were acknowledged"), "{error:?}");
}
