//! The format blob `kopia.repository` and its companions: keys, configuration, features, upgrade lock.

pub mod blobcfg;
pub mod config;
pub mod envelope;
pub mod features;
pub mod upgrade_lock;

mod json;

pub use blobcfg::{BLOB_CONFIG_BLOB, BlobConfig};
pub use config::{EpochParameters, RepositoryConfig};
pub use envelope::{Envelope, FORMAT_BLOB};
