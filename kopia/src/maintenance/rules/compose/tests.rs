use super::super::check::{Severity, check};
use super::super::facts::SessionFact;
use super::super::rows::TestRows;
use super::super::testing::{Given, NOW, at, blob, epoch_parameters};
use super::*;
use crate::bitmap::Bitmap;
use crate::maintenance::Margins;
use crate::maintenance::history::RunRecord;
use crate::storage::BlobMetadata;
use proptest::prelude::*;

const H: i64 = 3600;
const OLD: i64 = NOW - 72 * H;

fn used(length: u32, rows: &[u32]) -> Option<Bitmap> {
    let mut used = Bitmap::new(length);
    rows.iter().for_each(|row| assert!(used.insert(*row)));
    Some(used)
}

fn old(names: &[&str]) -> Vec<BlobMetadata> {
    names.iter().map(|name| blob(name, -72 * H)).collect()
}

fn reasons(plan: &PlanBody) -> Vec<&str> {
    plan.skipped.iter().map(|skipped| skipped.task.as_str()).collect()
}

fn deleted(plan: Option<&DeletePlan>) -> Vec<&str> {
    plan.map(|plan| plan.blobs.iter().map(|d| d.blob.as_str()).collect()).unwrap_or_default()
}

/// Live, dead, marked and manifest contents in short packs.
fn table() -> TestRows {
    TestRows::new(&[
        (0, false, OLD, 10, "p1"),         // 0 used
        (0, false, OLD, 20, "p1"),         // 1 dead
        (0, false, OLD, 30, "p2"),         // 2 used
        (0, false, OLD, 40, "p3"),         // 3 dead, alone in its pack
        (0, true, NOW - 50 * H, 50, "p4"), // 4 marked long ago, alone in its pack
        (b'k', false, OLD, 60, "q1"),      // 5 used
        (b'm', false, OLD, 70, "q1"),      // 6 manifest
        (b'm', false, OLD, 80, "q2"),      // 7 manifest
    ])
}

fn given(margins: Margins) -> Given {
    Given {
        margins,
        used: used(8, &[0, 2, 5]),
        packs: old(&["p1", "p2", "p3", "p4", "p9", "q1", "q2", "sff-sa"]),
        ..Given::default()
    }
}

#[test]
fn without_margins_one_cycle_does_everything() {
    let (table, given) = (table(), given(Margins::none()));
    let facts = given.facts(&table);
    let plan = compose(&facts).unwrap();
    assert_eq!(plan.gc.as_ref().unwrap().mark, [1, 3]);
    assert_eq!(plan.drop.as_ref().unwrap().rows, [1, 3, 4], "the marks of this cycle go with it");
    assert_eq!(deleted(plan.delete.as_ref()), ["p3", "p4", "p9", "sff-sa"]);
    let rewrite = plan.rewrite.as_ref().unwrap();
    let rows: Vec<_> = rewrite.packs.iter().map(|pack| pack.rows.clone()).collect();
    assert_eq!(rows, [vec![0], vec![2], vec![5, 6], vec![7]]);
    assert_eq!(deleted(plan.delete_rewritten.as_ref()), ["p1", "p2", "q1", "q2"]);
    assert_eq!(reasons(&plan), ["extend-blob-retention-time"]);
    assert!(plan.logs.is_some() && !rewrite.quick);
    assert_eq!(check(&plan, &facts, 50), []);
}

#[test]
fn with_margins_the_first_cycle_marks_and_forgets_nothing() {
    let (table, given) = (table(), given(Margins::full()));
    let facts = given.facts(&table);
    let plan = compose(&facts).unwrap();
    assert_eq!(plan.gc.as_ref().unwrap().mark, [1, 3]);
    assert!(plan.drop.is_none() && plan.delete_rewritten.is_none());
    let skipped = &plan.skipped[0];
    assert_eq!((skipped.task.as_str(), skipped.until), ("full-drop-deleted-content", Some(at(4 * H))));
    assert!(skipped.reason.starts_with("Not forgetting deleted contents yet"));
    assert_eq!(deleted(plan.delete.as_ref()), ["p9", "sff-sa"]);
    assert_eq!(check(&plan, &facts, 50), []);
}

#[test]
fn quick_on_epochs_is_index_work_only() {
    let (table, mut given) = (table(), given(Margins::full()));
    (given.mode, given.used) = (Mode::Quick, None);
    let blobs = old(&["xe2", "xn0_a-s1-c1"]);
    given.index = IndexFacts::Epochs { parameters: epoch_parameters(), blobs };
    let facts = given.facts(&table);
    let plan = compose(&facts).unwrap();
    assert_eq!(plan.index.len(), 1);
    assert!(plan.gc.is_none() && plan.delete.is_none() && plan.rewrite.is_none() && plan.logs.is_none());
    assert!(plan.locks.is_none() && plan.skipped.is_empty());
    assert_eq!(check(&plan, &facts, 50), []);
}

fn legacy(count: usize) -> IndexFacts {
    let active: Vec<BlobMetadata> = (0..count).map(|n| blob(&format!("n{n}"), -72 * H)).collect();
    IndexFacts::Legacy { all: active.clone(), active, logs: Vec::new(), notes: Vec::new() }
}

#[test]
fn quick_on_the_legacy_index_moves_and_deletes_q_packs() {
    let (table, mut given) = (table(), given(Margins::full()));
    (given.mode, given.used, given.index) = (Mode::Quick, None, legacy(8));
    given.schedule.report(Task::QuickRewriteContents, RunRecord::success(at(-3 * H), at(-3 * H)));
    given.packs.push(blob("q9", -72 * H));
    let facts = given.facts(&table);
    let plan = compose(&facts).unwrap();
    assert_eq!(deleted(plan.delete.as_ref()), ["q9"]);
    assert!(plan.delete.as_ref().unwrap().quick);
    let rewrite = plan.rewrite.as_ref().unwrap();
    assert!(rewrite.quick && rewrite.packs.len() == 2);
    assert!(matches!(&plan.index[..], [IndexStep::CompactLegacy { inputs, drop_before: None }] if inputs.len() == 8));
    assert!(plan.logs.is_some() && plan.gc.is_none());
    assert_eq!(check(&plan, &facts, 50), []);
}

#[test]
fn full_on_the_legacy_index_forgets_by_a_compaction_of_all() {
    let (table, mut given) = (table(), given(Margins::none()));
    given.index = legacy(1);
    let facts = given.facts(&table);
    let plan = compose(&facts).unwrap();
    let cutoff = plan.drop.as_ref().unwrap().cutoff;
    assert_eq!(cutoff, at(1), "strictly before: a second later than the marks");
    assert_eq!(plan.drop.as_ref().unwrap().rows, [1, 3, 4]);
    let [IndexStep::CompactLegacy { inputs, drop_before }, IndexStep::DeleteSuperseded { blobs }] = &plan.index[..]
    else {
        panic!("{:?}", plan.index)
    };
    assert_eq!((inputs, *drop_before), (blobs, Some(cutoff)));
    assert_eq!(check(&plan, &facts, 50), []);
    given.margins = Margins::full();
    assert!(compose(&given.facts(&table)).unwrap().index.is_empty(), "no drop, no compaction in a full cycle");
}

/// R11: what goes on while something is unreadable.
#[test]
fn r11_frozen_states() {
    let mut table = table();
    table.hidden = vec!["p9".into()];
    let mut given = given(Margins::none());
    given.frozen = Frozen::MarksAndDrops;
    // Row 4 is needed by a snapshot that could be read.
    given.used = used(8, &[0, 2, 4, 5]);
    let plan = compose(&given.facts(&table)).unwrap();
    let gc = plan.gc.as_ref().unwrap();
    assert_eq!((gc.mark.as_slice(), gc.undelete.as_slice()), (&[][..], &[4][..]));
    assert!(plan.drop.is_none() && plan.rewrite.is_some());
    assert_eq!(deleted(plan.delete.as_ref()), ["sff-sa"], "p9 is named by a hidden mark");
    assert_eq!(&reasons(&plan)[..2], ["snapshot-gc", "full-drop-deleted-content"]);
    assert!(plan.skipped[0].reason.contains("directory k1 cannot be read"));
    assert_eq!(check(&plan, &given.facts(&table), 50), []);

    given.frozen = Frozen::Everything;
    let plan = compose(&given.facts(&table)).unwrap();
    assert_eq!(plan.gc.as_ref().unwrap().undelete, [4]);
    assert!(plan.drop.is_none() && plan.delete.is_none() && plan.rewrite.is_none() && plan.delete_rewritten.is_none());
    assert!(plan.index.is_empty() && plan.logs.is_none());
    assert_eq!(check(&plan, &given.facts(&table), 50), []);
    given.used = None;
    assert!(compose(&given.facts(&table)).unwrap().gc.is_none());
    given.frozen = Frozen::Nothing;
    assert_eq!(compose(&given.facts(&table)).unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn turns_are_decided_once_with_the_deletion_first() {
    let (table, mut given) = (table(), given(Margins::full()));
    given.schedule.report(Task::FullRewriteContents, RunRecord::success(at(-H), at(-H + 1)));
    let plan = compose(&given.facts(&table)).unwrap();
    assert!(plan.delete.is_none() && plan.rewrite.is_none());
    let waits: Vec<_> = plan.skipped.iter().filter(|s| s.until == Some(at(1))).map(|s| s.reason.as_str()).collect();
    assert_eq!(waits, [DELETE_WAITS, REWRITE_WAITS]);
    // A second later the deletion may run, and it unblocks the rewrite.
    given.schedule = Default::default();
    given.schedule.report(Task::FullRewriteContents, RunRecord::success(at(-H), at(-H)));
    let plan = compose(&given.facts(&table)).unwrap();
    assert!(plan.delete.is_some() && plan.rewrite.is_some() && plan.delete_rewritten.is_none());
}

/// Daily cycles with full margins: marked on day 0, forgotten when a second GC and 24 h have passed, its pack deleted
/// in that same cycle; the rewritten pack goes in the next.
#[test]
fn simulated_days() {
    let mut rows = vec![
        (0, false, OLD, 10u32, "p1"),
        (0, false, OLD, 20, "p1"),
        (0, false, OLD, 30, "p2"),
        (0, false, OLD, 40, "p3"),
    ];
    let mut given = Given { packs: old(&["p1", "p2", "p3"]), used: used(4, &[0, 2]), ..Given::default() };
    let mut seen = Vec::new();
    for day in 0..3 {
        let (now, table) = (at(day * 24 * H), TestRows::new(&rows));
        let facts = Facts { now, started: now, gc_started: now, ..given.facts(&table) };
        let plan = compose(&facts).unwrap();
        assert!(check(&plan, &facts, 100).is_empty());
        let gc = plan.gc.as_ref().unwrap();
        seen.push((
            gc.mark.clone(),
            plan.drop.as_ref().map(|drop| drop.rows.clone()),
            deleted(plan.delete.as_ref()).join(" "),
        ));
        for row in &gc.mark {
            rows[*row as usize].1 = true;
            rows[*row as usize].2 = now.as_second();
        }
        let end = at(day * 24 * H + 600);
        given.schedule.report(Task::SnapshotGc, RunRecord::success(now, end));
    }
    let none = String::new;
    assert_eq!(
        seen,
        [
            (vec![1, 3], None, none()),
            // The pair (day 0, day 1) covers only what was marked an hour before day 0.
            (vec![], Some(vec![]), none()),
            (vec![], Some(vec![1, 3]), "p3".to_owned()),
        ]
    );
}

proptest! {
    /// Whatever the facts, what compose makes holds together for the second pair of eyes.
    #[test]
    fn plans_hold_together(
        rows in proptest::collection::vec(
            (prop::sample::select(vec![0u8, b'm', b'k']), any::<bool>(), -80i64..2, 0u32..900,
             prop::sample::select(vec![1u8, 2, 3]), any::<bool>()), 1..40),
        ages in proptest::collection::vec(proptest::option::weighted(0.9, -80i64..2), 8),
        runs in proptest::collection::vec((0usize..5, -60i64..0, any::<bool>()), 0..8),
        none in any::<bool>(), quick in any::<bool>(), legacy_index in any::<bool>(), frozen in 0u8..3,
        session in proptest::option::of(-100i64..0),
    ) {
        let named = |r: &(u8, bool, i64, u32, u8, bool)| match (r.0, r.4) {
            (0, 1) => "p1", (0, 2) => "p2", (0, _) => "p3", (_, 1) => "q1", (_, 2) => "q2-sa", _ => "q3",
        };
        let entries: Vec<_> = rows.iter().map(|r| (r.0, r.1, NOW + r.2 * H, r.3, named(r))).collect();
        let mut table = TestRows::new(&entries);
        let needed: Vec<u32> = (0u32..).zip(&rows).filter(|(_, r)| r.5).map(|(n, _)| n).collect();
        table.hidden = vec!["p8".into()];
        let names = ["p1", "p2", "p3", "q1", "q2-sa", "q3", "p8", "q9-sa"];
        let mut given = Given {
            margins: if none { Margins::none() } else { Margins::full() },
            mode: if quick { Mode::Quick } else { Mode::Full },
            frozen: [Frozen::Nothing, Frozen::MarksAndDrops, Frozen::Everything][usize::from(frozen)],
            packs: names.iter().zip(&ages).filter_map(|(n, age)| Some(blob(n, (*age)? * H))).collect(),
            used: used(u32::try_from(rows.len()).unwrap(), &needed),
            ..Given::default()
        };
        if legacy_index { given.index = legacy(9); }
        if let Some(hours) = session {
            given.sessions.push(SessionFact { marker: blob("s1-sa", hours * H), checkpoint: None, over: false });
            given.packs.push(blob("s1-sa", hours * H));
        }
        let tasks = [
            Task::SnapshotGc, Task::FullRewriteContents, Task::QuickRewriteContents, Task::FullDeleteBlobs,
            Task::QuickDeleteBlobs,
        ];
        for (task, hours, success) in runs {
            let run = RunRecord::success(at(hours * H), at(hours * H + 60));
            given.schedule.report(tasks[task], RunRecord { success, ..run });
        }
        let facts = Facts { max_pack_size: 1000, ..given.facts(&table) };
        let plan = compose(&facts).unwrap();
        let notes = check(&plan, &facts, 100);
        let wrong: Vec<_> = notes.iter().filter(|note| note.severity == Severity::Fatal).collect();
        prop_assert!(wrong.is_empty(), "{wrong:?}\n{plan:?}");
    }
}
