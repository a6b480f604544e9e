//! The session that a worker writes its shards' packs in: one for all shards of a cycle that it does, so that a shard costs no marker.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::SignedDuration;
use verger_kopia::clock::Timestamp;
use verger_kopia::error::Result;
use verger_kopia::mutant::{self, Mutant};
use verger_kopia::session::{SessionId, SessionInfo};
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
    noted: NotedSession,
}

impl fmt::Debug for ShardSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShardSessions")
    }
}

impl ShardSessions {
    /// The session of this cycle, begun if there is none yet.
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
    ) -> Result<(SessionId, NotedSession)> {
        let slot = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(spec.repository.clone()).or_default().clone()
        };
        let mut begun = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let info = workspace.new_session(&workspace.repository);
        if let Some(one) = &*begun
            && ((one.cycle, one.term) == (spec.cycle, spec.term) || mutant::on(Mutant::R21SessionOfAnotherCycle))
            && (SignedDuration::ZERO..AGE_MAX).contains(&info.start_time.duration_since(one.at))
        {
            return Ok((one.id.clone(), one.noted.clone()));
        }
        let (id, at) = (info.id.clone(), info.start_time);
        let noted = begin(workspace, parts, spec, order, &info)?;
        *begun = Some(Begun { cycle: spec.cycle, term: spec.term, at, id: id.clone(), noted: noted.clone() });
        Ok((id, noted))
    }
}

/// Notes the session where the lead finds it, then where this process keeps its own, then writes its marker: all before the first
/// pack (R21).
fn begin(
    workspace: &Workspace,
    parts: &Parts,
    spec: &JobSpec,
    order: &OutputRef,
    info: &SessionInfo,
) -> Result<NotedSession> {
    let mut noted = NotedSession { session: info.id.to_string(), marker: None };
    let mut note = parts.write(PartKind::RewriteSession, &spec.shard, spec.attempt, order.view, &workspace.spill)?;
    write_moved(&Moved::Session(noted.clone()), &mut EntryPen::default(), &mut note)?;
    note.finish(&workspace.memory)?;
    noted.marker = Some(workspace.begin_session(&workspace.repository, info)?);
    Ok(noted)
}
