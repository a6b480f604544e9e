//! Decides, and never opens a pack, an index or an exchange file.
//!
//! ```text
//! cycle -> stage -> shard -> offer -> (a worker) -> collect -> seal -> per batch: approve -> (deed) -> commit -> close
//!                        every arrow is a command to machine::apply; drive keeps the ledger and runs the effects
//! ```
//! The machine is pure: no I/O, no clock, no chance, no `async`. Commands are what raft will replicate.

mod driver;
mod members;
pub mod notes;
pub mod others;
mod registry;
mod request;
mod token;

pub mod workers;

mod cycle;
mod stage;

mod shard;

mod offer;

mod split;

mod collect;

mod seal;

mod approve;

mod commit;

mod lease;

pub mod store;

pub mod machine;

pub mod words;

pub mod files;
pub mod work_key;

mod pem;

pub mod ledger;

pub mod drive;

pub mod raft;

pub mod schedule;

pub mod auth;

pub mod providers;

pub mod prices;

pub mod meters;
pub mod page;

pub mod api;

#[cfg(test)]
mod testing;
