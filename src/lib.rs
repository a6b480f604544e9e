//! Verger as a library: one maintenance cycle of one Kopia repository, in one process.
//!
//! The binary `verger` is the command line around [`embedded`].

pub mod embedded;
pub mod telemetry;
