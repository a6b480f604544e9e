//! The format blob `kopia.repository` and its companions: keys, configuration, features, upgrade lock.

pub mod blobcfg;
pub mod config;
pub mod envelope;
pub mod features;
pub mod upgrade_lock;

pub use blobcfg::BlobConfig;
pub use config::{EpochParameters, RepositoryConfig};
