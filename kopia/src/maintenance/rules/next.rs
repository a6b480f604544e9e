//! When which bytes will go, and by which rule: what a report says of the bytes that a cycle had to leave.

use super::alternation::Turns;
use super::delete::{self, Keep, Sessions};
use super::facts::{Facts, Frozen, after};
use super::gc::MANIFEST_PREFIX;
use super::plan::{Mode, PlanBody};
use super::rewrite::{self, Fate};
use super::rows::Rows;
use super::{drop, gc};
use crate::clock::Timestamp;
use crate::maintenance::history::Task;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Bytes that can go at a time. Ages of contents only say when their bytes *can* go: of packs that hold live contents
/// too, a rewrite has to come first.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Next {
    /// When all of them can go, if cycles come as margins end.
    pub at: Timestamp,
    /// The margin that is waited for.
    pub rule: Rule,
    /// Bytes.
    pub bytes: u64,
}

/// A margin that keeps bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A pack that nothing references is younger than `PackDeleteMinAge`.
    PackAge,
    /// The session that wrote it may not be over (`SessionExpirationAge`).
    Session,
    /// A rewrite ended less than `MinRewriteToOrphanDeletionDelay` ago.
    RewriteDelay,
    /// Marked contents wait for a second snapshot GC and for clients that sleep (`MarginBetweenSnapshotGC`, R15).
    MarkToDrop,
    /// Contents that no snapshot needs are younger than `MinContentAgeSubjectToGC`, or their packs are (R10).
    ContentAge,
}

/// Bytes of one rule whose times lie this close together are told as one.
const TOGETHER: Duration = Duration::from_secs(3600);

/// Times told apart by the second; beyond that, by the minute.
const WAITS_MAX: usize = 1 << 16;

/// Everything that this plan leaves for a margin's sake, soonest first.
pub fn upcoming<R: Rows>(facts: &Facts<'_, R>, plan: &PlanBody) -> Vec<Next> {
    if facts.frozen != Frozen::Nothing || facts.mode != Mode::Full {
        return Vec::new();
    }
    let mut waits = Waits::default();
    packs(facts, plan, &mut waits);
    contents(facts, plan, &mut waits);
    join(waits.0.into_iter().map(|((rule, at), bytes)| Next { at, rule, bytes }).collect())
}

/// Bytes by rule and time. Contents are many, and most of them bear the times of a few sessions.
#[derive(Default)]
struct Waits(BTreeMap<(Rule, Timestamp), u64>);

impl Waits {
    fn push(&mut self, next: Next) {
        let bytes = self.0.entry((next.rule, next.at)).or_default();
        *bytes = bytes.saturating_add(next.bytes);
        if self.0.len() > WAITS_MAX {
            self.thin();
        }
    }

    /// Adds up what goes within a minute, as of the end of it.
    fn thin(&mut self) {
        for ((rule, at), bytes) in std::mem::take(&mut self.0) {
            let minute = at.as_second().div_euclid(60).saturating_add(1).saturating_mul(60);
            let at = Timestamp::from_second(minute).map_or(at, |end| end.max(at));
            *self.0.entry((rule, at)).or_default() += bytes;
        }
    }
}

/// The first of [`upcoming`].
pub fn next<R: Rows>(facts: &Facts<'_, R>, plan: &PlanBody) -> Option<Next> {
    upcoming(facts, plan).into_iter().next()
}

fn packs<R: Rows>(facts: &Facts<'_, R>, plan: &PlanBody, waits: &mut Waits) {
    let fate = Fate::new(facts.table, plan.gc.as_ref(), plan.drop.as_ref());
    let survives = fate.surviving_packs(facts.table);
    let sessions = Sessions::of(facts.sessions);
    let turn = Turns::of(facts.schedule).delete_from(facts.margins).filter(|from| *from > facts.now);
    for blob in facts.packs.iter().filter(|blob| delete::candidate(&blob.id, false)) {
        if facts.table.packs().binary_search(&blob.id).is_ok_and(|pack| survives[pack]) {
            continue;
        }
        let young = after(blob.timestamp, facts.margins.pack_delete_min_age);
        let (at, rule) = match (delete::keep(blob, &sessions, facts.started, facts.margins), turn) {
            (Some(Keep::AfterCutoff), _) => (young, Rule::PackAge),
            (Some(Keep::Young { until }), _) => (until, Rule::PackAge),
            (Some(Keep::Session { until }), _) => (until, Rule::Session),
            (None, Some(from)) => (from, Rule::RewriteDelay),
            (None, None) => continue,
        };
        waits.push(Next { at, rule, bytes: blob.length });
    }
    let Some(rewrite) = plan.rewrite.as_ref().filter(|_| plan.delete_rewritten.is_none()) else { return };
    let survives = rewrite::surviving_packs(facts.table, &fate, rewrite);
    let listed: HashMap<&str, u64> = facts.packs.iter().map(|blob| (blob.id.as_str(), blob.length)).collect();
    let orphans = rewrite.packs.iter().filter(|pack| !survives[pack.pack as usize]);
    let freed: u64 = orphans
        .map(|pack| {
            let copied: u64 = pack.rows.iter().map(|row| u64::from(facts.table.packed_length(*row))).sum();
            let whole = listed.get(facts.table.packs()[pack.pack as usize].as_str()).copied().unwrap_or(0);
            whole.saturating_sub(copied)
        })
        .sum();
    let at = after(facts.now, facts.margins.min_rewrite_to_orphan_deletion_delay);
    waits.push(Next { at, rule: Rule::RewriteDelay, bytes: freed });
}

fn contents<R: Rows>(facts: &Facts<'_, R>, plan: &PlanBody, waits: &mut Waits) {
    let (table, margins) = (facts.table, facts.margins);
    let (Some(collected), Some(used)) = (&plan.gc, facts.used) else { return };
    let history = facts.schedule.history(Task::SnapshotGc);
    let dropped = |row: u32| plan.drop.as_ref().is_some_and(|drop| drop.rows.binary_search(&row).is_ok());
    let times = facts.pack_times();
    for row in (0..table.len()).filter(|row| !used.contains(*row) && !dropped(*row)) {
        let old = table.timestamp(row);
        let (mark, rule) = if table.is_deleted(row) {
            (old, Rule::MarkToDrop)
        } else if table.prefix(row) == MANIFEST_PREFIX {
            continue;
        } else if collected.mark.binary_search(&row).is_ok() {
            (gc::stamp(collected.stamp, old), Rule::MarkToDrop)
        } else if let Some(written) = times[table.pack(row) as usize] {
            let written_seconds = Timestamp::from_second(old).unwrap_or(Timestamp::MAX);
            let at = after(written_seconds, margins.min_content_age_subject_to_gc)
                .max(after(written, margins.pack_age_subject_to_gc));
            (at.as_second(), Rule::ContentAge)
        } else {
            continue;
        };
        let at = drop::earliest(mark, history, facts.gc_started, margins);
        waits.push(Next { at, rule, bytes: u64::from(table.packed_length(row)) });
    }
}

/// Adds up what goes by the same rule within an hour; the last of them says when.
fn join(mut waits: Vec<Next>) -> Vec<Next> {
    waits.retain(|next| next.bytes > 0);
    waits.sort_by_key(|next| (next.rule, next.at));
    let mut joined: Vec<(Timestamp, Next)> = Vec::new();
    for next in waits {
        match joined.last_mut() {
            Some((first, last)) if last.rule == next.rule && next.at <= after(*first, TOGETHER) => {
                last.at = next.at;
                last.bytes = last.bytes.saturating_add(next.bytes);
            }
            _ => joined.push((next.at, next)),
        }
    }
    let mut joined: Vec<Next> = joined.into_iter().map(|(_, next)| next).collect();
    joined.sort_by_key(|next| (next.at, next.rule));
    joined
}

#[cfg(test)]
mod tests {
    use super::super::compose::compose;
    use super::super::rows::TestRows;
    use super::super::testing::{Given, NOW, at, blob};
    use super::*;
    use crate::bitmap::Bitmap;

    const H: i64 = 3600;

    #[test]
    fn every_byte_left_has_a_rule_and_a_time() {
        let old = NOW - 48 * H;
        let table = TestRows::new(&[
            (0, false, old, 1, "p1"),         // used
            (0, false, old, 2, "p1"),         // marked now
            (0, true, NOW - 30 * H, 4, "p1"), // marked long ago, but no second GC yet
            (0, false, NOW - H, 8, "p1"),     // too young
            (b'm', false, old, 16, "q1"),
        ]);
        let mut used = Bitmap::new(5);
        used.insert(0);
        let given = Given {
            used: Some(used),
            packs: vec![blob("p1", -48 * H), blob("q1", -48 * H), blob("p2", -10 * H), blob("p3", -48 * H)],
            ..Given::default()
        };
        let facts = given.facts(&table);
        let plan = compose(&facts).unwrap();
        assert_eq!(plan.delete.as_ref().unwrap().stats.deleted_pack_count, 1);
        let expected = [
            (at(4 * H), Rule::MarkToDrop, 4),
            (at(14 * H), Rule::PackAge, 10),
            (at(24 * H), Rule::MarkToDrop, 2),
            (at(47 * H), Rule::ContentAge, 8),
        ];
        let found: Vec<_> = upcoming(&facts, &plan).iter().map(|next| (next.at, next.rule, next.bytes)).collect();
        assert_eq!(found, expected);
        assert_eq!(next(&facts, &plan).unwrap().bytes, 4);
        // While something is unreadable no margin ends by itself.
        assert_eq!(next(&Facts { frozen: Frozen::MarksAndDrops, ..facts }, &plan), None);
    }
}
