//! Snapshots, policies, retention.

pub mod manifest;
pub mod policy;
pub mod retention;
