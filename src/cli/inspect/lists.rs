//! Lists of what is in a repository.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use verger_kopia::compression::name as compression_name;
use verger_kopia::content::{ContentId, Entry};
use verger_kopia::index_set::epoch::EpochState;
use verger_kopia::index_set::list_active;
use verger_kopia::index_set::view::State;
use verger_kopia::manifest::ManifestSet;
use verger_kopia::snapshot::{self, Snapshot, load_snapshots};
use verger_kopia::storage::{BlobId, BlobMetadata, list_all};
use verger_kopia::{Error, Result};

use super::Open;
use crate::output::{self, Output};

/// A content as `kopia content list --long --json` shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContentLine {
    #[serde(rename = "contentID")]
    content_id: ContentId,
    pack_file: BlobId,
    time: i64,
    original_length: u32,
    length: u32,
    pack_offset: u32,
    #[serde(skip_serializing_if = "is_zero")]
    compression: u32,
    deleted: bool,
    format_version: u8,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl From<Entry> for ContentLine {
    fn from(entry: Entry) -> Self {
        Self {
            content_id: entry.id,
            pack_file: entry.pack,
            time: entry.timestamp,
            original_length: entry.original_length,
            length: entry.packed_length,
            pack_offset: entry.offset,
            compression: entry.compression.0,
            deleted: entry.deleted,
            format_version: entry.format_version,
        }
    }
}

impl ContentLine {
    pub(super) fn text(&self) -> String {
        let compression = compression_name(verger_kopia::content::CompressionId(self.compression)).unwrap_or("-");
        let time = Timestamp::from_second(self.time).unwrap_or(Timestamp::UNIX_EPOCH);
        let deleted = if self.deleted { " (deleted)" } else { "" };
        format!(
            "{} {:>10} {} {}+{} {compression}{deleted}",
            self.content_id, self.length, time, self.pack_file, self.pack_offset
        )
    }
}

/// Contents; with `deleted` also marks that no watermark hides.
pub(super) fn contents(output: Output, open: &Open, deleted: bool) -> Result<()> {
    let view = open.view()?;
    let table = &view.table;
    let rows = table.rows().filter(|row| deleted || !table.is_deleted(*row));
    let lines = rows.map(|row| ContentLine::from(table.entry(row)));
    if output.json { output.list(lines.map(Ok)) } else { output.lines(lines.map(|line| line.text())) }
}

#[derive(Serialize)]
struct BlobLine<'a> {
    id: &'a BlobId,
    length: u64,
    timestamp: Timestamp,
}

impl<'a> From<&'a BlobMetadata> for BlobLine<'a> {
    fn from(blob: &'a BlobMetadata) -> Self {
        Self { id: &blob.id, length: blob.length, timestamp: blob.timestamp }
    }
}

fn blob_text(blob: &BlobMetadata) -> String {
    format!("{:<70} {:>10} {}", blob.id.as_str(), blob.length, blob.timestamp)
}

/// All blobs in the store.
pub(super) fn blobs(output: Output, open: &Open) -> Result<()> {
    let mut blobs = list_all(&**open.repository.storage(), "")?;
    blobs.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    if output.json {
        let line = |b| Ok(BlobLine::from(b));
        return output.list(blobs.iter().map(line));
    }
    output.lines(blobs.iter().map(blob_text))
}

/// An index blob as `kopia index list --json` shows it.
#[derive(Serialize)]
struct IndexLine<'a> {
    #[serde(flatten)]
    blob: BlobLine<'a>,
    #[serde(rename = "Superseded")]
    superseded: Option<()>,
}

/// Active index blobs.
pub(super) fn indexes(output: Output, open: &Open) -> Result<()> {
    let active = list_active(&open.repository)?;
    if output.json {
        let line = |b| Ok(IndexLine { blob: BlobLine::from(b), superseded: None });
        return output.list(active.blobs.iter().map(line));
    }
    output.lines(active.blobs.iter().map(blob_text))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Epochs {
    current_epoch: u64,
    epochs: Vec<Epoch>,
    ranges: Vec<Range>,
    watermark: Option<Timestamp>,
}

#[derive(Serialize)]
struct Epoch {
    epoch: u64,
    uncompacted: Vec<BlobId>,
    single: Vec<BlobId>,
}

#[derive(Serialize)]
struct Range {
    min: u64,
    max: u64,
    blobs: Vec<BlobId>,
}

impl From<&EpochState> for Epochs {
    fn from(state: &EpochState) -> Self {
        let ids = |blobs: &[BlobMetadata]| blobs.iter().map(|blob| blob.id.clone()).collect::<Vec<_>>();
        let mut epochs: BTreeMap<u64, Epoch> = BTreeMap::new();
        let empty = |epoch| Epoch { epoch, uncompacted: Vec::new(), single: Vec::new() };
        for (&epoch, blobs) in &state.uncompacted {
            epochs.entry(epoch).or_insert_with(|| empty(epoch)).uncompacted = ids(blobs);
        }
        for (&epoch, blobs) in &state.single {
            epochs.entry(epoch).or_insert_with(|| empty(epoch)).single = ids(blobs);
        }
        let range =
            |r: &verger_kopia::index_set::epoch::EpochRange| Range { min: r.min, max: r.max, blobs: ids(&r.blobs) };
        Self {
            current_epoch: state.write_epoch,
            epochs: epochs.into_values().collect(),
            ranges: state.chain.iter().map(range).collect(),
            watermark: state.watermark.and_then(|seconds| Timestamp::from_second(seconds).ok()),
        }
    }
}

/// Epochs of the index.
pub(super) fn epochs(output: Output, open: &Open) -> Result<()> {
    let State::Epoch(state) = list_active(&open.repository)?.state else {
        return Err(Error::unsupported("list epochs: this repository has the legacy index, which has none")
            .with_fix("See `verger inspect indexes`"));
    };
    let epochs = Epochs::from(&state);
    if output.json {
        return output.document(&epochs);
    }
    let mut lines = vec![format!("Current epoch: {}", epochs.current_epoch)];
    lines.push(match epochs.watermark {
        Some(at) => format!("Marks at or before {at} are dropped"),
        None => "No marks are dropped yet".to_owned(),
    });
    for epoch in epochs.epochs.iter().rev() {
        let single =
            if epoch.single.is_empty() { String::new() } else { format!(", {} compacted", epoch.single.len()) };
        lines.push(format!("{}: {} uncompacted{single}", epoch.epoch, epoch.uncompacted.len()));
        lines.extend(epoch.uncompacted.iter().chain(&epoch.single).map(|id| format!("  {id}")));
    }
    for range in epochs.ranges.iter().rev() {
        lines.push(format!("{}-{}: range", range.min, range.max));
        lines.extend(range.blobs.iter().map(|id| format!("  {id}")));
    }
    output.lines(lines)
}

fn read_manifests(output: Output, open: &Open) -> Result<ManifestSet> {
    let manifests = ManifestSet::load(&open.repository, &open.view()?)?;
    for (_, error) in &manifests.unreadable {
        output.note(format!("UNREADABLE {}", error.chain()));
    }
    Ok(manifests)
}

/// What cannot be read is missing from the list above: the list is printed, and then this is said (R11).
fn whole(manifests: &ManifestSet) -> Result<()> {
    match manifests.unreadable.len() {
        0 => Ok(()),
        count => Err(Error::damaged(format!("{count} contents with manifests cannot be read: the list may lack some"))
            .with_fix("Run `verger verify` for what that touches")),
    }
}

/// Manifests of all types.
pub(super) fn manifests(output: Output, open: &Open) -> Result<()> {
    let manifests = read_manifests(output, open)?;
    if output.json {
        output.list(manifests.list().into_iter().map(Ok))?;
    } else {
        output.lines(manifests.list().iter().map(|line| {
            let labels: Vec<_> = line.labels.iter().map(|(key, value)| format!("{key}:{value}")).collect();
            format!("{} {:>10} {} {}", line.id, line.length, line.mtime, labels.join(" "))
        }))?;
    }
    whole(&manifests)
}

/// Snapshots by source, then by time, and why each is kept.
pub(super) fn snapshots(output: Output, open: &Open) -> Result<()> {
    let manifests = read_manifests(output, open)?;
    let (snapshots, unreadable) = load_snapshots(&manifests);
    let listed = snapshot::list(snapshots, &manifests, &TimeZone::system());
    if output.json {
        output.list(listed.iter().map(Ok))?;
    } else {
        let mut source = None;
        let mut lines = Vec::new();
        for snapshot in &listed {
            if source.replace(&snapshot.source) != Some(&snapshot.source) {
                lines.push(snapshot.source.to_string());
            }
            lines.push(format!("  {}", snapshot_text(snapshot)));
        }
        output.lines(lines)?;
    }
    if let Some(first) = unreadable.first() {
        let step = format!("{} snapshot manifests cannot be read, the first is {}", unreadable.len(), first.id);
        return Err(Error::damaged(step).with_source(first.error.chain()));
    }
    whole(&manifests)
}

fn snapshot_text(snapshot: &Snapshot) -> String {
    let root = &snapshot.root_entry;
    let summary = root.summary.as_ref();
    let size = summary.map_or(root.size, |summary| summary.size).max(0).unsigned_abs();
    let mut text = format!("{} {} {:>9}", snapshot.start_time.strftime("%F %T UTC"), root.obj, output::bytes(size));
    if let Some(summary) = summary {
        text.push_str(&format!(" files:{} dirs:{}", summary.files, summary.dirs));
    }
    if !snapshot.is_complete() {
        text.push_str(&format!(" incomplete:{}", snapshot.incomplete_reason));
    }
    if !snapshot.retention_reasons.is_empty() {
        text.push_str(&format!(" ({})", snapshot.retention_reasons.join(",")));
    }
    if !snapshot.pins.is_empty() {
        text.push_str(&format!(" pins:{}", snapshot.pins.join(",")));
    }
    format!("{text} {}", snapshot.id)
}
