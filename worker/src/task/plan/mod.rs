//! plan
pub mod lines;
