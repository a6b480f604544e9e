//! Manifests: small labelled JSON documents in `m` contents.

pub mod compact;
pub mod entry;
pub mod store;

pub use entry::ManifestEntry;
pub use store::{Manifest, ManifestSet};
