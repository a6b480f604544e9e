//! Who goes first: shares, waits, places.

use std::collections::BTreeMap;

use super::*;

fn candidate(number: u32, lane: Lane, bucket: &str, pool: &str) -> Candidate {
    let (bucket, pool, repository) = (bucket.to_owned(), pool.to_owned(), repository(number));
    Candidate { repository, lane, bucket, pool, weight: 1, due: LogTime(0), length: HOUR, beside: false }
}

fn limits(bucket: u32, pool: u32) -> Limits {
    Limits { bucket_default: bucket, pool_default: pool, short_percent: 25, ..Limits::default() }
}

/// Chance that is the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// A lane that is due again `every` milliseconds after its last start, or at once.
struct Source {
    candidate: Candidate,
    every: u64,
    lengths: (u64, u64),
}

#[derive(Default)]
struct Outcome {
    runs: u32,
    busy: u64,
    waited_most: u64,
}

/// Runs all of them until so many cycles began.
fn run(sources: &mut [Source], limits: &Limits, starts: u32) -> Vec<Outcome> {
    let (mut fair, mut chance, mut now, mut began) = (Fair::default(), Chance(7), LogTime(0), 0);
    let mut outcomes: Vec<Outcome> = sources.iter().map(|_| Outcome::default()).collect();
    let mut running: Vec<(LogTime, usize)> = Vec::new();
    while began < starts {
        let waits =
            |index: &usize| running.iter().all(|(_, busy)| busy != index) && sources[*index].candidate.due <= now;
        let due_indices: Vec<usize> = (0..sources.len()).filter(waits).collect();
        let due: Vec<Candidate> = due_indices.iter().map(|index| sources[*index].candidate.clone()).collect();
        let busy: Vec<Running> = running.iter().map(|(_, index)| of(&sources[*index].candidate)).collect();
        for chosen in fair.pick(&due, &busy, limits) {
            let index = due_indices[chosen];
            let source = &mut sources[index];
            let length = source.lengths.0 + chance.below(source.lengths.1 - source.lengths.0 + 1);
            let outcome = &mut outcomes[index];
            outcome.runs += 1;
            outcome.busy += length;
            outcome.waited_most = outcome.waited_most.max(now.since(source.candidate.due));
            running.push((now.plus(length), index));
            source.candidate.length = length;
            source.candidate.due = now.plus(source.every.max(length));
            began += 1;
        }
        let next_end = running.iter().map(|(end, _)| *end);
        let next_due = sources.iter().map(|source| source.candidate.due).filter(|due| *due > now);
        now = next_end.chain(next_due).min().unwrap();
        running.retain(|(end, _)| *end > now);
    }
    outcomes
}

fn of(candidate: &Candidate) -> Running {
    let Candidate { repository, lane, bucket, pool, .. } = candidate.clone();
    Running { repository, lane, bucket, pool }
}

#[test]
fn shares_are_within_ten_percent_of_the_weights_over_ten_thousand_runs() {
    let mut sources: Vec<Source> = (0..60)
        .map(|number| {
            let weight = 1 + number % 4;
            let candidate = Candidate { weight, ..candidate(number, Lane::Full, &format!("b{}", number % 7), "p") };
            Source { candidate, every: 0, lengths: (10 * MINUTE, 50 * MINUTE) }
        })
        .collect();
    let limits = Limits { short_percent: 0, ..limits(6, 6) };
    let outcomes = run(&mut sources, &limits, 10_000);
    let total: u64 = outcomes.iter().map(|outcome| outcome.busy).sum();
    let weights: u64 = sources.iter().map(|source| u64::from(source.candidate.weight)).sum();
    for (source, outcome) in sources.iter().zip(&outcomes) {
        let share = total * u64::from(source.candidate.weight) / weights;
        let off = outcome.busy.abs_diff(share) * 100 / share;
        assert!(off <= 10, "{:?}: {off} % off after {} runs", source.candidate.repository, outcome.runs);
    }
}

#[test]
fn nobody_waits_longer_than_the_bound() {
    let sources = || -> Vec<Source> {
        let of = |number: u32, lane: Lane, every: u64, lengths: (u64, u64)| {
            let candidate = candidate(number, lane, &format!("b{}", number % 10), "p");
            Source { candidate: Candidate { weight: 1 + number % 3, beside: true, ..candidate }, every, lengths }
        };
        let full = (0..80).map(|number| of(number, Lane::Full, 0, (HOUR, 10 * HOUR)));
        let index = (0..80).map(|number| of(number, Lane::Index, HOUR, (MINUTE, 2 * MINUTE)));
        full.chain(index).collect()
    };
    let waited = |short_percent: u8, starts: u32| {
        let limits = Limits { short_percent, ..limits(4, 20) };
        let outcomes = run(&mut sources(), &limits, starts);
        assert!(outcomes.iter().all(|outcome| outcome.runs > 0), "everybody had a turn");
        let most = |part: &[Outcome]| part.iter().map(|outcome| outcome.waited_most).max().unwrap();
        (most(&outcomes[..80]) / HOUR, most(&outcomes[80..]) / MINUTE)
    };
    let (full, index) = waited(25, 10_000);
    // All that come at once, two minutes each, on the five places that full cycles leave.
    assert!(index <= 80 * 2 / 5, "index work waited {index} minutes");
    // A turn of every other, ten hours each, on the fifteen places that are theirs; thrice for the weights, once for the last.
    assert!(full <= 80 * 10 * 3 / 15 + 10, "a full cycle waited {full} hours");
    assert!(waited(0, 1000).1 > 60, "without places of its own it waits for full cycles");
}

/// Two places that are never free together: one candidate needs both, others one each, without end.
#[test]
fn who_needs_two_crowded_places_is_not_starved() {
    let of = |number: u32, bucket: &str, pool: &str, lengths: (u64, u64)| Source {
        candidate: candidate(number, Lane::Quick, bucket, pool),
        every: 0,
        lengths,
    };
    let mut sources = vec![of(0, "b", "p", (MINUTE, MINUTE))];
    sources.extend((1..5).map(|number| of(number, "b", "q", (2 * MINUTE, 5 * MINUTE))));
    sources.extend((5..9).map(|number| of(number, "c", "p", (2 * MINUTE, 5 * MINUTE))));
    let outcomes = run(&mut sources, &limits(1, 1), 10_000);
    assert!(outcomes[0].runs > 200, "{} runs", outcomes[0].runs);
    assert!(outcomes[0].waited_most < 3 * HOUR, "{} minutes", outcomes[0].waited_most / MINUTE);
}

#[test]
fn limits_hold_and_the_order_of_the_list_does_not_matter() {
    let mut limits = limits(2, 5);
    limits.buckets.insert("b1".to_owned(), 0);
    limits.pools.insert("q".to_owned(), 1);
    let due: Vec<Candidate> = (0..60)
        .map(|n| candidate(n, Lane::ALL[n as usize % 3], &format!("b{}", n % 6), if n % 2 == 0 { "p" } else { "q" }))
        .collect();
    let running = [of(&candidate(100, Lane::Quick, "b0", "p"))];
    let chosen: Vec<Candidate> =
        Fair::default().pick(&due, &running, &limits).into_iter().map(|index| due[index].clone()).collect();
    let mut counts: BTreeMap<&str, u32> = BTreeMap::from([("b0", 1), ("p", 1)]);
    for candidate in &chosen {
        *counts.entry(&candidate.bucket).or_default() += 1;
        *counts.entry(&candidate.pool).or_default() += 1;
    }
    assert_eq!((counts["p"], counts["q"], counts.contains_key("b1")), (5, 1, false));
    assert!(counts.iter().filter(|(name, _)| name.starts_with('b')).all(|(_, count)| *count <= 2), "{counts:?}");
    let reversed: Vec<Candidate> = due.iter().rev().cloned().collect();
    let again = Fair::default().pick(&reversed, &running, &limits);
    assert_eq!(again.into_iter().map(|index| reversed[index].clone()).collect::<Vec<_>>(), chosen);
}

#[test]
fn full_cycles_leave_places_for_short_ones() {
    let mut due: Vec<Candidate> = (0..9).map(|n| candidate(n, Lane::Full, "b", "p")).collect();
    let mut fair = Fair::default();
    assert_eq!(fair.pick(&due, &[], &limits(9, 4)).len(), 3, "one of four is kept");
    let running: Vec<Running> = due.drain(..3).map(|candidate| of(&candidate)).collect();
    due.push(candidate(50, Lane::Quick, "b", "p"));
    let chosen = fair.pick(&due, &running, &limits(9, 4));
    assert_eq!(chosen, [6], "and the quick cycle takes it");
    assert_eq!(Fair::default().pick(&due, &[], &limits(9, 1)).len(), 1);
    assert_eq!(Fair::default().pick(&due[..1], &[], &limits(9, 1)).len(), 1, "a single place is not kept free");
    assert!(Fair::default().pick(&due, &[], &limits(9, 0)).is_empty());
}

#[test]
fn full_cycles_that_wait_for_full_ones_hold_up_no_short_ones() {
    let limits = limits(4, 4);
    let running: Vec<Running> = (0..3).map(|n| of(&candidate(n, Lane::Full, &format!("other{n}"), "p"))).collect();
    let fulls: Vec<Candidate> = (10..20).map(|n| candidate(n, Lane::Full, "b", "p")).collect();
    let mut fair = Fair::default();
    for _ in 0..50 {
        let due = [fulls.as_slice(), &[candidate(30, Lane::Quick, "b", "q")]].concat();
        assert_eq!(fair.pick(&due, &running, &limits), [10]);
    }
    let quicks: Vec<Candidate> = (30..34).map(|n| candidate(n, Lane::Quick, "b", "q")).collect();
    assert_eq!(fair.pick(&[fulls, quicks].concat(), &running, &limits).len(), 4, "the bucket is free for them");
}

#[test]
fn a_repository_has_one_cycle_but_for_index_work_beside_it() {
    let all = |beside| Lane::ALL.map(|lane| Candidate { beside, ..candidate(1, lane, "b", "p") }).to_vec();
    let chosen = |beside, running: &[Running]| {
        let due = all(beside);
        let chosen = Fair::default().pick(&due, running, &limits(9, 9));
        chosen.into_iter().map(|index| due[index].lane).collect::<Vec<_>>()
    };
    assert_eq!(chosen(false, &[]), [Lane::Full]);
    assert_eq!(chosen(true, &[]), [Lane::Full, Lane::Index]);
    let index = of(&candidate(1, Lane::Index, "b", "p"));
    assert_eq!(chosen(false, std::slice::from_ref(&index)), []);
    assert_eq!(chosen(true, &[index]), [Lane::Full]);
    assert_eq!(chosen(true, &[of(&candidate(1, Lane::Quick, "b", "p"))]), [Lane::Index]);
}

#[test]
fn who_slept_gets_nothing_for_it() {
    let (awake, sleeper) = (candidate(1, Lane::Quick, "b", "p"), candidate(2, Lane::Quick, "b", "p"));
    let (mut fair, limits) = (Fair::default(), limits(1, 1));
    for _ in 0..50 {
        assert_eq!(fair.pick(std::slice::from_ref(&awake), &[], &limits), [0]);
    }
    let turns: Vec<usize> = (0..20).flat_map(|_| fair.pick(&[awake.clone(), sleeper.clone()], &[], &limits)).collect();
    assert_eq!(turns[..6], [1, 0, 1, 0, 1, 0], "{turns:?}");
}
