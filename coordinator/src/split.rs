//! A shard that fails again and again is tried in halves, so that what is wrong is in ever smaller ones and the rest gets done.

use verger_proto::{Event, Failure, FailureKind, JobId, Shard, Stage};

use crate::machine::{Cycle, JobStatus, Turn};
use crate::offer;

/// So many attempts at a shard fail before it is split.
pub(crate) const ATTEMPTS: u32 = 3;
/// A half goes on counting attempts where the whole stopped. From this one on nothing is split any more: what is wrong is in one of 2^8
/// parts of what was cut, or somewhere else.
const LAST_ATTEMPT: u32 = ATTEMPTS + 8;
/// Jobs of a stage that splitting may make in all.
const JOBS_MAX: usize = 4096;
/// Keys are compared to so many bytes when their middle is looked for.
const MIDDLE_BYTES: usize = 8;

/// Splits the shard of a job that failed, if it is one part of several and what failed may be a matter of a part of it.
pub(crate) fn split(turn: &mut Turn<'_>, cycle: &mut Cycle, id: JobId, failure: &Failure) -> bool {
    let stage = cycle.stage;
    let is_full = cycle.jobs.len() >= JOBS_MAX;
    let Some(job) = cycle.jobs.get(&id) else { return false };
    if is_full || job.shard.is_whole() || job.attempt >= LAST_ATTEMPT || !is_of_a_part(failure.kind) {
        return false;
    }
    let Some((first, second)) = halves(stage, &job.shard) else { return false };
    let attempt = job.attempt.saturating_add(1);
    cycle.jobs.remove(&id);
    let mut into = Vec::with_capacity(2);
    for shard in [first, second] {
        let id = offer::add_job(turn, cycle, shard);
        if let Some(half) = cycle.jobs.get_mut(&id) {
            // The next failure splits it again: the whole has shown that it is no accident.
            (half.attempt, half.failures) = (attempt, ATTEMPTS - 1);
        }
        into.push(id);
    }
    turn.events.push(Event::ShardSplit {
        cycle: cycle.id,
        job: id,
        stage,
        failure: failure.clone(),
        into: into.clone(),
    });
    for id in into {
        offer::send(turn, cycle, id);
    }
    true
}

/// Whether a smaller part may do where the whole did not: not where the store or the disk is the matter.
fn is_of_a_part(kind: FailureKind) -> bool {
    use FailureKind::{Damaged, Internal, MemoryLimit, NotFound};
    matches!(kind, Damaged | Internal | MemoryLimit | NotFound)
}

/// Where the keys of a stage begin and end, for the first and the last shard: names of packs.
fn bounds(stage: Stage) -> Option<(&'static [u8], &'static [u8])> {
    matches!(stage, Stage::Scan | Stage::Rewrite).then_some((b"p", b"r"))
}

/// Two parts of a shard that hold each of its keys once; none if no key is between its ends.
fn halves(stage: Stage, shard: &Shard) -> Option<(Shard, Shard)> {
    let (least, most) = bounds(stage)?;
    let from = if shard.from.is_empty() { least } else { &shard.from };
    let middle = middle(from, shard.to.as_deref().unwrap_or(most))?;
    let inside = shard.from.as_slice() < middle.as_slice() && shard.to.as_ref().is_none_or(|to| middle < *to);
    inside.then(|| {
        let first = Shard { from: shard.from.clone(), to: Some(middle.clone()) };
        (first, Shard { from: middle, to: shard.to.clone() })
    })
}

/// A key between two, about in the middle: keys are read as fractions after what both begin with.
fn middle(from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let number = |key: &[u8]| {
        let mut bytes = [0; MIDDLE_BYTES];
        let rest = key.get(common..).unwrap_or_default();
        let length = rest.len().min(MIDDLE_BYTES);
        bytes[..length].copy_from_slice(&rest[..length]);
        u64::from_be_bytes(bytes)
    };
    let (low, high) = (number(from), number(to));
    let between = low + high.checked_sub(low)? / 2;
    if between == low {
        return None;
    }
    let mut key = to.get(..common)?.to_vec();
    key.extend_from_slice(&between.to_be_bytes());
    while key.last() == Some(&0) {
        key.pop();
    }
    Some(key)
}

/// Milliseconds before the next attempt at a shard: a store that is busy is left alone for a while.
pub(crate) fn pause(failures: u32) -> u64 {
    const FIRST: u64 = 1_000;
    const LONGEST: u64 = 60_000;
    FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST)
}

/// Whether what is wrong with a job says anything of its shard: a job for the whole stage is its cycle's own.
pub(crate) fn is_part(cycle: &Cycle, id: JobId) -> bool {
    cycle.jobs.get(&id).is_some_and(|job| !job.shard.is_whole() && !matches!(job.status, JobStatus::Done(_)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shard(from: &str, to: Option<&str>) -> Shard {
        Shard { from: from.as_bytes().to_vec(), to: to.map(|to| to.as_bytes().to_vec()) }
    }

    #[test]
    fn halves_of_names_of_packs_are_about_halves() {
        let name = |n: u8| format!("q{n:02x}{:030x}", 7).into_bytes();
        let count = |shard: &Shard| (0..=255).filter(|n| shard.contains(&name(*n))).count();
        let (first, second) = halves(Stage::Scan, &shard("", Some("q40"))).unwrap();
        assert!(first.from.is_empty() && second.to.as_deref() == Some(b"q40"));
        let (third, fourth) = halves(Stage::Scan, &shard("q40", Some("qc0"))).unwrap();
        assert_eq!(count(&third) + count(&fourth), 128);
        assert!((30..=98).contains(&count(&third)), "{}", count(&third));
        assert_eq!(halves(Stage::Solve, &shard("q40", None)), None, "its keys are not known here");
        assert_eq!(halves(Stage::Scan, &shard("q40", Some("q40"))), None);
        assert_eq!(halves(Stage::Scan, &shard("q4", Some("q4\0"))), None, "one key");
    }

    #[test]
    fn the_pause_grows_and_has_an_end() {
        let pauses: Vec<u64> = (0..9).map(pause).collect();
        assert_eq!(pauses, [1_000, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(pause(u32::MAX), 60_000);
    }

    proptest! {
        #[test]
        fn both_halves_hold_each_key_once(from in "[pq][0-9a-f]{0,9}", to in "[pq][0-9a-f]{0,9}", keys in prop::collection::vec("[pq][0-9a-f]{0,9}", 40)) {
            prop_assume!(from < to);
            let whole = shard(&from, Some(&to));
            if let Some((first, second)) = halves(Stage::Rewrite, &whole) {
                prop_assert!(first.from < first.to.clone().unwrap() && second.from < second.to.clone().unwrap());
                for key in keys.iter().map(String::as_bytes) {
                    let held = usize::from(first.contains(key)) + usize::from(second.contains(key));
                    prop_assert_eq!(held, usize::from(whole.contains(key)));
                }
            }
        }
    }
}
