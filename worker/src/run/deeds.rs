//! The deeds of a cycle, stage by stage, on the sealed plan, with Kopia's run records.

use std::time::Duration;
use verger_kopia::mutant::{self, Mutant};

use verger_kopia::clock::Timestamp;
use verger_kopia::content::Entry;
use verger_kopia::index_set::epoch::EpochState;
use verger_kopia::maintenance::go_json::duration_text;
use verger_kopia::maintenance::history::{
    AdvanceEpochStats, CleanupMarkersStats, CleanupSupersededIndexesStats, CompactIndexesStats,
    CompactSingleEpochStats, DeleteUnreferencedPacksStats, ExtendBlobRetentionStats, GenerateRangeCheckpointStats,
    RewriteContentsStats, Task,
};
use verger_kopia::maintenance::rules::next::Rule;
use verger_kopia::maintenance::rules::plan::{DeletePlan, IndexStep, Mode, PlanBody};
use verger_kopia::session::SessionId;
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::Digest;
use verger_proto::job::JobSpec;
use verger_proto::report::{Damage, JobReport, Outcome, Severity};
use verger_proto::stage::Stage;

use super::reading::missing_or_unreadable;
use super::{Work, out_of_order};
use crate::task::deed::{Deeds, Effect};
use crate::task::delete::Deleted;
use crate::task::guard::{Guard, Refused};
use crate::task::publish::Publication;
use crate::task::rewrite::{Order, copy};
use crate::task::survey::Survey;
use crate::task::{scan, solve};

/// A rewrite whose record is older than this gets a new end before more of it is published (R20).
const RECORD_AGE_MAX: Duration = Duration::from_secs(600);

const SECOND: Duration = Duration::from_secs(1);

impl Work<'_> {
    /// Does the job of a stage after the seal.
    pub(super) fn deed(&mut self, spec: &JobSpec, stage: Stage) -> Result<JobReport> {
        let plan = self.planned()?;
        if self.guard.is_none() {
            self.guard = Some(self.new_guard()?);
        }
        let began = self.workspace.repository.clock().now();
        let tasks = match stage {
            Stage::Revive => return self.revive(spec, &plan),
            Stage::Mark => self.mark(spec, &plan)?,
            Stage::RecordGc => self.record_gc(spec, &plan)?,
            Stage::Watermark => self.forget(spec, &plan, began)?,
            Stage::Delete => self.delete(spec, stage, plan.delete.as_ref(), began)?,
            Stage::Rewrite => return self.rewrite(spec, &plan),
            Stage::Publish => self.publish(spec, &plan, began)?,
            Stage::DeleteRewritten => self.delete(spec, stage, plan.delete_rewritten.as_ref(), began)?,
            Stage::Index => self.index(spec, &plan, began)?,
            Stage::Locks => self.extend_locks(spec, &plan, began)?,
            Stage::Logs => self.clean_logs(spec, &plan, began)?,
            Stage::Close => self.close(spec)?,
            _ => return Err(out_of_order("order of stages")),
        };
        Ok(JobReport { stats: self.figures.of(&tasks), ..JobReport::new(self.refused()) })
    }

    /// What the store did not let go, named; the rest of the cycle goes on.
    fn refused(&mut self) -> Outcome {
        let refused = self.guard.as_mut().map(Guard::take_refused).unwrap_or_default();
        if refused.is_empty() {
            return Outcome::Done;
        }
        self.refused_deletes += refused.len() as u64;
        self.refused_bytes += refused.iter().map(|one| one.bytes).sum::<u64>();
        let damage = |one: Refused| Damage {
            severity: Severity::Noted,
            subject: one.blob.to_string(),
            text: format!("the store refuses to delete it: {}", one.why),
            snapshots: Vec::new(),
            paths: Vec::new(),
        };
        let damages: Vec<Damage> = refused.into_iter().map(damage).collect();
        self.damages.extend(damages.iter().cloned());
        Outcome::Degraded(damages)
    }

    fn new_guard(&self) -> Result<Guard> {
        let survey = self.taken_stock()?;
        let manifests = survey.manifests.manifests.keys().cloned().collect();
        let guard = Guard::new(self.workspace.repository.clone(), survey.view.clone(), self.used.clone(), manifests);
        Ok(guard.knowing(&self.listed_before))
    }

    fn now(&self) -> Timestamp {
        self.workspace.repository.clock().now()
    }

    /// What cannot be read holds up a plan that forgets. One that marks, drops and records nothing, because of damage, goes on
    /// without it.
    fn revive(&mut self, spec: &JobSpec, plan: &PlanBody) -> Result<JobReport> {
        let Some(gc) = &plan.gc else { return Ok(JobReport::done(Vec::new())) };
        let forgets = self.header.as_ref().is_none_or(|header| header.work(Stage::RecordGc).is_some());
        let left = self.deeds(spec)?.revive(&gc.undelete, forgets)?;
        let survey = self.taken_stock()?;
        let damages = self.left_behind(&survey, &left, "be revived, though a snapshot needs it")?;
        Ok(self.degraded(damages))
    }

    fn mark(&mut self, spec: &JobSpec, plan: &PlanBody) -> Result<Vec<Task>> {
        let survey = self.taken_stock()?;
        if mutant::on(Mutant::R20GcRecordedFirst) {
            let stats = plan.gc.as_ref().map(|gc| gc.stats.clone());
            let times = (self.gc_started, self.now());
            self.figures.success(&mut self.schedule, Task::SnapshotGc, times, stats.as_ref());
            self.schedule.write(&self.workspace.repository, None)?;
        }
        let rows = plan.gc.as_ref().map(|gc| gc.mark.as_slice()).unwrap_or_default();
        let offset =
            |row: u32| survey.view.table.offset(row).saturating_add(u32::from(mutant::on(Mutant::I9MarkElsewhere)));
        let mark = |row: u32| Entry { deleted: true, offset: offset(row), ..survey.view.table.entry(row) };
        let marks = rows.iter().map(|row| mark(*row));
        // Marks need no pack, and so no marker: the session only names the index blobs.
        let session = SessionId::generate(self.now());
        let (stage, rule) = (Stage::Mark, "unused-content");
        let publication = Publication { stage, rule, session: &session, stamp: true };
        self.deeds(spec)?.publish(&publication, rows.len() as u64, marks)?;
        Ok(Vec::new())
    }

    fn record_gc(&mut self, spec: &JobSpec, plan: &PlanBody) -> Result<Vec<Task>> {
        let stats = plan.gc.as_ref().map(|gc| gc.stats.clone()).unwrap_or_default();
        let began = if mutant::on(Mutant::I2LateStart) { self.now() } else { self.gc_started };
        let times = (began, self.now());
        self.figures.success(&mut self.schedule, Task::SnapshotGc, times, Some(&stats));
        // Kopia wants *more* than the margin in between.
        let margin = self.choice.margins.margin_between_snapshot_gc + SECOND;
        self.wait_from(Rule::MarkToDrop, times.0, times.1, margin);
        self.write_records(spec, Stage::RecordGc)?;
        Ok(vec![Task::SnapshotGc])
    }

    fn forget(&mut self, spec: &JobSpec, plan: &PlanBody, began: Timestamp) -> Result<Vec<Task>> {
        let Some(drop) = &plan.drop else { return Ok(Vec::new()) };
        let at_once = !self.choice.margins.require_two_gc_cycles;
        let dropped = self.deeds(spec)?.drop_marks(drop, at_once)?;
        let stats = CompactIndexesStats { dropped_contents_deleted_before: Some(dropped.cutoff) };
        let times = (began, self.now());
        self.figures.success(&mut self.schedule, Task::FullDropDeletedContent, times, Some(&stats));
        Ok(vec![Task::FullDropDeletedContent])
    }

    fn delete(
        &mut self,
        spec: &JobSpec,
        stage: Stage,
        plan: Option<&DeletePlan>,
        began: Timestamp,
    ) -> Result<Vec<Task>> {
        let Some(plan) = plan else { return Ok(Vec::new()) };
        let deleted = self.deeds(spec)?.delete(stage, &plan.blobs)?;
        let task = if plan.quick { Task::QuickDeleteBlobs } else { Task::FullDeleteBlobs };
        let now = self.now();
        let stats = delete_stats(plan, &deleted);
        // The second deletion of a cycle goes into the record of the first (R20).
        match self.figures.first_delete.take() {
            Some((start, first)) => {
                let sum = sum(&first, &stats);
                self.figures.revise(&mut self.schedule, task, (start, now), Some(&sum));
            }
            None => {
                self.figures.success(&mut self.schedule, task, (began, now), Some(&stats));
                self.figures.first_delete = Some((began, stats));
            }
        }
        Ok(vec![task])
    }

    /// Copies; nothing is visible yet.
    fn rewrite(&mut self, spec: &JobSpec, plan: &PlanBody) -> Result<JobReport> {
        let Some(rewrite) = &plan.rewrite else { return Ok(JobReport::done(Vec::new())) };
        let survey = self.taken_stock()?;
        let session = self.deeds(spec)?.start_session()?;
        let now = self.workspace.repository.storage().now()?.as_second();
        let table = &survey.view.table;
        let (stage, packs) = (Stage::Rewrite.name(), rewrite.packs.as_slice());
        let order = Order { stage, table, packs, session: &session.id, now, revive: false };
        let copied = copy(&self.workspace, &order)?;
        let damages = self.left_behind(&survey, &copied.left, "be moved out of a short pack")?;
        self.figures.written_bytes += copied.pack_bytes;
        self.copied = Some((copied, vec![session]));
        Ok(self.degraded(damages))
    }

    /// The report of a job that went around these.
    fn degraded(&mut self, damages: Vec<Damage>) -> JobReport {
        self.damages.extend(damages.iter().cloned());
        JobReport::new(if damages.is_empty() { Outcome::Done } else { Outcome::Degraded(damages) })
    }

    /// Contents that could not be copied, and so not `what`. What the walk found unreadable is named already, with its places; bytes
    /// of files are only looked at now, so their places are looked for now.
    pub(super) fn left_behind(&self, survey: &Survey, left: &[(u32, Error)], what: &str) -> Result<Vec<Damage>> {
        let table = &survey.view.table;
        let known = self.damages.iter().map(|one| one.subject.trim_start_matches(['I', 'Z']));
        let known: std::collections::HashSet<&str> = known.collect();
        let left = left.iter().map(|(row, error)| (*row, left_damage(table, *row, error, what)));
        let mut left: Vec<(u32, Damage)> = left.filter(|(_, one)| !known.contains(one.subject.as_str())).collect();
        let needed: Vec<(u32, String)> = left
            .iter()
            .filter(|(row, _)| self.used.as_ref().is_some_and(|used| used.rows.contains(*row)))
            .map(|(row, one)| (*row, one.text.clone()))
            .collect();
        if !needed.is_empty() {
            let found = scan::scan(&self.workspace, survey)
                .and_then(|summaries| solve::locate(&self.workspace, survey, &summaries, needed.into_iter()));
            match found {
                Ok(found) => {
                    for place in found.iter().map(missing_or_unreadable) {
                        if let Some((_, one)) = left.iter_mut().find(|(_, one)| one.subject == place.subject) {
                            *one = place;
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                // Without its places it is named all the same.
                Err(_) => {}
            }
        }
        Ok(left.into_iter().map(|(_, one)| one).collect())
    }

    fn publish(&mut self, spec: &JobSpec, plan: &PlanBody, began: Timestamp) -> Result<Vec<Task>> {
        let Some(rewrite) = &plan.rewrite else { return Ok(Vec::new()) };
        let task = if rewrite.quick { Task::QuickRewriteContents } else { Task::FullRewriteContents };
        let planned: u64 = rewrite.packs.iter().map(|pack| pack.rows.len() as u64).sum();
        let (copied, sessions) = self.moved(spec)?;
        // Gone around, the rewriting has neither copied nor named as left what the plan moves: then all of it stays where it is.
        let complete = (copied.entries.len() + copied.left.len()) as u64 == planned;
        // One successful record stands before the first entry, so that nobody deletes too early even if this crashes now.
        let now = self.now();
        self.figures.success(&mut self.schedule, task, (began, now), Some(&rewrite.stats));
        let mut deeds = self.deeds(spec)?;
        if !mutant::on(Mutant::R20NoRecordBeforeRewrite) {
            deeds.write_schedule(Stage::Publish)?;
        }
        let mut published = crate::task::publish::Published::default();
        let mut written = deeds.workspace.repository.clock().now();
        // Packs of several sessions are published together; their markers stand until all of it is durable.
        if let Some(session) = sessions.first() {
            if mutant::on(Mutant::I12MarkerGoneFirst) {
                deeds.end_sessions(&sessions[..1])?;
            }
            let publication =
                Publication { stage: Stage::Publish, rule: "short-pack", session: &session.id, stamp: false };
            let most = crate::task::publish::batch_entries(&deeds.workspace.memory);
            let mut entries = copied.entries.into_iter().peekable();
            while entries.peek().is_some() {
                let part: Vec<Entry> = entries.by_ref().take(most).collect();
                let now = deeds.workspace.repository.clock().now();
                if now.duration_since(written) > jiff::SignedDuration::try_from(RECORD_AGE_MAX).unwrap_or_default() {
                    let record = verger_kopia::maintenance::history::RunRecord::success(began, now);
                    deeds.schedule.revise(task, record.with_figures(Some(&rewrite.stats)));
                    deeds.write_schedule(Stage::Publish)?;
                    written = now;
                }
                let done = deeds.publish(&publication, part.len() as u64, part.into_iter())?;
                published.effect.changed += done.effect.changed;
                published.left.extend(done.left);
            }
            deeds.leave_out(Stage::Publish, planned - deeds.position.first)?;
            deeds.end_sessions(&sessions)?;
        } else {
            // The rewriting was gone around: nothing moved.
            deeds.leave_out(Stage::Publish, planned)?;
        }
        let survey = self.taken_stock()?;
        let table = &survey.view.table;
        let guard = self.guard.as_mut().ok_or_else(|| out_of_order("plan"))?;
        // What did not move is still where it was.
        let unmoved = copied.left.iter().map(|(row, _)| table.entry(*row).pack);
        let unpublished = published.left.iter().filter_map(|entry| Some(table.entry(table.find(&entry.id)?).pack));
        unmoved.chain(unpublished).for_each(|pack| guard.keep_pack(pack));
        if !complete {
            rewrite.packs.iter().filter_map(|source| table.packs().get(source.pack as usize)).for_each(|pack| {
                guard.keep_pack(pack.clone());
            });
        }
        let stats = RewriteContentsStats {
            rewritten_content_count: published.effect.changed,
            rewritten_content_size: copied.bytes,
            ..rewrite.stats.clone()
        };
        let end = self.now();
        self.figures.revise(&mut self.schedule, task, (began, end), Some(&stats));
        self.wait_from(
            Rule::RewriteDelay,
            self.gc_started,
            end,
            self.choice.margins.min_rewrite_to_orphan_deletion_delay,
        );
        Ok(vec![task])
    }

    /// A margin counts from the end of a task; the plan took it from a time before the task was done.
    fn wait_from(&mut self, rule: Rule, planned: Timestamp, end: Timestamp, margin: Duration) {
        if let Some(next) = self.next.as_mut().filter(|next| next.rule == rule && next.at + SECOND >= planned + margin)
        {
            next.at = next.at.max(end + margin);
        }
    }

    fn index(&mut self, spec: &JobSpec, plan: &PlanBody, began: Timestamp) -> Result<Vec<Task>> {
        let settle = self.choice.margins.legacy_settle_time;
        let epochs = self.workspace.repository.config().epoch.enabled;
        let mut lane = Lane { replaced_before: self.replaced_before()?, ..Lane::default() };
        let mut deeds = self.deeds(spec)?;
        if epochs {
            for step in &plan.index {
                let done = deeds.index_step(step, settle)?;
                lane.note(step, &done);
            }
        } else if plan.mode == Mode::Full {
            // The drop compacted already; what older compactions replaced may be settled now.
            lane.legacy |= deeds.settle_legacy(settle)?.count > 0;
        } else {
            for step in plan.index.iter().filter(|step| matches!(step, IndexStep::CompactLegacy { .. })) {
                deeds.index_step(step, settle)?;
                lane.legacy = true;
            }
            deeds.settle_legacy(settle)?;
        }
        let epoch = deeds.guard.write_epoch().unwrap_or(0);
        let times = (began, self.now());
        Ok(if epochs {
            self.record_epochs(plan.mode, &lane, epoch, times)
        } else {
            self.record_legacy(plan.mode, times)
        })
    }

    /// Compacted sets must be older than this before what they replace goes: the storage's clock less the margin.
    fn replaced_before(&self) -> Result<Option<Timestamp>> {
        let survey = self.taken_stock()?;
        let epochs = EpochState::from_listing(survey.listing.indexes.clone());
        let margin = survey.repository.config().epoch.cleanup_safety_margin;
        Ok(epochs.storage_clock().and_then(|clock| clock.checked_sub(margin).ok()))
    }

    fn record_legacy(&mut self, mode: Mode, times: (Timestamp, Timestamp)) -> Vec<Task> {
        if mode == Mode::Full {
            return Vec::new();
        }
        let none: Option<&CompactIndexesStats> = None;
        self.figures.success(&mut self.schedule, Task::IndexCompaction, times, none);
        vec![Task::IndexCompaction]
    }

    /// Every task of the lane that runs in this mode has its record, even if it found nothing to do.
    fn record_epochs(&mut self, mode: Mode, lane: &Lane, epoch: u64, times: (Timestamp, Timestamp)) -> Vec<Task> {
        let (figures, schedule) = (&mut self.figures, &mut self.schedule);
        let mut tasks = vec![Task::CompactSingleEpoch, Task::AdvanceEpoch];
        if lane.singles.is_empty() {
            figures.success::<CompactSingleEpochStats>(schedule, Task::CompactSingleEpoch, times, None);
        }
        for single in &lane.singles {
            figures.success(schedule, Task::CompactSingleEpoch, times, Some(single));
        }
        let advance = AdvanceEpochStats { current_epoch: epoch, was_advanced: lane.advanced };
        figures.success(schedule, Task::AdvanceEpoch, times, Some(&advance));
        if mode == Mode::Full {
            figures.success(schedule, Task::GenerateEpochRangeIndex, times, lane.range.as_ref());
            figures.success(schedule, Task::CleanupEpochMarkers, times, lane.markers.as_ref());
            // Kopia tells this time even if nothing went.
            let nothing = CleanupSupersededIndexesStats {
                max_replacement_time: lane.replaced_before,
                ..CleanupSupersededIndexesStats::default()
            };
            let superseded = lane.superseded.as_ref().unwrap_or(&nothing);
            figures.success(schedule, Task::DeleteSupersededEpochIndexes, times, Some(superseded));
            tasks.extend([
                Task::GenerateEpochRangeIndex,
                Task::CleanupEpochMarkers,
                Task::DeleteSupersededEpochIndexes,
            ]);
        }
        tasks
    }

    fn extend_locks(&mut self, spec: &JobSpec, plan: &PlanBody, began: Timestamp) -> Result<Vec<Task>> {
        let Some(locks) = &plan.locks else { return Ok(Vec::new()) };
        let extended = self.deeds(spec)?.extend_locks(locks)?;
        let stats = ExtendBlobRetentionStats {
            to_extend_blob_count: locks.blobs.len() as u64,
            extended_blob_count: extended,
            retention_period: duration_text(locks.period),
        };
        let times = (began, self.now());
        self.figures.success(&mut self.schedule, Task::ExtendBlobRetentionTime, times, Some(&stats));
        Ok(vec![Task::ExtendBlobRetentionTime])
    }

    fn clean_logs(&mut self, spec: &JobSpec, plan: &PlanBody, began: Timestamp) -> Result<Vec<Task>> {
        let Some(logs) = &plan.logs else { return Ok(Vec::new()) };
        let deleted = self.deeds(spec)?.delete(Stage::Logs, &logs.blobs)?;
        let mut stats = logs.stats.clone();
        stats.deleted_blob_count = deleted.count;
        stats.deleted_blob_size = deleted.bytes;
        let times = (began, self.now());
        self.figures.success(&mut self.schedule, Task::CleanupLogs, times, Some(&stats));
        Ok(vec![Task::CleanupLogs])
    }

    fn close(&mut self, spec: &JobSpec) -> Result<Vec<Task>> {
        self.write_records(spec, Stage::Close)?;
        Ok(Vec::new())
    }

    fn write_records(&mut self, spec: &JobSpec, stage: Stage) -> Result<()> {
        self.deeds(spec)?.write_schedule(stage)
    }
}

impl Deeds<'_> {
    /// Writes `kopia.maintenance` if something waits for it, as a batch of no items.
    fn write_schedule(&mut self, stage: Stage) -> Result<()> {
        if !self.schedule.is_dirty() {
            return Ok(());
        }
        self.batch(stage, 0, Digest::of(b"records"), |deeds, approved| {
            let repository = deeds.guard.repository().clone();
            deeds.schedule.write(&repository, Some(approved.deadline.since_boot()))?;
            if stage == Stage::Close {
                // No look of a later batch will notice who wrote right after us.
                deeds.schedule.confirm(&repository)?;
            }
            Ok(Effect::default())
        })?;
        Ok(())
    }
}

/// What the index lane did, in Kopia's figures.
#[derive(Default)]
struct Lane {
    singles: Vec<CompactSingleEpochStats>,
    advanced: bool,
    range: Option<GenerateRangeCheckpointStats>,
    markers: Option<CleanupMarkersStats>,
    superseded: Option<CleanupSupersededIndexesStats>,
    legacy: bool,
    replaced_before: Option<Timestamp>,
}

impl Lane {
    fn note(&mut self, step: &IndexStep, done: &crate::task::compact::StepDone) {
        match step {
            IndexStep::CompactEpoch { epoch, .. } => self.singles.push(CompactSingleEpochStats {
                superseded_index_blob_count: done.inputs,
                superseded_index_total_size: done.input_bytes,
                epoch: *epoch,
            }),
            IndexStep::AdvanceEpoch { .. } => self.advanced = true,
            IndexStep::CompactRange { first, last, .. } => {
                self.range = Some(GenerateRangeCheckpointStats { range_min_epoch: *first, range_max_epoch: *last });
            }
            IndexStep::CleanMarkers { blobs } => {
                let epochs = blobs.iter().filter(|blob| blob.as_str().starts_with("xe")).count() as u64;
                self.markers = Some(CleanupMarkersStats {
                    deleted_epoch_marker_blob_count: epochs,
                    deleted_watermark_blob_count: blobs.len() as u64 - epochs,
                });
            }
            IndexStep::DeleteSuperseded { .. } => {
                self.superseded = Some(CleanupSupersededIndexesStats {
                    max_replacement_time: self.replaced_before,
                    deleted_blob_count: done.deleted.count,
                    deleted_total_size: done.deleted.bytes,
                });
            }
            IndexStep::CompactLegacy { .. } => self.legacy = true,
        }
    }
}

fn delete_stats(plan: &DeletePlan, deleted: &Deleted) -> DeleteUnreferencedPacksStats {
    DeleteUnreferencedPacksStats {
        deleted_pack_count: deleted.count,
        deleted_total_size: deleted.bytes,
        retained_pack_count: plan.stats.retained_pack_count + deleted.left.len() as u64,
        ..plan.stats.clone()
    }
}

fn sum(a: &DeleteUnreferencedPacksStats, b: &DeleteUnreferencedPacksStats) -> DeleteUnreferencedPacksStats {
    DeleteUnreferencedPacksStats {
        unreferenced_pack_count: a.unreferenced_pack_count + b.unreferenced_pack_count,
        unreferenced_total_size: a.unreferenced_total_size + b.unreferenced_total_size,
        deleted_pack_count: a.deleted_pack_count + b.deleted_pack_count,
        deleted_total_size: a.deleted_total_size + b.deleted_total_size,
        retained_pack_count: a.retained_pack_count.max(b.retained_pack_count),
        retained_total_size: a.retained_total_size.max(b.retained_total_size),
    }
}

fn left_damage(table: &verger_kopia::index::Table, row: u32, error: &Error, what: &str) -> Damage {
    super::shard::left_damage(&table.id(row).to_string(), table.is_deleted(row), error, what)
}
