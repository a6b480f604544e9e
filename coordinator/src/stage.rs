//! What comes after a stage, and what is passed.

use verger_kopia::mutant::{self, Mutant};
use verger_proto::event::PassReason;
use verger_proto::{Severity, Stage};

use crate::machine::Cycle;

/// Whether damage of this severity forbids the stage (R11). Reviving, locks and the last record only add.
pub(crate) fn is_forbidden(stage: Stage, severity: Severity) -> bool {
    use Stage::{Delete, DeleteRewritten, Index, Logs, Mark, Publish, RecordGc, Rewrite, Watermark};
    match severity {
        Severity::Noted => false,
        Severity::Unreadable if mutant::on(Mutant::R11DamageStopsNothing) => false,
        Severity::LostIndex if mutant::on(Mutant::R11LostIndexStopsNothing) => false,
        Severity::Unreadable => matches!(stage, Mark | RecordGc | Watermark),
        Severity::LostIndex => {
            let gc = matches!(stage, Mark | RecordGc | Watermark);
            gc || matches!(stage, Delete | Rewrite | Publish | DeleteRewritten | Index | Logs)
        }
    }
}

/// Why the cycle passes `stage`; `None` if it runs.
pub(crate) fn pass(cycle: &Cycle, stage: Stage) -> Option<PassReason> {
    if !stage.is_in(cycle.options.mode) {
        return Some(PassReason::NotInMode);
    }
    if cycle.severity.is_some_and(|severity| is_forbidden(stage, severity)) {
        return Some(PassReason::Damage);
    }
    let has_work = cycle.sealed.as_ref().is_some_and(|sealed| sealed.header.work(stage).is_some());
    let runs = stage.is_before_seal() || stage == Stage::Close || has_work;
    (!runs).then_some(PassReason::NothingToDo)
}

/// Whether the cycle can go around a shard of this stage that fails for good (R12).
pub(crate) fn can_go_around(stage: Stage) -> bool {
    mutant::on(Mutant::R12ReadingGoneAround) || matches!(stage, Stage::Rewrite | Stage::Logs | Stage::Delete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r11_what_is_unreadable_stops_marking_and_a_lost_index_stops_everything_that_takes_away() {
        let forbidden = |severity| -> Vec<&str> {
            Stage::ALL.into_iter().filter(|stage| is_forbidden(*stage, severity)).map(Stage::name).collect()
        };
        assert!(forbidden(Severity::Noted).is_empty());
        assert_eq!(forbidden(Severity::Unreadable), ["mark", "record-gc", "watermark"]);
        let all = "mark record-gc watermark delete rewrite publish delete-rewritten index logs";
        assert_eq!(forbidden(Severity::LostIndex).join(" "), all);
    }
}
