//! Writes manifests as a Kopia client does: one content in a pack of its own, under a session.

use std::time::Duration;

use bytes::Bytes;
use verger_kopia::Result;
use verger_kopia::index_set::write::write_index_set;
use verger_kopia::manifest::ManifestEntry;
use verger_kopia::manifest::entry::encode;
use verger_kopia::pack::write::PackWriter;
use verger_kopia::session::delete_markers;
use verger_kopia::storage::PutOptions;

use crate::task::rewrite::retention;
use crate::workspace::Workspace;

/// Writes these states and deletions; they are visible when this returns. Nothing becomes visible after `not_after` (R1).
///
/// # Errors
/// `DeadlinePassed`; storage errors; those of the index writers.
pub fn write_manifests(workspace: &Workspace, entries: &[ManifestEntry], not_after: Option<Duration>) -> Result<()> {
    let repository = &workspace.repository;
    let (session, marker) = workspace.start_session(repository)?;
    let mut pack = PackWriter::new(repository, 'q')?;
    let now = repository.clock().now().as_second();
    pack.add_new(repository, b'm', &encode(entries), true, now)?;
    let (id, data, entries): (_, Bytes, _) = pack.finish(repository, &session.id)?;
    let options = PutOptions { retention: retention(repository), ..PutOptions::default() };
    repository.storage().put(&id, data, &options).map_err(|e| e.at(format!("write pack {id}")))?;
    write_index_set(repository, entries, session.id.as_str(), not_after)?;
    delete_markers(repository, &[marker])
}
