//! Whether a repository's store may be trusted with changes: probed when it is added, and again before a cycle when that was long ago.

use std::time::Duration;

use verger_coordinator::drive::Backend;
use verger_coordinator::store::check;
use verger_kopia::storage::probe::{self, ProbeReport, Sight};
use verger_kopia::{Repository, Result};
use verger_proto::store::{self, StoreProbe, StoreSeen};
use verger_proto::{Acting, Command, LogTime, RepositoryId};

/// Probes the store of a repository, or only looks at it where nothing may be written.
///
/// # Errors
/// `Permission` if it cannot be written to; what asking it gives. A store that does wrong is no error: what it does is the answer.
pub(super) fn examine(repository: &Repository, acting: &Acting) -> Result<StoreProbe> {
    let (storage, clock) = (repository.storage(), repository.clock());
    let report = match acting {
        Acting::Observe => probe::look(&**storage, &**clock),
        Acting::TakeOwnership | Acting::ActAs(_) => probe::probe(&**storage, &**clock),
    };
    report.map(|report| kept(&report))
}

/// Before a cycle that may change something: what is known of the store must allow it, and be known well enough. What is not, is
/// probed and recorded.
///
/// # Errors
/// As [`examine`], and why nothing may be changed there: `Unsupported`, `Clock`.
pub(super) fn ensure(
    backend: &dyn Backend,
    id: &RepositoryId,
    repository: &Repository,
    acting: &Acting,
    (exclusive, now): (bool, LogTime),
) -> Result<()> {
    if *acting == Acting::Observe {
        return Ok(());
    }
    let mut known = None;
    backend.look(&mut |state| known = state.repositories.get(id).and_then(|entry| entry.store.clone()));
    let holds = |(probe, recorded): &(StoreProbe, LogTime)| probe.is_believed(*recorded, exclusive, now);
    if known.as_ref().is_some_and(holds) {
        return Ok(());
    }
    let probe = examine(repository, acting)?;
    let checked = check(&probe, &repository.storage().address(), exclusive);
    backend.submit(Command::RecordProbe { repository: id.clone(), probe: Box::new(probe) })?;
    checked
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
