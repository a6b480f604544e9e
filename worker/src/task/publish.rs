//! The only place where something becomes visible: marks, revivals and moved contents enter the index, batch by batch.
//!
//! Right before each write the entries are joined with every index blob that appeared since the plan's view (R1): whose winner
//! changed is left out, and so is what a newer snapshot needs.

use verger_kopia::Result;
use verger_kopia::content::Entry;
use verger_kopia::index_set::write::write_index_set;
use verger_kopia::maintenance::rules::gc;
use verger_kopia::mutant::{self, Mutant};
use verger_kopia::session::SessionId;
use verger_proto::Digest;
use verger_proto::stage::Stage;

use super::deed::{Approved, Deeds, Effect};
use crate::limit::MemoryLimit;
use crate::progress::{Meter, Unit};

/// Entries of one batch at most: about 4 MB of index, a few seconds on a slow link; Kopia's own GC flushes as often.
const BATCH_MAX: u64 = 100_000;

/// What an entry takes on its way: itself, its name in the evidence, its bytes in the index blob, twice.
const ENTRY_BYTES: u64 = 512;

/// Entries of one batch, within the memory limit.
#[must_use]
pub fn batch_entries(memory: &MemoryLimit) -> usize {
    usize::try_from((memory.buffers() / ENTRY_BYTES).min(BATCH_MAX)).unwrap_or(usize::MAX).max(1)
}

/// What is published.
pub struct Publication<'a> {
    /// Stage it belongs to.
    pub stage: Stage,
    /// Why, for the evidence.
    pub rule: &'static str,
    /// Names the index blobs.
    pub session: &'a SessionId,
    /// Marks get their time at the write: max(now, old + 1). Moved contents keep theirs.
    pub stamp: bool,
}

/// What was left out of a publication, so that its packs stay.
#[derive(Debug, Default)]
pub struct Published {
    /// Totals of all batches.
    pub effect: Effect,
    /// Entries that did not enter the index.
    pub left: Vec<Entry>,
}

impl Deeds<'_> {
    /// Publishes entries whose packs are durable. `entries` yields them in order; they are taken a batch at a time.
    ///
    /// # Errors
    /// What [`Deeds::batch`] says; those of the index writers.
    pub fn publish(
        &mut self,
        publication: &Publication<'_>,
        total: u64,
        entries: impl Iterator<Item = Entry>,
    ) -> Result<Published> {
        let meter = Meter::start(&*self.workspace.progress, publication.stage.name(), Some(total), Unit::Contents);
        let mut entries = entries.peekable();
        let mut published = Published::default();
        let most = batch_entries(&self.workspace.memory);
        while entries.peek().is_some() {
            let batch: Vec<Entry> = entries.by_ref().take(most).collect();
            let items = batch.len() as u64;
            let digest = digest(&batch);
            let done = &mut published;
            let write = |deeds: &mut Self, approved: &Approved| deeds.write(publication, approved, batch, done);
            let effect = self.batch(publication.stage, items, digest, write)?;
            published.effect.changed += effect.changed;
            published.effect.left_out += effect.left_out;
            published.effect.bytes += effect.bytes;
            meter.add(items);
        }
        Ok(published)
    }

    fn write(
        &mut self,
        publication: &Publication<'_>,
        approved: &Approved,
        batch: Vec<Entry>,
        published: &mut Published,
    ) -> Result<Effect> {
        let now = approved.store_now.as_second();
        let mut effect = Effect::default();
        let mut write = batch;
        // In place: there is one list of them, not two.
        write.retain_mut(|entry| {
            let moved_anyway = !publication.stamp && mutant::on(Mutant::I8ChangedWinnerMoved);
            if self.guard.is_protected(&entry.id) && !moved_anyway {
                effect.left_out += 1;
                self.guard.keep_pack(entry.pack.clone());
                published.left.push(entry.clone());
                return false;
            }
            if publication.stamp {
                entry.timestamp = gc::stamp(now, entry.timestamp);
                self.guard.marked(&entry.id, entry.timestamp);
            }
            effect.changed += 1;
            effect.bytes += u64::from(entry.packed_length);
            self.evidence.note(publication.rule, entry.id.to_string());
            true
        });
        self.keep_evidence(approved.batch)?;
        if !write.is_empty() {
            let not_after = Some(approved.deadline.since_boot());
            let session = publication.session.as_str();
            let blobs = write_index_set(self.guard.repository(), write, session, not_after)?;
            self.guard.wrote(blobs);
        }
        Ok(effect)
    }
}

/// Digest of what a batch does, so that a second look is at the same batch.
fn digest(batch: &[Entry]) -> Digest {
    let mut bytes = Vec::with_capacity(batch.len() * 24);
    for entry in batch {
        entry.id.write_key(&mut bytes);
        bytes.push(u8::from(entry.deleted));
    }
    Digest::of(&bytes)
}
