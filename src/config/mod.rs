//! Settings: flags before environment before file. This folder is the only reader of environment and files.

pub mod connection;
pub mod engine;
pub mod file;
pub mod identity;
pub mod password;
pub mod raw;
pub mod resolve;
pub mod stores;

pub use raw::{EngineArgs, RepositoryArgs};
pub use resolve::{Engine, Target};
