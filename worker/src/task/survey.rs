//! What there is: one view of the index, the manifests in it, the snapshots, and every blob. The facts all later stages share.

use std::sync::Arc;
use verger_kopia::mutant::{self, Mutant};

use serde::Deserialize;
use verger_kopia::Repository;
use verger_kopia::clock::Timestamp;
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_kopia::index_set::names::LEGACY_CLEANUP;
use verger_kopia::index_set::{ActiveSet, IndexView, list_active, load_view, load_view_aside};
use verger_kopia::maintenance::margins::CLOCK_SKEW_MAX;
use verger_kopia::maintenance::params::{MANIFEST_TYPE, Params};
use verger_kopia::maintenance::schedule;
use verger_kopia::manifest::{Manifest, ManifestSet};
use verger_kopia::object::ObjectId;
use verger_kopia::session::{Sessions, read_sessions};
use verger_kopia::spill::SpillFile;
use verger_kopia::storage::BlobMetadata;
use verger_kopia::strict::Object;

use super::summary::Role;
use crate::limit::{self, Estimate};
use crate::progress::{Meter, Unit};
use crate::workspace::Workspace;

/// Blobs listed between two words about it.
const LISTING_STEP: u64 = 1_000;

/// What the scan holds of a content with a prefix: its place in the order of reading, and where its summary is.
const DIRECTORY_BYTES: u64 = 12;

impl Survey {
    /// A file for the summaries of `rows` contents, if they might not fit memory beside what is there.
    ///
    /// # Errors
    /// `MemoryLimit` if even the list of them does not fit; `DiskFull`, `Permission`.
    pub fn put_summaries_aside(&self, workspace: &Workspace, rows: u64) -> Result<Option<SpillFile>> {
        let table = &self.view.table;
        let limit = workspace.memory.bytes();
        let lists = rows.saturating_mul(DIRECTORY_BYTES);
        self.estimate.check_lists(&workspace.memory, lists, 1, "the list of directories")?;
        let taken = limit::BASE_BYTES + limit::BUFFERS_BYTES_MIN + table.memory() + self.estimate.rest;
        if taken.saturating_add(self.estimate.summaries) <= limit {
            return Ok(None);
        }
        workspace.spill.file().map(Some)
    }
}

/// When the cycle began, by the storage's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The storage's timestamp of `kopia.maintenance` after the cycle's first write to it.
    Recorded(Timestamp),
    /// Nothing was written and nothing will be: now.
    DryRun,
}

/// Where a snapshot begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// ID of the snapshot's manifest.
    pub snapshot: String,
    /// A directory, or a single file.
    pub role: Role,
    /// Its object.
    pub object: ObjectId,
}

/// Something that names what to keep and cannot be read: it may protect any content (R11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// `snapshot <id>` or `manifest content <id>`.
    pub what: String,
    /// Why, the whole chain.
    pub error: String,
}

/// Every blob of the store within reach, by kind.
#[derive(Debug, Default)]
pub struct Listing {
    /// `p…`, `q…` and session markers `s…`, sorted by name. Without ETags: there may be millions.
    pub packs: Vec<BlobMetadata>,
    /// `x…`, `n…`, `m…`, `l…`, sorted by name.
    pub indexes: Vec<BlobMetadata>,
    /// `_log_…`, sorted by name.
    pub logs: Vec<BlobMetadata>,
    /// `kopia.…`, sorted by name.
    pub format: Vec<BlobMetadata>,
    /// Anything else (`verger.…`, blobs of others), sorted by name.
    pub others: Vec<BlobMetadata>,
}

impl Listing {
    /// Clean-up notes of the legacy index (`l…`).
    #[must_use]
    pub fn cleanups(&self) -> Vec<BlobMetadata> {
        self.indexes.iter().filter(|blob| blob.id.as_str().starts_with(LEGACY_CLEANUP)).cloned().collect()
    }
}

/// The facts of one moment.
pub struct Survey {
    /// The repository with its format read anew.
    pub repository: Repository,
    /// When the cycle began, by the storage's clock: ages are taken against this and nothing later (R10).
    pub started: Timestamp,
    /// What a table, its summaries and buffers need.
    pub estimate: Estimate,
    /// Every blob within reach, listed before the view was taken: a pack that is listed and old has its entries in the view.
    pub listing: Listing,
    /// One view of the index, taken after the start.
    pub view: Arc<IndexView>,
    /// The manifests of that view.
    pub manifests: ManifestSet,
    /// All snapshots of that view, incomplete ones too.
    pub roots: Vec<Root>,
    /// Manifests and snapshots that cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// Session markers, read before the view was taken.
    pub sessions: Sessions,
    /// Parameters: owner, intervals, log retention.
    pub params: Params,
    /// Next times and history.
    pub schedule: schedule::Loaded,
}

/// What must be known before the first write: whose the repository is, and how often its cycles run.
pub struct Ahead {
    /// The view that it was read from; good for the survey if the index does not change until then. To be taken out: whoever keeps it
    /// keeps the table.
    pub view: Option<Arc<IndexView>>,
    /// The manifests of that view.
    pub manifests: ManifestSet,
    /// Parameters: owner, intervals, log retention.
    pub params: Params,
}

/// Looks before anything is written. `earlier`: a view of a moment ago.
///
/// # Errors
/// As [`survey`].
pub fn look_ahead(workspace: &Workspace, earlier: Option<Arc<IndexView>>) -> Result<Ahead> {
    let repository = &workspace.repository;
    let view = match earlier {
        Some(view) => view,
        None => Arc::new(read_view(workspace, repository, &list_active(repository)?)?),
    };
    let manifests = ManifestSet::load(repository, &view)?;
    let params = params(&manifests)?;
    Ok(Ahead { view: Some(view), manifests, params })
}

/// The parameters. Unreadable is not absent: without them the owner would be nobody, though only the word is lost.
fn params(manifests: &ManifestSet) -> Result<Params> {
    let known = manifests.of_type(MANIFEST_TYPE).next().is_some();
    match manifests.unreadable.first() {
        Some((content, error)) if !known => {
            let step = format!("read the maintenance parameters: no manifest has them, and {content} cannot be read");
            let fix = format!(
                "Restore the pack of {content} from a copy; or give it up, with all manifests in it (`verger snapshot abandon \
                 --manifest-content {content}`), and then say who maintains (--take-ownership)"
            );
            Err(Error::damaged(format!("{step} ({})", error.chain())).with_fix(fix))
        }
        _ => Params::load(manifests),
    }
}

/// A view taken now: the earlier one, if the index is still what it was (R10: the same names say the same), else read anew.
fn view(
    workspace: &Workspace,
    repository: &Repository,
    active: &ActiveSet,
    earlier: Option<Arc<IndexView>>,
) -> Result<Arc<IndexView>> {
    if let Some(earlier) = earlier.filter(|earlier| active.digest() == earlier.digest()) {
        return Ok(earlier);
    }
    Ok(Arc::new(read_view(workspace, repository, active)?))
}

/// Reads the index within the memory limit. `active`: what to expect.
///
/// # Errors
/// `MemoryLimit`, before anything is read; as [`load_view`].
pub fn read_view(workspace: &Workspace, repository: &Repository, active: &ActiveSet) -> Result<IndexView> {
    let blobs = active.blobs.len() as u64;
    let estimate = Estimate::new(total(&active.blobs), 0, blobs, repository.hasher().length());
    match estimate.fit(&workspace.memory, &workspace.spill, workspace.parallel)? {
        None => load_view(repository, workspace.threads),
        Some(aside) => load_view_aside(repository, workspace.threads, &aside),
    }
}

/// How far a survey looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Every blob.
    All,
    /// The index and the format alone: packs, markers and logs are not even listed.
    Index,
}

impl Reach {
    /// What is listed, by the beginnings of names.
    fn prefixes(self, repository: &Repository) -> &'static [&'static str] {
        match self {
            Self::All => &[""],
            Self::Index if repository.config().epoch.enabled => &["x", "kopia."],
            Self::Index => &["n", "m", "l", "kopia."],
        }
    }
}

/// Takes stock. `earlier`: a view from before the start, used again if the index did not change.
///
/// # Errors
/// `Clock` if this machine and the storage disagree by more than five minutes; `MemoryLimit`; `UpgradeInProgress`; `Damaged` if an
/// index blob cannot be read (R11), the parameters or the schedule cannot; storage errors; `Interrupted`.
pub fn survey(workspace: &Workspace, reach: Reach, start: Start, earlier: Option<Arc<IndexView>>) -> Result<Survey> {
    let repository = workspace.repository.refresh()?;
    let storage_now = repository.storage().now()?;
    check_clock(storage_now, repository.clock().now())?;
    let started = match start {
        Start::Recorded(at) => at,
        Start::DryRun => storage_now,
    };
    let listing = list(workspace, &repository, reach)?;
    let metadata = total(listing.packs.iter().filter(|blob| blob.id.as_str().starts_with('q')));
    // Before the view: a session that ends in between has published its entries, and the view sees them. The other way round
    // its old packs would look like orphans that nobody protects.
    let markers = listing.packs.iter().filter(|blob| blob.id.as_str().starts_with('s')).cloned().collect();
    let sessions = read_sessions(&repository, markers)?;
    workspace.stop.check()?;
    let older = earlier.clone().filter(|_| mutant::on(Mutant::R10ManifestsOfOlderView));
    let active = list_active(&repository)?;
    let blobs = listing.packs.len() + listing.indexes.len() + listing.logs.len() + listing.others.len();
    let estimate = Estimate::new(total(&active.blobs), metadata, blobs as u64, repository.hasher().length());
    estimate.fit(&workspace.memory, &workspace.spill, workspace.parallel)?;
    let view = view(workspace, &repository, &active, earlier)?;
    workspace.memory.keep(view.table.memory().saturating_add(estimate.rest));
    workspace.stop.check()?;
    let mut manifests = ManifestSet::load(&repository, older.as_ref().unwrap_or(&view))?;
    if mutant::on(Mutant::R11UnreadableManifestIsAbsent) {
        manifests.unreadable.clear();
    }
    let (roots, mut unreadable) = roots(&manifests);
    unreadable.extend(
        manifests
            .unreadable
            .iter()
            .map(|(content, error)| Unreadable { what: format!("manifest content {content}"), error: error.chain() }),
    );
    unreadable.extend(watermark_ahead(&view, storage_now.min(repository.clock().now())));
    let params = params(&manifests)?;
    let schedule = schedule::load(&repository)?;
    Ok(Survey {
        repository,
        started,
        estimate,
        listing,
        view,
        manifests,
        roots,
        unreadable,
        sessions,
        params,
        schedule,
    })
}

/// A watermark hides every mark at or below it. One that lies ahead, from a clock that was, would take from a new mark the whole
/// time in which it can be taken back (R15); it cannot be moved back.
fn watermark_ahead(view: &IndexView, now: Timestamp) -> Option<Unreadable> {
    let seconds = view.watermark.filter(|seconds| *seconds > now.as_second())?;
    let until = Timestamp::from_second(seconds).map_or_else(|_| "the end of time".to_owned(), |at| at.to_string());
    let error = format!(
        "it lies ahead of the clocks, at {until}: what is marked before that would be forgotten at once, so nothing is marked. If \
         no maintainer's clock was right, delete it (`kopia blob delete xw{seconds}`)"
    );
    Some(Unreadable { what: format!("deletion watermark xw{seconds}"), error })
}

/// Refuses clocks that disagree by more than five minutes (`repo/maintenance/maintenance_run.go`).
///
/// # Errors
/// `Clock`, with the offset.
pub fn check_clock(storage: Timestamp, local: Timestamp) -> Result<()> {
    let skew = storage.duration_since(local).unsigned_abs();
    if skew <= CLOCK_SKEW_MAX || mutant::on(Mutant::R10AnyClock) {
        return Ok(());
    }
    let step = format!(
        "this machine's clock ({local}) and the storage's ({storage}) disagree by {} minutes; more than 5 is unsafe, \
         because ages decide what may go",
        skew.as_secs() / 60
    );
    Err(Error::new(ErrorKind::Clock, step).with_fix("set the clock of this machine (NTP), then run it again"))
}

fn list(workspace: &Workspace, repository: &Repository, reach: Reach) -> Result<Listing> {
    let meter = Meter::start(&*workspace.progress, "survey", None, Unit::Blobs);
    let mut listing = Listing::default();
    let mut count = 0;
    let mut sort = |mut blob: BlobMetadata| {
        count += 1;
        if count % LISTING_STEP == 0 {
            meter.add(LISTING_STEP);
            workspace.stop.check()?;
        }
        let name = blob.id.as_str();
        let list = match name.as_bytes() {
            [b'p' | b'q' | b's', ..] => {
                blob.etag = None;
                &mut listing.packs
            }
            [b'_', ..] if name.starts_with("_log_") => &mut listing.logs,
            [b'x' | b'n' | b'm' | b'l', ..] => &mut listing.indexes,
            [b'k', ..] if name.starts_with("kopia.") => &mut listing.format,
            _ => &mut listing.others,
        };
        list.push(blob);
        Ok(())
    };
    reach.prefixes(repository).iter().try_for_each(|prefix| repository.storage().list(prefix, &mut sort))?;
    meter.add(count % LISTING_STEP);
    let Listing { packs, indexes, logs, format, others } = &mut listing;
    for list in [packs, indexes, logs, format, others] {
        list.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    }
    Ok(listing)
}

fn total<'a>(blobs: impl IntoIterator<Item = &'a BlobMetadata>) -> u64 {
    blobs.into_iter().fold(0, |sum, blob| sum.saturating_add(blob.length))
}

/// The part of a snapshot manifest that reachability needs; the rest may be of any shape.
#[derive(Deserialize)]
struct Body {
    #[serde(rename = "rootEntry")]
    root: Option<Object<RootEntry>>,
}

#[derive(Deserialize)]
struct RootEntry {
    #[serde(rename = "obj")]
    object: Option<String>,
    #[serde(rename = "type", default)]
    kind: String,
}

fn roots(manifests: &ManifestSet) -> (Vec<Root>, Vec<Unreadable>) {
    let mut roots = Vec::new();
    let mut unreadable = Vec::new();
    for manifest in manifests.of_type("snapshot") {
        match root(manifest) {
            Ok(root) => roots.push(root),
            Err(_) if mutant::on(Mutant::R11StrangeSnapshotIsAbsent) => {}
            Err(error) => {
                unreadable.push(Unreadable { what: format!("snapshot {}", manifest.id), error: error.chain() })
            }
        }
    }
    (roots, unreadable)
}

/// Kopia skips a snapshot whose manifest it cannot parse, and collects its data (`snapshot/manager.go`); here it is an error.
fn root(manifest: &Manifest) -> Result<Root> {
    let step = || format!("read snapshot {}", manifest.id);
    let Object(body): Object<Body> =
        serde_json::from_str(manifest.data.get()).map_err(|error| Error::damaged(step()).with_source(error))?;
    let no_root = || Error::damaged(format!("read snapshot {}: it has no root object", manifest.id));
    let Object(entry) = body.root.ok_or_else(no_root)?;
    let object = entry.object.ok_or_else(no_root)?;
    let object = object.parse().map_err(|error: Error| error.into_kind(ErrorKind::Damaged).at(step()))?;
    let role = if entry.kind == "d" { Role::Directory } else { Role::File };
    Ok(Root { snapshot: manifest.id.clone(), role, object })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_no_root() {
        for body in [r#"[{"obj":"k00","type":"d"}]"#, r#"{"rootEntry":["k00","d"]}"#] {
            assert!(serde_json::from_str::<Object<Body>>(body).is_err(), "{body}");
        }
    }

    #[test]
    fn r10_clocks_may_differ_by_five_minutes_and_no_more() {
        let at = |seconds: i64| Timestamp::from_second(1_700_000_000 + seconds).unwrap();
        assert!(check_clock(at(0), at(300)).is_ok());
        assert!(check_clock(at(300), at(0)).is_ok());
        for (storage, local) in [(0, 301), (301, 0)] {
            let error = check_clock(at(storage), at(local)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Clock);
            assert!(error.fix().is_some());
        }
    }
}
