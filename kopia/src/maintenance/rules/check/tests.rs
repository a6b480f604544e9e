use super::super::compose::compose;
use super::super::facts::{CompactionLog, Frozen, IndexFacts, SessionFact};
use super::super::plan::{DeletePlan, DeleteRule, Deletion, IndexStep, RewritePack, RewritePlan};
use super::super::rows::TestRows;
use super::super::testing::{Given, NOW, at, blob, epoch_parameters};
use super::*;
use crate::bitmap::Bitmap;
use crate::maintenance::Margins;
use crate::maintenance::history::{RunRecord, Task};

const H: i64 = 3600;
const OLD: i64 = NOW - 72 * H;

fn table() -> TestRows {
    TestRows::new(&[
        (0, false, OLD, 100, "p1"),       // 0 used
        (0, false, OLD, 20, "p1"),        // 1 dead
        (0, false, OLD, 100, "p2"),       // 2 used
        (0, true, NOW - 50 * H, 5, "p3"), // 3 an old mark
        (0, true, NOW - 2 * H, 5, "p4"),  // 4 a young mark
        (0, true, OLD, 5, "p2"),          // 5 a mark that is needed
        (b'm', false, OLD, 70, "q1"),     // 6
        (b'k', false, NOW - H, 9, "q1"),  // 7 young
        (b'k', false, OLD, 9, "q2"),      // 8 used
        (0, false, OLD, 9, "p5"),         // 9 dead, in a young pack
    ])
}

fn given() -> Given {
    let mut used = Bitmap::new(10);
    [0, 2, 5, 8].into_iter().for_each(|row| assert!(used.insert(row)));
    let names = ["p1", "p2", "p3", "p4", "p8", "p9-sa", "q1", "q2", "s1-sa"];
    let mut packs: Vec<_> = names.iter().map(|name| blob(name, -72 * H)).collect();
    packs.extend([blob("p5", -H), blob("p7", -H)]);
    let blobs = [
        ("xe3", -50),
        ("xe1", -90),
        ("xw5", -90),
        ("xw9", -60),
        ("xn0_a-s1-c1", -90),
        ("xn1_a-s1-c1", -80),
        ("xs0_b-s2-c1", -70),
        ("xn2_a-s1-c1", -2),
        ("xn3_a-s1-c1", 0),
    ];
    let mut given = Given {
        used: Some(used),
        packs,
        sessions: vec![SessionFact { marker: blob("s1-sa", -72 * H), checkpoint: None, over: false }],
        logs: (0..3).map(|n| blob(&format!("_log_{n}"), -900 * H)).collect(),
        index: IndexFacts::Epochs {
            parameters: epoch_parameters(),
            blobs: blobs.iter().map(|(name, hours)| blob(name, hours * H)).collect(),
        },
        ..Given::default()
    };
    for hours in [-48, -24] {
        given.schedule.report(Task::SnapshotGc, RunRecord::success(at(hours * H), at(hours * H + 60)));
    }
    given
}

/// Composes a plan, breaks it, and expects a fatal note that starts so.
fn breach(expected: &str, break_it: impl FnOnce(&mut PlanBody)) {
    let (table, given) = (table(), given());
    let facts = given.facts(&table);
    let mut plan = compose(&facts).unwrap();
    assert_eq!(check(&plan, &facts, 50), [], "before it is broken");
    break_it(&mut plan);
    let notes = check(&plan, &facts, 50);
    assert!(
        notes.iter().any(|note| note.severity == Severity::Fatal && note.text.starts_with(expected)),
        "expected {expected:?}, found {notes:?}"
    );
    let refused = verdict(&notes).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PlanRefused);
}

fn gc(plan: &mut PlanBody) -> &mut super::super::plan::GcPlan {
    plan.gc.as_mut().unwrap()
}

fn add(plan: &mut PlanBody, name: &str) {
    let delete = plan.delete.as_mut().unwrap();
    let rule = if name.starts_with('s') { DeleteRule::ExpiredSession } else { DeleteRule::UnreferencedPack };
    delete.blobs.push(Deletion { blob: name.into(), length: 10, rule });
    delete.blobs.sort_by(|a, b| a.blob.cmp(&b.blob));
}

fn copy(plan: &mut PlanBody, pack: u32, row: u32) {
    plan.rewrite = Some(RewritePlan { packs: vec![RewritePack { pack, rows: vec![row] }], ..RewritePlan::default() });
}

#[test]
fn the_sound_plan_has_all_its_parts() {
    let (table, given) = (table(), given());
    let plan = compose(&given.facts(&table)).unwrap();
    assert_eq!(
        (gc(&mut plan.clone()).mark.as_slice(), plan.gc.as_ref().unwrap().undelete.as_slice()),
        (&[1][..], &[5][..])
    );
    assert_eq!(plan.drop.as_ref().unwrap().rows, [3]);
    let deleted: Vec<&str> = plan.delete.as_ref().unwrap().blobs.iter().map(|d| d.blob.as_str()).collect();
    assert_eq!(deleted, ["p3", "p8"]);
    assert!(!plan.rewrite.as_ref().unwrap().packs.is_empty() && plan.logs.as_ref().unwrap().blobs.len() == 3);
    assert!(verdict(&check(&plan, &given.facts(&table), 50)).is_ok());
}

#[test]
fn plans_for_something_else() {
    breach("plan for another repository", |plan| plan.unique_id = "ef".into());
    breach("plan for another store", |plan| plan.store = "s3://other".into());
    breach("plan for another view", |plan| plan.view = "w".into());
    breach("plan for another number of contents", |plan| plan.rows += 1);
    breach("plan for another cycle", |plan| plan.started = at(1));
}

#[test]
fn rows_that_are_wrong() {
    breach("a row that does not exist", |plan| gc(plan).mark.push(10));
    breach("a row that does not exist", |plan| copy(plan, 0, 10));
    breach("rows out of order", |plan| gc(plan).mark.push(1));
    breach("rows out of order", |plan| plan.drop.as_mut().unwrap().rows.insert(0, 9));
}

#[test]
fn marks_that_are_wrong() {
    breach("marked although a snapshot needs it", |plan| gc(plan).mark = vec![0, 1]);
    breach("a manifest content is marked", |plan| gc(plan).mark.push(6));
    breach("marked although it, or its pack, is too young", |plan| gc(plan).mark.push(7));
    breach("marked although it, or its pack, is too young", |plan| gc(plan).mark.push(9));
    breach("marked twice", |plan| gc(plan).mark.push(4));
    breach("both marked and revived", |plan| gc(plan).undelete.insert(0, 1));
    breach("revived without need", |plan| gc(plan).undelete.insert(0, 4));
    breach("a snapshot needs it, it is marked, and not revived", |plan| gc(plan).undelete.clear());
    breach("figures that do not add up", |plan| gc(plan).stats.in_use_content_count += 1);
}

#[test]
fn forgetting_that_is_wrong() {
    breach("forgotten, but live", |plan| plan.drop.as_mut().unwrap().rows.insert(0, 2));
    breach("forgotten, but live", |plan| plan.drop.as_mut().unwrap().rows.push(4));
    breach("forgotten, but live", |plan| plan.drop.as_mut().unwrap().rows.push(5));
    breach("the cutoff hides it", |plan| plan.drop.as_mut().unwrap().rows.clear());
    breach("forgetting marks that are too young", |plan| plan.drop.as_mut().unwrap().cutoff = at(-24 * H + 1));
    breach("forgetting marks that two snapshot GCs", |plan| plan.drop.as_mut().unwrap().cutoff = at(-25 * H + 1));
}

#[test]
fn s2_deletions_that_are_wrong() {
    breach("deleted although contents lie in it", |plan| add(plan, "p2"));
    breach("deleted although contents lie in it", |plan| add(plan, "p4"));
    breach("deleted too young", |plan| add(plan, "p7"));
    breach("deleted although its session may still write", |plan| add(plan, "p9-sa"));
    breach("deleted although its session may still write", |plan| add(plan, "s1-sa"));
    breach("deleted but not listed", |plan| add(plan, "p0"));
    breach("deleted but not a blob that maintenance deletes", |plan| add(plan, "kopia.repository"));
    breach("deletions out of order", |plan| plan.delete.as_mut().unwrap().blobs.reverse());
    breach("deleted with another length", |plan| plan.delete.as_mut().unwrap().blobs[0].length = 9);
    breach("deleted but not a pack or session marker of this", |plan| plan.delete.as_mut().unwrap().quick = true);
    breach("deletion of what was rewritten without the wait", |plan| {
        plan.delete_rewritten = Some(DeletePlan::default())
    });
    breach("deleted twice", |plan| {
        let blobs = vec![plan.delete.as_ref().unwrap().blobs[0].clone()];
        plan.delete_rewritten = Some(DeletePlan { blobs, ..DeletePlan::default() });
    });
    breach("not a log that was listed", |plan| plan.logs.as_mut().unwrap().blobs[0].blob = "p2".into());
    breach("both locked and deleted", |plan| {
        plan.locks = Some(super::super::plan::LocksPlan {
            blobs: vec!["p3".into()],
            mode: crate::storage::RetentionMode::Governance,
            period: std::time::Duration::ZERO,
        });
    });
}

#[test]
fn copies_that_are_wrong() {
    breach("copied, but no longer visible", |plan| copy(plan, 2, 3));
    breach("copied, but marked or revived", |plan| copy(plan, 0, 1));
    breach("copied, but too young", |plan| copy(plan, 5, 7));
    breach("copied twice, out of order, or from another pack", |plan| copy(plan, 1, 0));
    breach("copied twice, out of order, or from another pack", |plan| {
        plan.rewrite.as_mut().unwrap().packs.push(RewritePack { pack: 1, rows: vec![2] });
    });
    breach("a quick rewrite of a data pack", |plan| plan.rewrite.as_mut().unwrap().quick = true);
}

#[test]
fn index_steps_that_are_wrong() {
    let step = |plan: &mut PlanBody, step: IndexStep| plan.index.push(step);
    let ids = |names: &[&str]| names.iter().map(|name| (*name).into()).collect::<Vec<_>>();
    let gone = |names: &[&str]| IndexStep::DeleteSuperseded { blobs: ids(names) };
    let compact = |epoch, names: &[&str]| IndexStep::CompactEpoch { epoch, inputs: ids(names) };
    breach("an epoch that is not settled", |plan| step(plan, compact(2, &["xn2_a-s1-c1"])));
    breach("an epoch is compacted without all its blobs", |plan| step(plan, compact(1, &[])));
    let range = |first, last, names: &[&str]| IndexStep::CompactRange { first, last, inputs: ids(names) };
    breach("a range that is not settled", |plan| {
        step(plan, range(0, 2, &["xs0_b-s2-c1", "xn1_a-s1-c1", "xn2_a-s1-c1"]))
    });
    breach("a range leaves out an index blob", |plan| step(plan, range(0, 1, &["xs0_b-s2-c1"])));
    breach("a range is made from blobs outside it", |plan| step(plan, range(0, 0, &["xs0_b-s2-c1", "xn1_a-s1-c1"])));
    breach("the write epoch does not advance by one", |plan| step(plan, IndexStep::AdvanceEpoch { epoch: 5 }));
    for name in ["xn1_a-s1-c1", "xn3_a-s1-c1", "xs0_b-s2-c1"] {
        breach("an index blob is deleted that nothing replaces", |plan| step(plan, gone(&[name])));
    }
    for name in ["xe3", "xw9"] {
        let blobs = ids(&[name]);
        breach("an index blob is deleted that nothing replaces", |plan| step(plan, IndexStep::CleanMarkers { blobs }));
    }
    breach("deleted twice", |plan| step(plan, gone(&["xn0_a-s1-c1"])));
    breach("legacy compaction of an epoch index", |plan| {
        step(plan, IndexStep::CompactLegacy { inputs: Vec::new(), drop_before: None });
    });
}

#[test]
fn legacy_steps_that_are_wrong() {
    let active = vec![blob("n1", -72 * H), blob("n2", -72 * H)];
    let mut given = given();
    given.index =
        IndexFacts::Legacy { all: active.clone(), active: active.clone(), logs: Vec::new(), notes: Vec::new() };
    let table = table();
    let facts = given.facts(&table);
    let plan = compose(&facts).unwrap();
    assert_eq!(check(&plan, &facts, 50), []);
    let with = |inputs: &[&str], drop_before, gone: &[&str]| {
        let ids = |names: &[&str]| names.iter().map(|name| (*name).into()).collect::<Vec<_>>();
        let compact = IndexStep::CompactLegacy { inputs: ids(inputs), drop_before };
        let index = vec![compact, IndexStep::DeleteSuperseded { blobs: ids(gone) }];
        let notes = check(&PlanBody { index, ..plan.clone() }, &facts, 50);
        notes.first().map(|note| note.text.clone()).unwrap_or_default()
    };
    let cutoff = plan.drop.as_ref().map(|drop| drop.cutoff);
    assert_eq!(with(&["n1", "n2"], cutoff, &[]), "");
    assert!(with(&["n1"], cutoff, &[]).starts_with("marks are removed without all index blobs"));
    assert!(with(&["n1", "n2"], Some(at(0)), &[]).starts_with("marks are removed by another cutoff"));
    assert!(with(&["n1", "n3"], cutoff, &[]).starts_with("a legacy compaction of blobs that are not active"));
    assert!(with(&["n1", "n2"], cutoff, &["n1"]).starts_with("an index blob is deleted that nothing replaces"));
    let log = CompactionLog { blob: blob("m1", -72 * H), inputs: vec!["n0".into()], outputs: vec!["n1".into()] };
    let mut all = active;
    all.push(blob("n0", -72 * H));
    given.index = IndexFacts::Legacy { active: all[..2].to_vec(), all, logs: vec![log], notes: Vec::new() };
    let index = vec![IndexStep::DeleteSuperseded { blobs: vec!["m1".into()] }];
    let notes = check(&PlanBody { index, ..plan }, &given.facts(&table), 50);
    assert!(notes.iter().any(|note| note.text == "superseded index blobs would be active again: m1"), "{notes:?}");
}

#[test]
fn frozen_plans_that_go_on() {
    let (table, mut given) = (table(), given());
    let sound = compose(&given.facts(&table)).unwrap();
    for (frozen, expected) in [
        (Frozen::MarksAndDrops, &["marks although", "forgetting although"][..]),
        (
            Frozen::Everything,
            &[
                "marks although",
                "forgetting although",
                "rewriting although",
                "deletion although",
                "index work although",
                "logs deleted",
            ][..],
        ),
    ] {
        given.frozen = frozen;
        let notes = check(&sound, &given.facts(&table), 50);
        for text in expected {
            assert!(notes.iter().any(|note| note.text.starts_with(text)), "{frozen:?} {text}: {notes:?}");
        }
    }
    let mut hidden = table.clone();
    hidden.hidden = vec!["p8".into()];
    given.frozen = Frozen::MarksAndDrops;
    let notes = check(&sound, &given.facts(&hidden), 50);
    assert!(notes.iter().any(|note| note.text == "deleted although contents lie in it: p8"));
}

#[test]
fn an_early_deletion_after_a_rewrite() {
    let (table, mut given) = (table(), given());
    let plan = compose(&given.facts(&table)).unwrap();
    given.schedule.report(Task::QuickRewriteContents, RunRecord::success(at(-60), at(-60)));
    let notes = check(&plan, &given.facts(&table), 50);
    assert!(notes.iter().any(|note| note.text.starts_with("deletion too soon after a rewrite")));
}

/// S5: a person's word, by percentage, and for a repository without live content.
#[test]
fn too_much_at_once_needs_a_word() {
    let table = TestRows::new(&[(0, false, OLD, 49, "p1"), (0, false, OLD, 31, "p2"), (b'm', false, OLD, 20, "q1")]);
    let plan_for = |live: &[u32], allow: u8| {
        let mut used = Bitmap::new(3);
        live.iter().for_each(|row| assert!(used.insert(*row)));
        let packs = vec![blob("p1", -72 * H), blob("p2", -72 * H), blob("q1", -72 * H)];
        let given = Given { used: Some(used), packs, margins: Margins::none(), ..Given::default() };
        let facts = given.facts(&table);
        let notes = check(&compose(&facts).unwrap(), &facts, allow);
        assert!(notes.iter().all(|note| note.severity == Severity::NeedsWord), "{notes:?}");
        verdict(&notes).map_err(|e| (e.kind(), e.to_string(), e.fix().unwrap_or_default().to_owned()))
    };
    assert!(plan_for(&[1], 50).is_ok(), "49 % of all, system contents counted");
    assert!(plan_for(&[1], 49).is_ok() && plan_for(&[0, 1], 0).is_ok());
    let (kind, text, fix) = plan_for(&[1], 48).unwrap_err();
    assert_eq!(kind, ErrorKind::PlanRefused);
    assert!(text.contains("49 %") && text.contains("--allow-removing 49") && fix.contains("--allow-removing"));
    assert!(plan_for(&[], 50).is_err());
    assert!(plan_for(&[], 99).unwrap_err().1.contains("no live content"), "80 % is allowed, emptying is not");
    assert!(plan_for(&[], 100).is_ok());
}

#[test]
fn many_notes_of_one_kind_are_counted() {
    let mut notes = Notes::default();
    (0..9).for_each(|row| notes.fatal("x", row));
    let notes = notes.finish();
    assert_eq!(notes.len(), TOLD_IN_FULL + 1);
    assert_eq!(notes[TOLD_IN_FULL].text, "x: and 4 more");
}
