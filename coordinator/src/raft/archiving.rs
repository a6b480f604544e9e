//! Archives the ledger while a node runs: after each snapshot, and again after a while if something was in the way.

use std::sync::Arc;
use std::time::Duration;

use super::runtime;
use super::state_machine::StateMachine;
use crate::ledger::archive::Archive;

/// What could not be archived is tried again after so long, unless there is a snapshot before.
const AGAIN: Duration = Duration::from_secs(60);

/// Until the node is shut down.
pub(crate) async fn run(machine: StateMachine, archive: Arc<Archive>) {
    let mut kept = machine.kept();
    loop {
        let now = *kept.borrow_and_update();
        if now.is_over {
            return;
        }
        let ((folder, segments), store) = (machine.ledger().segments(now.records), archive.clone());
        let round = runtime::blocking("archive the ledger", move || Ok(store.round(&folder, &segments)));
        let pending = round.await.unwrap_or_else(|error| {
            tracing::warn!(error = error.chain(), "a round of archiving the ledger ended badly");
            1
        });
        let changed =
            if pending == 0 { Ok(kept.changed().await) } else { tokio::time::timeout(AGAIN, kept.changed()).await };
        if matches!(changed, Ok(Err(_))) {
            return;
        }
    }
}
