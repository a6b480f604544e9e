//! The reading half of a cycle against the golden repositories, and against the slow way.

mod common;
#[path = "common/oracle.rs"]
mod oracle;

use std::collections::BTreeSet;

use common::{GOLDEN, Golden};
use oracle::Oracle;
use verger_kopia::content::ContentId;
use verger_kopia::maintenance::Margins;
use verger_kopia::maintenance::rules::plan::Mode;
use verger_worker::task::plan::{Gathered, Request};
use verger_worker::task::survey::{Start, Survey, survey};
use verger_worker::task::{check, plan, scan, solve, sweep};
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

#[test]
fn every_golden_repository_gives_the_figures_of_the_real_program() {
    for name in GOLDEN {
        let golden = Golden::unpack(name);
        let workspace = golden.workspace();
        let (survey, used) = solved(&workspace);
        let margins = Margins::none();
        let gc = sweep::sweep(&survey, &used, survey.started.as_second(), &margins).unwrap();
        let theirs = &golden.expect["after"]["maintenance"]["schedule"]["runs"]["snapshot-gc"][0]["extra"][0]["data"];
        assert_eq!(&serde_json::to_value(&gc.stats).unwrap(), theirs, "{name}");

        let request = Request { mode: Mode::Full, margins: &margins, gc_started: survey.started, over: &|_| false };
        let gathered = Gathered::new(&survey, Some(&used), &request).unwrap();
        let body = plan::plan(&gathered).unwrap();
        assert_eq!(body.gc.as_ref().unwrap().mark, gc.mark, "{name}");
        let notes = check::check(&workspace, &survey, &gathered, &body, 100).unwrap();
        verger_kopia::maintenance::rules::check::verdict(&notes).unwrap();

        let mut text = Vec::new();
        plan::lines::write_lines(&body, &survey.view.table, &mut text).unwrap();
        let digest = plan::lines::digest(&body, &survey.view.table);
        assert_eq!(digest, blake3::hash(&text).to_hex().to_string());
        let lines: Vec<serde_json::Value> = text
            .split(|byte| *byte == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect();
        assert_eq!(lines.last().unwrap()["lines"], lines.len() - 1);
        assert_eq!(lines.iter().filter(|line| line.get("mark").is_some_and(|v| v.is_string())).count(), gc.mark.len());
    }
}
