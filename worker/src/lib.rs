//! Does what the coordinator decides and remembers nothing: reads a repository, finds what no snapshot needs, plans.
//!
//! ```text
//! survey -> scan -> solve -> sweep -> plan -> check      repeatable, nothing visible
//! ```

pub mod limit;
pub mod progress;
pub mod workspace;

pub mod task;
