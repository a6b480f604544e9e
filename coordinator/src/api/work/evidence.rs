//! Names of what a batch is about to do, from a worker that keeps nothing.

use std::sync::Arc;

use verger_proto::Refusal;

use super::wire::Names;
use super::{is_own, read, record, sees};
use crate::api::call::Call;
use crate::api::problem::Problem;
use crate::api::server::{Answer, Server};

/// Kept on this coordinator, whose ledger has their digest as all others have.
pub(in crate::api) fn keep(server: &Arc<Server>, call: Call) -> Answer {
    let Names { ticket, evidence } = read(&call)?;
    let found = server.state(|state| {
        state.directive(&ticket)?;
        let cycle = state.cycles.get(&ticket.cycle).ok_or(Refusal::UnknownCycle)?;
        // Batches are the driver's; whose job it is can be read, and proves nothing.
        let driver = state.repositories.get(&cycle.repository).and_then(|entry| entry.driver);
        if !driver.is_some_and(|(driver, _)| is_own(&call, driver)) {
            return Err(Refusal::NotDriving);
        }
        Ok((cycle.repository.clone(), cycle.view.map(|(view, _)| view.digest).unwrap_or_default()))
    });
    let (repository, view) = found.map_err(|refusal: Refusal| Problem::refused(&refusal))?;
    if !sees(server, &call, &repository) {
        return Err(Problem::refused(&Refusal::UnknownCycle));
    }
    let kept = server.api.desk.keep(&repository, ticket.cycle, view, &evidence);
    record(&kept.map_err(|error| Problem::not_kept(&error))?)
}
