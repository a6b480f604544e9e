//! The look before a batch (R1, R14, R22): who owns the repository, is it locked, what did clients write since the plan's view.
//!
//! The plan stays; what changed is left out of it. A content with any newer entry is not touched, a pack that a newer entry names
//! is not deleted, and what a newer snapshot needs is kept or revived.

use std::collections::BTreeSet;
use std::sync::Arc;
use verger_kopia::mutant::{self, Mutant};

use verger_kopia::clock::Timestamp;
use verger_kopia::content::{ContentId, Entry};
use verger_kopia::format::{BLOB_CONFIG_BLOB, FORMAT_BLOB, RepositoryConfig};
use verger_kopia::index_set::view::{Delta, Seen};
use verger_kopia::index_set::{IndexView, list_active};
use verger_kopia::storage::{BlobId, BlobMetadata, list_all};
use verger_kopia::{Error, ErrorKind, Repository, Result};
use verger_proto::job::ViewRef;

use super::deed::view_ref;
use super::marks::Marks;
use super::newcomers;
use super::record::ScheduleFile;
use super::solve::Used;
use crate::workspace::Workspace;

/// What a look found.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// The store's time before looking.
    pub store_now: Timestamp,
    /// The view that batches may be approved with now.
    pub view: ViewRef,
}

/// A blob that the store does not let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Which.
    pub blob: BlobId,
    /// Its length.
    pub bytes: u64,
    /// What the store says.
    pub why: String,
}

/// What is to be left alone, and why it grew since the plan was sealed.
pub struct Guard {
    repository: Repository,
    /// `kopia.repository` and `kopia.blobcfg` as last seen, before the repository's format was read; none: not seen.
    format: Vec<BlobMetadata>,
    /// The view of the plan.
    view: Arc<IndexView>,
    /// Active index blobs: the view's, and what was looked at or written since.
    seen: Seen,
    used: Option<Arc<Used>>,
    manifests: BTreeSet<String>,
    /// Newest entry of each content that has one newer than the view.
    newer: std::collections::BTreeMap<ContentId, Entry>,
    /// Contents that newer snapshots need.
    needed: BTreeSet<ContentId>,
    packs: BTreeSet<BlobId>,
    digest: String,
    /// Marks that this cycle wrote.
    marks: Marks,
    /// Endangered contents that are live again.
    revived: BTreeSet<ContentId>,
    write_epoch: Option<u64>,
    refused: Vec<Refused>,
}

impl Guard {
    /// Guards the plan that was made from `view`. `used`: what its snapshots need (full cycles); `manifests`: IDs of all its manifests.
    #[must_use]
    pub fn new(
        repository: Repository,
        view: Arc<IndexView>,
        used: Option<Arc<Used>>,
        manifests: BTreeSet<String>,
    ) -> Self {
        let digest = view.digest();
        let seen = view.seen();
        Self {
            repository,
            format: Vec::new(),
            view,
            seen,
            used,
            manifests,
            newer: std::collections::BTreeMap::new(),
            needed: BTreeSet::new(),
            packs: BTreeSet::new(),
            digest,
            marks: Marks::default(),
            revived: BTreeSet::new(),
            write_epoch: None,
            refused: Vec::new(),
        }
    }

    /// What a listing of `kopia.` said before the repository's format was read last: as long as a look finds the same, it is not
    /// read again.
    #[must_use]
    pub fn knowing(mut self, listed: &[BlobMetadata]) -> Self {
        self.format = formats(listed);
        self
    }

    /// The view of the plan.
    #[must_use]
    pub fn view(&self) -> &IndexView {
        &self.view
    }

    /// Digest of the plan's view.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The repository, its format read anew whenever `kopia.repository` changed.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Looks. Nothing is read where nothing changed: one listing of `kopia.` and one of the index blobs.
    ///
    /// # Errors
    /// `ForeignMaintenance` if somebody else wrote `kopia.maintenance` or compacted the view's index blobs; `UpgradeInProgress`
    /// and others of the format; damage that newer entries or snapshots show; storage errors.
    pub fn look(&mut self, workspace: &Workspace, schedule: &ScheduleFile) -> Result<Look> {
        let store_now = self.repository.storage().now()?;
        let blind = mutant::on(Mutant::R1NoSecondLook) || mutant::on(Mutant::R27LooksOnce) && !self.format.is_empty();
        let (repository, seen) = (&self.repository, &self.seen);
        let (blobs, delta) = std::thread::scope(|scope| {
            let blobs = scope.spawn(|| list_all(&**repository.storage(), "kopia."));
            let delta = seen.newer(repository, workspace.threads);
            (blobs.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), delta)
        });
        let blobs = blobs?;
        schedule.check(blobs.iter().find(|blob| blob.id.as_str() == "kopia.maintenance"))?;
        let format = formats(&blobs);
        let is_news = self.format != format && !mutant::on(Mutant::I1UpgradeMissed);
        if is_news || format.is_empty() || self.format.is_empty() {
            let fresh = self.repository.refresh()?;
            check_same_index(self.repository.config(), fresh.config())?;
            self.repository = fresh;
        }
        self.format = format;
        if let Some(delta) = delta?.filter(|_| !blind) {
            self.take_in(workspace, delta)?;
        }
        Ok(Look { store_now, view: view_ref(&self.digest, store_now) })
    }

    fn take_in(&mut self, workspace: &Workspace, delta: Delta) -> Result<()> {
        let is_heard = !mutant::on(Mutant::R22ForeignIndexWorkIgnored);
        if let Some(gone) = delta.gone.first().filter(|_| is_heard) {
            let step =
                format!("index blob {gone} of this cycle's view is gone: another maintainer compacted the index");
            return Err(Error::new(ErrorKind::ForeignMaintenance, step)
                .with_fix("Find out who maintains this repository, then run again; nothing is lost"));
        }
        if delta.watermark > self.seen.watermark && is_heard {
            let step = format!("another maintainer moved the deletion watermark to {:?}", delta.watermark);
            return Err(Error::new(ErrorKind::ForeignMaintenance, step));
        }
        let mut manifests = Vec::new();
        for entry in delta.entries {
            self.packs.insert(entry.pack.clone());
            if entry.id.prefix() == b'm' && !entry.deleted {
                manifests.push(entry.clone());
            }
            match self.newer.entry(entry.id) {
                std::collections::btree_map::Entry::Vacant(slot) => drop(slot.insert(entry)),
                std::collections::btree_map::Entry::Occupied(mut slot) if entry.beats(slot.get()) => {
                    drop(slot.insert(entry))
                }
                std::collections::btree_map::Entry::Occupied(_) => {}
            }
        }
        if !manifests.is_empty() && !mutant::on(Mutant::R14NewcomersNotWalked) {
            let found = newcomers::needs(workspace, &self.repository, self, &manifests)?;
            check_owner(workspace, found.owner.as_deref())?;
            if let Some(id) = found.contents.iter().find(|id| self.current(id).is_none()) {
                let step =
                    format!("content {id}, which a newer snapshot needs, has no index entry: an index may be lost");
                return Err(Error::damaged(step).with_fix("Run again; nothing is deleted until it is found"));
            }
            self.manifests.extend(found.manifests);
            self.needed.extend(found.contents);
        }
        // Last: what could not be read whole is not seen, and the next look comes back to it.
        self.add_blobs(delta.blobs);
        Ok(())
    }

    /// The entry that readers see now, before any mark of this cycle: the newer one, or the view's.
    #[must_use]
    pub fn current(&self, id: &ContentId) -> Option<Entry> {
        let row = self.view.table.find(id).map(|row| self.view.table.entry(row));
        match (row, self.newer.get(id)) {
            (Some(row), Some(newer)) => Some(if newer.beats(&row) { newer.clone() } else { row }),
            (row, newer) => row.or_else(|| newer.cloned()),
        }
    }

    /// Whether a row must be left alone: it has a newer entry, or a newer snapshot needs it.
    #[must_use]
    pub fn is_protected(&self, id: &ContentId) -> bool {
        self.newer.contains_key(id) || self.needed.contains(id)
    }

    /// Contents that newer snapshots need and that a mark, of this cycle or before it, would take away.
    pub fn endangered(&self) -> impl Iterator<Item = ContentId> + '_ {
        let table = &self.view.table;
        self.needed.iter().copied().filter(move |id| {
            let newest_is_live = self.newer.get(id).is_some_and(|newer| !newer.deleted);
            let marked = |row| table.is_deleted(row) || self.marks.time(row).is_some();
            !newest_is_live && !self.revived.contains(id) && table.find(id).is_some_and(marked)
        })
    }

    /// Notes contents that are live again, in new packs.
    pub fn revived(&mut self, ids: impl IntoIterator<Item = ContentId>) {
        self.revived.extend(ids);
    }

    /// Notes a mark that this cycle wrote.
    pub fn marked(&mut self, id: &ContentId, time: i64) {
        if let Some(row) = self.view.table.find(id) {
            self.marks.add(row, time);
        }
    }

    /// Time of a row's mark: this cycle's, or the view's; `None` if it is live.
    #[must_use]
    pub fn mark_time(&self, row: u32) -> Option<i64> {
        let old = || self.view.table.is_deleted(row).then(|| self.view.table.timestamp(row));
        self.marks.time(row).or_else(old)
    }

    /// IDs of the manifests that were seen.
    #[must_use]
    pub fn manifests(&self) -> &BTreeSet<String> {
        &self.manifests
    }

    /// What the plan's snapshots need; `None` in quick cycles.
    #[must_use]
    pub fn used(&self) -> Option<&Used> {
        self.used.as_deref()
    }

    /// Keeps a pack from being deleted in this cycle.
    pub fn keep_pack(&mut self, pack: BlobId) {
        self.packs.insert(pack);
    }

    /// Notes a blob that the store does not let go.
    pub fn refused(&mut self, refused: Refused) {
        self.refused.push(refused);
    }

    /// Blobs that the store did not let go, since the last time.
    pub fn take_refused(&mut self) -> Vec<Refused> {
        std::mem::take(&mut self.refused)
    }

    /// Whether a blob must not be deleted in this cycle.
    #[must_use]
    pub fn is_kept(&self, blob: &BlobId) -> bool {
        self.packs.contains(blob)
    }

    /// Takes in index blobs that this cycle wrote, so that they are not taken for somebody else's. Only their names count.
    pub fn wrote(&mut self, blobs: Vec<BlobId>) {
        let timestamp = self.repository.clock().now();
        self.add_blobs(blobs.into_iter().map(|id| BlobMetadata { id, length: 0, timestamp, etag: None }).collect());
    }

    fn add_blobs(&mut self, blobs: Vec<BlobMetadata>) {
        self.seen.blobs.extend(blobs);
        self.seen.blobs.sort_by(|a, b| a.id.cmp(&b.id));
    }

    /// The active index blobs, listed anew, right after a look found nothing gone: for a compaction that takes all of them.
    ///
    /// # Errors
    /// `ForeignMaintenance` if they are not those of the last look any more; storage errors.
    pub fn all_active(&self) -> Result<Vec<BlobMetadata>> {
        let active = list_active(&self.repository)?;
        let same = active.blobs.len() == self.seen.blobs.len()
            && active.blobs.iter().zip(&self.seen.blobs).all(|(now, seen)| now.id == seen.id);
        if same || mutant::on(Mutant::R14UnseenInCompaction) {
            return Ok(active.blobs);
        }
        Err(Error::new(ErrorKind::ForeignMaintenance, "the index changed right before its compaction")
            .with_fix("Run again; nothing was changed"))
    }

    /// Notes a compaction of this cycle: `inputs` are not active any more, `outputs` are, and hold nothing new. What others wrote
    /// meanwhile stays unseen, so that the next look reads it (R14).
    pub fn compacted(&mut self, inputs: &[BlobId], outputs: &[BlobId]) {
        let gone: BTreeSet<&BlobId> = inputs.iter().collect();
        self.seen.blobs.retain(|blob| !gone.contains(&blob.id));
        self.wrote(outputs.to_vec());
    }

    /// Notes that this cycle began an epoch.
    pub fn advanced(&mut self, epoch: u64) {
        self.write_epoch = Some(epoch);
    }

    /// The watermark now.
    #[must_use]
    pub fn watermark(&self) -> Option<i64> {
        self.seen.watermark
    }

    /// The write epoch, as last seen.
    #[must_use]
    pub fn write_epoch(&self) -> Option<u64> {
        self.write_epoch.or(self.view.write_epoch)
    }

    /// Notes the watermark that this cycle wrote.
    pub fn moved_watermark(&mut self, seconds: i64) {
        self.seen.watermark = Some(self.seen.watermark.unwrap_or(i64::MIN).max(seconds));
    }
}

/// Those of a listing that say how everything else is read.
fn formats(listed: &[BlobMetadata]) -> Vec<BlobMetadata> {
    listed.iter().filter(|blob| matches!(blob.id.as_str(), FORMAT_BLOB | BLOB_CONFIG_BLOB)).cloned().collect()
}

/// Kopia checks the owner once, at entry; whoever became it may run any moment (R22).
fn check_owner(workspace: &Workspace, owner: Option<&str>) -> Result<()> {
    match owner.filter(|owner| *owner != workspace.identity && !mutant::on(Mutant::R22NewOwnerIgnored)) {
        None => Ok(()),
        Some(owner) => Err(Error::new(ErrorKind::ForeignMaintenance, format!("{owner} became the maintenance owner"))
            .with_fix("Ask who did that; nothing more is changed in its place")),
    }
}

/// An upgrade that is over already changes where index entries are looked for.
fn check_same_index(known: &RepositoryConfig, now: &RepositoryConfig) -> Result<()> {
    let same = (known.epoch.enabled, known.version, known.index_version)
        == (now.epoch.enabled, now.version, now.index_version);
    if same {
        return Ok(());
    }
    Err(Error::new(ErrorKind::UpgradeInProgress, "the repository's format was upgraded during this cycle")
        .with_fix("Run again; nothing is lost"))
}
