//! Extends object locks (`repo/maintenance/blob_retain.go`): all are tried, failures are counted, then the task fails.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use verger_kopia::clock::Timestamp;
use verger_kopia::maintenance::rules::plan::LocksPlan;
use verger_kopia::storage::Retention;
use verger_kopia::{Error, Result};
use verger_proto::stage::Stage;

use super::deed::{Deeds, Effect, digest_of_names};
use crate::progress::{Meter, Unit};

/// Blobs of one batch.
const BATCH: usize = 2000;

impl Deeds<'_> {
    /// Extends; how many were.
    ///
    /// # Errors
    /// The first failure, after all were tried, with the count; what [`Deeds::batch`] says.
    pub fn extend_locks(&mut self, plan: &LocksPlan) -> Result<u64> {
        let meter =
            Meter::start(&*self.workspace.progress, Stage::Locks.name(), Some(plan.blobs.len() as u64), Unit::Blobs);
        let mut extended = 0;
        for blobs in plan.blobs.chunks(BATCH) {
            let digest = digest_of_names(blobs);
            let effect = self.batch(Stage::Locks, blobs.len() as u64, digest, |deeds, approved| {
                let until = approved.store_now.checked_add(plan.period).unwrap_or(Timestamp::MAX);
                let retention = Retention { mode: plan.mode, until };
                let storage = deeds.guard.repository().storage();
                let next = AtomicUsize::new(0);
                let failures: Mutex<Vec<Error>> = Mutex::default();
                std::thread::scope(|scope| {
                    for _ in 0..deeds.workspace.parallel.max(1) {
                        scope.spawn(|| {
                            while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                                if let Err(e) = storage.extend_retention(blob, retention) {
                                    failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(e);
                                }
                                meter.add(1);
                            }
                        });
                    }
                });
                let mut failures = failures.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
                let count = failures.len();
                match failures.pop() {
                    Some(error) => Err(error.at(format!("extend object locks: {count} of {} failed", blobs.len()))),
                    None => Ok(Effect { changed: blobs.len() as u64, ..Effect::default() }),
                }
            })?;
            extended += effect.changed;
        }
        Ok(extended)
    }
}
