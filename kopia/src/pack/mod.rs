//! Pack blobs.

pub mod local_index;
pub mod read;
pub mod write;
