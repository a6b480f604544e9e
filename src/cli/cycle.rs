//! What the embedded engine gets from the command line.

use std::sync::Arc;

use verger::embedded::{Coordination, CycleRequest, Means, Observed, Ownership};
use verger_kopia::storage::Access;
use verger_kopia::{Repository, Result};
use verger_worker::kopia_lock::KopiaLocks;
use verger_worker::progress::Stop;

use crate::config::{Engine, Target};
use crate::progress::Progress;

/// Opens the repository for `request` and takes Kopia's own locks where this client acts in the name that Kopia has here.
pub(super) fn means(
    target: &Target,
    engine: &Engine,
    request: &CycleRequest,
    progress: Arc<Progress>,
    stop: Stop,
) -> Result<Means> {
    let access = if request.dry_run { Access::ReadOnly } else { Access::ReadWrite };
    let repository: Repository = target.open_repository(engine, access)?;
    // Held locks say that no run of this owner's is under way. They say nothing where the owner may be on another machine (R22).
    let own_name = match &request.owner {
        Ownership::Own => true,
        Ownership::Take => false,
        Ownership::ActAs(name) => name == target.identity(),
    };
    let kopia_locks = if own_name && !request.dry_run { target.maintenance_locks()? } else { KopiaLocks::take(&[])? };
    Ok(Means {
        repository,
        identity: target.identity().to_owned(),
        kopia_locks,
        state_dir: engine.state_dir.clone(),
        memory_limit: engine.memory_limit,
        parallel: engine.parallel,
        progress: progress.clone(),
        stop,
        notice: Arc::new(move |text, left| progress.note(&format!("{text} ({} s left)", left.as_secs()))),
        coordination: Coordination::Alone,
        tries_store: true,
        observed: Observed::default(),
        shards: None,
    })
}
