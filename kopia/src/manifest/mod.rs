//! Manifests: small labelled JSON documents in `m` contents.

pub mod compact;
pub mod store;

pub use store::{Manifest, ManifestSet};
