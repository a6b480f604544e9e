//! Attempts that fail: again, around them, or the end of the cycle.

use verger_proto::{Command, FailureKind, Stage};

use super::whole_cycle;
use crate::testing::{Rig, batch, failure, repository, words};

#[test]
fn a_failure_that_may_pass_is_tried_five_times() {
    let mut rig = Rig::at_stage(Stage::Sweep);
    for attempt in 2..=5u32 {
        let ticket = rig.claim();
        let said = rig.go(Command::FailJob { ticket, failure: failure(FailureKind::StoreUnavailable, true) });
        assert_eq!(words(&said)[1], format!("job_offered 4#{attempt}"));
    }
    let ticket = rig.claim();
    let said = words(&rig.go(Command::FailJob { ticket, failure: failure(FailureKind::StoreUnavailable, true) }));
    assert_eq!(said[..2], ["job_failed", "cycle_stopping"]);
    assert!(said[2].starts_with("cycle_closed Failed(Failure { kind: StoreUnavailable"));
    assert!(rig.state.repositories[&repository()].due, "a cycle that failed stays due");
}

#[test]
fn r12_only_a_rewrite_logs_or_orphans_can_be_gone_around_and_only_for_their_own_faults() {
    for (stage, kind, around) in [
        (Stage::Rewrite, FailureKind::Damaged, true),
        (Stage::Delete, FailureKind::Damaged, true),
        (Stage::Logs, FailureKind::StoreUnavailable, true),
        (Stage::Rewrite, FailureKind::ForeignMaintenance, false),
        (Stage::Mark, FailureKind::Damaged, false),
        (Stage::Scan, FailureKind::Damaged, false),
        (Stage::Publish, FailureKind::Damaged, false),
    ] {
        let mut rig = Rig::at_stage(stage);
        let ticket = rig.claim();
        let said = rig.go(Command::FailJob { ticket, failure: failure(kind, false) });
        let quarantined = said.0.iter().any(|event| event.kind() == "shard_quarantined");
        assert_eq!((quarantined, rig.state.cycles.is_empty()), (around, !around), "{stage} {kind:?}");
        if around {
            let said = whole_cycle(&mut rig, said);
            assert!(said.contains(&"cycle_closed Degraded".to_owned()));
        }
    }
}

#[test]
fn what_may_have_begun_is_not_gone_around() {
    let mut rig = Rig::at_stage(Stage::Delete);
    let ticket = rig.claim();
    rig.approve(&ticket, batch(Stage::Delete, 0, 0, 1));
    let said = rig.go(Command::FailJob { ticket, failure: failure(FailureKind::Damaged, false) });
    let said = words(&said);
    assert!(said[2].starts_with("cycle_closed Failed"), "{said:?}");
    assert!(
        !said.contains(&"! close lease 1".to_owned()),
        "the end of a batch is unknown: the lease runs out by itself"
    );
}
