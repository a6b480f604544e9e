//! The stages of a cycle, in order.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::mode::Mode;

/// A stage of a cycle. The order of the variants is the order in which they run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Read what there is: format, parameters, history, one index view; its start is recorded in the repository (R10).
    Survey,
    /// Read `q` packs whole and write down what each points to.
    Scan,
    /// Solve reachability.
    Solve,
    /// Join what is used with the index.
    Sweep,
    /// Make the plan's body.
    Plan,
    /// Check the plan with rules of its own.
    Check,
    /// Pack again marked contents that a snapshot needs (R13).
    Revive,
    /// Publish marks.
    Mark,
    /// Record the success of `snapshot-gc` (R20: only after all marks and undeletes are durable).
    RecordGc,
    /// Move the watermark on; with the legacy index, drop.
    Watermark,
    /// Delete orphaned blobs.
    Delete,
    /// Copy contents out of short packs; nothing points to the new packs yet.
    Rewrite,
    /// Publish the entries of the rewritten packs.
    Publish,
    /// Delete what the rewrite orphaned; only where the rewrite delay is zero.
    DeleteRewritten,
    /// Index lane: compact and advance epochs, ranges, markers, superseded blobs.
    Index,
    /// Extend object locks.
    Locks,
    /// Delete old logs.
    Logs,
    /// Record figures and times, and let go.
    Close,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Stage; 18] = [
        Stage::Survey,
        Stage::Scan,
        Stage::Solve,
        Stage::Sweep,
        Stage::Plan,
        Stage::Check,
        Stage::Revive,
        Stage::Mark,
        Stage::RecordGc,
        Stage::Watermark,
        Stage::Delete,
        Stage::Rewrite,
        Stage::Publish,
        Stage::DeleteRewritten,
        Stage::Index,
        Stage::Locks,
        Stage::Logs,
        Stage::Close,
    ];

    /// Whether it only reads, or writes packs that nothing points to: safe late or twice (R1).
    #[must_use]
    pub fn is_repeatable(self) -> bool {
        self < Stage::Revive || self == Stage::Rewrite
    }

    /// Whether it changes what clients see, so that each batch needs an approval.
    #[must_use]
    pub fn is_deed(self) -> bool {
        !self.is_repeatable()
    }

    /// Whether it comes before the plan is sealed.
    #[must_use]
    pub fn is_before_seal(self) -> bool {
        self <= Stage::Check
    }

    /// Whether a cycle of this mode has the stage at all. A quick cycle has no snapshot GC; an index cycle touches the index alone.
    #[must_use]
    pub fn is_in(self, mode: Mode) -> bool {
        use Stage::{Check, Close, Index, Locks, Mark, Plan, RecordGc, Revive, Scan, Solve, Survey, Sweep, Watermark};
        match mode {
            Mode::Full => true,
            Mode::Quick => !matches!(self, Scan | Solve | Sweep | Revive | Mark | RecordGc | Watermark | Locks),
            Mode::Index => matches!(self, Survey | Plan | Check | Index | Close),
        }
    }

    /// The stage after this one.
    #[must_use]
    pub fn next(self) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| *stage > self)
    }

    /// As in messages and JSON: `record-gc`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stage::Survey => "survey",
            Stage::Scan => "scan",
            Stage::Solve => "solve",
            Stage::Sweep => "sweep",
            Stage::Plan => "plan",
            Stage::Check => "check",
            Stage::Revive => "revive",
            Stage::Mark => "mark",
            Stage::RecordGc => "record-gc",
            Stage::Watermark => "watermark",
            Stage::Delete => "delete",
            Stage::Rewrite => "rewrite",
            Stage::Publish => "publish",
            Stage::DeleteRewritten => "delete-rewritten",
            Stage::Index => "index",
            Stage::Locks => "locks",
            Stage::Logs => "logs",
            Stage::Close => "close",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_in_order_and_named_as_in_json() {
        assert!(Stage::ALL.is_sorted());
        for stage in Stage::ALL {
            assert_eq!(serde_json::to_string(&stage).unwrap(), format!("\"{stage}\""));
        }
        assert_eq!((Stage::Close.next(), Stage::Survey.next()), (None, Some(Stage::Scan)));
    }

    #[test]
    fn an_index_cycle_changes_the_index_and_its_records_alone() {
        let deeds =
            |mode| Stage::ALL.into_iter().filter(|stage| stage.is_deed() && stage.is_in(mode)).collect::<Vec<_>>();
        assert_eq!(deeds(Mode::Index), [Stage::Index, Stage::Close]);
        let narrower = |stage: &Stage| stage.is_in(Mode::Full) >= stage.is_in(Mode::Quick);
        assert!(Stage::ALL.iter().all(narrower));
        assert!(Stage::ALL.iter().all(|stage| stage.is_in(Mode::Quick) >= stage.is_in(Mode::Index)));
    }

    #[test]
    fn everything_before_the_seal_and_the_rewrite_may_be_repeated_and_nothing_else() {
        let repeatable: Vec<_> = Stage::ALL.into_iter().filter(|stage| stage.is_repeatable()).collect();
        use Stage::{Check, Plan, Rewrite, Scan, Solve, Survey, Sweep};
        assert_eq!(repeatable, [Survey, Scan, Solve, Sweep, Plan, Check, Rewrite]);
    }
}
