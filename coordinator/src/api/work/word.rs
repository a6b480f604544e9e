//! How far a job of a worker is, for whoever watches its cycle.

use std::sync::Arc;

use verger_proto::Refusal;

use super::take::check_leads_itself;
use super::wire::Word;
use super::{nothing, read, sees};
use crate::api::call::Call;
use crate::api::problem::Problem;
use crate::api::server::{Answer, Server};

/// Shown at once, and kept by nobody: what the ledger hears is less. People ask whoever leads, so it is told there.
pub(in crate::api) fn progress(server: &Arc<Server>, call: Call) -> Answer {
    check_leads_itself(server)?;
    let Word { ticket, progress } = read(&call)?;
    let found = server.state(|state| {
        state.directive(&ticket)?;
        state.cycles.get(&ticket.cycle).map(|cycle| cycle.repository.clone()).ok_or(Refusal::UnknownCycle)
    });
    let repository = found.map_err(|refusal| Problem::refused(&refusal))?;
    if !sees(server, &call, &repository) {
        return Err(Problem::refused(&Refusal::UnknownCycle));
    }
    server.api.backend.tell(&ticket, progress);
    server.pulse.send_modify(|beats| *beats = beats.wrapping_add(1));
    Ok(nothing())
}
