//! Which of the due lanes begin, where there are more than places: weighted fair queueing by start tags.
//!
//! Each lane of a repository is a flow. A flow that becomes due gets a tag, the virtual time by then or the end of its own last
//! turn, whichever is later; the least tag goes first; a turn moves its flow's end on by its length divided by its weight. So a
//! lane with twice the weight gets twice the time, and one that slept gets nothing for it. Quick and index lanes have places of
//! their own, so that they never wait for full cycles alone.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use verger_proto::schedule::Lane;
use verger_proto::{LogTime, RepositoryId};

/// A flow that so many others overtook, because one of its two places was always taken, has free places kept for it.
const OVERTAKEN_MAX: u32 = 16;
/// Virtual milliseconds have so many parts, so that weights divide well.
const PARTS: u128 = 1 << 16;
/// A turn counts as at least this long, in milliseconds.
const TURN_MIN: u64 = 1000;

/// A lane that is due now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Repository.
    pub repository: RepositoryId,
    /// Lane.
    pub lane: Lane,
    /// The bucket, for its limit.
    pub bucket: String,
    /// The pool of workers, for its limit.
    pub pool: String,
    /// Share of the time in relation to others; 0 counts as 1.
    pub weight: u32,
    /// Since when it is due: the first of two with equal tags.
    pub due: LogTime,
    /// How long it will take, in milliseconds: as long as the last one took.
    pub length: u64,
    /// With epoch indexes index work may run beside a cycle of the same repository (R17).
    pub beside: bool,
}

/// A cycle that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Repository.
    pub repository: RepositoryId,
    /// Lane.
    pub lane: Lane,
    /// The bucket.
    pub bucket: String,
    /// The pool.
    pub pool: String,
}

/// How many cycles may run at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// In all.
    pub total: u32,
    /// In a bucket that is not named below.
    pub bucket_default: u32,
    /// In a bucket.
    pub buckets: BTreeMap<String, u32>,
    /// In a pool that is not named below.
    pub pool_default: u32,
    /// In a pool.
    pub pools: BTreeMap<String, u32>,
    /// Percent of the places of a bucket or pool, rounded up, that full cycles leave free; one place is theirs in any case.
    pub short_percent: u8,
    /// That begin at a time.
    pub begin: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total: u32::MAX,
            bucket_default: 4,
            buckets: BTreeMap::new(),
            pool_default: 16,
            pools: BTreeMap::new(),
            short_percent: 25,
            begin: u32::MAX,
        }
    }
}

/// A flow that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Waiting {
    tag: u128,
    overtaken: u32,
}

/// One lane of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Flow {
    /// End of its last turn, in virtual time.
    end: u128,
    waiting: Option<Waiting>,
}

/// Who had how much. Losing it costs fairness for one round and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fair {
    time: u128,
    flows: BTreeMap<RepositoryId, [Flow; 3]>,
}

impl Fair {
    /// Chooses those that begin now, as indices into `due`, first come first. What is chosen is taken as begun.
    ///
    /// `due` has to name everything that is due and does not run; ask again whenever a cycle ends or a lane becomes due.
    pub fn pick(&mut self, due: &[Candidate], running: &[Running], limits: &Limits) -> Vec<usize> {
        let order = self.queue(due);
        let mut places = Places::new(limits, running);
        let (mut chosen, mut passed) = (Vec::new(), Vec::new());
        for index in order {
            if chosen.len() >= usize::try_from(limits.begin).unwrap_or(usize::MAX) {
                break;
            }
            let candidate = &due[index];
            if places.fits(candidate) {
                places.take(candidate);
                self.begin(candidate);
                chosen.push(index);
                for (passed, by_short_ones) in &passed {
                    if *by_short_ones || candidate.lane == Lane::Full {
                        self.overtake(&due[*passed], candidate);
                    }
                }
            } else {
                if self.flow(candidate).waiting.is_some_and(|waiting| waiting.overtaken >= OVERTAKEN_MAX) {
                    places.keep(candidate);
                }
                // A full cycle that waits for full ones loses nothing to short ones.
                passed.push((index, !places.is_full_of_full(candidate)));
            }
        }
        chosen
    }

    /// Gives tags to those that are new, forgets those that are no longer due, and says in which order they are asked.
    fn queue(&mut self, due: &[Candidate]) -> Vec<usize> {
        let named: BTreeSet<(&RepositoryId, Lane)> = due.iter().map(|c| (&c.repository, c.lane)).collect();
        let time = self.time;
        self.flows.retain(|repository, flows| {
            for (flow, lane) in flows.iter_mut().zip(Lane::ALL) {
                flow.waiting = flow.waiting.filter(|_| named.contains(&(repository, lane)));
            }
            // An end that time has passed says no more than the time.
            flows.iter().any(|flow| flow.end > time || flow.waiting.is_some())
        });
        let mut tagged = |candidate: &Candidate| {
            let flow = self.flow(candidate);
            flow.waiting.get_or_insert(Waiting { tag: flow.end.max(time), overtaken: 0 }).tag
        };
        let tags = due.iter().map(&mut tagged).zip(due);
        let mut order: Vec<_> = (0..).zip(tags).map(|(i, (tag, c))| (tag, c.due, &c.repository, c.lane, i)).collect();
        order.sort_unstable();
        order.into_iter().map(|(.., index)| index).collect()
    }

    fn flow(&mut self, candidate: &Candidate) -> &mut Flow {
        let [full, quick, index] = self.flows.entry(candidate.repository.clone()).or_default();
        match candidate.lane {
            Lane::Full => full,
            Lane::Quick => quick,
            Lane::Index => index,
        }
    }

    fn begin(&mut self, candidate: &Candidate) {
        let time = self.time;
        let length = u128::from(candidate.length.max(TURN_MIN)) * PARTS / u128::from(candidate.weight.max(1));
        let flow = self.flow(candidate);
        let tag = flow.waiting.take().map_or(time, |waiting| waiting.tag);
        flow.end = tag.saturating_add(length);
        self.time = time.max(tag);
    }

    fn overtake(&mut self, passed: &Candidate, chosen: &Candidate) {
        if passed.bucket != chosen.bucket && passed.pool != chosen.pool {
            return;
        }
        if let Some(waiting) = &mut self.flow(passed).waiting {
            waiting.overtaken = waiting.overtaken.saturating_add(1);
        }
    }
}

/// Places of one bucket or pool: taken in all, and by full cycles.
#[derive(Debug, Clone, Copy)]
struct Place {
    limit: u32,
    limit_full: u32,
    taken: u32,
    taken_full: u32,
}

impl Place {
    fn new(limit: u32, short_percent: u8) -> Self {
        let kept = (u64::from(limit) * u64::from(short_percent.min(100))).div_ceil(100);
        let limit_full = limit.saturating_sub(u32::try_from(kept).unwrap_or(limit)).max(limit.min(1));
        Self { limit, limit_full, taken: 0, taken_full: 0 }
    }

    fn has_room(&self, lane: Lane) -> bool {
        self.taken < self.limit && (lane != Lane::Full || self.taken_full < self.limit_full)
    }

    fn take(&mut self, lane: Lane) {
        self.taken = self.taken.saturating_add(1);
        self.taken_full = self.taken_full.saturating_add(u32::from(lane == Lane::Full));
    }
}

struct Places<'a> {
    limits: &'a Limits,
    total: Place,
    buckets: BTreeMap<&'a str, Place>,
    pools: BTreeMap<&'a str, Place>,
    lanes: BTreeMap<&'a RepositoryId, Vec<Lane>>,
}

impl<'a> Places<'a> {
    fn new(limits: &'a Limits, running: &'a [Running]) -> Self {
        let total = Place::new(limits.total, limits.short_percent);
        let (buckets, pools, lanes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut places = Self { limits, total, buckets, pools, lanes };
        for cycle in running {
            places.total.take(cycle.lane);
            places.bucket(&cycle.bucket).take(cycle.lane);
            places.pool(&cycle.pool).take(cycle.lane);
            places.lanes.entry(&cycle.repository).or_default().push(cycle.lane);
        }
        places
    }

    fn bucket(&mut self, name: &'a str) -> &mut Place {
        let limits = self.limits;
        let limit = limits.buckets.get(name).copied().unwrap_or(limits.bucket_default);
        self.buckets.entry(name).or_insert_with(|| Place::new(limit, limits.short_percent))
    }

    fn pool(&mut self, name: &'a str) -> &mut Place {
        let limits = self.limits;
        let limit = limits.pools.get(name).copied().unwrap_or(limits.pool_default);
        self.pools.entry(name).or_insert_with(|| Place::new(limit, limits.short_percent))
    }

    fn fits(&mut self, candidate: &'a Candidate) -> bool {
        let beside = |lane: &Lane| candidate.beside && (*lane == Lane::Index) != (candidate.lane == Lane::Index);
        self.total.has_room(candidate.lane)
            && self.bucket(&candidate.bucket).has_room(candidate.lane)
            && self.pool(&candidate.pool).has_room(candidate.lane)
            && self.lanes.get(&candidate.repository).is_none_or(|lanes| lanes.iter().all(beside))
    }

    /// Whether a full cycle waits for others, while a short one would have a place.
    fn is_full_of_full(&mut self, candidate: &'a Candidate) -> bool {
        let only_short = |place: &Place| !place.has_room(candidate.lane) && place.has_room(Lane::Quick);
        only_short(&self.total) || only_short(self.bucket(&candidate.bucket)) || only_short(self.pool(&candidate.pool))
    }

    fn take(&mut self, candidate: &'a Candidate) {
        self.total.take(candidate.lane);
        self.bucket(&candidate.bucket).take(candidate.lane);
        self.pool(&candidate.pool).take(candidate.lane);
        self.lanes.entry(&candidate.repository).or_default().push(candidate.lane);
    }

    /// Takes the place that is free while the other is not, so that nobody else does; not if it is its own repository that it
    /// waits for.
    fn keep(&mut self, candidate: &'a Candidate) {
        if self.lanes.contains_key(&candidate.repository) {
            return;
        }
        let bucket = self.bucket(&candidate.bucket);
        if bucket.has_room(candidate.lane) {
            bucket.take(candidate.lane);
        }
        let pool = self.pool(&candidate.pool);
        if pool.has_room(candidate.lane) {
            pool.take(candidate.lane);
        }
    }
}
