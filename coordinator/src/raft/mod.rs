//! The machine, replicated: commands are entries of a raft log, and every replica makes of them the same state and the same ledger.
//!
//! ```text
//! submit -> log_store (durable) -> a quorum -> state_machine -> ledger, answer; effects where this node leads
//!                                                    |
//!                                                snapshot (a file), after which the log is purged
//! ```

pub mod runtime;
pub mod types;

pub mod identity;

pub mod durable;
pub mod log_store;

mod heads;
mod levels;

mod answers;
mod archiving;
pub(crate) mod ledger;
mod ledger_reader;
mod ledger_verify;
pub mod snapshot;
pub mod state_machine;

pub mod recover;
pub mod stopped;

pub mod network;
pub mod node;

pub mod members;

pub mod standing;

mod failure;
mod files;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
