//! Snapshots as `kopia snapshot list --all --incomplete` shows them.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::manifest::{Snapshot, SourceInfo};
use super::{policy, retention};
use crate::manifest::ManifestSet;

/// Orders snapshots by source, then by time, and fills in why each is kept. `zone` is that of the process whose decision is
/// predicted: weeks and calendar cutoffs are reckoned in it.
///
/// Where a source's policy cannot be read its reasons stay empty, as Kopia's list has it; expiry must not take that for leave to
/// delete, and asks [`policy::effective_retention`] itself.
#[must_use]
pub fn list(snapshots: Vec<Snapshot>, manifests: &ManifestSet, zone: &TimeZone) -> Vec<Snapshot> {
    let mut sources: BTreeMap<(String, SourceInfo), Vec<Snapshot>> = BTreeMap::new();
    for snapshot in snapshots {
        let source = snapshot.source.clone();
        sources.entry((source.to_string(), source)).or_default().push(snapshot);
    }
    let mut listed = Vec::new();
    for ((_, source), mut group) in sources {
        group.sort_by(|a, b| (a.start_time, a.end_time, &a.id).cmp(&(b.start_time, b.end_time, &b.id)));
        if let Ok(policy) = policy::effective_retention(manifests, &source) {
            retention::fill_reasons(&mut group, &policy, zone);
        }
        listed.append(&mut group);
    }
    listed
}
