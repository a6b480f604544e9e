//! Snapshots, policies, retention.

pub mod list;
pub mod manifest;
pub mod policy;
pub mod retention;

pub use list::list;
pub use manifest::{Snapshot, SourceInfo, UnreadableSnapshot, load_snapshots};

#[cfg(test)]
mod tests;
