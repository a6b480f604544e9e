//! Settings: flags before environment before file. This folder is the only reader of environment and files.

pub(crate) mod archive;
pub(crate) mod connection;
pub(crate) mod cycle;
pub(crate) mod engine;
pub(crate) mod exchange;
pub(crate) mod file;
pub(crate) mod flags;
pub(crate) mod identity;
pub(crate) mod nats;
pub(crate) mod own_store;
pub(crate) mod password;
pub(crate) mod raw;
pub(crate) mod resolve;
pub(crate) mod service;
pub(crate) mod stores;
pub(crate) mod telemetry;
pub(crate) mod token;

pub(crate) use cycle::{CycleArgs, SafetyLevel};
pub(crate) use password::check_password;
pub(crate) use raw::{EngineArgs, RepositoryArgs};
pub(crate) use resolve::{Engine, Target};

#[cfg(test)]
#[path = "../../tests/fuzz/mutate.rs"]
mod mutate;
#[cfg(test)]
mod tests;
