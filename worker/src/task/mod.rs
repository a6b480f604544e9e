//! The stages of a cycle, in the order in which they run.
//!
//! Up to `plan`, and in `rewrite`, nothing becomes visible and nothing is deleted: safe to repeat. Then come the deeds: nothing becomes
//! visible but by `publish` (and, for index blobs alone, `compact` and `watermark`), nothing is deleted but by `delete`.

pub mod survey;

pub mod cut;
pub mod places;

mod bulk;
mod holds;
mod reader;
pub mod summary;
mod summary_file;

pub mod scan;
pub mod scan_shard;
pub mod solve;
mod trace;

pub mod sweep;

pub mod check;
pub mod plan;

pub mod deed;
pub mod guard;
mod marks;
mod newcomers;
pub mod record;

pub mod revive;

pub mod publish;

pub mod watermark;

pub mod delete;

mod entries;
pub mod rewrite;
pub mod rewrite_shard;
pub mod shard_session;

pub mod order;

pub mod compact;

pub mod extend_locks;
