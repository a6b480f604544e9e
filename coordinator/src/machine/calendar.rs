//! When a repository's cycles began and ended, and what else the machine knows of when the next is due. It only records: what is due
//! at a time is for `schedule` to say.

use serde::{Deserialize, Serialize};
use verger_proto::event::CycleEnd;
use verger_proto::schedule::{Lane, Margin, MarkToDrop, Own};
use verger_proto::{LogTime, Mode};

use crate::schedule::{History, Past, Requests, Unfinished};

/// What the machine knows of a repository's past, for its schedule.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Calendar {
    /// Since when its schedule holds.
    pub since: LogTime,
    /// Its own Kopia settings, when somebody looked last.
    pub own: Option<Own>,
    /// Full cycles.
    pub full: Past,
    /// Quick cycles.
    pub quick: Past,
    /// Margins that the last full cycle's report named.
    pub margins: Vec<Margin>,
    /// Index cycles. Not a part of this in a snapshot, since earlier ones have none.
    #[serde(skip)]
    pub index: Past,
}

impl Calendar {
    /// The past of cycles of a mode.
    #[must_use]
    pub fn of(&self, mode: Mode) -> &Past {
        match mode {
            Mode::Full => &self.full,
            Mode::Quick => &self.quick,
            Mode::Index => &self.index,
        }
    }

    fn of_mut(&mut self, mode: Mode) -> &mut Past {
        match mode {
            Mode::Full => &mut self.full,
            Mode::Quick => &mut self.quick,
            Mode::Index => &mut self.index,
        }
    }

    /// As schedules want it.
    #[must_use]
    pub fn history(&self, mark_to_drop: MarkToDrop) -> History {
        History {
            since: self.since,
            own: self.own,
            full: self.full,
            quick: self.quick,
            index: self.index,
            margins: self.margins.clone(),
            mark_to_drop,
            // The machine has its own list of wishes: they come before everything that is due by itself.
            requests: Requests::default(),
        }
    }

    /// A cycle was opened. `requested`: a person asked for it.
    pub(crate) fn opened(&mut self, mode: Mode, at: LogTime, requested: bool) {
        let past = self.of_mut(mode);
        let failures = past.unfinished.map_or(0, |unfinished| unfinished.failures);
        past.started = Some(at);
        past.unfinished = Some(Unfinished { stopped: at, failures, requested });
    }

    /// A person wants what is open already.
    pub(crate) fn joined(&mut self, mode: Mode) {
        if let Some(unfinished) = &mut self.of_mut(mode).unfinished {
            unfinished.requested = true;
        }
    }

    /// A cycle ended. What failed or was given up stays due (S7), a while later: by itself, for whoever asked has an answer.
    pub(crate) fn closed(&mut self, mode: Mode, at: LogTime, end: &CycleEnd) {
        let past = self.of_mut(mode);
        past.ended = Some(at);
        let is_over = matches!(end, CycleEnd::Done | CycleEnd::Degraded);
        let failures = past.unfinished.map_or(0, |unfinished| unfinished.failures).saturating_add(1);
        past.unfinished = (!is_over).then_some(Unfinished { stopped: at, failures, requested: false });
        // A full cycle does all that a quick one does, and both do what an index cycle does.
        if is_over && mode == Mode::Full {
            self.quick.unfinished = None;
        }
        if is_over && mode != Mode::Index {
            self.index.unfinished = None;
        }
    }
}

/// The lane of cycles of a mode.
#[must_use]
pub fn lane_of(mode: Mode) -> Lane {
    match mode {
        Mode::Full => Lane::Full,
        Mode::Quick => Lane::Quick,
        Mode::Index => Lane::Index,
    }
}

/// The mode of cycles of a lane.
#[must_use]
pub fn mode_of(lane: Lane) -> Mode {
    match lane {
        Lane::Full => Mode::Full,
        Lane::Quick => Mode::Quick,
        Lane::Index => Mode::Index,
    }
}

#[cfg(test)]
#[path = "calendar_tests.rs"]
mod tests;
