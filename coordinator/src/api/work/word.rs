//! How far a job of a worker is, for whoever watches its cycle.

use std::sync::Arc;

use verger_proto::Refusal;

use super::take::check_leads_itself;
use super::wire::Word;
use super::{allowed, nothing, read, sees};
use crate::api::call::Call;
use crate::api::problem::Problem;
use crate::api::server::{Answer, Server};

/// Shown at once, and kept by nobody: what the ledger hears is less. People ask whoever leads, so it is told there.
pub(in crate::api) fn progress(server: &Arc<Server>, call: Call) -> Answer {
    check_leads_itself(server)?;
    let Word { ticket, progress } = read(&call)?;
    let found = server.state(|state| {
        state.directive(&ticket)?;
        allowed::of(state, ticket.cycle)
    });
    let repository = found.map_err(|refusal| Problem::refused(&refusal))?;
    if !sees(server, &call, &repository) {
        return Err(Problem::refused(&Refusal::UnknownCycle));
    }
    server.api.backend.tell(&ticket, progress);
    server.changed();
    Ok(nothing())
}
