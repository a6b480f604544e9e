//! Reading manifests from an index view.

use crate::clock::Timestamp;
use crate::content::ContentId;
use crate::error::{Error, Result};
use crate::index_set::IndexView;
use crate::repository::Repository;
use std::collections::BTreeMap;

/// One manifest.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// 32 hex digits.
    pub id: String,
    /// Labels; `type` is always there.
    pub labels: BTreeMap<String, String>,
    /// When it was last written.
    pub modified: Timestamp,
    /// Body.
    pub data: Box<serde_json::value::RawValue>,
}

/// All live manifests of a view, and what could not be read.
#[derive(Debug, Default)]
pub struct ManifestSet {
    /// By ID.
    pub manifests: BTreeMap<String, Manifest>,
    /// Number of `m` contents that hold them.
    pub content_count: usize,
    /// `m` contents that could not be read: they may protect anything (R11).
    pub unreadable: Vec<(ContentId, Error)>,
}

impl ManifestSet {
    /// Reads all live `m` contents of `view`.
    pub fn load(repository: &Repository, view: &IndexView) -> Result<Self> {
        let _ = (repository, view);
        unreachable!("stub")
    }
    /// Manifests whose label `type` is this.
    pub fn of_type<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Manifest> + 'a {
        self.manifests.values().filter(move |m| m.labels.get("type").is_some_and(|t| t == kind))
    }
}
