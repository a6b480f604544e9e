//! Contents: the deduplicated units inside packs.

mod entry;
mod id;
pub mod read;

pub use entry::{CompressionId, Entry};
pub use id::{ContentHash, ContentId, HASH_BYTES_MAX};
