//! Joins what is used with what there is: what to mark, what to revive, what to leave alone.

use verger_kopia::clock::Timestamp;
use verger_kopia::error::Result;
use verger_kopia::maintenance::Margins;
use verger_kopia::maintenance::rules::gc;
use verger_kopia::maintenance::rules::plan::GcPlan;

use super::solve::Used;
use super::survey::Survey;

/// Goes through all rows of the view once. `stamp`: Unix seconds to mark with.
///
/// # Errors
/// `Internal` if the parts do not add up to the whole (R12).
pub fn sweep(survey: &Survey, used: &Used, stamp: i64, margins: &Margins) -> Result<GcPlan> {
    let table = &survey.view.table;
    gc::classify(table, |row| used.rows.contains(row), &pack_times(survey), survey.started, stamp, margins)
}

/// Storage time of each pack of the table, by ordinal; `None` for one that came after the listing, or is gone.
#[must_use]
pub fn pack_times(survey: &Survey) -> Vec<Option<Timestamp>> {
    // Both are sorted by name: one pass.
    let mut listed = survey.listing.packs.iter().peekable();
    let time = |pack: &_| {
        while listed.next_if(|blob| blob.id < *pack).is_some() {}
        listed.peek().filter(|blob| blob.id == *pack).map(|blob| blob.timestamp)
    };
    survey.view.table.packs().iter().map(time).collect()
}
