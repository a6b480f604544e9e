//! The sample repository: what it holds, and what a plan takes of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use verger::embedded::CycleReport;
use verger_kopia::clock::Timestamp;
use verger_kopia::index_set::load_view;
use verger_kopia::manifest::ManifestSet;
use verger_kopia::snapshot::load_snapshots;
use verger_kopia::storage::list_all;
use verger_kopia::{Error, ErrorKind, Repository, Result};

/// Made by the real Kopia from invented data; times of files are the storage's clock and kept in the archive.
const ARCHIVE: &[u8] = include_bytes!("sample.tar.gz");
pub(super) const PASSWORD: &str = "golden";
pub(super) const OWNER: &str = "owner@golden";

/// Unpacks the sample into `folder`; where the repository lies.
pub(super) fn unpack(folder: &Path) -> Result<PathBuf> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(ARCHIVE));
    archive.set_preserve_mtime(true);
    let unpacked = archive.unpack(folder);
    unpacked.map_err(|e| {
        let step = format!("unpack the sample repository into {}", folder.display());
        Error::new(ErrorKind::DiskFull, step).with_source(e).with_fix("Make room there, or set TMPDIR")
    })?;
    Ok(folder.join("epochs/repo"))
}

/// What a repository holds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    pub(super) snapshots: usize,
    pub(super) source: String,
    pub(super) oldest: Option<Timestamp>,
    pub(super) newest: Option<Timestamp>,
    /// Contents in the index, marked ones included.
    pub(super) contents: u64,
    pub(super) marked: u64,
    pub(super) packs: u64,
    pub(super) pack_bytes: u64,
    pub(super) index_blobs: u64,
    pub(super) blobs: u64,
    pub(super) bytes: u64,
}

impl State {
    pub(super) fn of(repository: &Repository) -> Result<Self> {
        let view = load_view(repository, 4)?;
        let manifests = ManifestSet::load(repository, &view)?;
        let (snapshots, _) = load_snapshots(&manifests);
        let blobs = list_all(&**repository.storage(), "")?;
        let is_pack = |name: &str| name.starts_with(['p', 'q']);
        let packs = || blobs.iter().filter(|blob| is_pack(blob.id.as_str()));
        Ok(Self {
            snapshots: snapshots.len(),
            source: snapshots.first().map(|snapshot| snapshot.source.to_string()).unwrap_or_default(),
            oldest: snapshots.iter().map(|snapshot| snapshot.start_time).min(),
            newest: snapshots.iter().map(|snapshot| snapshot.start_time).max(),
            contents: view.table.len() as u64,
            marked: view.table.rows().filter(|row| view.table.is_deleted(*row)).count() as u64,
            packs: packs().count() as u64,
            pack_bytes: packs().map(|blob| blob.length).sum(),
            index_blobs: blobs.iter().filter(|blob| blob.id.as_str().starts_with(['n', 'x'])).count() as u64,
            blobs: blobs.len() as u64,
            bytes: blobs.iter().map(|blob| blob.length).sum(),
        })
    }
}

/// Blobs and bytes that a written plan deletes, by the rule that lets them go.
pub(super) fn deletions(plan: &Path) -> Result<BTreeMap<String, (u64, u64)>> {
    let failed = |e: std::io::Error| Error::new(ErrorKind::Internal, "read the demo's plan").with_source(e);
    let mut rules: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for line in std::fs::read_to_string(plan).map_err(failed)?.lines() {
        let line: Value = serde_json::from_str(line).map_err(|e| failed(e.into()))?;
        if let (Some(rule), Some(bytes)) = (line["rule"].as_str(), line["bytes"].as_u64()) {
            let sum = rules.entry(rule.to_owned()).or_default();
            *sum = (sum.0 + 1, sum.1.saturating_add(bytes));
        }
    }
    Ok(rules)
}

/// Index blobs that went because compacted ones replace them: the plan names them with the step that makes those.
pub(super) fn superseded(report: &CycleReport) -> Option<(String, (u64, u64))> {
    let data = report.tasks.get("delete-superseded-epoch-indexes")?;
    let figure = |field: &str| data.get(field).and_then(Value::as_u64);
    let (blobs, bytes) = (figure("deletedBlobCount")?, figure("deletedTotalSize")?);
    (blobs > 0).then(|| ("superseded-index".to_owned(), (blobs, bytes)))
}
