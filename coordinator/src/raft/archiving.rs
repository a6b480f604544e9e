//! Archives the ledger while a node runs: after each snapshot, and again after a while if something was in the way. The evidence of
//! cycles that are over goes there by the same rounds, and by one each few minutes.

use std::sync::Arc;
use std::time::Duration;

use verger_proto::CycleId;

use super::runtime;
use super::state_machine::StateMachine;
use crate::ledger::archive::Archive;
use crate::machine::State;

/// What could not be archived is tried again after so long, unless there is a snapshot before.
const AGAIN: Duration = Duration::from_secs(60);
/// Cycles end between two snapshots, too. After a start, when the state comes again from the log, the first rounds follow sooner.
const EVIDENCE_EVERY: Duration = Duration::from_secs(300);
const EVIDENCE_FIRST: Duration = Duration::from_secs(2);

/// Until the node is shut down.
pub(crate) async fn run(machine: StateMachine, archive: Arc<Archive>) {
    let (mut kept, mut often) = (machine.kept(), EVIDENCE_FIRST);
    loop {
        let now = *kept.borrow_and_update();
        if now.is_over {
            return;
        }
        let ((folder, segments), store, state) =
            (machine.ledger().segments(now.records), archive.clone(), machine.clone());
        let round = runtime::blocking("archive the ledger", move || {
            let is_over = |cycle| state.state(|state| is_over(state, cycle));
            Ok(store.round(&folder, &segments).saturating_add(store.keep_all_evidence(&is_over)))
        });
        let pending = round.await.unwrap_or_else(|error| {
            tracing::warn!(error = error.chain(), "a round of archiving the ledger ended badly");
            1
        });
        let pause = if pending == 0 { often } else { AGAIN };
        often = often.saturating_mul(2).min(EVIDENCE_EVERY);
        let changed = tokio::time::timeout(pause, kept.changed()).await;
        if matches!(changed, Ok(Err(_))) {
            return;
        }
    }
}

/// A cycle of which this replica knows nothing yet is not over.
fn is_over(state: &State, cycle: CycleId) -> bool {
    cycle.0 < state.next_cycle && !state.cycles.contains_key(&cycle)
}
