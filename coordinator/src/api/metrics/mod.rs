//! Figures as Prometheus reads them.
//!
//! What happened to repositories follows from the ledger, the state and the reports of cycles, so that a start loses none of it; what
//! this process did is counted since it began. A figure that nobody measured is left out: zero is a measured zero.

mod fleet;
mod process;
mod reports;

use super::problem::Problem;
use super::server::Server;

pub(super) use fleet::Durations;
pub(super) use process::Requests;

use crate::page::Page;

/// All figures, as text.
pub(super) fn text(server: &Server) -> Result<String, Problem> {
    let mut page = Page::default();
    let now = server.now();
    let fleet = server.api.stand.fleet();
    process::of_the_process(&mut page, server);
    {
        let board = server.board()?;
        fleet::of_the_board(&mut page, &board);
        server.state(|state| {
            fleet::of_the_state(&mut page, state, &fleet, now);
            fleet::of_the_workers(&mut page, state, now);
            fleet::of_the_cycles(&mut page, state, &board, now);
            reports::of_the_reports(&mut page, state);
            page.stores(process::known_calls(state, &server.api.meters));
            process::of_the_prices(&mut page, state, &server.api.meters);
        });
    }
    page.text().map_err(|error| Problem::internal(error.to_string()))
}
