//! What a store was seen to do when it was probed: recorded, because nothing may be changed on the word of one that lies.

use serde::{Deserialize, Serialize};

use crate::time::LogTime;

/// How long what a probe found is believed (R1).
pub const PROBE_HOLDS_MILLISECONDS: u64 = 7 * 24 * 3_600_000;
/// Clocks that are farther apart say nothing about ages.
pub const CLOCK_OFFSET_MAX_MILLISECONDS: u64 = 300_000;

/// When what was written is seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sight {
    /// By the next request.
    AtOnce,
    /// After so many milliseconds.
    After(u64),
    /// Not before it was given up, after so many milliseconds.
    NotWithin(u64),
}

/// What a store did with an object that was written, overwritten and deleted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoreSeen {
    /// Conditions of writes were honoured.
    pub conditional_writes: bool,
    /// Conditions of deletes were.
    pub conditional_deletes: bool,
    /// When a read gives what was written last.
    pub reads: Sight,
    /// When a listing shows it.
    pub lists: Sight,
    /// The time stamped on what is written, minus the time that the store tells, in milliseconds.
    pub stamp_offset: i64,
}

/// What a probe says of a store.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoreProbe {
    /// A file system of the machine itself, where a lock excludes others.
    pub local_disk: bool,
    /// `None`: nothing was written, because the repository is only observed.
    pub seen: Option<StoreSeen>,
    /// The store's clock minus the prober's, in milliseconds.
    pub clock_offset: i64,
    /// Time of one small request, in milliseconds.
    pub round_trip: u64,
    /// What is overwritten or deleted stays as a hidden version; `None`: whoever asked may not know.
    pub keeps_versions: Option<bool>,
    /// Seconds for which each new version is locked by the bucket's default.
    pub default_retention: Option<u64>,
}

/// Why nothing is changed in a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreFlaw {
    /// A read gave what was there before.
    #[error("a read after a write gave what was there before {}", late(*.0))]
    StaleReads(Sight),
    /// A listing showed what was there before.
    #[error("a listing after a write showed what was there before {}", late(*.0))]
    StaleLists(Sight),
    /// Its clock and ours.
    #[error("its clock and this machine's are {} apart", apart(*.0))]
    Clock(i64),
    /// Its clock and its stamps.
    #[error("what is written there is stamped with a time that is {} from the time that it tells", apart(*.0))]
    Stamps(i64),
    /// Two maintainers cannot exclude each other.
    #[error("it has no conditional writes, so two maintainers cannot exclude each other")]
    NoConditions,
}

fn late(sight: Sight) -> String {
    match sight {
        Sight::AtOnce => "for no time".to_owned(),
        Sight::After(milliseconds) => format!("for {milliseconds} ms"),
        Sight::NotWithin(milliseconds) => format!("for the whole {milliseconds} ms that were waited"),
    }
}

fn apart(offset: i64) -> String {
    format!("{} s (more than {} s)", offset.unsigned_abs() / 1_000, CLOCK_OFFSET_MAX_MILLISECONDS / 1_000)
}

impl StoreProbe {
    /// The first reason why nothing may be changed there. `exclusive`: a person's word that nobody else maintains it (R23).
    ///
    /// What a listing or a read does not show yet may be what a content is needed for (R14), so one that was late even once is
    /// late at any time and for any time, and no word helps.
    #[must_use]
    pub fn flaw(&self, exclusive: bool) -> Option<StoreFlaw> {
        let is_off = |offset: i64| offset.unsigned_abs() > CLOCK_OFFSET_MAX_MILLISECONDS;
        if is_off(self.clock_offset) {
            return Some(StoreFlaw::Clock(self.clock_offset));
        }
        let seen = self.seen.as_ref()?;
        if seen.reads != Sight::AtOnce {
            return Some(StoreFlaw::StaleReads(seen.reads));
        }
        if seen.lists != Sight::AtOnce {
            return Some(StoreFlaw::StaleLists(seen.lists));
        }
        if is_off(seen.stamp_offset) {
            return Some(StoreFlaw::Stamps(seen.stamp_offset));
        }
        (!seen.conditional_writes && !self.local_disk && !exclusive).then_some(StoreFlaw::NoConditions)
    }

    /// Whether a cycle may go by this without another probe: it was written to, it is good, and it was recorded lately. A clock that is
    /// behind the one that recorded it makes nothing old (R1).
    #[must_use]
    pub fn is_believed(&self, recorded: LogTime, exclusive: bool, now: LogTime) -> bool {
        let is_young = now.0.saturating_sub(recorded.0) < PROBE_HOLDS_MILLISECONDS;
        is_young && self.seen.is_some() && self.flaw(exclusive).is_none()
    }

    /// Whether our own objects may leave versions that nobody can delete for a while: unknown counts as yes (R24).
    #[must_use]
    pub fn may_lock_versions(&self) -> bool {
        match self.keeps_versions {
            Some(false) => false,
            Some(true) => self.default_retention.is_some_and(|seconds| seconds > 0),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> StoreProbe {
        let seen = StoreSeen {
            conditional_writes: true,
            conditional_deletes: false,
            reads: Sight::AtOnce,
            lists: Sight::AtOnce,
            stamp_offset: -900,
        };
        StoreProbe {
            local_disk: false,
            seen: Some(seen),
            clock_offset: 300_000,
            round_trip: 30,
            keeps_versions: Some(true),
            default_retention: None,
        }
    }

    fn but(change: impl FnOnce(&mut StoreSeen)) -> StoreProbe {
        let mut probe = good();
        probe.seen.as_mut().map(change);
        probe
    }

    #[test]
    fn a_good_store_has_no_flaw_and_one_that_was_not_written_to_only_a_clock() {
        assert_eq!(good().flaw(false), None);
        assert_eq!(StoreProbe { seen: None, ..good() }.flaw(false), None);
        for offset in [300_001, -300_001] {
            let probe = StoreProbe { seen: None, clock_offset: offset, ..good() };
            assert_eq!(probe.flaw(true), Some(StoreFlaw::Clock(offset)));
        }
    }

    #[test]
    fn no_word_helps_a_store_that_is_late() {
        for late in [Sight::After(1), Sight::NotWithin(12_000)] {
            assert_eq!(but(|seen| seen.reads = late).flaw(true), Some(StoreFlaw::StaleReads(late)));
            assert_eq!(but(|seen| seen.lists = late).flaw(true), Some(StoreFlaw::StaleLists(late)));
        }
        assert_eq!(but(|seen| seen.stamp_offset = -400_000).flaw(true), Some(StoreFlaw::Stamps(-400_000)));
    }

    #[test]
    fn r4_without_conditions_a_word_or_a_lock_is_needed() {
        let probe = but(|seen| seen.conditional_writes = false);
        assert_eq!(probe.flaw(false), Some(StoreFlaw::NoConditions));
        assert_eq!(probe.flaw(true), None);
        assert_eq!(StoreProbe { local_disk: true, ..probe }.flaw(false), None);
    }

    #[test]
    fn r1_a_probe_is_believed_for_seven_days() {
        let recorded = LogTime(1_700_000_000_000);
        let after = |milliseconds: u64| LogTime(recorded.0 + milliseconds);
        assert!(good().is_believed(recorded, false, after(PROBE_HOLDS_MILLISECONDS - 1)));
        assert!(!good().is_believed(recorded, false, after(PROBE_HOLDS_MILLISECONDS)));
        assert!(good().is_believed(recorded, false, LogTime(0)), "another clock is behind");
        assert!(!StoreProbe { seen: None, ..good() }.is_believed(recorded, true, recorded));
        assert!(!but(|seen| seen.reads = Sight::After(1)).is_believed(recorded, true, recorded));
        let bare = but(|seen| seen.conditional_writes = false);
        assert!(bare.is_believed(recorded, true, recorded) && !bare.is_believed(recorded, false, recorded));
    }

    #[test]
    fn r24_what_is_not_known_of_versions_is_assumed() {
        let with = |keeps_versions, default_retention| StoreProbe { keeps_versions, default_retention, ..good() };
        assert!(with(None, None).may_lock_versions() && with(Some(true), Some(86_400)).may_lock_versions());
        assert!(!with(Some(false), None).may_lock_versions() && !with(Some(true), None).may_lock_versions());
    }
}
