//! Does what the coordinator decides and remembers nothing: reads a repository, finds what no snapshot needs, plans, and does the deeds
//! that were approved.
//!
//! ```text
//! survey -> scan -> solve -> sweep -> plan -> check                repeatable, nothing visible
//! revive -> mark -> record -> watermark -> delete -> rewrite* -> publish -> delete -> index -> locks -> logs -> close
//!                                                                  deeds, batch by batch; * nothing visible either
//! ```

pub mod limit;
pub mod progress;
pub mod trace;
pub mod workspace;

pub mod bucket_lease;
pub mod deadline;
pub mod evidence;
pub mod kopia_lock;

pub mod exchange;
pub mod kept;

pub mod task;

pub mod manifests;

pub mod run;
