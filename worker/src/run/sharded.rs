//! The lead's part of stages that are cut: orders before, what the shards left after.

use verger_kopia::Result;
use verger_kopia::session::SessionId;
use verger_proto::id::{CycleId, RepositoryId};
use verger_proto::job::{JobSpec, OutputRef};
use verger_proto::report::{Cut, Damage, JobReport, Severity};
use verger_proto::stage::Stage;

use super::{Shards, Work, out_of_order};
use crate::exchange::{PartKind, Parts};
use crate::task::order::{self, Making, is_ordered, parts_of};
use crate::task::revive::OpenSession;
use crate::task::rewrite::Copied;
use crate::task::summary::Summaries;
use crate::task::survey::Survey;
use crate::task::{rewrite_shard, scan_shard};

impl Work<'_> {
    /// The same work, shared: what is large enough is cut, and any worker may do its shards.
    #[must_use]
    pub fn with_shards(mut self, shards: Option<Shards>) -> Self {
        self.shards = shards;
        self
    }

    /// Whether this job is a shard of a stage that was cut.
    pub(super) fn is_shard(&self, spec: &JobSpec) -> bool {
        self.shards.is_some() && is_ordered(spec)
    }

    pub(super) fn run_shard(&self, spec: &JobSpec) -> Result<JobReport> {
        let shards = self.shards.as_ref().ok_or_else(|| out_of_order("exchange"))?;
        Ok(super::run_shard(&self.workspace, shards, self.control, spec, &self.worker))
    }

    fn parts(&self, spec: &JobSpec) -> Option<Parts> {
        let exchange = &self.shards.as_ref()?.exchange;
        Some(exchange.parts(&self.workspace.repository, &spec.repository, spec.cycle))
    }

    /// Adds the cut of the scan to the survey's report, if there is enough to read.
    pub(super) fn cut_scan(&self, spec: &JobSpec, survey: &Survey, report: &mut JobReport) -> Result<()> {
        // On a local disk the walk reads what it needs, and nothing is scanned; a quick cycle needs no scan.
        let is_scanned = Stage::Scan.is_in(spec.options.mode) && !self.workspace.is_local();
        let (Some(shards), Some(parts), Some(view)) = (&self.shards, self.parts(spec), self.view) else {
            return Ok(());
        };
        if !is_scanned {
            return Ok(());
        }
        let making = Making { parts: &parts, kind: PartKind::ScanOrder, attempt: spec.attempt, view: view.digest };
        let cut = scan_shard::cut_scan(&self.workspace, survey, &making, shards.shard_bytes)?;
        add(report, Stage::Scan, cut);
        Ok(())
    }

    /// Adds the cut of the rewrite to the plan's report, if there is enough to copy.
    pub(super) fn cut_rewrite(&self, spec: &JobSpec, report: &mut JobReport) -> Result<()> {
        let (survey, plan) = (self.taken_stock()?, self.planned()?);
        let (Some(shards), Some(parts), Some(view)) = (&self.shards, self.parts(spec), self.view) else {
            return Ok(());
        };
        let Some(rewrite) = plan.rewrite.as_ref().filter(|_| !spec.options.dry_run) else { return Ok(()) };
        let making = Making { parts: &parts, kind: PartKind::RewriteOrder, attempt: spec.attempt, view: view.digest };
        let table = &survey.view.table;
        let scanned = order::keys_of(spec, PartKind::ScanOrder);
        let cut = rewrite_shard::cut_rewrite(&self.workspace, table, rewrite, &making, shards.shard_bytes, &scanned)?;
        add(report, Stage::Rewrite, cut);
        Ok(())
    }

    /// What the shards of the scan found; `None` if it was not cut.
    pub(super) fn gather_scan(&self, spec: &JobSpec, survey: &Survey) -> Result<Option<Summaries>> {
        let Some(parts) = self.parts(spec) else { return Ok(None) };
        if parts_of(spec, PartKind::ScanOrder).next().is_none() {
            return Ok(None);
        }
        let found: Vec<&OutputRef> = parts_of(spec, PartKind::Scan).collect();
        scan_shard::gather(&self.workspace, survey, &parts, &found).map(Some)
    }

    /// What the rewrite moved, by this process or by shards, and the sessions of its packs. Nothing if all of it was gone around.
    pub(super) fn moved(&mut self, spec: &JobSpec) -> Result<(Copied, Vec<OpenSession>)> {
        self.gather_rewrite(spec)?;
        Ok(self.copied.take().unwrap_or_default())
    }

    fn gather_rewrite(&mut self, spec: &JobSpec) -> Result<()> {
        let Some(parts) = self.parts(spec) else { return Ok(()) };
        let plan = self.planned()?;
        let ordered = parts_of(spec, PartKind::RewriteOrder).next().is_some();
        let Some(rewrite) = plan.rewrite.as_ref().filter(|_| ordered && self.copied.is_none()) else { return Ok(()) };
        let survey = self.taken_stock()?;
        let outputs: Vec<&OutputRef> = parts_of(spec, PartKind::Rewrite).collect();
        let gathered = rewrite_shard::gather(&self.workspace, &survey.view.table, rewrite, &parts, &outputs)?;
        let damages = self.left_behind(&survey, &gathered.copied.left, "be moved out of a short pack")?;
        self.damages.extend(damages);
        self.damages.extend(gathered.not_covered().map(gone_around));
        self.figures.written_bytes += gathered.copied.pack_bytes;
        let sessions = gathered.sessions.into_iter().map(|(id, marker)| OpenSession::new(id, marker));
        self.copied = Some((gathered.copied, sessions.collect()));
        Ok(())
    }

    /// Lets go of a cycle that has closed: notes the sessions that its shards began, which are over for the next one (a late attempt
    /// may still write packs, but nobody will ever publish them), and deletes its parts, and
    /// what earlier cycles left there.
    ///
    /// # Errors
    /// Those of the exchange, and of noting. What is left goes by its age.
    pub fn leave_exchange(&self, repository: &RepositoryId, cycle: CycleId) -> Result<()> {
        let Some(shards) = &self.shards else { return Ok(()) };
        let parts = shards.exchange.parts(&self.workspace.repository, repository, cycle);
        for noted in parts.sessions()? {
            if let Some(id) = SessionId::from_text(&noted.session) {
                (self.workspace.began_session)(&id)?;
            }
        }
        shards.exchange.clean_cycle(repository, cycle)?;
        shards.exchange.clean_before(repository, cycle).map(drop)
    }
}

/// Shards that came to nothing were told to whoever leads alone.
fn gone_around(contents: u64) -> Damage {
    let text =
        format!("{contents} contents stay in short packs: shards were gone around, the next cycle tries them again");
    let (snapshots, paths) = (Vec::new(), Vec::new());
    Damage { severity: Severity::Noted, subject: format!("stage {}", Stage::Rewrite), text, snapshots, paths }
}

fn add(report: &mut JobReport, stage: Stage, cut: Option<(Vec<verger_proto::Shard>, Vec<OutputRef>)>) {
    if let Some((shards, orders)) = cut {
        report.cuts.push(Cut { stage, shards });
        report.outputs.extend(orders);
    }
}
