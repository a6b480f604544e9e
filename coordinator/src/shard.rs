//! How stages are cut: proved to cover every key exactly once before a job is made of it.

use verger_proto::report::Cut;
use verger_proto::{Refusal, Shard, Stage};

use crate::machine::Cycle;

/// More shards than this are a mistake.
const SHARDS_MAX: usize = 4096;

/// Refuses cuts of stages that have no shards or have begun, and cuts that leave keys out or take them twice (R12).
pub(crate) fn check(cuts: &[Cut], now: Stage) -> Result<(), Refusal> {
    for cut in cuts {
        let has_shards = matches!(cut.stage, Stage::Scan | Stage::Solve | Stage::Sweep | Stage::Rewrite);
        if !has_shards || cut.stage <= now || cut.shards.len() > SHARDS_MAX {
            return Err(Refusal::BadCut(cut.stage));
        }
        let covered = Shard::prove_coverage(&cut.shards);
        covered.map_err(|error| Refusal::Coverage { stage: cut.stage, error })?;
    }
    Ok(())
}

/// The shards of a stage: as cut, or one. Deeds are never cut: their batches go in order.
pub(crate) fn shards(cycle: &Cycle, stage: Stage) -> Vec<Shard> {
    let cut = cycle.cuts.get(&stage).filter(|_| stage.is_repeatable());
    cut.cloned().unwrap_or_else(|| vec![Shard::whole()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeds_past_stages_and_gaps_are_no_cuts() {
        let cut = |stage, shards| vec![Cut { stage, shards }];
        assert_eq!(check(&cut(Stage::Scan, vec![Shard::whole()]), Stage::Survey), Ok(()));
        assert_eq!(check(&cut(Stage::Scan, vec![Shard::whole()]), Stage::Scan), Err(Refusal::BadCut(Stage::Scan)));
        assert_eq!(check(&cut(Stage::Mark, vec![Shard::whole()]), Stage::Plan), Err(Refusal::BadCut(Stage::Mark)));
        let gap = vec![Shard { from: vec![7], to: None }];
        assert!(matches!(check(&cut(Stage::Sweep, gap), Stage::Survey), Err(Refusal::Coverage { .. })));
    }
}
