//! Reads contents and compares their hashes with their IDs.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rand::Rng;

use super::{Check, Problem, Report};
use crate::content::read::read_content;
use crate::content::{ContentId, Entry};
use crate::error::Result;

/// Reads all live contents (`full`), or a share of the file contents in use.
pub(super) fn check(check: &Check<'_>, used: &BTreeSet<ContentId>, report: &mut Report) -> Result<()> {
    let table = &check.view.table;
    let mut rows: Vec<u32> = if check.options.full {
        let all = 0..u32::try_from(table.len()).unwrap_or(u32::MAX);
        all.filter(|row| !table.is_deleted(*row) || used.contains(&table.id(*row))).collect()
    } else if check.options.percent > 0.0 {
        let mut random = rand::rng();
        let sampled = used.iter().filter(|_| random.random_range(0.0..100.0) < check.options.percent);
        sampled.filter_map(|id| table.find(id)).collect()
    } else {
        return Ok(());
    };
    // In the order of the packs, so that a disk reads forward.
    rows.sort_unstable_by_key(|row| (table.pack(*row), table.offset(*row)));
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let bytes = AtomicU64::new(0);
    let found: Mutex<Vec<Problem>> = Mutex::default();
    let total = rows.len() as u64;
    let work = || -> Result<()> {
        loop {
            let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) else { return Ok(()) };
            let entry = table.entry(*row);
            if super::packs::place(&check.packs, &entry).is_none() {
                if let Some(text) = read(check, &entry)? {
                    let subject = entry.id.to_string();
                    let problem = Problem { subject, text, snapshots: Vec::new(), paths: Vec::new() };
                    found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(problem);
                }
                bytes.fetch_add(u64::from(entry.packed_length), Ordering::Relaxed);
            }
            let so_far = done.fetch_add(1, Ordering::Relaxed) + 1;
            if so_far.is_multiple_of(256) {
                check.go_on()?;
                (check.progress)("contents", so_far, total);
            }
        }
    };
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..check.options.threads.max(1)).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    results.into_iter().collect::<Result<()>>()?;
    report.contents_read += total;
    report.bytes_read += bytes.into_inner();
    let mut problems = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    problems.sort_by(|a, b| a.subject.cmp(&b.subject));
    for problem in problems {
        report.add(check.options, problem);
    }
    Ok(())
}

/// What is wrong with a content's bytes, if anything. A store that does not answer ends the check: it says nothing of the data.
fn read(check: &Check<'_>, entry: &Entry) -> Result<Option<String>> {
    let plain = match read_content(check.repository, entry) {
        Ok(plain) => plain,
        Err(e) if e.is_retryable() => return Err(e),
        Err(e) => return Ok(Some(e.chain())),
    };
    if check.repository.hasher().hash(&plain) != *entry.id.hash() {
        return Ok(Some("its bytes have another hash than its ID says".to_owned()));
    }
    Ok(None)
}
