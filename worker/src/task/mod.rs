//! The stages of a cycle, in the order in which they run.
//!
//! Everything here only reads, and is safe to repeat: nothing becomes visible and nothing is deleted.

pub mod survey;

mod bulk;
mod holds;
mod reader;
pub mod summary;

pub mod scan;
pub mod solve;
mod trace;

pub mod sweep;

pub mod check;
pub mod plan;
