//! The only place where blobs are deleted, batch by batch, each looked at again right before (R14).

use std::time::Duration;

use verger_kopia::maintenance::rules::plan::{DeleteRule, Deletion};
use verger_kopia::mutant::{self, Mutant};
use verger_kopia::storage::{BlobId, DeleteReport};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::stage::Stage;

use super::deed::{Approved, Deeds, Effect, digest_of_names};
use super::guard::Refused;
use crate::progress::{Meter, Unit};

/// Pauses between attempts of what a store did not answer, or held back: some stores take only so many deletions a second.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(10)];

/// What deleting did.
#[derive(Debug, Default)]
pub struct Deleted {
    /// Blobs that are gone, and their bytes.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
    /// Blobs that stay: a newer entry names them, or the store refused.
    pub left: Vec<(BlobId, String)>,
}

impl Deeds<'_> {
    /// Deletes. What a newer index entry names is left out; what the store refuses (a lock, a right) is named and left.
    ///
    /// # Errors
    /// What [`Deeds::batch`] says. `StoreUnavailable` if it stays unknown whether some are gone.
    pub fn delete(&mut self, stage: Stage, blobs: &[Deletion]) -> Result<Deleted> {
        let meter = Meter::start(&*self.workspace.progress, stage.name(), Some(blobs.len() as u64), Unit::Blobs);
        let mut deleted = Deleted::default();
        // The index lane's deletions are steps of their own, not items of the plan.
        let counts = stage != Stage::Index;
        let mut rest = blobs;
        while !rest.is_empty() {
            // The store may have shown with the batch before that it takes no lists.
            let (batch, later) = rest.split_at(self.at_once().min(rest.len()));
            rest = later;
            let digest = digest_of_names(batch.iter().map(|deletion| &deletion.blob));
            let items = if counts { batch.len() as u64 } else { 0 };
            let done = &mut deleted;
            self.batch(stage, items, digest, |deeds, approved| {
                // What index blobs and logs stand for is nothing that a snapshot needs.
                if matches!(stage, Stage::Delete | Stage::DeleteRewritten) {
                    deeds.revive_newcomers(approved)?;
                }
                let effect = deeds.delete_batch(approved, batch, done)?;
                Ok(if counts { effect } else { Effect::default() })
            })?;
            meter.add(batch.len() as u64);
        }
        Ok(deleted)
    }

    /// Blobs of one batch: what the store takes within seconds of the look at what changed.
    fn at_once(&self) -> usize {
        let able = self.guard.repository().storage().capabilities();
        let allowed = able.delete_batch_max.saturating_mul(self.workspace.parallel);
        let most = if able.delete_batch_max > 1 { able.delete_at_once.min(allowed) } else { able.delete_at_once };
        most.max(1)
    }

    /// Asks the store. An ambiguous answer is asked again as long as there is time: deleting what is gone already does nothing.
    fn ask(&self, wanted: &[BlobId], approved: &Approved) -> DeleteReport {
        let (storage, clock) = (self.guard.repository().storage(), self.workspace.repository.clock());
        let not_after = Some(approved.deadline.since_boot());
        let mut report = storage.delete(wanted, not_after);
        for pause in PAUSES {
            let is_over = |(_, error): &(BlobId, Error)| !error.is_retryable();
            if report.failed.iter().all(is_over) || approved.deadline.left(&**clock) <= pause {
                break;
            }
            clock.sleep(pause);
            // The store looks at one clock alone, and a machine may have slept longer than it was told to.
            if approved.deadline.left(&**clock).is_zero() && !mutant::on(Mutant::R2PauseTrusted) {
                break;
            }
            let (over, unknown): (Vec<_>, Vec<_>) = report.failed.drain(..).partition(is_over);
            report.failed = over;
            let unknown: Vec<BlobId> = unknown.into_iter().map(|(blob, _)| blob).collect();
            report.extend(storage.delete(&unknown, not_after));
        }
        report
    }

    fn delete_batch(&mut self, approved: &Approved, batch: &[Deletion], deleted: &mut Deleted) -> Result<Effect> {
        let mut effect = Effect::default();
        let mut wanted = Vec::with_capacity(batch.len());
        for deletion in batch {
            if self.guard.is_kept(&deletion.blob) && !mutant::on(Mutant::R1NamedPackDeleted) {
                effect.left_out += 1;
                deleted.left.push((deletion.blob.clone(), "an index entry names it again".to_owned()));
                continue;
            }
            self.evidence.note(rule_name(deletion.rule), deletion.blob.as_str());
            wanted.push(deletion.blob.clone());
        }
        self.keep_evidence(approved.batch)?;
        let report = self.ask(&wanted, approved);
        let lengths: std::collections::HashMap<&BlobId, u64> = batch.iter().map(|d| (&d.blob, d.length)).collect();
        for blob in &report.deleted {
            effect.changed += 1;
            effect.bytes += lengths.get(blob).copied().unwrap_or(0);
        }
        deleted.count += effect.changed;
        deleted.bytes += effect.bytes;
        for (blob, error) in report.failed {
            match error.kind() {
                ErrorKind::Permission | ErrorKind::Unsupported | ErrorKind::PreconditionFailed => {
                    effect.left_out += 1;
                    let bytes = lengths.get(&blob).copied().unwrap_or(0);
                    self.guard.refused(Refused { blob: blob.clone(), bytes, why: error.chain() });
                    deleted.left.push((blob, error.chain()));
                }
                _ => return Err(error.at(format!("delete {blob}"))),
            }
        }
        Ok(effect)
    }
}

/// The rule's name in evidence and reports.
#[must_use]
pub fn rule_name(rule: DeleteRule) -> &'static str {
    match rule {
        DeleteRule::UnreferencedPack => "unreferenced-pack",
        DeleteRule::ExpiredSession => "expired-session",
        DeleteRule::RewrittenPack => "rewritten-pack",
        DeleteRule::SupersededIndex => "superseded-index",
        DeleteRule::OldMarker => "old-marker",
        DeleteRule::Log => "log",
    }
}
