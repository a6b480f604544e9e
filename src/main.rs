//! `verger`: maintenance for fleets of Kopia backup repositories.

mod cli;
mod client;
mod config;
mod exit;
mod output;
mod progress;
mod signal;
mod up;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cli::run().code())
}
