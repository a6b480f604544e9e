//! Puts the facts before the rules, and takes the plan's body from them.

mod facts;
pub mod lines;

pub use facts::{Gathered, Request, frozen};

use verger_kopia::error::Result;
use verger_kopia::maintenance::rules::compose::compose;
use verger_kopia::maintenance::rules::plan::PlanBody;

/// Plans the cycle.
///
/// # Errors
/// `Internal` if what the earlier stages found does not hold together (R12).
pub fn plan(gathered: &Gathered<'_>) -> Result<PlanBody> {
    compose(&gathered.facts())
}
