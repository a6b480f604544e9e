//! The session that a worker writes its shards' packs in: one for all shards of a cycle that it does, so that a shard costs no marker.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::SignedDuration;
use verger_kopia::clock::Timestamp;
use verger_kopia::error::Result;
use verger_kopia::mutant::{self, Mutant};
use verger_kopia::session::SessionId;
use verger_kopia::storage::BlobId;
use verger_proto::id::{CycleId, RepositoryId};
use verger_proto::job::{JobSpec, OutputRef};
use verger_proto::term::Term;

use crate::exchange::{EntryPen, Moved, NotedSession, PartKind, Parts, write_moved};
use crate::workspace::Workspace;

/// No shard begins to write in a session that is older: its marker has to protect packs until they are published, and Kopia takes the
/// writer for dead after 96 hours.
const AGE_MAX: SignedDuration = SignedDuration::from_hours(1);

/// Sessions of this worker, the last one of each repository. Clones share them.
#[derive(Clone, Default)]
pub struct ShardSessions(Arc<Mutex<BTreeMap<RepositoryId, Slot>>>);

/// Locked while a session begins: the other places of this worker wait for it.
type Slot = Arc<Mutex<Option<Begun>>>;

struct Begun {
    cycle: CycleId,
    term: Term,
    at: Timestamp,
    id: SessionId,
    marker: BlobId,
}

impl fmt::Debug for ShardSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShardSessions")
    }
}

impl ShardSessions {
    /// The session of this cycle and its marker, begun if there is none yet.
    ///
    /// A cycle publishes once, when none of its shards is under way that could still count: until then the marker stands. A late attempt
    /// may write behind that, and leaves orphans as any other does.
    ///
    /// # Errors
    /// Those of the exchange and of the store.
    pub(super) fn of(
        &self,
        workspace: &Workspace,
        parts: &Parts,
        spec: &JobSpec,
        order: &OutputRef,
    ) -> Result<(SessionId, BlobId)> {
        let slot = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(spec.repository.clone()).or_default().clone()
        };
        let mut begun = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let now = workspace.repository.clock().now();
        let stands = |one: &Begun| {
            let is_same =
                (one.cycle, one.term) == (spec.cycle, spec.term) || mutant::on(Mutant::R21SessionOfAnotherCycle);
            is_same && (SignedDuration::ZERO..AGE_MAX).contains(&now.duration_since(one.at))
        };
        let one = match begun.take().filter(stands) {
            Some(one) => begun.insert(one),
            None => begun.insert(begin(workspace, parts, spec, order)?),
        };
        Ok((one.id.clone(), one.marker.clone()))
    }
}

/// Notes the session where the lead finds it, then where this process keeps its own, then writes its marker: all before the first
/// pack (R21).
fn begin(workspace: &Workspace, parts: &Parts, spec: &JobSpec, order: &OutputRef) -> Result<Begun> {
    let info = workspace.new_session(&workspace.repository);
    let noted = NotedSession { session: info.id.to_string(), marker: None };
    let mut note = parts.write(PartKind::RewriteSession, &spec.shard, spec.attempt, order.view, &workspace.spill)?;
    write_moved(&Moved::Session(noted), &mut EntryPen::default(), &mut note)?;
    note.finish(&workspace.memory)?;
    let marker = workspace.begin_session(&workspace.repository, &info)?;
    Ok(Begun { cycle: spec.cycle, term: spec.term, at: info.start_time, id: info.id, marker })
}
