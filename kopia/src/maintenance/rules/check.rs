//! A second pair of eyes: holds a plan against the facts with code of its own. It calls none of the rules that made the
//! plan, so that a mistake in one of them has to be made twice.

mod blobs;
mod contents;
mod index;

use super::facts::Facts;
use super::plan::{Mode, PlanBody};
use super::rows::Rows;
use crate::error::{Error, ErrorKind, Result};
use crate::mutant::{self, Mutant};
use std::fmt;

/// Percentage of packed bytes that a plan may remove without a person's word (S5).
pub const ALLOWED_PERCENT: u8 = 50;

/// How bad a note is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Odd, and harmless.
    Odd,
    /// Needs a person's word (S5).
    NeedsWord,
    /// The plan does not hold together: never carried out.
    Fatal,
}

/// Something about a plan.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Note {
    /// How bad.
    pub severity: Severity,
    /// What.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Notes of one kind told in full; the rest are counted, so that a plan that is wrong in a million rows stays readable.
const TOLD_IN_FULL: usize = 5;

#[derive(Debug, Default)]
struct Notes {
    notes: Vec<Note>,
    told: std::collections::BTreeMap<&'static str, usize>,
}

impl Notes {
    fn fatal(&mut self, what: &'static str, which: impl fmt::Display) {
        let told = self.told.entry(what).or_default();
        *told += 1;
        if *told <= TOLD_IN_FULL {
            self.notes.push(Note { severity: Severity::Fatal, text: format!("{what}: {which}") });
        }
    }

    fn odd(&mut self, text: impl Into<String>) {
        self.notes.push(Note { severity: Severity::Odd, text: text.into() });
    }

    fn finish(mut self) -> Vec<Note> {
        for (what, count) in self.told.into_iter().filter(|told| told.1 > TOLD_IN_FULL) {
            let text = format!("{what}: and {} more", count - TOLD_IN_FULL);
            self.notes.push(Note { severity: Severity::Fatal, text });
        }
        self.notes.sort_by_key(|note| std::cmp::Reverse(note.severity));
        self.notes
    }
}

/// Checks `plan` against `facts`. `allow_removing` is the percentage of packed bytes that may go ([`ALLOWED_PERCENT`],
/// or a person's word for this plan alone). Worst notes first.
pub fn check<R: Rows>(plan: &PlanBody, facts: &Facts<'_, R>, allow_removing: u8) -> Vec<Note> {
    let mut notes = Notes::default();
    for (what, said, is) in [
        ("plan for another repository", plan.unique_id.as_str(), facts.unique_id),
        ("plan for another store", plan.store.as_str(), facts.store),
        ("plan for another view", plan.view.as_str(), facts.view),
    ] {
        if said != is {
            notes.fatal(what, format_args!("{said}, this is {is}"));
        }
    }
    if plan.rows != u64::from(facts.table.len()) {
        notes.fatal(
            "plan for another number of contents",
            format_args!("{}, there are {}", plan.rows, facts.table.len()),
        );
    }
    if plan.started != facts.started || plan.mode != facts.mode {
        notes.fatal("plan for another cycle", format_args!("{:?} {}", plan.mode, plan.started));
    }
    let beyond = plan.gc.is_some() || plan.drop.is_some() || plan.delete.is_some() || plan.rewrite.is_some();
    if plan.mode == Mode::Index && (beyond || plan.locks.is_some() || plan.logs.is_some()) {
        notes.fatal("an index cycle of more than the index", plan.started);
    }
    if !notes.notes.is_empty() {
        // Rows of another table mean nothing here.
        return notes.finish();
    }
    if contents::check(plan, facts, allow_removing, &mut notes) {
        blobs::check(plan, facts, &mut notes);
        index::check(plan, facts, &mut notes);
    }
    notes.finish()
}

/// Refuses what the notes speak against.
///
/// # Errors
/// `PlanRefused`, with what is wrong; where a person's word would do, the fix names the option.
pub fn verdict(notes: &[Note]) -> Result<()> {
    if mutant::on(Mutant::S2CheckUnheard) {
        return Ok(());
    }
    let Some(worst) = notes.first().filter(|note| note.severity > Severity::Odd) else { return Ok(()) };
    let error = Error::new(ErrorKind::PlanRefused, format!("the plan is refused: {worst}"));
    Err(match worst.severity {
        Severity::NeedsWord => error.with_fix(
            "look at the plan (verger plan REPO); if it is right, allow it for this once: --allow-removing PERCENT \
             (100 if no live content is left)",
        ),
        _ => {
            error.with_fix("nothing was changed; this is a defect of the program, or the repository changed meanwhile")
        }
    })
}

#[cfg(test)]
mod tests;
