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
    #[cfg(feature = "mutants")]
    take_out();
    ExitCode::from(cli::run().code())
}

/// What tests of tests take out of a crate that knows no mutants.
#[cfg(feature = "mutants")]
fn take_out() {
    use verger_kopia::mutant::{self, Mutant};
    use verger_proto::mutant::{Check, take_out};

    if mutant::on(Mutant::S3AnySignatureHolds) {
        take_out(Check::Signature);
    }
    if mutant::on(Mutant::S3AnyLengthIsRead) {
        take_out(Check::Length);
    }
}
