//! Puts the facts before the rules, and takes the plan's body from them.

mod facts;
pub mod lines;

pub use facts::{Gathered, Request, frozen};

use verger_kopia::error::Result;
use verger_kopia::maintenance::rules::compose::compose;
use verger_kopia::maintenance::rules::plan::PlanBody;

/// Bytes that the lists of rows in a plan take.
#[must_use]
pub fn lists_bytes(body: &PlanBody) -> u64 {
    let gc = body.gc.iter().map(|gc| gc.mark.len() + gc.undelete.len());
    let drop = body.drop.iter().map(|drop| drop.rows.len());
    let rewrite = body.rewrite.iter().flat_map(|rewrite| &rewrite.packs).map(|pack| pack.rows.len());
    let rows: usize = gc.chain(drop).chain(rewrite).sum();
    (rows * size_of::<u32>()) as u64
}

/// Plans the cycle.
///
/// # Errors
/// `Internal` if what the earlier stages found does not hold together (R12).
pub fn plan(gathered: &Gathered<'_>) -> Result<PlanBody> {
    compose(&gathered.facts())
}
