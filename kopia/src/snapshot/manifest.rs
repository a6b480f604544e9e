//! Snapshot manifests (`snapshot/manifest.go`, `snapshot/stats.go`).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::clock::Timestamp;
use crate::directory::DirectoryEntry;
use crate::error::{Error, Result};
use crate::manifest::{Manifest, ManifestSet};

/// A snapshot: the body of a manifest of type `snapshot`, in Kopia's JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// ID of the manifest (what the body says of it is ignored, as Kopia does).
    #[serde(default)]
    pub id: String,
    /// What it is a snapshot of.
    #[serde(default)]
    pub source: SourceInfo,
    /// A person's words.
    #[serde(default)]
    pub description: String,
    /// When it was begun.
    #[serde(default)]
    pub start_time: Timestamp,
    /// When it ended.
    #[serde(default)]
    pub end_time: Timestamp,
    /// What the upload counted.
    #[serde(default)]
    pub stats: Stats,
    /// Why it is not whole: `checkpoint`, `canceled`, `limit reached`. Empty if it is.
    #[serde(default, rename = "incomplete", skip_serializing_if = "String::is_empty")]
    pub incomplete_reason: String,
    /// The root of its tree.
    pub root_entry: DirectoryEntry,
    /// Tags.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Storage figures; never stored by Kopia itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_stats: Option<serde_json::Value>,
    /// Pins: while there is one, expiry lets it be.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<String>,
    /// Why its source's policy keeps it; filled by [`super::retention`], never stored.
    #[serde(default, skip_deserializing, rename = "retentionReason", skip_serializing_if = "Vec::is_empty")]
    pub retention_reasons: Vec<String>,
}

impl Snapshot {
    /// Reads a manifest of type `snapshot`.
    ///
    /// # Errors
    /// `Damaged` if it does not parse or has no root object: Kopia would skip it and collect its data.
    pub fn from_manifest(manifest: &Manifest) -> Result<Self> {
        let bad = || Error::damaged(format!("read snapshot {}", manifest.id));
        // serde takes a list for an object whose fields are in order.
        if !manifest.data.get().starts_with('{') {
            return Err(bad().with_source("it is not a JSON object"));
        }
        let mut snapshot: Self = serde_json::from_str(manifest.data.get()).map_err(|error| bad().with_source(error))?;
        snapshot.id.clone_from(&manifest.id);
        Ok(snapshot)
    }

    /// Whether the upload came to its end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.incomplete_reason.is_empty()
    }
}

/// A null means the empty value, as Go decodes it.
fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Whose and which path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceInfo {
    /// Host name.
    #[serde(default)]
    pub host: String,
    /// User name.
    #[serde(default)]
    pub user_name: String,
    /// Path; empty for policies of a user, a host or all.
    #[serde(default)]
    pub path: String,
}

impl fmt::Display for SourceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, user_name, path } = self;
        match (host.is_empty() && user_name.is_empty(), path.is_empty()) {
            (true, true) => write!(f, "(global)"),
            (_, true) => write!(f, "{user_name}@{host}"),
            _ => write!(f, "{user_name}@{host}:{path}"),
        }
    }
}

/// What an upload counted. Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the names are Kopia's, and say it")]
pub struct Stats {
    pub total_size: i64,
    pub excluded_total_size: i64,
    pub file_count: i64,
    pub cached_files: i64,
    pub non_cached_files: i64,
    pub dir_count: i64,
    pub excluded_file_count: i64,
    pub excluded_dir_count: i64,
    pub ignored_error_count: i64,
    pub error_count: i64,
}

/// A snapshot whose manifest cannot be read: it may protect anything (R11).
#[derive(Debug)]
pub struct UnreadableSnapshot {
    /// ID of the manifest.
    pub id: String,
    /// Its source, as the labels say.
    pub source: SourceInfo,
    /// Why.
    pub error: Error,
}

/// All snapshots of a view, incomplete ones too, by manifest ID; and those that cannot be read.
#[must_use]
pub fn load_snapshots(manifests: &ManifestSet) -> (Vec<Snapshot>, Vec<UnreadableSnapshot>) {
    let (mut snapshots, mut unreadable) = (Vec::new(), Vec::new());
    for manifest in manifests.of_type("snapshot") {
        match Snapshot::from_manifest(manifest) {
            Ok(snapshot) => snapshots.push(snapshot),
            Err(error) => {
                let label = |name| manifest.labels.get(name).cloned().unwrap_or_default();
                let source = SourceInfo { host: label("hostname"), user_name: label("username"), path: label("path") };
                unreadable.push(UnreadableSnapshot { id: manifest.id.clone(), source, error });
            }
        }
    }
    (snapshots, unreadable)
}
