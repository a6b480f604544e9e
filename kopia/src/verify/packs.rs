//! Every live content lies in a pack that is there and long enough.

use std::collections::BTreeMap;

use super::{Check, Problem, Report};
use crate::content::Entry;
use crate::error::Result;
use crate::repository::Repository;
use crate::storage::BlobId;

/// Rows between two looks at the stop flag.
const STEP: u32 = 1 << 16;

/// Lengths of all packs.
pub(super) fn list(repository: &Repository) -> Result<BTreeMap<BlobId, u64>> {
    let mut packs = BTreeMap::new();
    for prefix in ["p", "q"] {
        repository.storage().list(prefix, &mut |blob| {
            packs.insert(blob.id, blob.length);
            Ok(())
        })?;
    }
    Ok(packs)
}

/// What is wrong with where an entry points, if anything.
pub(super) fn place(packs: &BTreeMap<BlobId, u64>, entry: &Entry) -> Option<String> {
    let end = u64::from(entry.offset) + u64::from(entry.packed_length);
    match packs.get(&entry.pack) {
        None => Some(format!("its pack {} is missing", entry.pack)),
        Some(length) if *length < end => {
            Some(format!("its pack {} has {length} bytes, it would end at {end}", entry.pack))
        }
        Some(_) => None,
    }
}

/// Checks the places of all live contents.
pub(super) fn check(check: &Check<'_>, report: &mut Report) -> Result<()> {
    let table = &check.view.table;
    let rows = u32::try_from(table.len()).unwrap_or(u32::MAX);
    let ends: Vec<Option<u64>> = table.packs().iter().map(|pack| check.packs.get(pack).copied()).collect();
    let mut seen = vec![false; ends.len()];
    for row in 0..rows {
        if row % STEP == 0 {
            check.go_on()?;
            (check.progress)("packs", u64::from(row), u64::from(rows));
        }
        if table.is_deleted(row) {
            continue;
        }
        report.contents += 1;
        let pack = table.pack(row) as usize;
        seen[pack] = true;
        let end = u64::from(table.offset(row)) + u64::from(table.packed_length(row));
        if ends[pack].is_none_or(|length| length < end) {
            let entry = table.entry(row);
            let text = place(&check.packs, &entry).unwrap_or_default();
            let subject = entry.id.to_string();
            report.add(check.options, Problem { subject, text, snapshots: Vec::new(), paths: Vec::new() });
        }
    }
    report.packs = seen.into_iter().filter(|seen| *seen).count() as u64;
    Ok(())
}
