//! The reading half of a cycle against the golden repositories, and against the slow way.

mod common;
#[path = "common/oracle.rs"]
mod oracle;

use std::collections::BTreeSet;

use common::{GOLDEN, Golden};
use oracle::Oracle;
use verger_kopia::content::ContentId;
use verger_worker::task::survey::{Start, Survey, survey};
use verger_worker::task::{scan, solve};
use verger_worker::workspace::Workspace;

fn solved(workspace: &Workspace) -> (Survey, solve::Used) {
    let survey = survey(workspace, Start::DryRun).unwrap();
    let summaries = scan::scan(workspace, &survey).unwrap();
    let used = solve::solve(workspace, &survey, &summaries).unwrap();
    (survey, used)
}

fn used_ids(survey: &Survey, used: &solve::Used) -> BTreeSet<ContentId> {
    used.rows.iter().map(|row| survey.view.table.id(row)).collect()
}

#[test]
fn every_golden_repository_uses_exactly_what_the_slow_walk_finds() {
    for name in GOLDEN {
        let golden = Golden::unpack(name);
        let workspace = golden.workspace();
        let (survey, used) = solved(&workspace);
        assert_eq!(used.damages, [], "{name}");
        let mut oracle = Oracle::new(&survey.repository, &survey.view.table);
        for snapshot in golden.expect["before"]["snapshots"].as_array().unwrap() {
            oracle.entry(&snapshot["rootEntry"]);
        }
        assert_eq!(used_ids(&survey, &used), oracle.used, "{name}");
    }
}
