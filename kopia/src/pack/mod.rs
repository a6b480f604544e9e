//! Pack blobs: contents one after another, then an index of them for recovery.

pub mod local_index;
mod postamble;
pub mod read;
pub mod write;

pub use local_index::{fetch_local_index, recover_local_index};
pub use postamble::Postamble;
pub use read::stored_bytes;
pub use write::PackWriter;

#[cfg(test)]
mod tests;
