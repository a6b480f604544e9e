//! What integration tests share: a real S3 server, and one that answers by script.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, unreachable_pub)]

pub mod script;
#[cfg(feature = "s3")]
pub mod weed;
