//! Whether a store may be trusted with changes, by what it was seen to do.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use verger_coordinator::store::check;
use verger_kopia::mutant::{self, Mutant};
use verger_kopia::storage::probe::{self, ProbeReport, Sight};
use verger_kopia::{Repository, Result};
use verger_proto::LogTime;
use verger_proto::store::{self, PROBE_HOLDS_MILLISECONDS, StoreProbe, StoreSeen};

use super::state::Known;

/// Probes the store of a repository, or only looks at it where nothing may be written.
///
/// # Errors
/// `Permission` if it cannot be written to; what asking it gives. A store that does wrong is no error: what it does is the answer.
pub fn examine(repository: &Repository, may_write: bool) -> Result<StoreProbe> {
    let (storage, clock) = (repository.storage(), repository.clock());
    let report = match may_write {
        true => probe::probe(&**storage, &**clock),
        false => probe::look(&**storage, &**clock),
    };
    report.map(|report| kept(&report))
}

/// A store that was probed and found good, as a state directory remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tried {
    /// When, by this machine's clock.
    at: LogTime,
    /// Conditions of writes were honoured: no word is needed (R23).
    conditional_writes: bool,
}

impl Tried {
    /// As [`StoreProbe::is_believed`].
    fn is_believed(self, exclusive: bool, now: LogTime) -> bool {
        let is_young = now.0.saturating_sub(self.at.0) < PROBE_HOLDS_MILLISECONDS;
        is_young && (self.conditional_writes || exclusive)
    }
}

/// Before one process on its own changes something: what the store was seen to do must allow it. What is not remembered is tried now.
/// A local disk is not: its lock is the whole truth there (R4).
///
/// # Errors
/// As [`examine`], and why nothing may be changed there: `Unsupported`, `Clock`; `Permission` or `DiskFull` if it cannot be remembered.
pub(super) fn ensure(known: &mut Known, state_dir: &Path, repository: &Repository, exclusive: bool) -> Result<()> {
    let now = LogTime::of(repository.clock().now());
    let is_known = known.tried().is_some_and(|tried| tried.is_believed(exclusive, now));
    let storage = repository.storage();
    if storage.capabilities().local_disk || is_known || mutant::on(Mutant::R3UntriedStoreTrusted) {
        return Ok(());
    }
    let found = examine(repository, true)?;
    check(&found, &storage.address(), exclusive)?;
    let conditional_writes = found.seen.is_some_and(|seen| seen.conditional_writes);
    known.remember_tried(state_dir, Tried { at: now, conditional_writes })
}

fn kept(report: &ProbeReport) -> StoreProbe {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let offset = |offset: jiff::SignedDuration| i64::try_from(offset.as_millis()).unwrap_or(i64::MAX);
    let sight = |sight: Sight| match sight {
        Sight::AtOnce => store::Sight::AtOnce,
        Sight::After(time) => store::Sight::After(milliseconds(time)),
        Sight::NotWithin(time) => store::Sight::NotWithin(milliseconds(time)),
    };
    let seen = report.written.as_ref().map(|written| StoreSeen {
        conditional_writes: written.conditional_writes,
        conditional_deletes: written.conditional_deletes,
        reads: sight(written.reads),
        lists: sight(written.lists),
        stamp_offset: offset(written.stamp_offset),
    });
    StoreProbe {
        local_disk: report.kind.local_disk,
        seen,
        clock_offset: offset(report.clock_offset),
        round_trip: milliseconds(report.round_trip),
        keeps_versions: report.versioning.kept,
        default_retention: report.versioning.default_retention.map(|time| time.as_secs()),
    }
}
