//! The only place where blobs are deleted, batch by batch, each looked at again right before (R14).

use verger_kopia::maintenance::rules::plan::{DeleteRule, Deletion};
use verger_kopia::mutant::{self, Mutant};
use verger_kopia::storage::BlobId;
use verger_kopia::{ErrorKind, Result};
use verger_proto::stage::Stage;

use super::deed::{Approved, Deeds, Effect, digest_of_names};
use super::guard::Refused;
use crate::progress::{Meter, Unit};

/// Blobs of one batch: what one S3 request takes.
const BATCH: usize = 1000;

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
        for batch in blobs.chunks(BATCH) {
            let digest = digest_of_names(batch.iter().map(|deletion| &deletion.blob));
            let items = if counts { batch.len() as u64 } else { 0 };
            let done = &mut deleted;
            self.batch(stage, items, digest, |deeds, approved| {
                // What index blobs and logs stand for is nothing that a snapshot needs.
                if matches!(stage, Stage::Delete | Stage::DeleteRewritten) {
                    deeds.revive_newcomers(approved)?;
                }
                let effect = deeds.delete_batch(stage, approved, batch, done)?;
                Ok(if counts { effect } else { Effect::default() })
            })?;
            meter.add(batch.len() as u64);
        }
        Ok(deleted)
    }

    fn delete_batch(
        &mut self,
        stage: Stage,
        approved: &Approved,
        batch: &[Deletion],
        deleted: &mut Deleted,
    ) -> Result<Effect> {
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
        let storage = self.guard.repository().storage().clone();
        let mut report = storage.delete(&wanted, Some(approved.deadline.since_boot()));
        let unknown: Vec<BlobId> =
            report.failed.iter().filter(|(_, e)| e.is_retryable()).map(|(blob, _)| blob.clone()).collect();
        if !unknown.is_empty() {
            // An ambiguous answer is looked at again: deleting what is gone already does nothing.
            approved.deadline.check(&**self.workspace.repository.clock(), stage.name())?;
            let again = storage.delete(&unknown, Some(approved.deadline.since_boot()));
            report.failed.retain(|(_, e)| !e.is_retryable());
            report.deleted.extend(again.deleted);
            report.failed.extend(again.failed);
        }
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
