use super::super::rows::TestRows;
use super::super::testing::{Given, NOW, blob};
use super::*;

const H: i64 = 3600;
const OLD: i64 = NOW - 48 * H;

fn packs(names: &[&str]) -> Vec<crate::storage::BlobMetadata> {
    names.iter().map(|name| blob(name, -48 * H)).collect()
}

/// `max_pack_size` 1000: a pack is short below 600.
fn plan_of(table: &TestRows, names: &[&str], quick: bool, gc: Option<&GcPlan>, drop: Option<&DropPlan>) -> RewritePlan {
    let given = Given { packs: packs(names), ..Given::default() };
    let facts = super::super::facts::Facts { max_pack_size: 1000, ..given.facts(table) };
    plan(&facts, &Fate::new(table, gc, drop), quick).unwrap()
}

fn chosen(table: &TestRows, plan: &RewritePlan) -> Vec<(String, Vec<u32>)> {
    plan.packs.iter().map(|p| (table.packs()[p.pack as usize].to_string(), p.rows.clone())).collect()
}

#[test]
fn sixty_percent_rounded_down() {
    assert_eq!(short_below(20 << 20), 12_582_912);
    assert_eq!(short_below(1001), 600);
    assert_eq!(short_below(u64::MAX), u64::MAX / 100 * 60 + 9);
}

#[test]
fn short_packs_are_chosen_from_two_of_a_letter_on() {
    let table = TestRows::new(&[
        (0, false, OLD, 599, "p1"),
        (0, false, OLD, 600, "p2"),
        (0, false, OLD, 1, "p3"),
        (b'k', false, OLD, 5, "q1"),
    ]);
    let names = ["p1", "p2", "p3", "q1"];
    let plan = plan_of(&table, &names, false, None, None);
    assert_eq!(chosen(&table, &plan), [("p1".into(), vec![0]), ("p3".into(), vec![2])]);
    assert_eq!((plan.stats.to_rewrite_content_count, plan.stats.to_rewrite_content_size), (2, 600));
    assert!(plan_of(&table, &names, true, None, None).packs.is_empty(), "quick: only q, and there is one");
    assert!(plan_of(&table, &["p1", "p2", "q1"], false, None, None).packs.is_empty(), "p3 is not there");
}

/// A pack with anything young in it would have to stay: what is old in it waits too, else a rewrite every day would move the same
/// contents from short pack to short pack, for ever.
#[test]
fn r19_young_contents_and_young_manifests_keep_their_packs() {
    let table = TestRows::new(&[
        (b'k', false, OLD, 1, "q1"),
        (b'k', false, NOW - 2 * H + 1, 2, "q1"),
        (b'k', false, NOW - 2 * H, 4, "q2"),
        (b'm', false, NOW - 24 * H + 1, 8, "q2"),
        (b'm', false, NOW - 24 * H, 16, "q3"),
        (b'k', false, NOW - 2 * H, 32, "q4"),
    ]);
    let plan = plan_of(&table, &["q1", "q2", "q3", "q4"], true, None, None);
    assert_eq!(chosen(&table, &plan), [("q3".into(), vec![4]), ("q4".into(), vec![5])]);
    assert_eq!((plan.stats.retained_content_count, plan.stats.retained_content_size), (2, 10));
    assert_eq!(plan.stats.rewritten_content_size, 48);
    assert!(plan.quick);
    // A pack of which something is young does not make another one worth rewriting.
    let lonely = TestRows::new(&[(0, false, OLD, 1, "p1"), (0, false, NOW, 1, "p2"), (0, false, OLD, 1, "p2")]);
    assert!(plan_of(&lonely, &["p1", "p2"], false, None, None).packs.is_empty());
}

/// Design 3.4: what this cycle drops is neither copied nor counted, and marks are left to die.
#[test]
fn r19_the_dying_are_not_copied_and_the_dropped_do_not_count() {
    let table = TestRows::new(&[
        (0, true, OLD, 900, "p1"), // dropped: makes p1 short
        (0, false, OLD, 10, "p1"),
        (0, true, OLD, 20, "p2"), // a mark that stays
        (0, false, OLD, 30, "p2"),
        (0, false, OLD, 40, "p3"), // marked by this cycle, not dropped yet
        (0, true, OLD, 900, "p4"), // not dropped: p4 is full
        (0, false, OLD, 50, "p4"),
        (0, true, OLD, 60, "p5"), // revived: packed again anyway
        (0, false, OLD, 70, "p5"),
    ]);
    let gc = GcPlan { mark: vec![4], undelete: vec![7], ..GcPlan::default() };
    let drop = DropPlan { cutoff: Timestamp::UNIX_EPOCH, rows: vec![0] };
    let plan = plan_of(&table, &["p1", "p2", "p3", "p4", "p5"], false, Some(&gc), Some(&drop));
    assert_eq!(chosen(&table, &plan), [("p1".into(), vec![1]), ("p2".into(), vec![3]), ("p5".into(), vec![8])]);
    let fate = Fate::new(&table, Some(&gc), Some(&drop));
    assert_eq!(fate.surviving_packs(&table), [true; 5]);
    assert_eq!(surviving_packs(&table, &fate, &plan), [false, true, true, true, true]);
}

#[test]
fn nothing_moves_while_an_index_may_be_lost() {
    let table = TestRows::new(&[(0, false, OLD, 1, "p1"), (0, false, OLD, 1, "p2")]);
    let given = Given { packs: packs(&["p1", "p2"]), ..Given::default() };
    for (frozen, refused) in [(Frozen::Nothing, false), (Frozen::MarksAndDrops, false), (Frozen::Everything, true)] {
        let facts = super::super::facts::Facts { frozen, ..given.facts(&table) };
        assert_eq!(plan(&facts, &Fate::new(&table, None, None), false).is_err(), refused, "{frozen:?}");
    }
}
