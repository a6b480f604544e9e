//! The first write of a cycle: next times into `kopia.maintenance`, whose storage timestamp is the cycle's start (R10).

use verger_kopia::clock::Timestamp;
use verger_kopia::maintenance::Params;
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::mutant::{self, Mutant};
use verger_kopia::storage::list_all;
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::Digest;
use verger_proto::StoreTime;
use verger_proto::batch::{Batch, BatchOutcome, BatchRequest, BatchResult, DEADLINE_MILLISECONDS_MAX};
use verger_proto::job::JobSpec;
use verger_proto::stage::Stage;

use super::Work;
use crate::deadline::Deadline;
use crate::task::deed::view_ref;
use crate::task::survey::check_clock;

/// While a full cycle runs on Kopia's own machine, Kopia is not due before this (R22).
const AHEAD: std::time::Duration = std::time::Duration::from_secs(3600);

/// The same for an index cycle. It takes no turn of Kopia's cycles, so what it moves must come soon: where it runs each hour, they come all
/// the same.
const AHEAD_INDEX: std::time::Duration = std::time::Duration::from_secs(600);

impl Work<'_> {
    /// Writes the next times and records the start.
    pub(super) fn begin(&mut self, spec: &JobSpec, params: &Params) -> Result<Timestamp> {
        let repository = self.workspace.repository.clone();
        let lease = self.lease.ok_or_else(|| Error::new(ErrorKind::Internal, "begin a cycle without a lease"))?;
        let clock = repository.clock().clone();
        lease.wait_for_takeover(&*clock, &self.workspace.stop)?;
        let looked_at = clock.since_boot();
        let store_now = repository.storage().now()?;
        check_clock(store_now, clock.now())?;
        let listed = list_all(&**repository.storage(), "kopia.")?;
        self.schedule.settle(&repository)?;
        self.schedule.check(listed.iter().find(|blob| blob.id == crate::task::record::blob()))?;
        // The survey reads the format after this.
        self.listed_before = listed;
        lease.cover(store_now)?;
        self.set_next_times(params, clock.now());
        let batch = Batch { stage: Stage::Survey, number: 0, first: 0, items: 0, digest: Digest::of(b"begin") };
        let digest = self.earlier.as_ref().map(|view| view.digest()).unwrap_or_default();
        let view = view_ref(&digest, store_now);
        let wanted = DEADLINE_MILLISECONDS_MAX;
        let request = BatchRequest { batch, plan: None, view, store_now: StoreTime::of(store_now), wanted };
        let ticket = spec.ticket(&self.worker);
        let refused = |e| Error::new(ErrorKind::PlanRefused, "begin the cycle").with_source(e);
        let approval = self.control.approve_batch(&ticket, request).map_err(refused)?;
        let spent = clock.since_boot().saturating_sub(looked_at);
        let left = std::time::Duration::from_millis(approval.valid_for).saturating_sub(spent);
        let deadline = Deadline::after(&*clock, left);
        deadline.check(&*clock, "begin the cycle")?;
        let written = self.schedule.write_stamped(&repository, Some(deadline.since_boot()));
        let result = if written.is_ok() { BatchResult::Done } else { BatchResult::Ambiguous };
        let outcome = BatchOutcome { batch, result, changed: 0, left_out: 0, bytes: 0, evidence: None };
        let told = self.control.batch_done(&ticket, outcome).map_err(refused);
        let started = written?;
        told?;
        check_clock(started, clock.now())?;
        self.gc_started = clock.now();
        Ok(started)
    }

    /// As Kopia sets them, and never nearer than an hour; an index cycle only puts off what would begin beside it.
    fn set_next_times(&mut self, params: &Params, now: Timestamp) {
        let soonest = now + AHEAD;
        let full = (now + params.full.interval).max(soonest);
        let quick = (now + params.quick.interval).max(soonest);
        match self.choice.mode {
            Mode::Full => self.schedule.set_next(Some(full), Some(quick)),
            Mode::Quick => {
                let is_moved = !mutant::on(Mutant::R22KopiaIsDue);
                let due = is_moved && self.schedule.schedule().next_full.is_none_or(|next| next < soonest);
                self.schedule.set_next(due.then_some(soonest), Some(quick));
            }
            Mode::Index => {
                let soonest = now + AHEAD_INDEX;
                let put_off = |next: Option<Timestamp>| next.is_none_or(|next| next < soonest).then_some(soonest);
                let (full, quick) = (self.schedule.schedule().next_full, self.schedule.schedule().next_quick);
                self.schedule.set_next(put_off(full), put_off(quick));
            }
        }
    }
}
