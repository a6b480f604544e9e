//! What the API needs done to a repository: opened, and looked at.

use serde_json::json;
use verger_coordinator::api::{Hands, Probed, Wanted};
use verger_kopia::storage::{Access, Versioning};
use verger_kopia::{Repository, Result};
use verger_proto::IndexKind;
use verger_worker::task::survey::look_ahead;
use verger_worker::workspace::Workspace;

use super::opener::Opener;

impl Hands for Opener {
    fn probe(&self, wanted: &Wanted) -> Result<Probed> {
        let repository = self.open(&wanted.name, &wanted.address, &wanted.password, Access::ReadOnly)?;
        let epochs = repository.config().epoch.enabled;
        let params = look_ahead(&Workspace::new(repository.clone()), None)?.params;
        Ok(Probed {
            repository: verger::embedded::identify(&self.engine.state_dir, &repository)?,
            index: if epochs { IndexKind::Epochs } else { IndexKind::Legacy },
            own: Some(verger::embedded::own_settings(&params)),
            owner: params.owner,
            capabilities: capabilities(&repository),
        })
    }
}

/// What the store says of itself. What it does is seen when the first cycle takes its lease.
fn capabilities(repository: &Repository) -> serde_json::Value {
    let storage = repository.storage();
    let can = storage.capabilities();
    json!({
        "localDisk": can.local_disk,
        "conditionalWrites": can.conditional_writes,
        "versions": storage.versioning().is_ok_and(|versions| versions != Versioning::NONE),
        "clock": storage.now().ok(),
    })
}
