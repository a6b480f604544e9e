//! Puts the facts before the rules, and takes the plan's body from them.

pub mod lines;

mod facts;

pub use facts::Gathered;

use verger_kopia::error::Result;
use verger_kopia::maintenance::rules::plan::PlanBody;
